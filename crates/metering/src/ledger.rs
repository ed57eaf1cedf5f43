//! The ledger: usage totals by day, function and version.
//!
//! Totals live in memory and are written to the store now and then and at the end; a node that is
//! killed loses what it counted since the last flush, at most one interval. Each key of the store
//! holds a whole total, so writing one twice changes nothing.
//!
//! Nodes that share a store each have keys of their own, and read those of the others now and then:
//! a report holds what other nodes counted up to one interval ago.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use model::{Digest, FunctionPath, Outcome, StartKind, Usage};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use storage::{Range, StorageError, Store, Txn};

use crate::metrics::{USAGE_FLUSH_FAILURES_TOTAL, USAGE_WRITES_TOTAL};
use crate::{Day, LedgerError, PriceList, Report, ReportLine};

const PREFIX: &str = "usage/1/";
/// Totals written in one transaction.
const WRITES_MAX: usize = 64;

/// The ledger's limits.
#[derive(Clone, Debug)]
pub struct LedgerConfig {
    /// Days that are kept, in memory and in the store, today among them.
    pub days_max: u32,
    /// How often what is new is written to the store.
    pub flush_interval: Duration,
    /// The node's name among those that share the store; none for a node alone.
    pub node: Option<String>,
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self {
            days_max: 92,
            flush_interval: Duration::from_secs(10),
            node: None,
        }
    }
}

/// Sums over invocations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Invocations that ended.
    pub invocations: u64,
    /// Those of them that did not reply.
    pub failed: u64,
    /// Those of them that started cold.
    pub cold: u64,
    /// What they used.
    pub usage: Usage,
}

impl Totals {
    fn add_outcome(&mut self, outcome: &Outcome) {
        self.invocations += 1;
        self.failed += u64::from(!outcome.status.is_ok());
        self.cold += u64::from(outcome.start == StartKind::Cold);
        self.usage += outcome.usage;
    }
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.invocations += other.invocations;
        self.failed += other.failed;
        self.cold += other.cold;
        self.usage += other.usage;
    }
}

struct Line {
    path: FunctionPath,
    totals: Totals,
    dirty: bool,
}

/// Versions, each with the functions that it is deployed as: mostly one.
type Lines = HashMap<Digest, Vec<Line>>;

/// What other nodes counted on a day, by function, version and node.
type Others = HashMap<(FunctionPath, Digest, Option<String>), Totals>;

/// The usage of a node, and of those that share its store. Cheap to clone.
#[derive(Clone)]
pub struct Ledger(Arc<Inner>);

struct Inner {
    config: LedgerConfig,
    days: Mutex<BTreeMap<Day, Lines>>,
    others: Mutex<BTreeMap<Day, Others>>,
    /// One flush at a time, so that an older total never follows a newer one.
    flushing: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").finish_non_exhaustive()
    }
}

/// One total, named.
struct Entry {
    day: Day,
    path: FunctionPath,
    version: Digest,
    /// Who counted it; none for a node alone.
    node: Option<String>,
    totals: Totals,
}

impl Entry {
    fn key(&self) -> String {
        let Self {
            day, path, version, ..
        } = self;
        let node = self.node.as_ref().map(|node| format!("/{node}"));
        let node = node.unwrap_or_default();
        format!("{PREFIX}{:010}/{path}/{}{node}", day.0, version.hex())
    }

    fn read(key: &[u8], value: &[u8]) -> Option<Self> {
        let key = std::str::from_utf8(key).ok()?.strip_prefix(PREFIX)?;
        let (day, rest) = key.split_once('/')?;
        let mut parts = rest.splitn(4, '/');
        let (app, function) = (parts.next()?, parts.next()?);
        let version = parts.next()?;
        Some(Self {
            day: Day(day.parse().ok()?),
            path: format!("{app}/{function}").parse().ok()?,
            node: parts.next().map(str::to_owned),
            version: format!("sha256:{version}").parse().ok()?,
            totals: serde_json::from_slice(value).ok()?,
        })
    }
}

fn line<'a>(lines: &'a mut Lines, path: &FunctionPath, version: &Digest) -> &'a mut Line {
    let lines = lines.entry(*version).or_default();
    let at = lines.iter().position(|line| line.path == *path);
    let at = at.unwrap_or_else(|| {
        lines.push(Line {
            path: path.clone(),
            totals: Totals::default(),
            dirty: false,
        });
        lines.len() - 1
    });
    &mut lines[at]
}

impl Ledger {
    /// An empty ledger.
    pub fn new(config: LedgerConfig) -> Self {
        Self(Arc::new(Inner {
            config,
            days: Mutex::new(BTreeMap::new()),
            others: Mutex::new(BTreeMap::new()),
            flushing: tokio::sync::Mutex::new(()),
        }))
    }

    /// Counts an invocation that ended, today.
    pub fn record(&self, path: &FunctionPath, version: &Digest, outcome: &Outcome) {
        self.record_on(Day::today(), path, version, outcome);
    }

    fn record_on(&self, day: Day, path: &FunctionPath, version: &Digest, outcome: &Outcome) {
        let mut days = self.0.days.lock();
        let line = line(days.entry(day).or_default(), path, version);
        line.totals.add_outcome(outcome);
        line.dirty = true;
    }

    /// Usage and costs of some days.
    pub fn report(&self, range: RangeInclusive<Day>, prices: &PriceList) -> Report {
        let mut sums: BTreeMap<(Day, FunctionPath), Totals> = BTreeMap::new();
        for (day, lines) in self.0.days.lock().range(range.clone()) {
            for line in lines.values().flatten() {
                *sums.entry((*day, line.path.clone())).or_default() += line.totals;
            }
        }
        for (day, lines) in self.0.others.lock().range(range) {
            for ((path, ..), totals) in lines {
                *sums.entry((*day, path.clone())).or_default() += *totals;
            }
        }
        let mut totals = Totals::default();
        let mut lines = Vec::with_capacity(sums.len());
        for ((day, path), sum) in sums {
            totals += sum;
            lines.push(ReportLine {
                day,
                path,
                totals: sum,
                cost: prices.cost(&sum),
            });
        }
        Report {
            lines,
            totals,
            cost: prices.cost(&totals),
            currency: prices.currency.clone(),
        }
    }

    /// Writes what is new to `store`, and removes what is too old from it; says how many totals
    /// were written.
    pub async fn flush(&self, store: &dyn Store) -> Result<usize, LedgerError> {
        let _one_at_a_time = self.0.flushing.lock().await;
        let entries = self.dirty();
        let mut written = 0;
        for chunk in entries.chunks(WRITES_MAX) {
            let mut txn = Txn::new();
            for entry in chunk {
                // Totals hold numbers only, which always have a JSON form.
                let value = serde_json::to_vec(&entry.totals).unwrap_or_default();
                txn = txn.put(entry.key(), value);
            }
            if let Err(error) = store.transact(txn).await {
                self.soil(&entries[written..]);
                counter!(USAGE_FLUSH_FAILURES_TOTAL).increment(1);
                return Err(LedgerError::Flush(error));
            }
            written += chunk.len();
        }
        counter!(USAGE_WRITES_TOTAL).increment(written as u64);
        self.expire(store, Day::today()).await?;
        Ok(written)
    }

    /// Reads what `store` holds; before the first invocation, or it would be counted twice. Says
    /// how many totals of this node there were.
    pub async fn restore(&self, store: &dyn Store) -> Result<usize, LedgerError> {
        self.read(store, Range::prefix(PREFIX), true).await
    }

    /// Reads what other nodes have counted today and yesterday: what is older changes no more.
    pub async fn follow(&self, store: &dyn Store) -> Result<(), LedgerError> {
        if self.0.config.node.is_none() {
            return Ok(());
        }
        let yesterday = Day(Day::today().0.saturating_sub(1));
        let recent = Range::between(
            format!("{PREFIX}{:010}/", yesterday.0),
            format!("{PREFIX}{:010}0", u32::MAX),
        );
        self.read(store, recent, false).await.map(drop)
    }

    async fn read(
        &self,
        store: &dyn Store,
        range: Range,
        also_own: bool,
    ) -> Result<usize, LedgerError> {
        let mut next = Some(range);
        let mut own = 0;
        while let Some(range) = next {
            let page = store.range(range.clone()).await;
            let page = page.map_err(LedgerError::Restore)?;
            for stored in &page.entries {
                let Some(entry) = Entry::read(&stored.key, &stored.value) else {
                    let key = String::from_utf8_lossy(&stored.key).into_owned();
                    tracing::warn!(key, "a usage total cannot be read, and is left out");
                    continue;
                };
                if entry.node != self.0.config.node {
                    let key = (entry.path, entry.version, entry.node);
                    let mut others = self.0.others.lock();
                    others
                        .entry(entry.day)
                        .or_default()
                        .insert(key, entry.totals);
                } else if also_own {
                    let mut days = self.0.days.lock();
                    let lines = days.entry(entry.day).or_default();
                    line(lines, &entry.path, &entry.version).totals += entry.totals;
                    own += 1;
                }
            }
            next = range.rest(&page);
        }
        Ok(own)
    }

    /// Flushes at each interval until `stop`, and then once more.
    pub async fn keep_flushed(&self, store: Arc<dyn Store>, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            let wait = tokio::time::timeout(self.0.config.flush_interval, &mut stop);
            let stopped = wait.await.is_ok();
            if let Err(error) = self.flush(&*store).await {
                tracing::warn!(%error, "usage is kept in memory until the store takes it");
            }
            if stopped {
                return;
            }
            if let Err(error) = self.follow(&*store).await {
                tracing::warn!(%error, "usage of other nodes is not seen now");
            }
        }
    }

    /// Takes out what is new since the last flush, and marks it as written.
    fn dirty(&self) -> Vec<Entry> {
        let mut dirty = Vec::new();
        for (day, lines) in self.0.days.lock().iter_mut() {
            for (version, lines) in lines.iter_mut() {
                for line in lines.iter_mut().filter(|line| line.dirty) {
                    line.dirty = false;
                    dirty.push(Entry {
                        day: *day,
                        path: line.path.clone(),
                        version: *version,
                        node: self.0.config.node.clone(),
                        totals: line.totals,
                    });
                }
            }
        }
        dirty
    }

    /// Marks what could not be written as new again.
    fn soil(&self, entries: &[Entry]) {
        let mut days = self.0.days.lock();
        for entry in entries {
            if let Some(lines) = days.get_mut(&entry.day) {
                line(lines, &entry.path, &entry.version).dirty = true;
            }
        }
    }

    async fn expire(&self, store: &dyn Store, today: Day) -> Result<(), LedgerError> {
        let oldest = Day((today.0 + 1).saturating_sub(self.0.config.days_max));
        {
            let mut days = self.0.days.lock();
            let kept = days.split_off(&oldest);
            *days = kept;
            let mut others = self.0.others.lock();
            let kept = others.split_off(&oldest);
            *others = kept;
        }
        let until = format!("{PREFIX}{:010}/", oldest.0);
        let old = Range::between(PREFIX, until).limit(WRITES_MAX);
        loop {
            let page = store.range(old.clone()).await.map_err(LedgerError::Flush)?;
            if page.entries.is_empty() {
                return Ok(());
            }
            let txn = page
                .entries
                .into_iter()
                .fold(Txn::new(), |txn, entry| txn.delete(entry.key));
            let done: Result<_, StorageError> = store.transact(txn).await;
            let _ = done.map_err(LedgerError::Flush)?;
        }
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
