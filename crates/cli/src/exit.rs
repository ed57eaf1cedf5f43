//! How the program ends: exit codes that scripts may rely on, and errors that end with a next step.

use std::fmt;
use std::process::ExitCode;

/// Why a command ended. The numbers are part of the interface; `docs/cli.md` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked.
    Ok,
    /// Something went wrong that has no code of its own.
    Failure,
    /// The command line is wrong.
    Usage,
    /// The app, function, version, alias, invocation, key, token or file does not exist.
    NotFound,
    /// The request, the manifest, the artifact or the token was refused.
    Refused,
    /// No node answered.
    Unreachable,
    /// The function ran and failed.
    FunctionFailed,
    /// A deadline passed, or a wait was over.
    TimedOut,
    /// The node has no room now: try again later.
    Busy,
    /// A guest's own code, passed through by `dunlin run`.
    Guest(u8),
}

impl Exit {
    /// The number that the shell sees.
    pub const fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::NotFound => 3,
            Exit::Refused => 4,
            Exit::Unreachable => 5,
            Exit::FunctionFailed => 6,
            Exit::TimedOut => 7,
            Exit::Busy => 8,
            Exit::Guest(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Ends `--help`, so that the codes are found without the manual.
pub const HELP: &str = "\
Exit codes:
  0  done                      5  no node answered
  1  failed                    6  the function failed
  2  wrong command line        7  timed out
  3  not found                 8  the node has no room now
  4  refused or invalid        `dunlin run` passes the guest's code on

Environment:
  DUNLIN_ADMIN  the node's admin address (127.0.0.1:8081)
  DUNLIN_TOKEN  the token to show to it
  NO_COLOR      no colours";

/// A command that failed: what happened, and what to do next.
#[derive(Debug)]
pub struct Failure {
    /// The code to end with.
    pub exit: Exit,
    error: anyhow::Error,
    next: Option<String>,
}

/// What every command gives.
pub type Outcome = Result<Exit, Failure>;

impl Failure {
    /// A failure with this code.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self {
            exit,
            error: anyhow::anyhow!("{message}"),
            next: None,
        }
    }

    /// A failure of this code with its chain of causes.
    pub fn caused(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit,
            error: error.into(),
            next: None,
        }
    }

    /// The same, ending with the next step to take.
    pub fn next(mut self, step: impl fmt::Display) -> Self {
        self.next = Some(step.to_string());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        let mut last = self.error.to_string();
        for cause in self.error.chain().skip(1) {
            let text = cause.to_string();
            // Many libraries repeat their cause in their own words.
            if !last.contains(&text) {
                write!(f, ": {text}")?;
            }
            last = text;
        }
        match &self.next {
            Some(next) => write!(f, "\nnext: {next}"),
            None => Ok(()),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let not_found = error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
            .any(|io| io.kind() == std::io::ErrorKind::NotFound);
        let exit = if not_found {
            Exit::NotFound
        } else {
            Exit::Failure
        };
        Self::caused(exit, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn exit_codes_are_distinct_and_stay() {
        let all = [
            (Exit::Ok, 0),
            (Exit::Failure, 1),
            (Exit::Usage, 2),
            (Exit::NotFound, 3),
            (Exit::Refused, 4),
            (Exit::Unreachable, 5),
            (Exit::FunctionFailed, 6),
            (Exit::TimedOut, 7),
            (Exit::Busy, 8),
            (Exit::Guest(42), 42),
        ];
        for (exit, code) in all {
            assert_eq!(exit.code(), code);
        }
    }

    #[test]
    fn the_manual_and_the_help_list_every_code() {
        let manual = include_str!("../../../docs/cli.md");
        for code in 0..=8 {
            assert!(manual.contains(&format!("| {code} |")), "{code}");
            assert!(HELP.contains(&format!("{code}  ")), "{code}");
        }
    }

    #[test]
    fn a_failure_ends_with_the_next_step() {
        let failure = Failure::new(Exit::Unreachable, "no node answers").next("run `dunlin up`");
        assert_eq!(
            failure.to_string(),
            "no node answers\nnext: run `dunlin up`"
        );
    }

    #[test]
    fn causes_are_told_once() {
        let io = std::io::Error::new(std::io::ErrorKind::NotFound, "no such file");
        let error = Err::<(), _>(io).context("reading x").unwrap_err();
        let failure = Failure::from(error);
        assert_eq!(failure.to_string(), "reading x: no such file");
        assert_eq!(failure.exit, Exit::NotFound);
    }
}
