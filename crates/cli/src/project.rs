//! A project on disk: its manifest, its artifacts, and the commands that make them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use api::manifest::{BYTES_MAX, FILE_NAME, Function, Manifest};

use crate::exit::{Exit, Failure};
use crate::output::note;

/// A manifest and the folder that its paths are relative to.
#[derive(Debug)]
pub struct Project {
    /// The folder of the manifest.
    pub folder: PathBuf,
    /// What it says.
    pub manifest: Manifest,
}

impl Project {
    /// Reads the manifest at `path`: a folder that holds one, or the file itself.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let file = if path.is_dir() {
            path.join(FILE_NAME)
        } else {
            path.to_owned()
        };
        let shown = file.display();
        if !file.is_file() {
            let failure = Failure::new(Exit::NotFound, format!("there is no manifest at {shown}"));
            return Err(failure.next("`dunlin new NAME` writes one, with a function beside it"));
        }
        let text = read_text(&file)?;
        let manifest = Manifest::parse(&text).map_err(|problems| {
            Failure::new(Exit::Refused, format!("{shown} is not valid:\n{problems}"))
                .next("correct it; `dunlin schema` prints what it may hold")
        })?;
        // A file without a folder is in the one we are in.
        let folder = file.parent().filter(|folder| *folder != Path::new(""));
        let folder = folder.unwrap_or(Path::new(".")).to_owned();
        Ok(Self { folder, manifest })
    }

    /// The functions that are named, or all of them.
    pub fn functions(&self, names: &[model::FunctionName]) -> Result<Vec<&Function>, Failure> {
        if names.is_empty() {
            return Ok(self.manifest.functions.iter().collect());
        }
        let mut found = Vec::new();
        for name in names {
            let all = &self.manifest.functions;
            let Some(function) = all.iter().find(|function| function.name == *name) else {
                let known: Vec<_> = all.iter().map(|function| function.name.as_str()).collect();
                let failure = Failure::new(
                    Exit::NotFound,
                    format!("the manifest has no function `{name}`"),
                );
                return Err(failure.next(format!("name one of: {}", known.join(", "))));
            };
            found.push(function);
        }
        Ok(found)
    }

    /// Where the artifact of `function` is.
    pub fn artifact(&self, function: &Function) -> PathBuf {
        self.folder.join(&function.artifact)
    }

    /// Where the layers of `function` are.
    pub fn layers(&self, function: &Function) -> Vec<PathBuf> {
        let layers = function.layers.iter();
        layers.map(|layer| self.folder.join(layer)).collect()
    }

    /// Runs the build command of `function`, its output shown on stderr. Gives whether there is
    /// one.
    pub fn build(&self, function: &Function) -> Result<bool, Failure> {
        let Some(command) = &function.build else {
            return Ok(false);
        };
        let folder = match &function.source {
            Some(source) => self.folder.join(source),
            None => self.folder.clone(),
        };
        note(&format!("building {}: {command}", function.name));
        // Results alone go to stdout; what a build prints is for whoever watches.
        let status = Command::new("sh")
            .args(["-c", command])
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(std::io::stderr())
            .status()
            .with_context(|| format!("running `{command}` in {}", folder.display()))?;
        if !status.success() {
            let message = format!("the build of `{}` failed: {status}", function.name);
            return Err(Failure::new(Exit::Failure, message).next(format!(
                "run `{command}` in {} to see why",
                folder.display()
            )));
        }
        let artifact = self.artifact(function);
        if !artifact.is_file() {
            let message = format!(
                "the build of `{}` ended well, but there is no {}",
                function.name,
                artifact.display()
            );
            return Err(Failure::new(Exit::NotFound, message)
                .next("correct `artifact` or `build` in the manifest"));
        }
        Ok(true)
    }
}

fn read_text(file: &Path) -> Result<String, Failure> {
    let shown = file.display();
    let meta = std::fs::metadata(file).with_context(|| format!("reading {shown}"))?;
    if meta.len() > BYTES_MAX as u64 {
        let message = format!("{shown} is too long for a manifest: at most {BYTES_MAX} bytes");
        return Err(Failure::new(Exit::Refused, message).next("name a manifest or a Wasm file"));
    }
    let bytes = std::fs::read(file).with_context(|| format!("reading {shown}"))?;
    String::from_utf8(bytes).map_err(|_| {
        Failure::new(Exit::Refused, format!("{shown} is not UTF-8 text"))
            .next("name a manifest or a Wasm file")
    })
}
