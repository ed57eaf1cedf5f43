//! iperf3: what a bare TCP stream brings from another host, without TLS.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use xtask::cluster::Site;

use crate::child::Server;

const PROGRAM: &str = "iperf3";
/// Seconds of a run: the least that it takes.
const SECONDS: &str = "1";
/// Between two runs the server listens anew, and may not be there yet.
const TRIES_MAX: usize = 100;

/// The other end, which sends.
pub struct Iperf {
    server: Server,
    host: String,
    port: String,
}

impl Iperf {
    /// Starts the other end at `site`.
    pub fn start(site: &Site) -> Result<Self> {
        let address = site.free_address()?;
        let (host, port) = address.rsplit_once(':').context("an address has a port")?;
        let (host, port) = (host.to_owned(), port.to_owned());
        let mut command = (site.launch)(Path::new(PROGRAM));
        command.args(["--server", "--bind", &host, "--port", &port]);
        let server = Server::start(command, &address)?;
        Ok(Self { server, host, port })
    }

    /// Microseconds that so many bytes take to come from there, by one stream.
    pub fn take_us(&self, bytes: usize) -> Result<f64> {
        let mut last = String::new();
        for _ in 0..TRIES_MAX {
            let output = Command::new(PROGRAM)
                .args(["--client", &self.host, "--port", &self.port])
                .args(["--reverse", "--parallel", "1", "--time", SECONDS, "--json"])
                .stdin(Stdio::null())
                .output()
                .context("starting iperf3")?;
            let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let rate = said["end"]["sum_received"]["bits_per_second"].as_f64();
            match rate.filter(|rate| *rate > 0.0) {
                Some(rate) => return Ok(bytes as f64 * 8e6 / rate),
                None => last = said["error"].to_string(),
            }
        }
        bail!("iperf3 at {} does not answer: {last}", self.server.address)
    }
}
