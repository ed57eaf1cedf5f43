//! Watching keys of other owners: their changes are fetched and put among this node's own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::task::{AbortHandle, JoinSet};

use super::reply::Reply;
use super::serve::WATCH_WAIT_MAX;
use super::wire::{Request, What};
use super::{Ask, Done, Member, Tier};
use crate::watch::Watcher;
use crate::{AppState, StateError, Watch};

/// The wait after a node did not answer.
const PAUSE: Duration = Duration::from_millis(500);

/// Stops the tasks of a watch when it is dropped.
#[derive(Debug)]
pub(crate) struct Relays(AbortHandle);

impl Drop for Relays {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where changes come from and go to.
#[derive(Clone)]
struct Relay {
    tier: Arc<Tier>,
    app: AppState,
    prefix: String,
    into: Arc<Watcher>,
}

impl AppState {
    /// The changes of the values whose keys begin with `prefix`, from now on, wherever they are.
    /// What of a node's changes cannot be had is told as missed.
    pub async fn watch_all(&self, prefix: &str) -> Result<Watch, StateError> {
        let mut watch = self.watch(prefix)?;
        let Some(tier) = self.0.core.node.tier.clone() else {
            return Ok(watch);
        };
        let relay = Relay {
            tier,
            app: self.clone(),
            prefix: prefix.to_owned(),
            into: watch.watcher(),
        };
        let others = relay.others();
        let begun = others.iter().map(|member| relay.begin(member));
        let begun = join_all(begun).await;
        let relays = tokio::spawn(relay.run(others.into_iter().zip(begun).collect()));
        watch.relay(Relays(relays.abort_handle()));
        Ok(watch)
    }
}

impl Relay {
    fn others(&self) -> Vec<Member> {
        let me = self.tier.cluster.me().map(|me| me.node);
        let members = self.tier.cluster.members().into_iter();
        members
            .filter(|member| Some(&member.node) != me.as_ref())
            .collect()
    }

    /// Follows all nodes as they come and go.
    async fn run(self, begun: Vec<(Member, Option<u64>)>) {
        let mut tasks = JoinSet::new();
        let mut followed: HashMap<Member, AbortHandle> = HashMap::new();
        for (member, watch) in begun {
            let task = tasks.spawn(self.clone().follow(member.clone(), watch));
            followed.insert(member, task);
        }
        let mut changes = self.tier.cluster.changes();
        loop {
            changes.mark_unchanged();
            let others = self.others();
            followed.retain(|member, task| {
                let stays = others.contains(member);
                if !stays {
                    task.abort();
                    self.into.miss(1);
                }
                stays
            });
            for member in others {
                let follow = self.clone().follow(member.clone(), None);
                followed
                    .entry(member)
                    .or_insert_with(|| tasks.spawn(follow));
            }
            tokio::select! {
                biased;
                changed = changes.changed() => if changed.is_err() { return },
                Some(_ended) = tasks.join_next() => {}
            }
        }
    }

    /// Fetches the changes of one node, from watch `number` on.
    async fn follow(self, member: Member, mut number: Option<u64>) {
        loop {
            let Some(watch) = number else {
                number = self.begin(&member).await;
                match number {
                    // There may have been changes before.
                    Some(_) => self.into.miss(1),
                    None => tokio::time::sleep(PAUSE).await,
                }
                continue;
            };
            match self.ask(&member, watch, WATCH_WAIT_MAX).await {
                Some((_, items)) => self.into.take(items),
                None => number = None,
            }
        }
    }

    async fn begin(&self, member: &Member) -> Option<u64> {
        let begun = self.ask(member, 0, Duration::ZERO).await;
        begun.map(|(number, _)| number)
    }

    async fn ask(
        &self,
        member: &Member,
        watch: u64,
        wait: Duration,
    ) -> Option<(u64, Vec<crate::WatchItem>)> {
        let what = What::App {
            app: self.app.name().clone(),
            ask: Ask::Watch {
                prefix: &self.prefix,
                watch,
                wait,
            },
        };
        let from = self.tier.cluster.me()?.token;
        let request = Request { from, what };
        let timeout = self.app.0.core.node.config.ask_timeout + wait;
        match self.tier.ask(member, &request, timeout).await {
            Ok(Reply::Done(Done::Watched(number, items))) => Some((number, items)),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(%error, node = %member.node, "changes are missed");
                None
            }
        }
    }
}
