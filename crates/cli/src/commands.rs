//! The commands, one module each: arguments first, then what is done.

pub mod alias;
pub mod build;
pub mod cluster;
pub mod completions;
pub mod dead_letters;
pub mod deploy;
pub mod doctor;
pub mod functions;
pub mod graph;
pub mod invocations;
pub mod invoke;
pub mod logs;
pub mod new;
pub mod nodes;
pub mod ps;
pub mod run;
pub mod state;
pub mod token;
pub mod up;
pub mod usage;

use api::manifest::Manifest;

use crate::args::{Cli, Command};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{Output, print};

/// Does what was asked.
pub fn dispatch(cli: Cli) -> Outcome {
    let out = Output { format: cli.output };
    match cli.command {
        Command::New(args) => args.run(),
        Command::Build(args) => args.run(),
        Command::Run(args) => args.run(),
        Command::Up(args) => args.run(),
        Command::Deploy(args) => args.run(out),
        Command::Invoke(args) => args.run(out),
        Command::Logs(args) => args.run(out),
        Command::Ps(args) => ps::run(&args, out),
        Command::Cluster(args) => args.run(out),
        Command::Nodes(args) => nodes::list(&args, out),
        Command::Node(args) => args.run(out),
        Command::Explain(args) => args.run(out),
        Command::Functions(args) => args.run(out),
        Command::Versions(args) => args.run(out),
        Command::Alias(args) => args.run(out),
        Command::Rollback(args) => args.run(out),
        Command::Usage(args) => args.run(out),
        Command::Token(args) => args.run(out),
        Command::Invocations(args) => args.run(out),
        Command::Graph(args) => args.run(out),
        Command::State(args) => args.run(out),
        Command::DeadLetters(args) => args.run(out),
        Command::Doctor(args) => args.run(out),
        Command::Completions(args) => args.run(),
        Command::Schema => schema(),
    }
}

fn schema() -> Outcome {
    let text = serde_json::to_string_pretty(&Manifest::schema())
        .map_err(|error| Failure::caused(Exit::Failure, error))?;
    print(&format!("{text}\n"))
}

/// A moment for people: `2026-01-31 12:00:00`, UTC.
pub fn moment(unix_ms: u64) -> String {
    let (days, second) = (unix_ms / 86_400_000, unix_ms / 1000 % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!(
        "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{:02}",
        second % 60
    )
}

/// Year, month and day of the Gregorian calendar, `days` after 1970-01-01. (Hinnant,
/// "chrono-compatible low-level date algorithms", `civil_from_days`.)
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

/// A digest for people: its first twelve digits.
pub fn short(digest: &str) -> String {
    let digits = digest.strip_prefix("sha256:").unwrap_or(digest);
    digits.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates_in_utc() {
        assert_eq!(moment(0), "1970-01-01 00:00:00");
        assert_eq!(moment(951_782_400_000), "2000-02-29 00:00:00");
        assert_eq!(moment(1_767_225_599_999), "2025-12-31 23:59:59");
    }

    #[test]
    fn digests_are_cut_without_their_algorithm() {
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short("é"), "é");
    }

    #[test]
    fn the_published_schema_is_current() {
        let published = include_str!("../../../docs/dunlin.schema.json");
        let current = serde_json::to_string_pretty(&Manifest::schema()).unwrap();
        assert!(
            published.trim_end() == current,
            "docs/dunlin.schema.json is old: run `dunlin schema > docs/dunlin.schema.json`"
        );
    }
}
