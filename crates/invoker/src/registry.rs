//! The functions of a node: stored transactionally, looked up in memory.
//!
//! ```text
//!  deploy, alias, rollback, delete ──compare-and-transact──▶ store
//!                                                             │ watch
//!  resolve ◀── map in memory ◀──────── one follower ◀─────────┘
//! ```
//!
//! One task follows the store and alone changes the map, so that the map goes through the same
//! states as the store. Whoever made a change waits until the map shows it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::{Digest, FunctionPath, VersionSpec};
use storage::{Range, Revision, StorageError, Store, Txn, TxnOutcome};
use tokio::sync::Semaphore;

use crate::clock::now_ms;
use crate::function::{ALIASES_MAX, Pointers, Version};
use crate::known::{Follower, Known, PREFIX, Row, parse_key, pointers_key, show, version_key};
use crate::record::{decode, encode};
use crate::{Alias, AliasName, Function, InvokerError, Select, Target};

/// How often a change is tried again because others changed the function meanwhile.
const TRIES_MAX: u32 = 100;
/// How long a change may take to come back to this node's memory.
const FOLLOW_MAX: Duration = Duration::from_secs(10);
/// Calls at once that ask the store for what memory does not know.
const MISSES_MAX: usize = 32;
/// Versions deleted in one transaction.
const DELETE_BATCH: usize = 100;

/// What a deploy did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deployed {
    /// The version's name.
    pub version: Digest,
    /// Whether the version is new.
    pub is_new: bool,
}

/// The functions of a node; cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry {
    store: Arc<dyn Store>,
    known: Arc<Known>,
    misses: Arc<Semaphore>,
    _follower: Arc<Follower>,
}

/// A change of a function.
#[derive(Debug)]
enum Edit {
    Deploy {
        version: Digest,
        spec: Arc<VersionSpec>,
        alias: AliasName,
        routes: Vec<String>,
    },
    Point {
        name: AliasName,
        alias: Alias,
    },
    Unpoint(AliasName),
    RollBack,
    Delete,
}

/// What an edit comes to: a transaction, to which the pointers are still to be added.
#[derive(Debug)]
struct Planned {
    txn: Txn,
    /// None deletes the function.
    pointers: Option<Pointers>,
    /// Whether the version is new.
    is_new: bool,
}

impl Registry {
    /// Loads the functions and follows their changes; call it within a tokio runtime.
    pub async fn open(store: Arc<dyn Store>) -> Result<Self, InvokerError> {
        let (known, follower) = Known::open(&store).await?;
        Ok(Self {
            store,
            known,
            misses: Arc::new(Semaphore::new(MISSES_MAX)),
            _follower: Arc::new(follower),
        })
    }

    /// The version that is meant, from memory; weighted aliases choose by chance.
    pub fn resolve(&self, path: &FunctionPath, select: &Select) -> Result<Target, InvokerError> {
        self.function(path)?.resolve(select, rand::random())
    }

    /// The same; but where memory does not know what is meant, the store is asked, since another
    /// node may have deployed it an instant ago. What memory knows costs what it costs there.
    pub async fn find(&self, path: &FunctionPath, select: &Select) -> Result<Target, InvokerError> {
        use InvokerError::{UnknownAlias, UnknownFunction, UnknownVersion};
        match self.resolve(path, select) {
            Err(UnknownFunction(_) | UnknownAlias { .. } | UnknownVersion { .. }) => {
                self.catch_up(path).await?;
                self.resolve(path, select)
            }
            found => found,
        }
    }

    /// Waits until memory shows the function's last change.
    async fn catch_up(&self, path: &FunctionPath) -> Result<(), InvokerError> {
        // Nobody closes it.
        let permit = self.misses.acquire().await;
        let _permit = permit.map_err(|_| InvokerError::Store(StorageError::Closed))?;
        let pointers = self.store.get(pointers_key(path).as_bytes()).await?;
        match pointers {
            Some(pointers) => self.seen(pointers.revision).await,
            None => Ok(()),
        }
    }

    /// The function whose route leads to `path_and_query`, and how long the route's part of it is;
    /// from memory. The longest route wins.
    pub fn routed(&self, path_and_query: &str) -> Option<(FunctionPath, usize)> {
        self.known.routes.read().lead(path_and_query)
    }

    /// A function, from memory.
    pub fn function(&self, path: &FunctionPath) -> Result<Arc<Function>, InvokerError> {
        let functions = self.known.functions.read();
        let found = functions.get(path).and_then(|slot| slot.function.clone());
        found.ok_or_else(|| InvokerError::UnknownFunction(path.clone()))
    }

    /// Every function, by name, from memory.
    pub fn list(&self) -> Vec<Arc<Function>> {
        let functions = self.known.functions.read();
        let mut all: Vec<_> = functions
            .values()
            .filter_map(|slot| slot.function.clone())
            .collect();
        all.sort_by(|a, b| a.path.cmp(&b.path));
        all
    }

    /// Makes a version and moves `live` to it. Deploying what is live already changes nothing.
    ///
    /// The artifact must be durable before. Deploys that race all succeed; the last one is live.
    pub async fn deploy(
        &self,
        path: &FunctionPath,
        spec: VersionSpec,
    ) -> Result<Deployed, InvokerError> {
        self.deploy_to(path, spec, &AliasName::live(), Vec::new())
            .await
    }

    /// Makes a version and moves `alias` to it; `live` stays where it is, but for the first deploy
    /// of a function, since a function always has one. `routes` take the place of what earlier
    /// deploys set.
    pub async fn deploy_to(
        &self,
        path: &FunctionPath,
        spec: VersionSpec,
        alias: &AliasName,
        routes: Vec<String>,
    ) -> Result<Deployed, InvokerError> {
        spec.settings.limits.check()?;
        if let Some((route, taken_by)) = self.known.routes.read().taken(&routes, path) {
            return Err(InvokerError::RouteTaken { route, taken_by });
        }
        let (version, spec) = (spec.digest(), Arc::new(spec));
        let alias = alias.clone();
        let edit = Edit::Deploy {
            version,
            spec,
            alias,
            routes,
        };
        let done = self.change(path, &edit).await?;
        Ok(Deployed {
            version,
            is_new: done.is_new,
        })
    }

    /// Points an alias, new or not, at versions of the function.
    pub async fn set_alias(
        &self,
        path: &FunctionPath,
        name: &AliasName,
        alias: Alias,
    ) -> Result<(), InvokerError> {
        let edit = Edit::Point {
            name: name.clone(),
            alias,
        };
        self.change(path, &edit).await.map(drop)
    }

    /// Removes an alias other than `live`.
    pub async fn delete_alias(
        &self,
        path: &FunctionPath,
        name: &AliasName,
    ) -> Result<(), InvokerError> {
        if *name == AliasName::live() {
            return Err(InvokerError::LiveIsNeeded(path.clone()));
        }
        let edit = Edit::Unpoint(name.clone());
        self.change(path, &edit).await.map(drop)
    }

    /// Moves `live` back to what it was before its last move; gives what it is now.
    pub async fn roll_back(&self, path: &FunctionPath) -> Result<Alias, InvokerError> {
        let done = self.change(path, &Edit::RollBack).await?;
        let live = done
            .pointers
            .and_then(|mut new| new.aliases.remove(&AliasName::live()));
        live.ok_or_else(|| InvokerError::NothingToRollBackTo(path.clone()))
    }

    /// Deletes a function and its versions. Invocations that wait for it fail; running ones end.
    pub async fn delete(&self, path: &FunctionPath) -> Result<(), InvokerError> {
        self.change(path, &Edit::Delete).await?;
        let range = Range::prefix(format!("{PREFIX}{path}/")).limit(DELETE_BATCH);
        loop {
            let page = self.store.range(range.clone()).await?;
            if page.entries.is_empty() {
                return Ok(());
            }
            let mut txn = Txn::new().if_absent(pointers_key(path));
            for entry in page.entries {
                txn = txn.delete(entry.key);
            }
            // A conflict means that the function was deployed again: its versions are wanted.
            if self.store.transact(txn).await? == TxnOutcome::Conflict {
                return Ok(());
            }
        }
    }

    /// Reads the pointers, plans the edit, and commits it if nobody else changed them meanwhile;
    /// else from the start.
    async fn change(&self, path: &FunctionPath, edit: &Edit) -> Result<Planned, InvokerError> {
        let key = pointers_key(path);
        for _ in 0..TRIES_MAX {
            let stored = self.store.get(key.as_bytes()).await?;
            let revision = stored.as_ref().map(|stored| stored.revision);
            let pointers: Option<Pointers> = stored
                .map(|stored| decode(&key, &stored.value))
                .transpose()?;
            let planned = self.plan(path, edit, pointers.clone()).await?;
            let mut txn = planned.txn.clone();
            if txn.ops.is_empty() && pointers == planned.pointers {
                self.seen(revision.unwrap_or_default()).await?;
                return Ok(planned);
            }
            txn = match revision {
                Some(revision) => txn.if_revision(key.clone(), revision),
                None => txn.if_absent(key.clone()),
            };
            // The pointers come last: who sees them has seen the versions that they need.
            txn = match &planned.pointers {
                Some(new) => txn.put(key.clone(), encode(new)?),
                None => txn.delete(key.clone()),
            };
            if let TxnOutcome::Committed { revision } = self.store.transact(txn).await? {
                self.seen(revision).await?;
                return Ok(planned);
            }
        }
        Err(InvokerError::Contended {
            path: path.clone(),
            tries: TRIES_MAX,
        })
    }

    async fn plan(
        &self,
        path: &FunctionPath,
        edit: &Edit,
        stored: Option<Pointers>,
    ) -> Result<Planned, InvokerError> {
        if let Edit::Deploy {
            version,
            spec,
            alias,
            routes,
        } = edit
        {
            let mut planned = self
                .plan_deploy(path, *version, spec, alias, stored)
                .await?;
            if let Some(pointers) = &mut planned.pointers {
                pointers.routes.clone_from(routes);
            }
            return Ok(planned);
        }
        let mut pointers = stored.ok_or_else(|| InvokerError::UnknownFunction(path.clone()))?;
        let mut txn = Txn::new();
        match edit {
            Edit::Point { name, alias } => {
                if !pointers.aliases.contains_key(name) && pointers.aliases.len() >= ALIASES_MAX {
                    let (what, max) = ("aliases", ALIASES_MAX);
                    return Err(InvokerError::TooMany {
                        path: path.clone(),
                        what,
                        max,
                    });
                }
                txn = self.only_if_there(path, alias).await?;
                pointers.set(name, alias.clone(), now_ms());
            }
            Edit::Unpoint(name) => {
                if pointers.aliases.remove(name).is_none() {
                    let (path, alias) = (path.clone(), name.clone());
                    return Err(InvokerError::UnknownAlias { path, alias });
                }
            }
            Edit::RollBack => {
                let nothing = || InvokerError::NothingToRollBackTo(path.clone());
                pointers.roll_back(now_ms()).ok_or_else(nothing)?;
            }
            Edit::Delete => {
                return Ok(Planned {
                    txn,
                    pointers: None,
                    is_new: false,
                });
            }
            Edit::Deploy { .. } => {}
        }
        Ok(Planned {
            txn,
            pointers: Some(pointers),
            is_new: false,
        })
    }

    async fn plan_deploy(
        &self,
        path: &FunctionPath,
        version: Digest,
        spec: &Arc<VersionSpec>,
        alias: &AliasName,
        stored: Option<Pointers>,
    ) -> Result<Planned, InvokerError> {
        let now = now_ms();
        let mut txn = Txn::new();
        let versions = self.stored_versions(path, stored.is_some()).await?;
        let is_new = !versions.contains_key(&version);
        if is_new {
            let stored = Version {
                spec: spec.clone(),
                created_ms: now,
            };
            txn = txn.put(version_key(path, &version), encode(&stored)?);
        }
        let mut pointers = stored.unwrap_or_else(|| Pointers::new(version, now));
        let fits = pointers.aliases.len() < ALIASES_MAX || pointers.aliases.contains_key(alias);
        if !fits {
            let (path, what, max) = (path.clone(), "aliases", ALIASES_MAX);
            return Err(InvokerError::TooMany { path, what, max });
        }
        pointers.set(alias, Alias::to(version), now);
        let function = Function {
            path: path.clone(),
            pointers,
            versions,
        };
        if is_new {
            for surplus in function.surplus() {
                txn = txn.delete(version_key(path, &surplus));
            }
        }
        Ok(Planned {
            txn,
            pointers: Some(function.pointers),
            is_new,
        })
    }

    /// A transaction that takes effect only while all versions of `alias` are there.
    async fn only_if_there(&self, path: &FunctionPath, alias: &Alias) -> Result<Txn, InvokerError> {
        let mut txn = Txn::new();
        for target in alias.targets() {
            let version = target.version;
            let key = version_key(path, &version);
            let found = self.store.get(key.as_bytes()).await?;
            let unknown = || InvokerError::UnknownVersion {
                path: path.clone(),
                version,
            };
            txn = txn.if_revision(key, found.ok_or_else(unknown)?.revision);
        }
        Ok(txn)
    }

    /// Waits until the map shows `revision`.
    async fn seen(&self, revision: Revision) -> Result<(), InvokerError> {
        let mut seen = self.known.seen.subscribe();
        let shown = seen.wait_for(|seen| *seen >= revision);
        match tokio::time::timeout(FOLLOW_MAX, shown).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(InvokerError::Behind),
        }
    }

    async fn stored_versions(
        &self,
        path: &FunctionPath,
        is_deployed: bool,
    ) -> Result<BTreeMap<Digest, Version>, InvokerError> {
        let mut versions = BTreeMap::new();
        let mut next = is_deployed.then(|| Range::prefix(format!("{PREFIX}{path}/")));
        while let Some(range) = next {
            let page = self.store.range(range.clone()).await?;
            for entry in &page.entries {
                if let Some((_, Row::Version(digest))) = parse_key(&entry.key) {
                    versions.insert(digest, decode(&show(&entry.key), &entry.value)?);
                }
            }
            next = range.rest(&page);
        }
        Ok(versions)
    }
}
