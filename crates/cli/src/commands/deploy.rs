//! `dunlin deploy`: uploads artifacts and makes versions of them.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use api::manifest::FileMount;
use api::v1;
use bytes::Bytes;
use clap::Args;
use client::Client;
use model::{
    Access, AppName, CallGrant, Digest, Durability, EgressGrant, FunctionName, FunctionPath,
    Isolation, Kind, Reuse, Snapshot,
};

use super::short;
use crate::args::{Node, Variable};
use crate::connect;
use crate::exit::{Exit, Failure, Outcome};
use crate::fileset::FileSet;
use crate::infer;
use crate::output::{Output, Progress, note};
use crate::project::Project;
use crate::table::{bytes, micros};

/// Bytes of an upload that are handed over at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Arguments of `dunlin deploy`.
#[derive(Debug, Args)]
pub struct Deploy {
    /// A Wasm file, or an executable for a micro-VM; or a manifest, or its folder, to deploy all
    /// its functions
    #[arg(default_value = ".", value_name = "PATH|FILE")]
    path: PathBuf,
    /// The app (with a manifest: instead of the one it names)
    #[arg(long)]
    app: Option<AppName>,
    /// The function's name; the file's name unless set
    #[arg(long, conflicts_with_all = ["functions", "build"])]
    name: Option<FunctionName>,
    /// How the function is called; found from the file unless set
    #[arg(long, value_name = "http|command|reactor|lambda")]
    kind: Option<Kind>,
    /// An argument of the function; may be repeated
    #[arg(long = "arg", value_name = "ARG", allow_hyphen_values = true)]
    args: Vec<String>,
    /// A variable of the function's environment; may be repeated
    #[arg(long = "env", value_name = "KEY=VALUE")]
    env: Vec<Variable>,
    /// A limit, such as deadline_ms=1000; may be repeated
    #[arg(long = "limit", value_name = "LIMIT=NUMBER", value_parser = limit)]
    limits: Vec<(String, u64)>,
    /// A path prefix that leads to the function; may be repeated
    #[arg(long = "route", value_name = "PREFIX")]
    routes: Vec<String>,
    /// Keys of the app's state that it may use, such as cart/=write,durable (read and ephemeral
    /// unless said); may be repeated
    #[arg(long, value_name = "PREFIX[=ACCESS]", value_parser = state_grant)]
    allow_state: Vec<v1::StateGrant>,
    /// A function that it may call: NAME, APP/NAME, APP/* or *; may be repeated
    #[arg(long, value_name = "FUNCTION")]
    allow_call: Vec<CallGrant>,
    /// A host that it may connect to, such as api.example.com:443, *.example.com or
    /// 10.0.0.0/8:5432; may be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    allow_egress: Vec<EgressGrant>,
    /// What a runtime loads before it is frozen, the first at the bottom; may be repeated
    #[arg(long = "layer", value_name = "FILE")]
    layers: Vec<PathBuf>,
    /// What its next invocation finds of the last: fresh (nothing) or app (what it left)
    #[arg(long, value_name = "fresh|app", value_parser = reuse, default_value = "fresh")]
    reuse: Reuse,
    /// A folder or file that every invocation finds at GUEST (/ unless said); may be repeated
    #[arg(long = "files", value_name = "PATH[:GUEST]", value_parser = mount)]
    files: Vec<FileMount>,
    /// What its sandboxes are made of: wasm, vm or wasm+vm
    #[arg(long, value_name = "WALL", default_value = "wasm")]
    isolation: Isolation,
    /// Whether a Linux program is frozen where it waits for its calls: auto (if nothing that it has
    /// asked by then must differ between calls), never or always
    #[arg(long, value_name = "auto|never|always", value_parser = snapshot, default_value = "auto")]
    snapshot: Snapshot,
    /// A key of the app's state that it is to run near, where a cluster has many bytes of it; may
    /// be repeated
    #[arg(long, value_name = "KEY")]
    near: Vec<String>,
    /// The alias that moves to the new version
    #[arg(long, default_value = "live")]
    alias: String,
    /// With a manifest: run the build commands first
    #[arg(long)]
    build: bool,
    /// With a manifest: deploy only this function; may be repeated
    #[arg(long = "function", short = 'f', value_name = "NAME")]
    functions: Vec<FunctionName>,
    #[command(flatten)]
    node: Node,
}

/// One function that is about to be deployed.
#[derive(Debug)]
struct Task {
    path: FunctionPath,
    artifact: Bytes,
    kind: Kind,
    settings: v1::Settings,
    /// What a runtime loads before it is frozen.
    layers: Vec<Bytes>,
    routes: Vec<String>,
    files: Option<FileSet>,
}

impl Deploy {
    /// Deploys a file, or the functions of a manifest in their order.
    pub fn run(self, out: Output) -> Outcome {
        let is_manifest =
            self.path.is_dir() || self.path.extension().is_some_and(|ext| ext == "toml");
        let tasks = if is_manifest {
            self.manifest_tasks()?
        } else {
            vec![self.file_task()?]
        };
        connect::with(&self.node, async |client| {
            let mut deployed = Vec::new();
            for task in tasks {
                deployed.push(self.deploy(&client, task, out).await?);
            }
            if out.is_for_people() {
                return Ok(Exit::Ok);
            }
            match deployed.as_slice() {
                [one] if !is_manifest => out.say(one, String::new),
                all => out.say(&all, String::new),
            }
        })
    }

    fn file_task(&self) -> Result<Task, Failure> {
        if self.build || !self.functions.is_empty() {
            return Err(Failure::new(
                Exit::Usage,
                "--build and --function are for manifests, not for a Wasm file",
            )
            .next("name a folder or a dunlin.toml, or leave them out"));
        }
        let Some(app) = self.app.clone() else {
            return Err(
                Failure::new(Exit::Usage, "a Wasm file needs an app to go to")
                    .next("add --app APP, and --name NAME unless the file's name will do"),
            );
        };
        let function = match &self.name {
            Some(name) => name.clone(),
            None => name_of(&self.path)?,
        };
        let artifact = read(&self.path)?;
        let env = self.env.iter().cloned().map(|v| (v.key, v.value)).collect();
        Ok(Task {
            path: FunctionPath { app, function },
            kind: self.kind.unwrap_or_else(|| infer::kind(&artifact)),
            artifact,
            settings: v1::Settings {
                args: self.args.clone(),
                env,
                limits: limits(&self.limits)?,
                allow: v1::Grants {
                    state: self.allow_state.clone(),
                    call: self.allow_call.iter().map(ToString::to_string).collect(),
                    egress: self.allow_egress.iter().map(ToString::to_string).collect(),
                },
                reuse: self.reuse,
                layers: Vec::new(),
                files: None,
                isolation: self.isolation,
                snapshot: self.snapshot,
                near: self.near.clone(),
            },
            layers: self
                .layers
                .iter()
                .map(|layer| read(layer))
                .collect::<Result<_, _>>()?,
            routes: self.routes.clone(),
            files: FileSet::gather(Path::new(""), &self.files)?,
        })
    }

    fn manifest_tasks(&self) -> Result<Vec<Task>, Failure> {
        let of_files = self.name.is_some()
            || self.kind.is_some()
            || !self.args.is_empty()
            || !self.env.is_empty()
            || !self.limits.is_empty()
            || !self.allow_state.is_empty()
            || !self.allow_call.is_empty()
            || !self.allow_egress.is_empty()
            || !self.layers.is_empty()
            || self.reuse != Reuse::Fresh
            || !self.files.is_empty()
            || self.isolation != Isolation::Wasm
            || !self.snapshot.is_auto()
            || !self.near.is_empty()
            || !self.routes.is_empty();
        if of_files {
            let message = "--name, --kind, --arg, --env, --limit, --allow-…, --reuse, --files, --layer, \
                 --isolation, --snapshot, --near and --route are for a single file";
            return Err(Failure::new(Exit::Usage, message)
                .next("write them in the manifest, or name a Wasm file"));
        }
        let project = Project::open(&self.path)?;
        let app = self.app.as_ref().unwrap_or(&project.manifest.app);
        let mut tasks = Vec::new();
        for function in project.functions(&self.functions)? {
            let file = project.artifact(function);
            let layers = project.layers(function);
            if self.build || !file.is_file() || !layers.iter().all(|layer| layer.is_file()) {
                project.build(function)?;
            }
            let artifact = read(&file)?;
            let layers = layers
                .iter()
                .map(|layer| read(layer))
                .collect::<Result<_, _>>()?;
            tasks.push(Task {
                path: FunctionPath {
                    app: app.clone(),
                    function: function.name.clone(),
                },
                kind: function.kind.unwrap_or_else(|| infer::kind(&artifact)),
                artifact,
                settings: function.settings.clone().into(),
                layers,
                routes: function.routes.clone(),
                files: FileSet::gather(&project.folder, &function.files)?,
            });
        }
        Ok(tasks)
    }

    async fn deploy(
        &self,
        client: &Client,
        task: Task,
        out: Output,
    ) -> Result<v1::Deployed, Failure> {
        let digest = Digest::of(&task.artifact);
        let size = task.artifact.len() as u64;
        upload(client, &digest, task.artifact).await?;
        let mut settings = task.settings;
        for layer in task.layers {
            let digest = Digest::of(&layer);
            upload(client, &digest, layer).await?;
            settings.layers.push(digest.to_string());
        }
        if let Some(files) = &task.files {
            settings.files = Some(files.upload(client).await?.to_string());
        }
        let request = v1::Deploy {
            kind: task.kind.into(),
            artifact: digest.to_string(),
            settings,
            alias: Some(self.alias.clone()),
            routes: task.routes,
        };
        let compiling = Progress::spinner(&format!("compiling {}", task.path));
        let deployed = client.deploy(&task.path, &request).await?;
        drop(compiling);
        if out.is_for_people() {
            note(&format!(
                "deployed {} as {} {} ({}), {} in {}{}",
                task.path,
                task.kind,
                short(&deployed.version),
                deployed.alias,
                bytes(size),
                micros(deployed.prepare_ms.saturating_mul(1000)),
                if deployed.cached {
                    ", from the cache"
                } else {
                    ""
                },
            ));
            if let Some(told) = &deployed.note {
                note(told);
            }
        }
        Ok(deployed)
    }
}

/// Uploads what the node does not have.
async fn upload(client: &Client, digest: &Digest, artifact: Bytes) -> Result<(), Failure> {
    if client.artifact(digest).await.is_ok() {
        return Ok(());
    }
    let size = artifact.len() as u64;
    let progress = Progress::bytes("uploading", size);
    let chunks = (0..artifact.len()).step_by(CHUNK_BYTES).map(move |start| {
        let chunk = artifact.slice(start..artifact.len().min(start + CHUNK_BYTES));
        progress.add(chunk.len() as u64);
        Ok(chunk)
    });
    client
        .upload(digest, size, futures::stream::iter(chunks))
        .await?;
    Ok(())
}

/// An artifact; one in WebAssembly's text format is assembled first.
fn read(file: &Path) -> Result<Bytes, Failure> {
    let shown = file.display();
    let bytes = std::fs::read(file).with_context(|| format!("reading {shown}"))?;
    if file.extension().is_some_and(|extension| extension == "wat") {
        let wasm = wat::parse_bytes(&bytes).with_context(|| format!("assembling {shown}"))?;
        return Ok(wasm.into_owned().into());
    }
    Ok(bytes.into())
}

/// A name made of the file's: `My_App.wasm` gives `my-app`.
fn name_of(file: &Path) -> Result<FunctionName, Failure> {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let name = stem.to_lowercase().replace(['_', '.', ' '], "-");
    name.parse().map_err(|error| {
        Failure::caused(Exit::Usage, anyhow::Error::new(error)).next("add --name NAME")
    })
}

fn limit(text: &str) -> Result<(String, u64), String> {
    let (name, value) = text.split_once('=').ok_or("write LIMIT=NUMBER")?;
    let value = value.parse().map_err(|_| "a limit is a whole number")?;
    Ok((name.to_owned(), value))
}

/// `PREFIX`, or `PREFIX=` and words of an access and a durability.
fn state_grant(text: &str) -> Result<v1::StateGrant, String> {
    let (prefix, words) = text.split_once('=').unwrap_or((text, ""));
    let mut grant = v1::StateGrant {
        prefix: prefix.to_owned(),
        access: Access::Read,
        durability: Durability::Ephemeral,
    };
    for word in words.split(',').filter(|word| !word.is_empty()) {
        match word {
            "read" => grant.access = Access::Read,
            "write" => grant.access = Access::Write,
            "ephemeral" => grant.durability = Durability::Ephemeral,
            "durable" => grant.durability = Durability::Durable,
            "replicated" => grant.durability = Durability::Replicated,
            _ => {
                let words = "read or write; ephemeral, replicated or durable";
                return Err(format!("`{word}`: use {words}"));
            }
        }
    }
    Ok(grant)
}

/// `PATH`, or `PATH:GUEST`.
fn mount(text: &str) -> Result<FileMount, String> {
    let (source, destination) = text.rsplit_once(':').unwrap_or((text, "/"));
    if source.is_empty() || destination.split('/').any(|name| name == "..") {
        return Err("write PATH or PATH:GUEST".to_owned());
    }
    Ok(FileMount {
        source: source.to_owned(),
        destination: Some(destination.to_owned()),
    })
}

fn reuse(text: &str) -> Result<Reuse, String> {
    match text {
        "fresh" => Ok(Reuse::Fresh),
        "app" => Ok(Reuse::App),
        _ => Err("use fresh or app".to_owned()),
    }
}

fn snapshot(text: &str) -> Result<Snapshot, String> {
    match text {
        "auto" => Ok(Snapshot::Auto),
        "never" => Ok(Snapshot::Never),
        "always" => Ok(Snapshot::Always),
        _ => Err("use auto, never or always".to_owned()),
    }
}

/// Limits from their names, as the API spells them.
fn limits(given: &[(String, u64)]) -> Result<v1::Limits, Failure> {
    let object: serde_json::Map<_, _> = given
        .iter()
        .map(|(name, value)| (name.clone(), (*value).into()))
        .collect();
    let limits: v1::Limits = serde_json::from_value(object.into()).map_err(|error| {
        Failure::new(Exit::Usage, format!("--limit: {error}")).next("use one of those names")
    })?;
    model::Limits::from(limits.clone())
        .check()
        .map_err(|error| {
            Failure::caused(Exit::Usage, anyhow::Error::new(error))
                .next("choose a value in the range")
        })?;
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_its_function_a_name() {
        let name = |file: &str| name_of(Path::new(file)).map(|name| name.to_string());
        assert_eq!(name("target/My_App.wasm").ok(), Some("my-app".into()));
        assert!(name("é.wasm").is_err_and(|failure| failure.exit == Exit::Usage));
    }

    #[test]
    fn a_state_grant_is_a_prefix_and_words() {
        let read = state_grant("a/").expect("well-formed");
        assert_eq!((read.prefix.as_str(), read.access), ("a/", Access::Read));
        let all = state_grant("=write,durable").expect("well-formed");
        assert_eq!(
            (all.access, all.durability),
            (Access::Write, Durability::Durable)
        );
        assert!(state_grant("a/=execute").is_err());
    }

    #[test]
    fn limits_are_checked_before_anything_is_sent() {
        let given = |name: &str, value| limits(&[(name.to_owned(), value)]);
        assert_eq!(given("deadline_ms", 5).ok().map(|l| l.deadline_ms), Some(5));
        for (name, value) in [("deadline", 5), ("deadline_ms", 0)] {
            let failure = given(name, value).expect_err(name);
            assert!(failure.to_string().contains(name), "{failure}");
        }
        assert!(limit("deadline_ms").is_err() && limit("deadline_ms=x").is_err());
    }
}
