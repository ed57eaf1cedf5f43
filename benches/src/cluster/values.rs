//! Values of state that another node owns: got and set by a function, against bytes by bare TLS and
//! against Redis, all between the same two hosts.

use anyhow::{Context, Result, bail, ensure};
use ureq::Agent;
use xtask::cluster::Site;
use xtask::node::Node;

use super::echo::Echo;
use super::{NODE, timed};
use crate::Setting;
use crate::measure::{median, percentile};
use crate::redis::{self, Redis};
use crate::report::Report;
use crate::state::said;

const PROBE: &str = "guests/out/probes/carry.wasm";
const LARGE_BYTES: usize = 64 << 20;
const SMALL_BYTES: usize = 1 << 20;
/// Rounds of all kinds, and values of each kind in a round.
const ROUNDS: usize = 5;
const LARGE: usize = 2;
const SMALL: usize = 20;
/// Who owns the keys.
const OWNER: &str = "n2";
/// Keys that are tried until one is the owner's.
const KEYS_MAX: usize = 64;
/// Redis's name for the value.
const KEY: &[u8] = b"value";

/// Microseconds of each.
pub struct Values {
    kinds: [(&'static str, Vec<f64>); 6],
    pull_against_tls: f64,
    pull_against_redis: f64,
    push_against_redis: f64,
}

/// Measures on `entrance`'s host, where the caller is, with the other node's `site`.
pub fn measure(
    setting: &Setting,
    agent: &Agent,
    entrance: &Node,
    site: &Site,
    echo: &mut Echo,
) -> Result<Values> {
    let probe = setting.root.join(PROBE);
    let probe = probe
        .to_str()
        .context("the repository's path is not UTF-8")?;
    let allow = "--allow-state=probe/=write";
    entrance.cli(&["deploy", "--app", "bench", "--name", "carry", allow, probe])?;
    let large = key_of_owner(agent, entrance, "large", LARGE_BYTES)?;
    let small = key_of_owner(agent, entrance, "small", SMALL_BYTES)?;
    let server = redis::start_at(site)?;
    let mut redis = Redis::connect(&server.address)?;
    let (value, mut room) = (vec![7; SMALL_BYTES], vec![0; LARGE_BYTES]);
    redis.command(&[b"SET", KEY, &value])?;
    let ask = |what: &str, bytes: usize, rounds: usize, key: &str| {
        let asked = format!("{what} {bytes} {rounds} {key}");
        let ns = said(entrance, "bench/carry", &asked)?;
        Ok::<_, anyhow::Error>(ns.iter().map(|ns| ns / 1e3).collect::<Vec<_>>())
    };
    let mut kinds = [
        "get 64 MiB of another node",
        "64 MiB by TLS",
        "get 1 MiB of another node",
        "GET 1 MiB of Redis",
        "set 1 MiB of another node",
        "SET 1 MiB of Redis",
    ]
    .map(|kind| (kind, Vec::new()));
    let mut ratios = [const { Vec::new() }; 3];
    for round in 0..=ROUNDS {
        let rows = [
            ask("get", LARGE_BYTES, LARGE, &large)?,
            timed(LARGE, || echo.get(&mut room))?,
            ask("get", SMALL_BYTES, SMALL, &small)?,
            timed(SMALL, || {
                let got = redis.command(&[b"GET", KEY])?;
                ensure!(got.len() == SMALL_BYTES, "Redis lost the value");
                Ok(())
            })?,
            ask("set", SMALL_BYTES, SMALL, &small)?,
            timed(SMALL, || redis.command(&[b"SET", KEY, &value]).map(drop))?,
        ];
        // The first round warms all up and is not counted.
        if round == 0 {
            continue;
        }
        for (pair, ratios) in rows.chunks(2).zip(&mut ratios) {
            ratios.push(median(&pair[1]) / median(&pair[0]));
        }
        for (row, (_, all)) in rows.into_iter().zip(&mut kinds) {
            all.extend(row);
        }
    }
    let [tls, get, set] = ratios.map(|ratios| median(&ratios));
    Ok(Values {
        kinds,
        pull_against_tls: tls,
        pull_against_redis: get,
        push_against_redis: set,
    })
}

impl Values {
    pub fn report(&self, report: &mut Report) {
        for (kind, times) in &self.kinds {
            let figures = [median(times), percentile(times, 99)];
            report.row(*kind, figures.map(|us| format!("{us:.1}")));
        }
        report.figure("pull_against_tls", self.pull_against_tls);
        report.figure("pull_against_redis", self.pull_against_redis);
        report.figure("push_against_redis", self.push_against_redis);
    }
}

/// Makes a value of `bytes` bytes that [`OWNER`] owns; its key.
fn key_of_owner(agent: &Agent, entrance: &Node, name: &str, bytes: usize) -> Result<String> {
    for number in 0..KEYS_MAX {
        let key = format!("probe/{name}-{number}");
        let url = format!("http://{}/v1/apps/bench/state/{key}", entrance.admin);
        let reply = agent.put(&url).send(&[7u8; 1][..])?;
        ensure!(reply.status().is_success(), "{key}: {}", reply.status());
        if reply.headers().get(NODE).is_some_and(|node| node == OWNER) {
            let reply = agent.put(&url).send(&vec![7u8; bytes][..])?;
            ensure!(reply.status().is_success(), "{key}: {}", reply.status());
            return Ok(key);
        }
    }
    bail!("none of {KEYS_MAX} keys is {OWNER}'s")
}
