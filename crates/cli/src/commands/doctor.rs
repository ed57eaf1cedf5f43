//! `dunlin doctor`: what this machine gives, what it lacks, and what to do about it.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use clap::Args;
use client::{Client, Config};
use serde::Serialize;

use crate::args::Node;
use crate::connect;
use crate::exit::{Exit, Outcome};
use crate::output::Output;
use crate::table::{Table, bytes};

mod machine;

/// Arguments of `dunlin doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Folder whose disk is looked at
    #[arg(
        long,
        env = "DUNLIN_DATA",
        value_name = "DIR",
        default_value = "dunlin-data"
    )]
    data: PathBuf,
    /// Where functions would be called
    #[arg(
        long,
        env = "DUNLIN_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:8080"
    )]
    listen: String,
    #[command(flatten)]
    node: Node,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Something is slower, smaller or not there yet; a node runs all the same.
    Note,
    /// A node cannot run like this.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    name: &'static str,
    level: Level,
    found: String,
    /// What that means and what to do about it; empty when all is well.
    advice: String,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, Level::Ok, found, "")
    }

    fn new(
        name: &'static str,
        level: Level,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            name,
            level,
            found: found.into(),
            advice: advice.into(),
        }
    }
}

impl Doctor {
    /// Looks at everything; fails if something that a node needs is missing.
    pub fn run(self, out: Output) -> Outcome {
        let doctor = async {
            let mut checks = machine::checks(&self.data);
            let node = self.node().await;
            let is_up = node.level == Level::Ok;
            checks.push(self.port("port of the data listener", &self.listen, is_up));
            let admin = self.node.admin.trim_start_matches("http://");
            checks.push(self.port("port of the admin listener", admin, is_up));
            checks.push(node);
            let is_missing = checks.iter().any(|check| check.level == Level::Missing);
            out.show(&checks, || table(&checks))?;
            if out.is_for_people() {
                advise(&checks);
            }
            Ok(if is_missing { Exit::Failure } else { Exit::Ok })
        };
        connect::block_on(doctor)
    }

    async fn node(&self) -> Check {
        const NAME: &str = "node";
        let mut config = Config::new(&self.node.admin);
        config.token = self.node.token.clone().filter(|token| !token.is_empty());
        let asked = match Client::new(&config) {
            Ok(client) => client.node().await,
            Err(error) => Err(error),
        };
        match asked {
            Ok(node) => Check::ok(
                NAME,
                format!("version {} at {}", node.version, node.admin_addr),
            ),
            Err(error) => Check::new(
                NAME,
                Level::Note,
                error.to_string(),
                "No node was reached. Start one with `dunlin up`, or point --admin or DUNLIN_ADMIN \
                 at one; if it asks for a token, set DUNLIN_TOKEN.",
            ),
        }
    }

    /// Whether a node could listen at `address`. While one runs, the port is its own.
    fn port(&self, name: &'static str, address: &str, is_up: bool) -> Check {
        let Ok(address) = address.trim_end_matches('/').parse::<SocketAddr>() else {
            return Check::new(
                name,
                Level::Note,
                format!("{address} is not of the form IP:PORT"),
                "Only numeric addresses are tried.",
            );
        };
        match TcpListener::bind(address) {
            Ok(_) => Check::ok(name, format!("{address} is free")),
            Err(_) if is_up => Check::ok(name, format!("{address} is in use, and a node runs")),
            Err(error) => Check::new(
                name,
                Level::Missing,
                format!("{address}: {error}"),
                "`dunlin up` cannot listen there. Stop what does, or choose another address with \
                 --listen and --admin.",
            ),
        }
    }
}

fn table(checks: &[Check]) -> Table {
    let mut table = Table::new(&["CHECK", "STATE", "FOUND"]);
    for check in checks {
        let state = match check.level {
            Level::Ok => console::style("ok").green(),
            Level::Note => console::style("note").yellow(),
            Level::Missing => console::style("missing").red(),
        };
        table.row([
            check.name.to_owned(),
            state.to_string(),
            check.found.clone(),
        ]);
    }
    table
}

fn advise(checks: &[Check]) {
    for check in checks.iter().filter(|check| !check.advice.is_empty()) {
        crate::output::note(&format!("\n{}: {}", check.name, check.advice));
    }
}

/// Free bytes of the disk that `folder` is on, or would be on once it is made.
fn free_bytes(folder: &Path) -> std::io::Result<u64> {
    let folder = std::path::absolute(folder)?;
    let there = folder.ancestors().find(|folder| folder.exists());
    let stat = rustix::fs::statvfs(there.unwrap_or(Path::new("/")))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// A disk that is fuller than this refuses deploys soon.
const DISK_BYTES_WANTED: u64 = 1 << 30;
/// With less than this a node cannot keep its own records.
const DISK_BYTES_NEEDED: u64 = 64 << 20;

fn disk(folder: &Path) -> Check {
    const NAME: &str = "disk";
    let shown = folder.display();
    match free_bytes(folder) {
        Ok(free) if free >= DISK_BYTES_WANTED => {
            Check::ok(NAME, format!("{} free for {shown}", bytes(free)))
        }
        Ok(free) => {
            let level = if free < DISK_BYTES_NEEDED {
                Level::Missing
            } else {
                Level::Note
            };
            Check::new(
                NAME,
                level,
                format!("{} free for {shown}", bytes(free)),
                "Artifacts, compiled code and the asynchronous queue are kept there; a node \
                 refuses deploys and asynchronous calls when it is full. Free some space, or \
                 choose another folder with --data.",
            )
        }
        Err(error) => Check::new(
            NAME,
            Level::Note,
            format!("{shown}: {error}"),
            "The free space could not be found out.",
        ),
    }
}
