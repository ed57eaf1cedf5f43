//! `dunlin run`: a WASI program, here and without a node, as `wasmtime run` would.

use std::ffi::OsString;
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
    /// The program, a preview-1 module or a wasi:cli component; everything after it is its own
    #[arg(value_name = "FILE.wasm", required = true, num_args = 1..)]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    program: Vec<OsString>,
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
        let (file, args) = split(self.program)?;
        let options = RunOptions {
            file,
            args,
            dirs: self
                .dirs
                .into_iter()
                .map(|dir| (dir.host, dir.guest))
                .collect(),
            env: self.env.into_iter().map(|v| (v.key, v.value)).collect(),
            ..RunOptions::default()
        };
        let code = node::run(options)?;
        // The shell sees the low eight bits, as of any process.
        Ok(Exit::Guest((code & 0xff) as u8))
    }
}

/// The program and its arguments, without the `--` that may stand between them. One list is parsed
/// for both, because a flag right after the file is the program's too.
fn split(program: Vec<OsString>) -> Result<(PathBuf, Vec<String>), Failure> {
    let usage =
        |message: String| Failure::new(Exit::Usage, message).next("see `dunlin run --help`");
    let mut words = program.into_iter();
    let file = words.next().unwrap_or_default();
    if file.as_encoded_bytes().starts_with(b"-") {
        let shown = file.to_string_lossy();
        return Err(usage(format!("there is no option `{shown}`")));
    }
    let mut args = Vec::new();
    for word in words {
        let word = word.into_string();
        args.push(word.map_err(|_| usage("an argument is not UTF-8 text".into()))?);
    }
    if args.first().is_some_and(|first| first == "--") {
        args.remove(0);
    }
    Ok((file.into(), args))
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
        let check = |words: &[&str], expected: &[&str]| {
            let run = parse(&[&["--env", "A=B", "f.wasm"], words].concat());
            assert_eq!(run.env.len(), 1, "{words:?}");
            let (file, args) = split(run.program).expect("a file and its arguments");
            assert_eq!(file, PathBuf::from("f.wasm"), "{words:?}");
            assert_eq!(args, expected, "{words:?}");
        };
        check(&[], &[]);
        check(&["x", "--env", "y=z"], &["x", "--env", "y=z"]);
        check(
            &["--env", "x", "-v", "--help"],
            &["--env", "x", "-v", "--help"],
        );
        check(&["--", "--env", "x"], &["--env", "x"]);
        check(&["a", "--", "b"], &["a", "--", "b"]);
    }

    #[test]
    fn an_option_that_is_not_ours_is_no_file() {
        let run = parse(&["--fuel", "f.wasm"]);
        assert_eq!(
            split(run.program).map_err(|failure| failure.exit),
            Err(Exit::Usage)
        );
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
