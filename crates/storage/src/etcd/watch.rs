//! Watches that outlive the member that serves them.
//!
//! ```text
//!  open on a member ──created──▶ events ─▶ Progress: which are new? ─▶ bounded buffer ─▶ watcher
//!     ▲                            │ the stream breaks
//!     └── next member, from where ─┘
//!         Progress stands          └ the revision is compacted ⇒ Lagged
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tonic::Streaming;

use super::fault::{Fault, Told};
use super::member::{self, Member};
use super::members::{Members, Repeat};
use super::{range, wire};
use crate::{Change, Event, Range, Revision, Watch};

/// How far a watcher has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    /// All events up to here have been passed on.
    whole: Revision,
    /// Of a later revision, so many.
    part: (Revision, usize),
    /// What the present stream has shown: a revision, and how many of its events.
    shown: (Revision, usize),
}

impl Progress {
    fn after(whole: Revision) -> Self {
        Self {
            whole,
            ..Self::default()
        }
    }

    /// A new stream begins. It shows `whole` once more: were that revision itself forgotten, then
    /// etcd would not say that a part of the next one may be, too.
    fn restart(&mut self) -> i64 {
        self.shown = (Revision(0), 0);
        self.whole.0.cast_signed().max(1)
    }

    /// Whether the next event of the stream, which has this revision, is new.
    fn is_new(&mut self, revision: Revision) -> bool {
        if self.shown.0 != revision {
            self.shown = (revision, 0);
        }
        self.shown.1 += 1;
        let passed_on = revision == self.part.0 && self.shown.1 <= self.part.1;
        if revision <= self.whole || passed_on {
            return false;
        }
        self.part = self.shown;
        true
    }

    /// Everything up to `revision` has been shown.
    fn complete(&mut self, revision: Revision) {
        self.whole = self.whole.max(revision);
    }
}

/// One watch of the store.
pub struct Follower {
    members: Arc<Members>,
    prefix_bytes: usize,
    key: Bytes,
    range_end: Bytes,
    progress: Progress,
    live: mpsc::Sender<Event>,
    lagged: Arc<AtomicBool>,
}

/// Why a watch is over.
enum End {
    /// Nobody listens, or the store is closed.
    Left,
    /// Events are missing.
    Lagged,
}

impl Follower {
    /// Opens the watch and goes on with it in a task, until `closed` closes.
    pub async fn start(
        members: Arc<Members>,
        store_prefix: &[u8],
        prefix: &[u8],
        from: Option<Revision>,
        buffer_events: usize,
        closed: watch::Receiver<()>,
    ) -> Result<Watch, Fault> {
        let (key, range_end) = range::bounds(store_prefix, &Range::prefix(prefix));
        let (live, receiver) = mpsc::channel(buffer_events.max(1));
        let lagged = Arc::new(AtomicBool::new(false));
        let mut follower = Self {
            members,
            prefix_bytes: store_prefix.len(),
            key,
            range_end,
            progress: Progress::after(from.unwrap_or_default()),
            live,
            lagged: lagged.clone(),
        };
        match follower.open(from.is_some()).await {
            Ok((now, stream)) => {
                if from.is_none() {
                    follower.progress.complete(now);
                }
                tokio::spawn(follower.run(stream, closed));
            }
            Err(Fault::Compacted) => lagged.store(true, Ordering::Release),
            Err(fault) => return Err(fault),
        }
        Ok(Watch::new(VecDeque::new(), receiver, lagged))
    }

    /// A stream from where the watcher stands, or from the present, which comes with it.
    async fn open(
        &mut self,
        from_progress: bool,
    ) -> Result<(Revision, Streaming<wire::WatchResponse>), Fault> {
        let start = self.progress.restart();
        let start = from_progress.then_some(start);
        let (key, range_end) = (&self.key, &self.range_end);
        let opened = self.members.ask(Repeat::Free, |member| {
            open_at(member, key, range_end, start)
        });
        opened.await.map(|opened| opened.reply)
    }

    async fn run(
        mut self,
        mut stream: Streaming<wire::WatchResponse>,
        mut closed: watch::Receiver<()>,
    ) {
        let (live, lagged) = (self.live.clone(), self.lagged.clone());
        let followed = async {
            loop {
                if let Some(end) = self.follow(&mut stream).await {
                    return end;
                }
                match self.reopen().await {
                    Ok(again) => stream = again,
                    Err(end) => return end,
                }
            }
        };
        let end = tokio::select! {
            end = followed => end,
            () = live.closed() => End::Left,
            // An error is what a sender that is gone looks like.
            _ = closed.changed() => End::Left,
        };
        lagged.store(matches!(end, End::Lagged), Ordering::Release);
    }

    /// Passes events on until the stream breaks (none), or the watch is over.
    async fn follow(&mut self, stream: &mut Streaming<wire::WatchResponse>) -> Option<End> {
        loop {
            let response = match member::next(stream).await {
                Ok(response) => response,
                // It would be again, from another member.
                Err(Fault::TooLarge(_)) => return Some(End::Lagged),
                Err(fault) => {
                    tracing::debug!(?fault, "a member gave up a watch");
                    return None;
                }
            };
            if response.canceled {
                // Compacted, or no longer permitted: who reads the range again is told which.
                tracing::warn!(why = response.cancel_reason, "a watch was cancelled");
                return Some(End::Lagged);
            }
            let mut last = None;
            for event in response.events {
                let event = self.event(event)?;
                last = Some(event.revision);
                if self.progress.is_new(event.revision) && self.live.send(event).await.is_err() {
                    return Some(End::Left);
                }
            }
            // An answer without events tells how far the member has looked.
            let whole = last.unwrap_or_else(|| range::revision(response.header));
            if !response.fragment {
                self.progress.complete(whole);
            }
        }
    }

    /// Tries until a member serves the watch again: there is nobody to whom to give an error.
    async fn reopen(&mut self) -> Result<Streaming<wire::WatchResponse>, End> {
        let mut told = false;
        loop {
            match self.open(true).await {
                Ok((_, stream)) => return Ok(stream),
                Err(Fault::NotTaken(cause) | Fault::Unanswered(cause)) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%cause, "no member serves a watch; it will be tried on");
                    }
                }
                Err(fault) => {
                    tracing::warn!(?fault, "a watch cannot go on");
                    return Err(End::Lagged);
                }
            }
        }
    }

    /// None for an event without a key, which etcd does not send: as if the stream had broken.
    fn event(&self, event: wire::Event) -> Option<Event> {
        let kv = event.kv.filter(|kv| kv.key.len() >= self.prefix_bytes)?;
        Some(Event {
            key: kv.key.slice(self.prefix_bytes..),
            change: match event.kind {
                wire::DELETED => Change::Delete,
                _ => Change::Put(kv.value),
            },
            revision: Revision(kv.mod_revision.cast_unsigned()),
        })
    }
}

/// A stream from `start` or the present, and the cluster's revision as this member learns it.
///
/// It is read first: that finds out about a token which is no good any more, where a watch would
/// only be refused, and it waits until the member knows the present.
async fn open_at(
    member: &Member,
    key: &Bytes,
    range_end: &Bytes,
    start: Option<i64>,
) -> Result<(Revision, Streaming<wire::WatchResponse>), Fault> {
    let read = wire::RangeRequest {
        key: key.clone(),
        count_only: true,
        ..wire::RangeRequest::default()
    };
    let read: wire::RangeResponse = member.ask(wire::RANGE, read).await?;
    let now = range::revision(read.header);
    let create = wire::WatchCreate {
        key: key.clone(),
        range_end: range_end.clone(),
        start_revision: start.unwrap_or(now.0.cast_signed()).max(1),
        progress_notify: true,
        fragment: true,
    };
    let question = wire::WatchRequest {
        create: Some(create),
    };
    let mut stream = member.follow(wire::WATCH, question).await?;
    let created: wire::WatchResponse = member::next(&mut stream).await?;
    match created.canceled {
        true if created.compact_revision > 0 => Err(Fault::Compacted),
        true => Err(Fault::Refused(Arc::new(Told(created.cancel_reason)))),
        false => Ok((now, stream)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Streams of revisions, each broken off where it ends, against what gets through.
    fn check(from: u64, streams: &[&[u64]], expected: &[u64]) {
        let mut progress = Progress::after(Revision(from));
        let mut passed_on: Vec<u64> = Vec::new();
        for stream in streams {
            assert!(progress.restart() <= (progress.whole.0 + 1).cast_signed());
            passed_on.extend(stream.iter().filter(|r| progress.is_new(Revision(**r))));
        }
        assert_eq!(passed_on, expected, "{streams:?}");
    }

    #[test]
    fn a_watch_that_is_opened_again_repeats_and_loses_nothing() {
        check(3, &[&[3, 4, 5]], &[4, 5]);
        check(3, &[&[4, 4], &[4, 4, 4, 5]], &[4, 4, 4, 5]);
        check(3, &[&[4], &[4], &[4, 4], &[3, 4, 4, 6]], &[4, 4, 6]);
        check(0, &[&[], &[1, 2]], &[1, 2]);
    }

    #[test]
    fn what_is_complete_is_not_asked_for_again() {
        let mut progress = Progress::after(Revision(0));
        assert_eq!(progress.restart(), 1, "0 would mean the present");
        assert!(progress.is_new(Revision(4)));
        assert!(progress.is_new(Revision(4)));
        assert_eq!(progress.restart(), 1, "half of a revision is not whole");
        progress.complete(Revision(4));
        assert_eq!(progress.restart(), 4);
        assert!(!progress.is_new(Revision(4)));
        progress.complete(Revision(3));
        assert_eq!(progress.whole, Revision(4), "it never goes back");
    }
}
