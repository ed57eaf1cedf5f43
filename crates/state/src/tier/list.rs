//! Listing keys of all owners, and watching them.

use std::collections::BTreeMap;

use super::reply::Reply;
use super::route::odd;
use super::wire::{Request, What};
use super::{Ask, Done, Member, SLOTS, Tier};
use crate::{AppState, ClusterError, LIST_KEYS_MAX, Listed, StateError};

impl AppState {
    /// The values whose keys begin with `prefix` and come after `after`, in order, wherever they
    /// are; at most `limit` or [`LIST_KEYS_MAX`], whichever is less. In a cluster, each owner's are
    /// of a moment of its own, and it fails while a part of the keys has no owner.
    pub async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Listed>, StateError> {
        let limit = limit.min(LIST_KEYS_MAX);
        match &self.0.core.node.tier {
            None => self.list_here(prefix, after, limit).await,
            Some(tier) => tier.list(self, prefix, after, limit).await,
        }
    }
}

impl Tier {
    async fn list(
        &self,
        app: &AppState,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Listed>, StateError> {
        let me = self.cluster.me();
        let Member { node, token } = me.ok_or(StateError::Unreached(None))?;
        let before = self.slots.map();
        let mut found = BTreeMap::new();
        let here = app.list_here(prefix, after, limit).await?;
        let mut answered = self.slots.map();
        for (answered, before) in answered.iter_mut().zip(before) {
            *answered &= before;
        }
        found.extend(here.into_iter().map(|one| (one.key, one.info)));
        let others = self.cluster.members();
        let others = others.into_iter().filter(|member| member.node != node);
        let asked = others.map(|member| async move {
            let what = What::App {
                app: app.name().clone(),
                ask: Ask::List {
                    prefix,
                    after,
                    limit: limit as u64,
                },
            };
            let from = token;
            let request = Request { from, what };
            let timeout = app.0.core.node.config.ask_timeout;
            self.ask(&member, &request, timeout).await
        });
        let mut failed: Option<ClusterError> = None;
        for reply in futures::future::join_all(asked).await {
            match reply {
                Ok(Reply::Done(Done::Listed(slots, listed))) => {
                    let maps = answered.iter_mut().zip(slots);
                    maps.for_each(|(answered, slots)| *answered |= slots);
                    found.extend(listed.into_iter().map(|one| (one.key, one.info)));
                }
                Ok(Reply::Done(other)) => return Err(odd(&other)),
                Ok(Reply::Refused(error)) => return Err(error),
                // Whether it mattered, the slots tell.
                Ok(_) => {}
                Err(error) => failed = Some(error),
            }
        }
        if answered != [u8::MAX; SLOTS / 8] {
            return Err(StateError::Unreached(failed));
        }
        let listed = found.into_iter();
        let listed = listed.map(|(key, info)| Listed { key, info });
        Ok(listed.take(limit).collect())
    }
}
