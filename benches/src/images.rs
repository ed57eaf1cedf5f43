//! `images`: the first call of a function on a node that never ran it, of what another node of the
//! cluster made, against copying as many bytes from there by bare TLS and nothing else; and against
//! a node that has all of it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use testkit::{Host, Lan};
use ureq::Agent;
use xtask::catalogue::{self, Entry, Reply};
use xtask::cluster::{Cluster, Terms};
use xtask::node::Node;
use xtask::visit;

use crate::Setting;
use crate::cluster::echo::Echo;
use crate::cluster::site;
use crate::measure::{median, micros};
use crate::report::Report;

const APP: &str = "bench";
/// First calls of each kind, in turns.
const ROUNDS: usize = 7;
/// How fast the link is on which the rest is measured, beside one that nothing slows.
const SLOW_KBIT: u32 = 1_000_000;
/// How long a node may take until it knows a function.
const KNOWN_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long nothing must have come until all has: longer than the largest file takes.
const QUIET: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A function whose module makes a large table when it is loaded, of which a call reads little.
const TABLE: &str = "
TABLE = bytearray(192 << 20)
for page in range(0, len(TABLE), 4096):
    TABLE[page:page + 4096] = (page >> 12).to_bytes(4, 'little') * 1024

def handle(environ):
    return 200, {'content-type': 'text/plain'}, str(TABLE[4096 * 78])
";
const TABLE_NAME: &str = "table";
const TABLE_LIMIT: &str = "memory_bytes_max=536870912";

/// Measures from a thread of its own, which goes to the host of the node that is called.
pub fn run(setting: &Setting) -> Result<Report> {
    std::thread::scope(|scope| {
        let measured = scope.spawn(|| measure(setting));
        measured.join().map_err(|_| anyhow!("it panicked"))?
    })
}

fn measure(setting: &Setting) -> Result<Report> {
    let lan = Lan::new().map_err(|error| anyhow!(error))?;
    let host = || lan.host().map_err(|error| anyhow!(error));
    let (services, called, maker) = (host()?, host()?, host()?);
    called.enter().map_err(|error| anyhow!(error))?;
    let agent = visit::agent();
    let sites = [site(&called), site(&maker)];
    let (binary, terms) = (setting.binary(), Terms::default());
    let cluster = Cluster::start_apart(&binary, &agent, &site(&services), &sites, terms)?;
    let keys = tempfile::tempdir()?;
    let echo = Echo::start(&sites[1], keys.path())?;
    let mut bench = Bench {
        agent,
        maker,
        cluster,
        echo,
    };
    let mut report = Report::new(
        "images",
        &["first call of", "MiB", "elsewhere ms", "here ms", "copy ms"],
    );
    for (entry, [quick, slow]) in entries(setting, keys.path())? {
        bench.deploy(setting, &entry)?;
        let ratio = bench.function(&entry, &entry.name, &mut report)?;
        report.figure(quick, ratio);
        bench
            .maker
            .slow(SLOW_KBIT)
            .map_err(|error| anyhow!(error))?;
        let name = format!("{}, slow link", entry.name);
        let ratio = bench.function(&entry, &name, &mut report)?;
        report.figure(slow, ratio);
        bench.maker.quick().map_err(|error| anyhow!(error))?;
    }
    Ok(report)
}

/// What is called, and the names of its figures by the two links.
fn entries(setting: &Setting, folder: &Path) -> Result<[(Entry, [&'static str; 2]); 3]> {
    let all = catalogue::read(&setting.root)?;
    let named = |name: &str| all.iter().find(|entry| entry.name == name).cloned();
    let named = |name: &str| named(name).with_context(|| format!("there is no example {name}"));
    let (script, web) = (named("list-js")?, named("web-py")?);
    let source = folder.join("table.py");
    std::fs::write(&source, TABLE)?;
    let table = Entry {
        name: TABLE_NAME.to_owned(),
        grants: vec!["--limit".to_owned(), TABLE_LIMIT.to_owned()],
        layers: vec![source.to_str().context("a folder is not UTF-8")?.to_owned()],
        reply: Reply::Contains(b"78".to_vec()),
        ..web.clone()
    };
    Ok([
        (script, ["script_against_copy", "script_against_slow_copy"]),
        (web, ["web_against_copy", "web_against_slow_copy"]),
        (table, ["table_against_copy", "table_against_slow_copy"]),
    ])
}

struct Bench {
    agent: Agent,
    maker: Host,
    /// The node that is called, and the one that makes.
    cluster: Cluster,
    echo: Echo,
}

impl Bench {
    fn called(&mut self) -> &mut Node {
        &mut self.cluster.nodes[0]
    }

    /// Deploys at the maker, from its host.
    fn deploy(&self, setting: &Setting, entry: &Entry) -> Result<()> {
        let deploy = || {
            self.maker.enter().map_err(|error| anyhow!(error))?;
            visit::deploy(&setting.root, &self.cluster.nodes[1], APP, entry)
        };
        std::thread::scope(|scope| {
            let deployed = scope.spawn(deploy);
            deployed.join().map_err(|_| anyhow!("it panicked"))?
        })?;
        Ok(())
    }

    /// First calls of a function, against copies of as many bytes.
    fn function(&mut self, entry: &Entry, name: &str, report: &mut Report) -> Result<f64> {
        let (mut elsewhere, mut here, mut copies) = (Vec::new(), Vec::new(), Vec::new());
        let mut bytes = 0;
        for _ in 0..ROUNDS {
            let agent = self.agent.clone();
            self.called().stop();
            for folder in ["cache", "cluster-blobs"] {
                std::fs::remove_dir_all(self.called().data_folder().join(folder))?;
            }
            self.called().start_again()?;
            elsewhere.push(self.first_call(entry)?);
            bytes = self.whole()?;
            self.called().restart(&agent)?;
            here.push(self.first_call(entry)?);
            let mut room = vec![0; bytes];
            let begun = Instant::now();
            self.echo.get(&mut room)?;
            copies.push(micros(begun.elapsed()));
        }
        let [elsewhere, here, copy] = [&elsewhere, &here, &copies].map(|times| median(times));
        let ms = |us: f64| format!("{:.1}", us / 1e3);
        let mib = format!("{:.1}", bytes as f64 / f64::from(1 << 20));
        report.row(name, [mib, ms(elsewhere), ms(here), ms(copy)]);
        Ok(elsewhere / copy)
    }

    /// Calls the function once the node knows it: microseconds.
    fn first_call(&mut self, entry: &Entry) -> Result<f64> {
        let agent = self.agent.clone();
        let node = self.called();
        node.wait_until_ready(&agent)?;
        let url = format!(
            "http://{}/v1/apps/{APP}/functions/{}",
            node.admin, entry.name
        );
        let end = Instant::now() + KNOWN_WAIT_MAX;
        while agent.get(&url).call()?.status() != 200 {
            ensure!(
                Instant::now() < end,
                "a node has not heard of {}",
                entry.name
            );
        }
        let data = node.data.clone();
        let request = visit::request(Path::new(""), &data, APP, entry)?;
        let (took, fault) = visit::call(&agent, &request)?;
        match fault {
            None => Ok(micros(took)),
            Some(fault) => bail!("{}: {fault}", entry.name),
        }
    }

    /// Waits until nothing more comes to the node that is called; how many bytes came.
    fn whole(&mut self) -> Result<usize> {
        let cache = self.called().data_folder().join("cache");
        let (mut bytes, mut since) = (0, Instant::now());
        while since.elapsed() < QUIET || bytes == 0 {
            std::thread::sleep(LOOK_EVERY);
            let there = files_bytes(&cache)?;
            if there != bytes {
                (bytes, since) = (there, Instant::now());
            }
            ensure!(since.elapsed() < KNOWN_WAIT_MAX, "nothing came");
        }
        Ok(bytes)
    }
}

/// Bytes of all files of a folder.
fn files_bytes(folder: &Path) -> Result<usize> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        // What is being written may have been renamed meanwhile.
        bytes += entry?
            .metadata()
            .map_or(0, |metadata| metadata.len() as usize);
    }
    Ok(bytes)
}
