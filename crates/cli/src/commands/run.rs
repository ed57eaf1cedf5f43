//! `dunlin run`: a WASI program, here and without a node, as `wasmtime run` would.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use node::{RunError, RunOptions};

use crate::args::Variable;
use crate::exit::{Exit, Failure, Outcome};

/// Arguments of `dunlin run`.
#[derive(Debug, Args)]
#[command(override_usage = "dunlin run [OPTIONS] FILE.wasm [ARGS]...")]
pub struct Run {
    /// Let the program open this folder, under the same name or another; may be repeated
    #[arg(long = "dir", value_name = "HOST[::GUEST]")]
    dirs: Vec<Folder>,
    /// A variable of its environment; KEY alone takes the value it has here; may be repeated
    #[arg(long = "env", value_name = "KEY[=VALUE]")]
    env: Vec<Variable>,
    /// The program: a preview-1 module or a wasi:cli component
    #[arg(value_name = "FILE.wasm")]
    file: PathBuf,
    /// Its arguments: everything after the file
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// A folder of this machine and its name in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Folder {
    host: PathBuf,
    guest: String,
}

impl FromStr for Folder {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, guest) = text.split_once("::").unwrap_or((text, text));
        if host.is_empty() || guest.is_empty() {
            return Err("write HOST or HOST::GUEST");
        }
        Ok(Self {
            host: host.into(),
            guest: guest.to_owned(),
        })
    }
}

impl Run {
    /// Runs the program to its end; its exit code is ours.
    pub fn run(self) -> Outcome {
        let options = RunOptions {
            file: self.file,
            dirs: self
                .dirs
                .into_iter()
                .map(|dir| (dir.host, dir.guest))
                .collect(),
            env: self.env.into_iter().map(|v| (v.key, v.value)).collect(),
            args: self.args,
            ..RunOptions::default()
        };
        let code = node::run(options)?;
        // The shell sees the low eight bits, as of any process.
        Ok(Exit::Guest((code & 0xff) as u8))
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let (exit, next) = match &error {
            RunError::Read { source, .. } => {
                let missing = source.kind() == std::io::ErrorKind::NotFound;
                let exit = if missing {
                    Exit::NotFound
                } else {
                    Exit::Failure
                };
                (exit, "name a Wasm file that can be read")
            }
            RunError::Dir { .. } => (Exit::NotFound, "name a folder that can be opened"),
            RunError::Invalid { .. } => (Exit::Refused, "build it again"),
            RunError::NotAProgram { .. } => (
                Exit::Refused,
                "a reactor or an http component runs on a node: `dunlin deploy`, `dunlin invoke`",
            ),
            RunError::UnknownImports { .. } => {
                (Exit::Refused, "build it for WASI preview 1 or wasi:cli")
            }
            _ => (Exit::Failure, "`dunlin doctor` looks for what is missing"),
        };
        Self::caused(exit, error).next(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        run: Run,
    }

    fn parse(words: &[&str]) -> Run {
        let line = ["run"].iter().chain(words);
        Line::try_parse_from(line).expect("it parses").run
    }

    #[test]
    fn everything_after_the_file_is_the_guests() {
        for words in [
            &["--env", "A=B", "f.wasm", "--env", "x", "-v"][..],
            &["--env", "A=B", "f.wasm", "--", "--env", "x", "-v"],
        ] {
            let run = parse(words);
            assert_eq!(run.file, PathBuf::from("f.wasm"), "{words:?}");
            assert_eq!(run.args, ["--env", "x", "-v"], "{words:?}");
            assert_eq!(run.env.len(), 1, "{words:?}");
        }
    }

    #[test]
    fn folders_keep_their_name_unless_they_get_another() {
        let run = parse(&["--dir", "a::/b", "--dir", "c", "f.wasm"]);
        let names: Vec<_> = run.dirs.iter().map(|dir| dir.guest.as_str()).collect();
        assert_eq!(names, ["/b", "c"]);
        for text in ["", "::", "a::", "::b"] {
            assert!(text.parse::<Folder>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_variable_without_a_value_takes_ours() {
        let path = std::env::var("PATH").unwrap();
        assert_eq!("PATH".parse::<Variable>().unwrap().value, path);
        assert_eq!("A=".parse::<Variable>().unwrap().value, "");
        assert_eq!("A=b=c".parse::<Variable>().unwrap().value, "b=c");
        assert!("DUNLIN_NOT_SET_ANYWHERE".parse::<Variable>().is_err());
        assert!("=b".parse::<Variable>().is_err());
    }
}
