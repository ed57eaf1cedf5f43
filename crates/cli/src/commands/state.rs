//! `dunlin state`: the values that functions of an app share.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use api::v1::{StateValue, StateValues};
use clap::{Args, Subcommand};
use client::{
    ByteRange, Client, ClientError, Expected, StateBytes, StateEvent, StateFilter, StatePut,
};
use model::{AppName, Durability};

use self::source::Source;
use super::moment;
use crate::args::Node;
use crate::connect;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{Format, Output, Progress, note, print};
use crate::table::{Table, bytes, printable};

mod source;

/// Arguments of `dunlin state`.
#[derive(Debug, Args)]
pub struct State {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the keys of an app that have values
    Ls(Ls),
    /// Print a value, byte for byte
    Get(Get),
    /// Make or replace a value
    Put(Put),
    /// Remove a value
    Rm(Rm),
    /// Print each change as it happens
    Watch(Watch),
}

#[derive(Debug, Args)]
struct Ls {
    /// The app
    app: AppName,
    /// Only keys that begin with this
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
    /// At most this many
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 1000)]
    limit: u32,
    /// The page after this key: what `ls` said of the page before
    #[arg(long, value_name = "KEY")]
    after: Option<String>,
    #[command(flatten)]
    node: Node,
}

#[derive(Debug, Args)]
struct Get {
    /// The app
    app: AppName,
    /// The key
    key: String,
    /// Write to this file instead of stdout; it is replaced once all of the value is there
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Only these bytes: FIRST-LAST (both included), FIRST- or -COUNT
    #[arg(long, value_name = "RANGE", value_parser = range, allow_hyphen_values = true)]
    range: Option<ByteRange>,
    #[command(flatten)]
    node: Node,
}

#[derive(Debug, Args)]
struct Put {
    /// The app
    app: AppName,
    /// The key
    key: String,
    /// The value: text, @FILE for a file's content, or - for stdin
    #[arg(value_name = "VALUE|@FILE|-", allow_hyphen_values = true)]
    value: String,
    /// Only if the value has this version
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
    /// Only if there is no value
    #[arg(long, conflicts_with = "if_version")]
    if_absent: bool,
    /// If there is no value yet: keep it on disk, too
    #[arg(long)]
    durable: bool,
    /// If there is no value yet: keep it in the memory of two nodes
    #[arg(long, conflicts_with = "durable")]
    replicated: bool,
    /// When it ends, from now: a number with ms, s, m, h or d; 0 for never
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    ttl: Option<u64>,
    #[command(flatten)]
    node: Node,
}

#[derive(Debug, Args)]
struct Rm {
    /// The app
    app: AppName,
    /// The key
    key: String,
    /// Only if the value has this version
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
    #[command(flatten)]
    node: Node,
}

#[derive(Debug, Args)]
struct Watch {
    /// The app
    app: AppName,
    /// Only keys that begin with this
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
    #[command(flatten)]
    node: Node,
}

impl State {
    /// Lists, prints, changes or watches values.
    pub fn run(self, out: Output) -> Outcome {
        match self.action {
            Action::Ls(args) => args.run(out),
            Action::Get(args) => args.run(),
            Action::Put(args) => args.run(out),
            Action::Rm(args) => args.run(out),
            Action::Watch(args) => args.run(out),
        }
    }
}

impl Ls {
    fn run(self, out: Output) -> Outcome {
        let filter = StateFilter {
            prefix: self.prefix,
            after: self.after,
            limit: Some(self.limit),
        };
        connect::with(&self.node, async |client| {
            let page = client.state(&self.app, &filter).await?;
            let shown = out.show(&page, || table(&page));
            if let (Some(next), true) = (&page.next, out.is_for_people()) {
                note(&format!("there are more: --after '{}'", printable(next)));
            }
            shown
        })
    }
}

fn table(page: &StateValues) -> Table {
    let mut table = Table::new(&["KEY", ">SIZE", ">VERSION", "DURABILITY", "ENDS (UTC)"]);
    for value in &page.values {
        let ends = value.expires_unix_ms.map(moment).unwrap_or_default();
        let (size, version) = (bytes(value.size), value.version.to_string());
        let durability = durability(value).to_owned();
        table.row([value.key.clone(), size, version, durability, ends]);
    }
    table
}

fn durability(value: &StateValue) -> &'static str {
    match value.durability {
        Durability::Ephemeral => "ephemeral",
        Durability::Durable => "durable",
        Durability::Replicated => "replicated",
    }
}

impl Get {
    fn run(self) -> Outcome {
        connect::with(&self.node, async |client: Client| {
            let value = client.state_get(&self.app, &self.key, self.range).await?;
            match &self.to {
                Some(file) => save(value, file).await,
                None => show(value).await,
            }
        })
    }
}

/// The next bytes. Where a value breaks off, it may as well have changed as the node ended.
async fn next(value: &mut StateBytes) -> Result<Option<bytes::Bytes>, Failure> {
    value.chunk().await.map_err(|error| match error {
        ClientError::Broken { .. } => Failure::caused(Exit::Unreachable, error)
            .next("the node ended, or the value changed while it was sent: try again"),
        error => error.into(),
    })
}

async fn show(mut value: StateBytes) -> Outcome {
    let mut out = std::io::stdout().lock();
    while let Some(chunk) = next(&mut value).await? {
        match out.write_all(&chunk).and_then(|()| out.flush()) {
            Ok(()) => {}
            // A reader that went away (`| head`) is no failure.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => break,
            Err(error) => return Err(Failure::caused(Exit::Failure, error)),
        }
    }
    Ok(Exit::Ok)
}

/// Writes beside `file` first, so that what breaks off leaves it as it was.
async fn save(value: StateBytes, file: &Path) -> Outcome {
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let saved = save_part(value, &part).await.and_then(|()| {
        let renamed = std::fs::rename(&part, file);
        Ok(renamed.with_context(|| format!("writing {}", file.display()))?)
    });
    if let Err(failure) = saved {
        // It may never have been made.
        let _ = std::fs::remove_file(&part);
        return Err(failure);
    }
    Ok(Exit::Ok)
}

async fn save_part(mut value: StateBytes, part: &Path) -> Result<(), Failure> {
    let writing = || format!("writing {}", part.display());
    let mut file = std::fs::File::create(part).with_context(writing)?;
    let progress = Progress::bytes("downloading", value.bytes().unwrap_or(0));
    while let Some(chunk) = next(&mut value).await? {
        file.write_all(&chunk).with_context(writing)?;
        progress.add(chunk.len() as u64);
    }
    Ok(())
}

impl Put {
    fn run(self, out: Output) -> Outcome {
        let wanted = match (self.durable, self.replicated) {
            (true, _) => Some(Durability::Durable),
            (_, true) => Some(Durability::Replicated),
            _ => None,
        };
        let put = StatePut {
            expected: match (self.if_version, self.if_absent) {
                (Some(version), _) => Expected::Version(version),
                (None, true) => Expected::Absent,
                (None, false) => Expected::Any,
            },
            durability: wanted,
            ttl_ms: self.ttl,
        };
        let source = Source::open(&self.value)?;
        connect::with(&self.node, async |client: Client| {
            let size = source.bytes();
            let body = source.stream();
            let value = client.state_put(&self.app, &self.key, &put, size, body);
            let value = value.await?;
            if wanted.is_some_and(|wanted| wanted != value.durability) {
                let stays = durability(&value);
                note(&format!(
                    "it stays {stays}: a key keeps its durability until it is removed"
                ));
            }
            out.say(&value, || {
                let size = bytes(value.size);
                let (key, version) = (printable(&value.key), value.version);
                format!(
                    "{key} has {size} as version {version} ({})",
                    durability(&value)
                )
            })
        })
    }
}

impl Rm {
    fn run(self, out: Output) -> Outcome {
        let expected = self.if_version.map_or(Expected::Any, Expected::Version);
        connect::with(&self.node, async |client| {
            client.state_remove(&self.app, &self.key, expected).await?;
            out.say(&serde_json::json!({ "removed": self.key }), || {
                format!("removed {}", printable(&self.key))
            })
        })
    }
}

impl Watch {
    fn run(self, out: Output) -> Outcome {
        connect::with(&self.node, async |client| {
            let mut events = client.state_watch(&self.app, &self.prefix).await?;
            note(&format!(
                "watching {}/{}",
                self.app,
                printable(&self.prefix)
            ));
            while let Some(event) = events.next().await? {
                print(&format!("{}\n", line(&event, out)?))?;
            }
            Ok(Exit::Ok)
        })
    }
}

fn line(event: &StateEvent, out: Output) -> Result<String, Failure> {
    let json = match (event, out.format) {
        (StateEvent::Changed(change), Format::Json) => serde_json::to_string(change),
        (StateEvent::Missed(missed), Format::Json) => {
            serde_json::to_string(&api::v1::StateMissed { missed: *missed })
        }
        (StateEvent::Changed(change), Format::Table) => {
            let what = if change.deleted { "deleted" } else { "changed" };
            return Ok(format!(
                "{what} {} {}",
                change.version,
                printable(&change.key)
            ));
        }
        (StateEvent::Missed(missed), Format::Table) => {
            return Ok(format!("missed  {missed} changes: read anew what matters"));
        }
    };
    json.map_err(|error| Failure::caused(Exit::Failure, error))
}

fn range(text: &str) -> Result<ByteRange, String> {
    let number = |text: &str| {
        let number = text.parse::<u64>();
        number.map_err(|_| "write FIRST-LAST, FIRST- or -COUNT".to_owned())
    };
    match text.split_once('-') {
        Some(("", count)) => number(count).map(ByteRange::Last),
        Some((first, "")) => number(first).map(ByteRange::From),
        Some((first, last)) => Ok(ByteRange::Within(number(first)?, number(last)?)),
        None => Err("write FIRST-LAST, FIRST- or -COUNT".to_owned()),
    }
}

/// A time in milliseconds.
fn ttl(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 5] = [
        ("ms", 1),
        ("s", 1000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
    ];
    if text == "0" {
        return Ok(0);
    }
    let found = UNITS.iter().find_map(|(unit, ms)| {
        let number = text.strip_suffix(unit)?.parse::<u64>().ok()?;
        number.checked_mul(*ms)
    });
    found.ok_or_else(|| "write a number with ms, s, m, h or d, as in 30s; or 0".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_inclusive_open_or_from_the_end() {
        assert_eq!(range("0-9"), Ok(ByteRange::Within(0, 9)));
        assert_eq!(range("7-"), Ok(ByteRange::From(7)));
        assert_eq!(range("-5"), Ok(ByteRange::Last(5)));
        for text in ["", "5", "-", "a-b", "1-2-3"] {
            assert!(range(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_have_units() {
        let times = ["0", "500ms", "30s", "2m", "1h", "7d"].map(|text| ttl(text).ok());
        let expected = [0, 500, 30_000, 120_000, 3_600_000, 604_800_000];
        assert_eq!(times, expected.map(Some));
        for text in ["", "5", "s", "-1s", "1.5s", "1w", "18446744073709551615d"] {
            assert!(ttl(text).is_err(), "{text}");
        }
    }

    #[test]
    fn events_are_lines() {
        let change = StateEvent::Changed(api::v1::StateChange {
            key: "a\u{1b}b".into(),
            version: 7,
            deleted: false,
        });
        let shown = |event, format| line(event, Output { format }).ok();
        assert_eq!(shown(&change, Format::Table), Some("changed 7 a b".into()));
        let json = r#"{"key":"a\u001bb","version":7,"deleted":false}"#;
        assert_eq!(shown(&change, Format::Json), Some(json.into()));
        let missed = StateEvent::Missed(9);
        assert_eq!(shown(&missed, Format::Json), Some(r#"{"missed":9}"#.into()));
    }
}
