//! Pages of a range, read in pieces at one revision.
//!
//! A page may hold 10,000 small entries or 16 large ones. A member reads all that a request may
//! give before it sends any, so the pieces begin small and grow while entries prove to be small.

use bytes::Bytes;

use super::fault::Fault;
use super::members::{Members, Repeat};
use super::wire;
use crate::store::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX, VALUE_BYTES_MAX};
use crate::{Entry, Page, Range, Revision};

/// Entries of the first piece: with the largest values it is half of what is read at once.
const PIECE_MIN: usize = super::member::ANSWER_BYTES_MAX / 2 / VALUE_BYTES_MAX;
const PIECE_MAX: usize = 1000;

/// What is asked: the store's keys begin with `prefix`.
pub struct Reader<'a> {
    pub members: &'a Members,
    pub prefix: &'a [u8],
    pub range: &'a Range,
}

impl Reader<'_> {
    /// The page; a revision that is forgotten meanwhile is [`Fault::Compacted`].
    pub async fn page(&self) -> Result<Page, Fault> {
        let limit = self.range.limit.min(PAGE_ENTRIES_MAX);
        let is_empty = (self.range.end.as_ref()).is_some_and(|end| *end <= self.range.start);
        if is_empty || limit == 0 {
            return self.count(is_empty).await;
        }
        let mut page = Page {
            entries: Vec::new(),
            more: true,
            revision: Revision(0),
        };
        let (mut next, mut piece, mut bytes) = (self.range.clone(), PIECE_MIN, 0);
        while page.more && page.entries.len() < limit && bytes < PAGE_BYTES_MAX {
            let asked = piece.min(limit - page.entries.len());
            let found = match self.read(&next, asked, page.revision).await {
                Err(Fault::TooLarge(_)) if piece > PIECE_MIN => {
                    piece = PIECE_MIN;
                    continue;
                }
                found => found?,
            };
            if page.revision == Revision(0) {
                page.revision = revision(found.header);
            }
            let more = self.take(found, &mut page, &mut bytes);
            page.more = more;
            let Some(rest) = next.rest(&page) else {
                break;
            };
            next = rest;
            piece = next_piece(piece, page.entries.len(), bytes);
        }
        Ok(page)
    }

    /// Adds a piece to the page, up to the page's size; whether the range holds more.
    fn take(&self, piece: wire::RangeResponse, page: &mut Page, bytes: &mut usize) -> bool {
        let count = piece.kvs.len();
        for (taken, kv) in piece.kvs.into_iter().enumerate() {
            *bytes += kv.key.len() - self.prefix.len() + kv.value.len();
            page.entries.push(Entry {
                key: kv.key.slice(self.prefix.len()..),
                value: kv.value,
                revision: Revision(kv.mod_revision.cast_unsigned()),
            });
            if *bytes >= PAGE_BYTES_MAX {
                return piece.more || taken + 1 < count;
            }
        }
        piece.more
    }

    async fn read(
        &self,
        range: &Range,
        limit: usize,
        at: Revision,
    ) -> Result<wire::RangeResponse, Fault> {
        let (key, range_end) = bounds(self.prefix, range);
        self.ask(wire::RangeRequest {
            key,
            range_end,
            limit: i64::try_from(limit).unwrap_or(i64::MAX),
            revision: at.0.cast_signed(),
            sort_order: if range.reverse { wire::DESCENDING } else { 0 },
            count_only: false,
        })
        .await
    }

    /// A page without entries; etcd has its own meaning for a limit of 0 and for no range.
    async fn count(&self, is_empty: bool) -> Result<Page, Fault> {
        let (key, range_end) = bounds(self.prefix, self.range);
        let found = self.ask(wire::RangeRequest {
            key,
            range_end: if is_empty { Bytes::new() } else { range_end },
            count_only: true,
            ..wire::RangeRequest::default()
        });
        let found = found.await?;
        Ok(Page {
            entries: Vec::new(),
            more: !is_empty && found.count > 0,
            revision: revision(found.header),
        })
    }

    async fn ask(&self, request: wire::RangeRequest) -> Result<wire::RangeResponse, Fault> {
        let asked = self.members.ask(Repeat::Free, |member| {
            member.ask(wire::RANGE, request.clone())
        });
        asked.await.map(|answer| answer.reply)
    }
}

/// A revision of an answer's head.
pub fn revision(header: Option<wire::Header>) -> Revision {
    Revision(header.map_or(0, |header| header.revision.max(0).cast_unsigned()))
}

/// First key and end, in etcd's keys.
pub fn bounds(prefix: &[u8], range: &Range) -> (Bytes, Bytes) {
    let under = |key: &[u8]| [prefix, key].concat();
    let end = match &range.end {
        Some(end) => under(end),
        // The prefix is not empty and ends in a slash, so there is a key after all of its keys.
        None => Range::prefix(prefix).end.unwrap_or_default(),
    };
    (under(&range.start).into(), end.into())
}

/// How many entries to ask for next: as many as fill the page if they are like those so far.
fn next_piece(piece: usize, entries: usize, bytes: usize) -> usize {
    let entry = (bytes / entries.max(1)).max(1);
    let room = PAGE_BYTES_MAX.saturating_sub(bytes) / entry + 1;
    room.min(piece * 8).clamp(PIECE_MIN, PIECE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_under_the_prefix() {
        let check = |range: Range, key: &str, end: &str| {
            let (found, found_end) = bounds(b"p/", &range);
            assert_eq!(
                (found, found_end),
                (key.to_owned().into(), end.to_owned().into())
            );
        };
        check(Range::prefix(""), "p/", "p0");
        check(Range::prefix("a/"), "p/a/", "p/a0");
        check(Range::between("a", "b"), "p/a", "p/b");
        let (key, end) = bounds(b"p/", &Range::prefix([0xff]));
        assert_eq!((&key[..], &end[..]), (&b"p/\xff"[..], &b"p0"[..]));
    }

    #[test]
    fn pieces_grow_with_small_entries_only() {
        assert_eq!(next_piece(64, 64, 64 * 100), 512);
        assert_eq!(next_piece(512, 576, 57_600), PIECE_MAX);
        assert_eq!(next_piece(64, 64, 64 * 100_000), PIECE_MIN);
    }
}
