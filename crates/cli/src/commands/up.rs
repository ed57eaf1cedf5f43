//! `dunlin up`: a node, in this process, until it is told to stop.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use node::{LogConfig, Node, NodeError};
use serde::Serialize;

use crate::args::DEFAULT_ADMIN;
use crate::exit::{Exit, Failure, Outcome};
use crate::node_config::{LogFormat, Settings};
use crate::output::{note, print};

/// Arguments of `dunlin up`.
#[derive(Debug, Args)]
pub struct Up {
    /// Configuration file; ./dunlin-node.toml if it is there
    #[arg(long, env = "DUNLIN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// Says where a node is: the file `node.json` of its data folder, and a line on stdout.
#[derive(Debug, Serialize)]
struct Card {
    pid: u32,
    version: &'static str,
    data_addr: String,
    admin_addr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_addr: Option<String>,
}

/// The card's file in the data folder.
const CARD: &str = "node.json";

impl Up {
    /// Runs a node until SIGTERM or SIGINT; fails if something had to be cut short.
    pub fn run(self) -> Outcome {
        let settings = self.settings.with_files(self.config.as_deref())?;
        let config = settings.config()?;
        let is_watched = std::io::stdout().is_terminal();
        let log = LogConfig {
            format: match settings.log_format {
                Some(LogFormat::Text) => node::LogFormat::Text,
                Some(LogFormat::Json) => node::LogFormat::Json,
                None if std::io::stderr().is_terminal() => node::LogFormat::Text,
                None => node::LogFormat::Json,
            },
            filter: settings.log_filter.clone().unwrap_or_default(),
        };
        let data = config.data_dir.clone();
        let finished = node::up(config, &log, |node| announce(node, &data, is_watched))?;
        // Only an orderly end removes it: after a crash its pid shows that the node is gone.
        let removed = std::fs::remove_file(data.join(CARD));
        if let Err(error) = removed.context("removing node.json") {
            note(&format!("dunlin: {error:#}"));
        }
        if finished {
            return Ok(Exit::Ok);
        }
        Err(Failure::new(
            Exit::Failure,
            "the node stopped before all invocations had ended",
        )
        .next("asynchronous ones are tried again after a restart; --drain-s sets the patience"))
    }
}

/// Tells people and programs where the node is.
fn announce(node: &Node, data: &Path, is_watched: bool) {
    let card = Card {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION"),
        data_addr: node.data_addr().to_string(),
        admin_addr: node.admin_addr().to_string(),
        peer_addr: node.peer_addr().map(|address| address.to_string()),
    };
    let line = match write(&card, data) {
        Ok(line) => line,
        Err(error) => {
            note(&format!("dunlin: {error:#}"));
            return;
        }
    };
    let text = if is_watched {
        banner(&card, data)
    } else {
        format!("{line}\n")
    };
    // A closed stdout does not stop a node.
    let _ = print(&text);
}

/// Writes the card, whole or not at all, and gives its text.
fn write(card: &Card, data: &Path) -> anyhow::Result<String> {
    let line = serde_json::to_string(card)?;
    let (new, file) = (data.join("node.json.new"), data.join(CARD));
    std::fs::write(&new, &line)
        .and_then(|()| std::fs::rename(&new, &file))
        .with_context(|| format!("writing {}", file.display()))?;
    Ok(line)
}

fn banner(card: &Card, data: &Path) -> String {
    let title = console::style(format!("Dunlin {}", card.version)).bold();
    let point = if card.admin_addr == DEFAULT_ADMIN {
        String::new()
    } else {
        format!("export DUNLIN_ADMIN={}\n      ", card.admin_addr)
    };
    format!(
        "{title}\n  \
         functions  http://{}/APP/FUNCTION/\n  \
         admin      http://{}  (/openapi.json, /metrics)\n  \
         data       {}\n\n\
         next, in another terminal:\n      \
         {point}dunlin deploy --app demo --name hello FILE.wasm\n      \
         dunlin invoke demo/hello --data 'Hello'\n\
         Ctrl-C stops the node.\n",
        card.data_addr,
        card.admin_addr,
        data.display(),
    )
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        let (exit, next) = match &error {
            NodeError::InUse(_) => (
                Exit::Refused,
                "stop that node, or choose another folder with --data",
            ),
            NodeError::NoToken(_) | NodeError::TokenRequired | NodeError::Token(_) => {
                (Exit::Refused, "`dunlin token --help` shows how")
            }
            NodeError::Listen { .. } => (
                Exit::Failure,
                "stop what listens there, or choose other addresses with --listen, --admin and \
                 --peer-addr",
            ),
            NodeError::Certificate(_) => (
                Exit::Refused,
                "docs/cluster.md shows which file belongs where",
            ),
            NodeError::Blobs(_) | NodeError::Advertise(_) => {
                (Exit::Usage, "docs/cluster.md shows how a node joins")
            }
            NodeError::Plaintext(_) => (
                Exit::Refused,
                "leave --dangerous-plaintext-peers out and give the node a certificate: \
                 docs/cluster.md shows how",
            ),
            NodeError::NotJoined { .. } => (
                Exit::Failure,
                "give each node a name of its own with --node, or wait until the old one's lease \
                 is over",
            ),
            NodeError::Telemetry(_) => {
                (Exit::Usage, "correct --log-filter or the OTEL_* variables")
            }
            _ => (Exit::Failure, "`dunlin doctor` looks for what is missing"),
        };
        Self::caused(exit, error).next(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(admin: &str) -> Card {
        Card {
            pid: 7,
            version: "1.2.3",
            data_addr: "127.0.0.1:8080".into(),
            admin_addr: admin.into(),
            peer_addr: None,
        }
    }

    #[test]
    fn the_banner_says_what_to_do_next() {
        let text = banner(&card(DEFAULT_ADMIN), Path::new("d"));
        assert!(
            text.contains("http://127.0.0.1:8080/APP/FUNCTION/"),
            "{text}"
        );
        assert!(text.contains("dunlin deploy"), "{text}");
        assert!(!text.contains("DUNLIN_ADMIN"), "{text}");
        let text = banner(&card("127.0.0.1:9"), Path::new("d"));
        assert!(text.contains("export DUNLIN_ADMIN=127.0.0.1:9"), "{text}");
    }

    #[test]
    fn the_card_is_a_file_in_the_data_folder() {
        let folder = tempfile::tempdir().unwrap();
        let line = write(&card("127.0.0.1:9"), folder.path()).unwrap();
        let golden = concat!(
            r#"{"pid":7,"version":"1.2.3","#,
            r#""data_addr":"127.0.0.1:8080","admin_addr":"127.0.0.1:9"}"#,
        );
        assert_eq!(line, golden);
        assert_eq!(
            std::fs::read_to_string(folder.path().join(CARD)).unwrap(),
            golden
        );
    }
}
