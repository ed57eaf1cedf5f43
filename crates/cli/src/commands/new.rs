//! `dunlin new`: a small function that works, in a folder of its own.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use model::{AppName, FunctionName};

use crate::exit::{Exit, Failure, Outcome};
use crate::output::note;

/// Arguments of `dunlin new`.
#[derive(Debug, Args)]
pub struct New {
    /// Folder to make; its last part names the function
    path: PathBuf,
    /// The language it is written in
    #[arg(long, short, value_enum, default_value_t = Language::Rust)]
    language: Language,
    /// The app that the function belongs to; the function's name unless set
    #[arg(long)]
    app: Option<AppName>,
}

/// A language that there is a template for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// A command in Rust
    Rust,
    /// A reactor in C
    C,
    /// An http component in Python
    Python,
    /// An http component in JavaScript
    Js,
    /// A reactor in AssemblyScript
    #[value(name = "assemblyscript")]
    AssemblyScript,
}

/// The files of a template: where each goes, and its text with `{{app}}` and `{{name}}`.
type Files = &'static [(&'static str, &'static str)];

macro_rules! template {
    ($language:literal: $($to:literal from $file:literal),* $(,)?) => {
        &[$(($to, include_str!(concat!("../../templates/", $language, "/", $file)))),*]
    };
}

const RUST: Files = template!("rust":
    "dunlin.toml" from "dunlin.toml",
    "Cargo.toml" from "Cargo.toml.in",
    "src/main.rs" from "src/main.rs.in",
    ".gitignore" from "gitignore",
);
const C: Files = template!("c":
    "dunlin.toml" from "dunlin.toml",
    "build.sh" from "build.sh",
    "main.c" from "main.c",
    "dunlin.h" from "../../../../sdk/c/dunlin.h",
    "dunlin_calls.h" from "../../../../sdk/c/dunlin_calls.h",
    "dunlin_vm.h" from "../../../../sdk/c/dunlin_vm.h",
    "dunlin_vm_calls.h" from "../../../../sdk/c/dunlin_vm_calls.h",
    "dunlin_objects.h" from "../../../../sdk/c/dunlin_objects.h",
    ".gitignore" from "gitignore",
);
const PYTHON: Files = template!("python":
    "dunlin.toml" from "dunlin.toml",
    "build.sh" from "build.sh",
    "requirements.txt" from "requirements.txt",
    "app.py" from "app.py",
    "wit/world.wit" from "wit/world.wit",
    "wit/deps/io/io.wit" from "wit/deps/io/io.wit",
    "wit/deps/http/http.wit" from "wit/deps/http/http.wit",
    ".gitignore" from "gitignore",
);
const JS: Files = template!("js":
    "dunlin.toml" from "dunlin.toml",
    "package.json" from "package.json",
    "build.mjs" from "build.mjs",
    "app.js" from "app.js",
    ".gitignore" from "gitignore",
);
const ASSEMBLYSCRIPT: Files = template!("assemblyscript":
    "dunlin.toml" from "dunlin.toml",
    "package.json" from "package.json",
    "index.ts" from "index.ts",
    "dunlin.ts" from "../../../../sdk/assemblyscript/dunlin.ts",
    "calls.ts" from "../../../../sdk/assemblyscript/calls.ts",
    "chain.ts" from "../../../../sdk/assemblyscript/chain.ts",
    "dictionary.ts" from "../../../../sdk/assemblyscript/dictionary.ts",
    "objects.ts" from "../../../../sdk/assemblyscript/objects.ts",
    "outcome.ts" from "../../../../sdk/assemblyscript/outcome.ts",
    "state.ts" from "../../../../sdk/assemblyscript/state.ts",
    ".gitignore" from "gitignore",
);

impl Language {
    const fn files(self) -> Files {
        match self {
            Self::Rust => RUST,
            Self::C => C,
            Self::Python => PYTHON,
            Self::Js => JS,
            Self::AssemblyScript => ASSEMBLYSCRIPT,
        }
    }
}

impl New {
    /// Writes the template; nothing that exists is overwritten.
    pub fn run(self) -> Outcome {
        let name = name_of(&self.path)?;
        let app = self.app.as_ref().map_or(name.as_str(), AppName::as_str);
        let shown = self.path.display();
        if self.path.exists()
            && std::fs::read_dir(&self.path).map_or(true, |mut d| d.next().is_some())
        {
            let message = format!("{shown} exists and is not an empty folder");
            return Err(Failure::new(Exit::Refused, message).next("choose another name"));
        }
        for (file, text) in self.language.files() {
            let text = text
                .replace("{{app}}", app)
                .replace("{{name}}", name.as_str());
            write(&self.path.join(file), &text)?;
        }
        note(&format!(
            "wrote {shown}\nnext: dunlin up    (in another terminal)\n      \
             dunlin deploy --build {shown}\n      \
             dunlin invoke {app}/{name} --data 'Hello'"
        ));
        Ok(Exit::Ok)
    }
}

fn name_of(path: &Path) -> Result<FunctionName, Failure> {
    let last = path.file_name().unwrap_or_default().to_string_lossy();
    last.parse().map_err(|error| {
        Failure::caused(Exit::Usage, anyhow::Error::new(error))
            .next("name a folder that can name a function, such as `hello`")
    })
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let shown = file.display();
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    std::fs::write(file, text).with_context(|| format!("writing {shown}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::manifest::Manifest;

    #[test]
    fn every_template_has_a_valid_manifest_and_no_marks_are_left() {
        for language in Language::value_variants() {
            let folder = tempfile::tempdir().unwrap();
            let new = New {
                path: folder.path().join("hello"),
                language: *language,
                app: Some("shop".parse().unwrap()),
            };
            assert_eq!(new.run().unwrap(), Exit::Ok);
            let project = folder.path().join("hello");
            let text = std::fs::read_to_string(project.join("dunlin.toml")).unwrap();
            let manifest = Manifest::parse(&text).unwrap();
            assert_eq!(manifest.app.as_str(), "shop");
            let [function] = &manifest.functions[..] else {
                panic!("{manifest:?}");
            };
            assert_eq!(function.name.as_str(), "hello");
            assert!(function.kind.is_some() && function.build.is_some());
            for (file, _) in language.files() {
                let text = std::fs::read_to_string(project.join(file)).unwrap();
                assert!(!text.contains("{{"), "{language:?} {file}");
            }
        }
    }

    #[test]
    fn what_exists_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let new = || New {
            path: folder.path().join("hello"),
            language: Language::C,
            app: None,
        };
        assert!(new().run().is_ok());
        assert_eq!(new().run().unwrap_err().exit, Exit::Refused);
    }

    #[test]
    fn a_folder_that_names_no_function_is_refused() {
        for path in ["", "/", "..", "Hello", "a_b"] {
            assert!(name_of(Path::new(path)).is_err(), "{path}");
        }
    }
}
