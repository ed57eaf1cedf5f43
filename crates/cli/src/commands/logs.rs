//! `dunlin logs`: what functions print.

use api::v1::{LogLine, LogStream};
use clap::Args;
use client::LogFilter;
use model::InvocationId;

use super::moment;
use crate::args::{Node, Scope};
use crate::connect;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{Format, Output, print};
use crate::table::printable;

/// Arguments of `dunlin logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// An app, or a function as APP/FUNCTION; all unless given
    scope: Option<Scope>,
    /// Keep printing new lines as they come
    #[arg(long, short)]
    follow: bool,
    /// How many of the last lines
    #[arg(long, short = 'n', value_name = "LINES")]
    tail: Option<u32>,
    /// Only what this invocation printed
    #[arg(long, value_name = "ID")]
    invocation: Option<InvocationId>,
    #[command(flatten)]
    node: Node,
}

impl Logs {
    /// Prints the last lines, and with `--follow` those that come.
    pub fn run(self, out: Output) -> Outcome {
        let mut filter = LogFilter {
            invocation: self.invocation,
            tail: self.tail,
            ..LogFilter::default()
        };
        match self.scope {
            Some(Scope::App(app)) => filter.app = Some(app),
            Some(Scope::Function(path)) => filter.function = Some(path),
            None => {}
        }
        connect::with(&self.node, async |client| {
            if !self.follow {
                let logs = client.logs(&filter).await?;
                for line in &logs.lines {
                    print_line(line, out)?;
                }
                for node in &logs.silent {
                    eprintln!("{node} does not answer: what ran there is missing");
                }
                return Ok(Exit::Ok);
            }
            let mut lines = client.follow_logs(&filter).await?;
            while let Some(line) = lines.next().await? {
                print_line(&line, out)?;
            }
            Ok(Exit::Ok)
        })
    }
}

fn print_line(line: &LogLine, out: Output) -> Outcome {
    let text = match out.format {
        // One document a line, so that a follower can read each as it comes.
        Format::Json => {
            serde_json::to_string(line).map_err(|error| Failure::caused(Exit::Failure, error))?
        }
        Format::Table => show(line),
    };
    print(&format!("{text}\n"))
}

/// `2026-01-31 12:00:00 n1 app/function 01234567 stderr text`; no node where it stands alone.
fn show(line: &LogLine) -> String {
    let node = line.node.iter().map(|node| format!(" {}", printable(node)));
    let (time, node) = (moment(line.unix_ms), node.collect::<String>());
    let head = format!("{time}{node} {}/{}", line.app, line.function);
    let head = console::style(head).dim();
    let text = line.text.trim_end_matches(['\n', '\r']);
    let text: Vec<_> = text.lines().map(printable).collect();
    let text = text.join("\n    ");
    // The first digits of an id are its time; the last tell invocations apart.
    let id_from = line.invocation.len().saturating_sub(8);
    let id = line.invocation.get(id_from..).unwrap_or_default();
    let stream = stream(line.stream);
    format!("{head} {id:8} {stream} {text}")
}

fn stream(stream: LogStream) -> console::StyledObject<&'static str> {
    match stream {
        LogStream::Stdout => console::style("stdout "),
        LogStream::Stderr => console::style("stderr ").yellow(),
        LogStream::Error => console::style("error  ").red(),
        LogStream::Warn => console::style("warn   ").yellow(),
        LogStream::Info => console::style("info   "),
        LogStream::Debug => console::style("debug  ").dim(),
        LogStream::Dropped => console::style("dropped").red(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_shown_with_its_origin_and_without_its_escapes() {
        let line = LogLine {
            unix_ms: 1000,
            app: "a".into(),
            function: "f".into(),
            invocation: "0123456789abcdef0123456789abcdef".into(),
            stream: LogStream::Stderr,
            text: "one\u{1b}[2J\ntwo\n".into(),
            node: Some("n1".into()),
        };
        let shown = console::strip_ansi_codes(&show(&line)).into_owned();
        assert_eq!(
            shown,
            "1970-01-01 00:00:01 n1 a/f 89abcdef stderr  one [2J\n    two"
        );
    }
}
