//! `dunlin completions`: scripts that make a shell complete our commands.

use clap::{Args, CommandFactory as _, ValueEnum};
use clap_complete::Shell;

use crate::args::Cli;
use crate::exit::Outcome;
use crate::output::print_bytes;

/// Arguments of `dunlin completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell that reads the script
    #[arg(value_enum)]
    shell: ShellName,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ShellName {
    /// `source <(dunlin completions bash)`
    Bash,
    /// `dunlin completions zsh > ~/.zfunc/_dunlin`
    Zsh,
    /// `dunlin completions fish > ~/.config/fish/completions/dunlin.fish`
    Fish,
}

impl Completions {
    /// Prints the script.
    pub fn run(self) -> Outcome {
        let shell = match self.shell {
            ShellName::Bash => Shell::Bash,
            ShellName::Zsh => Shell::Zsh,
            ShellName::Fish => Shell::Fish,
        };
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "dunlin", &mut script);
        print_bytes(&script)
    }
}
