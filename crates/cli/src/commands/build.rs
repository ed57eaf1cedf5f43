//! `dunlin build`: runs the build commands of a manifest.

use std::path::PathBuf;

use clap::Args;
use model::FunctionName;

use crate::exit::{Exit, Failure, Outcome};
use crate::output::note;
use crate::project::Project;

/// Arguments of `dunlin build`.
#[derive(Debug, Args)]
pub struct Build {
    /// Folder of the manifest, or the manifest itself
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Build only this function; may be repeated
    #[arg(long = "function", short = 'f', value_name = "NAME")]
    functions: Vec<FunctionName>,
}

impl Build {
    /// Builds each function in turn; the first failure ends it.
    pub fn run(self) -> Outcome {
        let project = Project::open(&self.path)?;
        let mut built = 0;
        for function in project.functions(&self.functions)? {
            if project.build(function)? {
                built += 1;
                note(&format!(
                    "built {} ({})",
                    project.artifact(function).display(),
                    function.name
                ));
            }
        }
        if built == 0 {
            return Err(
                Failure::new(Exit::Refused, "no function has a build command")
                    .next("add `build = \"…\"` to a [[function]] of the manifest"),
            );
        }
        Ok(Exit::Ok)
    }
}
