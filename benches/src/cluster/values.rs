//! Values of state that another node owns: got and set by a function, against a bare stream and
//! against Redis, all between the same two hosts.

use anyhow::{Context, Result, bail, ensure};
use ureq::Agent;
use xtask::cluster::Site;
use xtask::node::Node;

use super::{NODE, timed};
use crate::Setting;
use crate::measure::{median, percentile};
use crate::redis::{self, Redis};
use crate::report::Report;
use crate::state::said;

const PROBE: &str = "guests/out/probes/carry.wasm";
pub const LARGE_BYTES: usize = 64 << 20;
const SMALL_BYTES: usize = 1 << 20;
/// Rounds of all kinds, and values of each kind in a round.
const ROUNDS: usize = 5;
pub const LARGE: usize = 2;
const SMALL: usize = 20;
/// Who owns the keys.
const OWNER: &str = "n2";
/// Keys that are tried until one is the owner's.
const KEYS_MAX: usize = 64;
/// Redis's name for the value.
const KEY: &[u8] = b"value";

/// Two nodes, and what is asked of the second one's host.
pub struct Pair<'a> {
    pub setting: &'a Setting,
    pub agent: &'a Agent,
    /// The node whose functions ask; the caller is on its host.
    pub entrance: &'a Node,
    /// Where the other node is.
    pub site: &'a Site,
}

/// What was measured: microseconds of each value, and how many times as long the rival took.
pub struct Values {
    kinds: [Vec<f64>; 6],
    /// Of a get of 64 MiB, of a get and of a set of 1 MiB.
    pub ratios: [f64; 3],
}

/// Measures in turns with a `stream` of [`LARGE_BYTES`], each time in microseconds.
pub fn measure(pair: &Pair<'_>, mut stream: impl FnMut() -> Result<Vec<f64>>) -> Result<Values> {
    let probe = pair.setting.root.join(PROBE);
    let probe = probe
        .to_str()
        .context("the repository's path is not UTF-8")?;
    let allow = "--allow-state=probe/=write";
    let deploy = ["deploy", "--app", "bench", "--name", "carry", allow, probe];
    pair.entrance.cli(&deploy)?;
    let large = pair.key_of_owner("large", LARGE_BYTES)?;
    let small = pair.key_of_owner("small", SMALL_BYTES)?;
    let server = redis::start_at(pair.site)?;
    let mut redis = Redis::connect(&server.address)?;
    let value = vec![7; SMALL_BYTES];
    redis.command(&[b"SET", KEY, &value])?;
    let mut kinds = [const { Vec::new() }; 6];
    let mut ratios = [const { Vec::new() }; 3];
    for round in 0..=ROUNDS {
        let rows = [
            pair.ask("get", LARGE_BYTES, LARGE, &large)?,
            stream()?,
            pair.ask("get", SMALL_BYTES, SMALL, &small)?,
            timed(SMALL, || {
                let got = redis.command(&[b"GET", KEY])?;
                ensure!(got.len() == SMALL_BYTES, "Redis lost the value");
                Ok(())
            })?,
            pair.ask("set", SMALL_BYTES, SMALL, &small)?,
            timed(SMALL, || redis.command(&[b"SET", KEY, &value]).map(drop))?,
        ];
        // The first round warms all up and is not counted.
        if round == 0 {
            continue;
        }
        for (pair, ratios) in rows.chunks(2).zip(&mut ratios) {
            ratios.push(median(&pair[1]) / median(&pair[0]));
        }
        for (row, all) in rows.into_iter().zip(&mut kinds) {
            all.extend(row);
        }
    }
    Ok(Values {
        kinds,
        ratios: ratios.map(|ratios| median(&ratios)),
    })
}

impl Values {
    /// Adds a row for each kind. `way` is how the nodes talk, `stream` what the rival is.
    pub fn report(&self, report: &mut Report, way: &str, stream: &str) {
        let names = [
            format!("get 64 MiB of another node, {way}"),
            format!("64 MiB by {stream}"),
            format!("get 1 MiB of another node, {way}"),
            "GET 1 MiB of Redis".to_owned(),
            format!("set 1 MiB of another node, {way}"),
            "SET 1 MiB of Redis".to_owned(),
        ];
        for (name, times) in names.iter().zip(&self.kinds) {
            let figures = [median(times), percentile(times, 99)];
            report.row(name, figures.map(|us| format!("{us:.1}")));
        }
    }
}

impl Pair<'_> {
    /// Microseconds of each time that the function does `what` with a value.
    fn ask(&self, what: &str, bytes: usize, rounds: usize, key: &str) -> Result<Vec<f64>> {
        let asked = format!("{what} {bytes} {rounds} {key}");
        let ns = said(self.entrance, "bench/carry", &asked)?;
        Ok(ns.iter().map(|ns| ns / 1e3).collect())
    }

    /// Makes a value of `bytes` bytes that [`OWNER`] owns; its key.
    fn key_of_owner(&self, name: &str, bytes: usize) -> Result<String> {
        for number in 0..KEYS_MAX {
            let key = format!("probe/{name}-{number}");
            let url = format!("http://{}/v1/apps/bench/state/{key}", self.entrance.admin);
            let put = |value: &[u8]| {
                let reply = self.agent.put(&url).send(value)?;
                ensure!(reply.status().is_success(), "{key}: {}", reply.status());
                let owner = reply.headers().get(NODE);
                Ok(owner.is_some_and(|node| node == OWNER))
            };
            if put(&[7])? && put(&vec![7; bytes])? {
                return Ok(key);
            }
        }
        bail!("none of {KEYS_MAX} keys is {OWNER}'s")
    }
}
