//! Keys and values of the store, as the global tier writes them. Integers in keys are big-endian,
//! so that they sort; those in values are little-endian.
//!
//! | key after the prefix | value |
//! |---|---|
//! | `h/APP/KEY` | format (1), version (8), size (8), expires_ms (8) |
//! | `t/APP/KEY\0` page (4) | [`Place`]s of [`PAGE_CHUNKS`] chunks (8 each), 0 for zeros |
//! | `c/APP/KEY\0` number (4) version (8) | a chunk, without zeros at its end |
//! | `b/APP/KEY\0` number (4) version (8) | the digest of a blob: this key, then the chunk |
//! | `i/APP/KEY` | nothing: chunks of the value may be left over |
//! | `x/` expires_ms (8) `APP/KEY` | nothing |
//! | `f/APP` | the greatest version of a removed value (8) |
//! | `m/` slot (3 digits) `/APP` | whether values are in memory only (1), when some were lost (8) |
//! | `r/` slot (3 digits) | who has copies of values: see `tier/copies/record.rs` |
//! | `v` | a number above which no version was given when it was written (8) |

use bytes::Bytes;
use model::AppName;

use crate::global::Head;
use crate::{GlobalError, Name};

const PREFIX: &str = "state/1/";
const FORMAT: u8 = 1;
/// Chunks whose versions are in one page of a value's table.
pub(crate) const PAGE_CHUNKS: usize = 512;

const WORD_BYTES: usize = 8;

pub(crate) fn head_key(name: &Name) -> Bytes {
    format!("{PREFIX}h/{name}").into()
}

pub(crate) fn heads_prefix(app: &AppName) -> String {
    format!("{PREFIX}h/{app}/")
}

pub(crate) fn table_key(name: &Name, page: usize) -> Bytes {
    let mut key = format!("{PREFIX}t/{name}\0").into_bytes();
    key.extend_from_slice(&(page as u32).to_be_bytes());
    key.into()
}

/// Which of a chunk's versions counts, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub version: u64,
    /// In a blob, whose name is in the store.
    pub in_bucket: bool,
}

/// Set in a table where the chunk is in a blob; versions are less.
const IN_BUCKET: u64 = 1 << 63;

impl Place {
    /// Where a table's word says that a chunk is; none if it is all zeros.
    pub fn of(word: u64) -> Option<Self> {
        (word != 0).then_some(Self {
            version: word & !IN_BUCKET,
            in_bucket: word & IN_BUCKET != 0,
        })
    }

    /// What a table says of it.
    pub fn word(self) -> u64 {
        match self.in_bucket {
            true => self.version | IN_BUCKET,
            false => self.version,
        }
    }

    /// The store's key of the chunk, or of its blob's name.
    pub fn key(self, name: &Name, number: usize) -> Bytes {
        match self.in_bucket {
            true => blob_key(name, number, self.version),
            false => chunk_key(name, number, self.version),
        }
    }
}

/// The keys of all chunks of a value that are in the store begin with this.
pub(crate) fn chunks_prefix(name: &Name) -> Vec<u8> {
    format!("{PREFIX}c/{name}\0").into_bytes()
}

/// The keys of all names of a value's blobs begin with this.
pub(crate) fn blobs_prefix(name: &Name) -> Vec<u8> {
    format!("{PREFIX}b/{name}\0").into_bytes()
}

pub(crate) fn chunk_key(name: &Name, number: usize, version: u64) -> Bytes {
    numbered(chunks_prefix(name), number, version)
}

pub(crate) fn blob_key(name: &Name, number: usize, version: u64) -> Bytes {
    numbered(blobs_prefix(name), number, version)
}

fn numbered(mut key: Vec<u8>, number: usize, version: u64) -> Bytes {
    key.extend_from_slice(&(number as u32).to_be_bytes());
    key.extend_from_slice(&version.to_be_bytes());
    key.into()
}

/// The number and version in a key that begins with `prefix`.
pub(crate) fn read_numbered(prefix: &[u8], key: &[u8]) -> Option<(usize, u64)> {
    let rest = key.strip_prefix(prefix)?;
    let (number, version) = rest.split_at_checked(4)?;
    let number = u32::from_be_bytes(number.try_into().ok()?);
    let version = u64::from_be_bytes(version.try_into().ok()?);
    Some((number as usize, version))
}

pub(crate) fn intent_key(name: &Name) -> Bytes {
    format!("{}{name}", intents_prefix()).into()
}

pub(crate) fn intents_prefix() -> String {
    format!("{PREFIX}i/")
}

pub(crate) fn expiry_key(name: &Name, expires_ms: u64) -> Bytes {
    let mut key = expiries_until(expires_ms);
    key.extend_from_slice(name.to_string().as_bytes());
    key.into()
}

/// Comes before all expiries of this moment and after.
pub(crate) fn expiries_until(ms: u64) -> Vec<u8> {
    let mut key = format!("{PREFIX}x/").into_bytes();
    key.extend_from_slice(&ms.to_be_bytes());
    key
}

pub(crate) fn read_expiry_key(key: &[u8]) -> Option<Name> {
    let at = PREFIX.len() + 2 + WORD_BYTES;
    read_name(key.get(at..)?)
}

pub(crate) fn floor_key(app: &AppName) -> Bytes {
    format!("{PREFIX}f/{app}").into()
}

/// The marks of all apps in a slot begin with this.
pub(crate) fn marks_prefix(slot: crate::Slot) -> String {
    format!("{PREFIX}m/{:03}/", slot.number())
}

pub(crate) fn mark_key(slot: crate::Slot, app: &AppName) -> Bytes {
    format!("{}{app}", marks_prefix(slot)).into()
}

/// Says who has copies of a slot's values.
pub(crate) fn copies_key(slot: crate::Slot) -> Bytes {
    format!("{PREFIX}r/{:03}", slot.number()).into()
}

pub(crate) fn versions_key() -> Bytes {
    format!("{PREFIX}v").into()
}

/// Reads `APP/KEY`.
pub(crate) fn read_name(text: &[u8]) -> Option<Name> {
    let (app, key) = std::str::from_utf8(text).ok()?.split_once('/')?;
    Some(Name {
        app: app.parse().ok()?,
        key: key.parse().ok()?,
    })
}

pub(crate) fn write_head(head: &Head) -> Bytes {
    let words = [head.version, head.size, head.expires_ms];
    let words = words.iter().flat_map(|word| word.to_le_bytes());
    std::iter::once(FORMAT).chain(words).collect()
}

pub(crate) fn read_head(record: &[u8]) -> Result<Head, GlobalError> {
    let damaged = GlobalError::Damaged("a head");
    let Some((&FORMAT, words)) = record.split_first() else {
        return Err(damaged);
    };
    match read_words(words).as_deref() {
        Some([version, size, expires_ms]) if *version != 0 => Ok(Head {
            version: *version,
            size: *size,
            expires_ms: *expires_ms,
        }),
        _ => Err(damaged),
    }
}

/// The places of a page's chunks.
pub(crate) fn write_table(words: &[u64]) -> Bytes {
    let words = words.iter().flat_map(|word| word.to_le_bytes());
    words.collect()
}

pub(crate) fn read_table(record: &[u8]) -> Result<Vec<u64>, GlobalError> {
    let table = read_words(record).filter(|table| table.len() == PAGE_CHUNKS);
    table.ok_or(GlobalError::Damaged("a table of chunks"))
}

pub(crate) fn write_word(word: u64) -> Bytes {
    Bytes::copy_from_slice(&word.to_le_bytes())
}

pub(crate) fn read_word(record: &[u8]) -> Result<u64, GlobalError> {
    match read_words(record).as_deref() {
        Some([word]) => Ok(*word),
        _ => Err(GlobalError::Damaged("a version")),
    }
}

fn read_words(record: &[u8]) -> Option<Vec<u64>> {
    let (words, rest) = record.as_chunks::<WORD_BYTES>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    rest.is_empty().then(|| words.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> Name {
        read_name(b"shop/cart/7").unwrap()
    }

    #[test]
    fn records_are_written_as_documented() {
        let head = Head {
            version: 1,
            size: 2,
            expires_ms: 3,
        };
        let golden = "01010000000000000002000000000000000300000000000000";
        let hex: String = write_head(&head)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(hex, golden);
        assert_eq!(read_head(&write_head(&head)).unwrap(), head);
        let check = |key: &[u8], golden: &[u8]| assert_eq!(key, golden);
        check(&head_key(&name()), b"state/1/h/shop/cart/7");
        check(&table_key(&name(), 1), b"state/1/t/shop/cart/7\0\0\0\0\x01");
        let chunk = b"state/1/c/shop/cart/7\0\0\0\0\x02\0\0\0\0\0\0\0\x03";
        check(&chunk_key(&name(), 2, 3), chunk);
        let blob = b"state/1/b/shop/cart/7\0\0\0\0\x02\0\0\0\0\0\0\0\x03";
        check(&blob_key(&name(), 2, 3), blob);
        check(&intent_key(&name()), b"state/1/i/shop/cart/7");
        check(
            &expiry_key(&name(), 258),
            b"state/1/x/\0\0\0\0\0\0\x01\x02shop/cart/7",
        );
        check(&floor_key(&name().app), b"state/1/f/shop");
    }

    #[test]
    fn keys_read_back() {
        assert_eq!(
            read_numbered(&chunks_prefix(&name()), &chunk_key(&name(), 2, 3)),
            Some((2, 3))
        );
        for in_bucket in [false, true] {
            let place = Place {
                version: 3,
                in_bucket,
            };
            assert_eq!(Place::of(place.word()), Some(place));
        }
        assert_eq!(Place::of(0), None);
        assert_eq!(read_expiry_key(&expiry_key(&name(), 9)), Some(name()));
        assert_eq!(read_name(b"nothing"), None);
    }

    #[test]
    fn what_is_damaged_is_an_error() {
        for record in [&b""[..], &[1; 24], &[2; 25], &[1; 26]] {
            assert!(read_head(record).is_err(), "{record:?}");
        }
        assert!(read_table(&[0; 8]).is_err() && read_word(&[0; 7]).is_err());
    }
}
