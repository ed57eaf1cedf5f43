//! Epoll: which of many open things can be used, told level by level or change by change.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::descriptor::{Object, OpenId};
use super::errno::Errno;
use super::poll::{ERR, HUP, IN};
use super::process::Process;

/// Tell only what is new.
const EPOLLET: u32 = 1 << 31;
/// Tell once.
const EPOLLONESHOT: u32 = 1 << 30;
/// Bits that are about how, not about what.
const HOW: u32 = EPOLLET | EPOLLONESHOT | 1 << 29 | 1 << 28;
/// Most things that one epoll looks at.
const WATCHED_MAX: usize = 4096;

/// What to do with a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Look at it.
    Add,
    /// Look at it no more.
    Remove,
    /// Look at it otherwise.
    Modify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Watched {
    events: u32,
    data: u64,
    /// What was told last, and the count of changes then; none before.
    told: Option<(u32, u64)>,
    /// Whether it waits to be modified before it tells anything again.
    spent: bool,
}

impl Watched {
    /// Whether it is to be told of changes only, and there is none.
    fn is_old(&self, events: u32, changes: u64) -> bool {
        let same = |(told, at): (u32, u64)| at == changes && events & !told == 0;
        self.events & EPOLLET != 0 && self.told.is_some_and(same)
    }
}

/// An epoll.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Epoll {
    watched: BTreeMap<(i32, OpenId), Watched>,
    /// Where the next look begins, so that all have their turn.
    from: Option<(i32, OpenId)>,
}

/// What an epoll tells: what can be done, and the number that the program gave for it.
pub type Told = (u32, u64);

impl Epoll {
    /// Changes what it looks at.
    pub fn change(
        &mut self,
        change: Change,
        key: (i32, OpenId),
        events: u32,
        data: u64,
    ) -> Result<(), Errno> {
        let there = self.watched.contains_key(&key);
        let watched = Watched {
            events,
            data,
            told: None,
            spent: false,
        };
        match change {
            Change::Add if there => return Err(Errno::EEXIST),
            Change::Add if self.watched.len() >= WATCHED_MAX => return Err(Errno::ENOSPC),
            Change::Modify | Change::Remove if !there => return Err(Errno::ENOENT),
            Change::Add | Change::Modify => {
                self.watched.insert(key, watched);
            }
            Change::Remove => {
                self.watched.remove(&key);
            }
        }
        Ok(())
    }

    /// Looks no more at what is closed.
    pub fn forget(&mut self, id: OpenId) {
        self.watched.retain(|(_, watched), _| *watched != id);
    }

    /// What it looks at, with the bits that it is told of.
    pub fn watched(&self) -> Vec<(OpenId, u32)> {
        let open = self.watched.iter().filter(|(_, watched)| !watched.spent);
        open.map(|((_, id), watched)| (*id, watched.events & !HOW))
            .collect()
    }
}

impl Process {
    /// What the epoll behind a descriptor tells, at most so much, and whether a call would have it
    /// tell more.
    pub fn epoll_told(&mut self, id: OpenId, most: usize) -> Result<(Vec<Told>, bool), Errno> {
        let epoll = self.epoll(id)?;
        let after = epoll.from;
        let mut keys: Vec<_> = epoll.watched.keys().copied().collect();
        let start = after.map_or(0, |after| keys.partition_point(|key| *key <= after));
        keys.rotate_left(start);
        let (mut told, mut awaits) = (Vec::new(), false);
        for key in keys {
            if told.len() >= most {
                break;
            }
            let Ok(ready) = self.ready(key.1) else {
                continue;
            };
            let epoll = self.epoll(id)?;
            let Some(watched) = epoll.watched.get_mut(&key) else {
                continue;
            };
            awaits |= ready.awaits && watched.events & IN != 0 && !watched.spent;
            let events = ready.events & (watched.events & !HOW | ERR | HUP);
            if watched.spent || events == 0 || watched.is_old(events, ready.changes) {
                continue;
            }
            watched.told = Some((events, ready.changes));
            watched.spent = watched.events & EPOLLONESHOT != 0;
            told.push((events, watched.data));
            epoll.from = Some(key);
        }
        Ok((told, awaits))
    }

    /// The epoll behind a descriptor.
    pub fn epoll(&mut self, id: OpenId) -> Result<&mut Epoll, Errno> {
        match &mut self.descriptors.open_mut(id)?.object {
            Object::Epoll(epoll) => Ok(epoll),
            _ => Err(Errno::EINVAL),
        }
    }
}
