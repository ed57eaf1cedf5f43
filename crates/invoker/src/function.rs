//! A deployed function: its versions, its aliases, and how deploys and rollbacks change them.
//! Pure; the registry stores what comes out.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use model::{Digest, FunctionName, FunctionPath, NameError, VersionSpec};
use serde::{Deserialize, Serialize};

use crate::InvokerError;

/// Most versions an alias can point at.
pub const ALIAS_TARGETS_MAX: usize = 16;
/// Most aliases of a function.
pub const ALIASES_MAX: usize = 64;
/// How many earlier values of `live` a rollback can go back through.
pub const PREVIOUS_MAX: usize = 32;
/// Versions kept of a function; deploying one more drops the oldest that nothing points at.
pub const VERSIONS_MAX: usize = 1000;

/// Versions dropped by one deploy, so that its transaction stays small.
const SURPLUS_MAX: usize = 64;

/// The name of an alias: a DNS label, such as `live`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AliasName(FunctionName);

impl AliasName {
    /// `live`: what is called when nothing else is asked for; deploys move it.
    pub fn live() -> Self {
        static LIVE: LazyLock<AliasName> = LazyLock::new(|| match "live".parse() {
            Ok(name) => name,
            Err(_) => unreachable!("`live` is a DNS label"),
        });
        LIVE.clone()
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for AliasName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.parse().map(Self)
    }
}

impl fmt::Display for AliasName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for AliasName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A version and its share of an alias's calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weighted {
    /// The version.
    pub version: Digest,
    /// Its share, out of the sum of all weights of the alias.
    pub weight: u32,
}

/// A movable, weighted pointer to versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    targets: Vec<Weighted>,
}

impl Alias {
    /// All calls to one version.
    pub fn to(version: Digest) -> Self {
        Self {
            targets: vec![Weighted { version, weight: 1 }],
        }
    }

    /// Calls shared out by weight.
    pub fn new(targets: Vec<Weighted>) -> Result<Self, InvokerError> {
        let refuse = |why| Err(InvokerError::AliasTargets(why));
        if targets.is_empty() || targets.len() > ALIAS_TARGETS_MAX {
            return refuse("give it 1 to 16 versions");
        }
        if targets
            .iter()
            .any(|target| target.weight == 0 || target.weight > 1_000_000)
        {
            return refuse("a weight must be between 1 and 1000000");
        }
        let mut versions: Vec<_> = targets.iter().map(|target| target.version).collect();
        versions.sort();
        if versions.windows(2).any(|pair| pair[0] == pair[1]) {
            return refuse("name each version once");
        }
        Ok(Self { targets })
    }

    /// The versions and their weights.
    pub fn targets(&self) -> &[Weighted] {
        &self.targets
    }

    /// The version for a `ticket`, any number: tickets are shared out in proportion to weights.
    pub fn choose(&self, ticket: u64) -> Digest {
        let total: u64 = self
            .targets
            .iter()
            .map(|target| u64::from(target.weight))
            .sum();
        let mut left = ticket % total.max(1);
        for target in &self.targets {
            match left.checked_sub(target.weight.into()) {
                Some(rest) => left = rest,
                None => return target.version,
            }
        }
        self.targets[0].version
    }
}

/// Which version of a function is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Select {
    /// What `live` points at.
    #[default]
    Live,
    /// What this alias points at.
    Alias(AliasName),
    /// This version.
    Version(Digest),
}

impl FromStr for Select {
    type Err = InvokerError;

    /// `sha256:…` names a version, anything else an alias.
    fn from_str(text: &str) -> Result<Self, InvokerError> {
        if let Ok(version) = text.parse() {
            return Ok(Select::Version(version));
        }
        Ok(Select::Alias(text.parse()?))
    }
}

/// One version of one function, ready to run.
#[derive(Clone, Debug)]
pub struct Target {
    /// The function.
    pub path: FunctionPath,
    /// The version's name.
    pub version: Digest,
    /// What it is made of.
    pub spec: Arc<VersionSpec>,
}

/// An immutable version, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// What it is made of.
    pub spec: Arc<VersionSpec>,
    /// When it was first deployed, in milliseconds since 1970.
    pub created_ms: u64,
}

/// The movable part of a function, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointers {
    /// When the function was first deployed, in milliseconds since 1970.
    pub created_ms: u64,
    /// When `live` last moved.
    pub changed_ms: u64,
    /// Every alias; `live` is always there.
    pub aliases: BTreeMap<AliasName, Alias>,
    /// What `live` was before, oldest first.
    pub previous: Vec<Alias>,
    /// Path prefixes that lead to the function, beside its name; the last deploy's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<String>,
}

impl Pointers {
    /// A new function whose `live` is `version`.
    pub fn new(version: Digest, now_ms: u64) -> Self {
        let aliases = BTreeMap::from([(AliasName::live(), Alias::to(version))]);
        Self {
            created_ms: now_ms,
            changed_ms: now_ms,
            aliases,
            previous: Vec::new(),
            routes: Vec::new(),
        }
    }

    /// Points `name` elsewhere; what `live` was is kept for a rollback.
    pub fn set(&mut self, name: &AliasName, alias: Alias, now_ms: u64) {
        let old = self.aliases.insert(name.clone(), alias.clone());
        if *name != AliasName::live() {
            return;
        }
        if let Some(old) = old.filter(|old| *old != alias) {
            self.previous.push(old);
            let surplus = self.previous.len().saturating_sub(PREVIOUS_MAX);
            self.previous.drain(..surplus);
            self.changed_ms = now_ms;
        }
    }

    /// Points `live` at what it was before; none when there is nothing before.
    pub fn roll_back(&mut self, now_ms: u64) -> Option<Alias> {
        let previous = self.previous.pop()?;
        self.aliases.insert(AliasName::live(), previous.clone());
        self.changed_ms = now_ms;
        Some(previous)
    }

    /// Whether an alias, or a rollback, leads to `version`.
    pub fn lead_to(&self, version: &Digest) -> bool {
        let all = self.aliases.values().chain(&self.previous);
        all.flat_map(Alias::targets)
            .any(|target| target.version == *version)
    }
}

/// A function as a node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub path: FunctionPath,
    /// Its aliases.
    pub pointers: Pointers,
    /// Its versions.
    pub versions: BTreeMap<Digest, Version>,
}

impl Function {
    /// The version that is meant; `ticket` decides among an alias's targets.
    pub fn resolve(&self, select: &Select, ticket: u64) -> Result<Target, InvokerError> {
        let path = || self.path.clone();
        let alias = |name: &AliasName| {
            let alias = self.pointers.aliases.get(name);
            let unknown = || InvokerError::UnknownAlias {
                path: path(),
                alias: name.clone(),
            };
            alias.map(|alias| alias.choose(ticket)).ok_or_else(unknown)
        };
        let version = match select {
            Select::Live => alias(&AliasName::live())?,
            Select::Alias(name) => alias(name)?,
            Select::Version(version) => *version,
        };
        let found = self.versions.get(&version);
        let found = found.ok_or_else(|| InvokerError::UnknownVersion {
            path: path(),
            version,
        })?;
        Ok(Target {
            path: path(),
            version,
            spec: found.spec.clone(),
        })
    }

    /// The versions that one more deploy pushes out: the oldest that nothing leads to.
    pub fn surplus(&self) -> Vec<Digest> {
        let over = (self.versions.len() + 1).saturating_sub(VERSIONS_MAX);
        let mut free: Vec<_> = self
            .versions
            .iter()
            .filter(|(digest, _)| !self.pointers.lead_to(digest))
            .map(|(digest, version)| (version.created_ms, *digest))
            .collect();
        free.sort();
        free.into_iter()
            .take(over.min(SURPLUS_MAX))
            .map(|(_, digest)| digest)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(n: u8) -> Digest {
        Digest::of(&[n])
    }

    fn weighted(weights: &[u32]) -> Vec<Weighted> {
        let target = |(n, weight): (usize, &u32)| Weighted {
            version: version(n as u8),
            weight: *weight,
        };
        weights.iter().enumerate().map(target).collect()
    }

    #[test]
    fn tickets_are_shared_out_exactly_by_weight() {
        let check = |weights: &[u32]| {
            let alias = Alias::new(weighted(weights)).unwrap();
            let total: u32 = weights.iter().sum();
            for (n, weight) in weights.iter().enumerate() {
                let tickets = 7 * u64::from(total)..8 * u64::from(total);
                let hits = tickets
                    .filter(|t| alias.choose(*t) == version(n as u8))
                    .count();
                assert_eq!(hits, *weight as usize, "target {n} of {weights:?}");
            }
        };
        for weights in [&[1][..], &[1, 1], &[90, 10], &[1, 2, 3, 4], &[1, 999]] {
            check(weights);
        }
    }

    #[test]
    fn an_alias_that_points_nowhere_or_twice_is_refused() {
        let twice = vec![
            Weighted {
                version: version(1),
                weight: 1
            };
            2
        ];
        let many = weighted(&[1; 17]);
        for targets in [vec![], weighted(&[0]), weighted(&[1_000_001]), twice, many] {
            assert!(Alias::new(targets.clone()).is_err(), "{targets:?}");
        }
    }

    #[test]
    fn rolling_back_goes_through_what_was_live() {
        let live = |p: &Pointers| p.aliases[&AliasName::live()].choose(0);
        let mut pointers = Pointers::new(version(1), 0);
        for n in [2, 2, 3] {
            pointers.set(&AliasName::live(), Alias::to(version(n)), 0);
        }
        let mut seen = Vec::new();
        while pointers.roll_back(0).is_some() {
            seen.push(live(&pointers));
        }
        assert_eq!(seen, [version(2), version(1)]);
        assert_eq!(live(&pointers), version(1));
    }

    #[test]
    fn only_so_many_earlier_values_are_kept() {
        let mut pointers = Pointers::new(version(0), 0);
        for n in 1..=255 {
            pointers.set(&AliasName::live(), Alias::to(version(n)), 0);
        }
        assert_eq!(pointers.previous.len(), PREVIOUS_MAX);
    }

    #[test]
    fn a_selection_is_a_version_or_an_alias() {
        let digest = version(1);
        let select = |text: &str| text.parse::<Select>();
        assert_eq!(
            select(&digest.to_string()).unwrap(),
            Select::Version(digest)
        );
        assert_eq!(
            select("beta").unwrap(),
            Select::Alias("beta".parse().unwrap())
        );
        assert!(select("../x").is_err() && select("").is_err());
    }
}
