//! Lists of records.

use super::to_usize;
use crate::calls::{self, Error};
use crate::state::{self, View};

/// Records of one size, only ever added to.
#[derive(Clone, Debug)]
pub struct List {
    key: String,
    record_bytes: usize,
}

impl List {
    /// A list, which is there from its first record on. A record has at least one byte.
    #[must_use]
    pub fn new(key: &str, record_bytes: usize) -> Self {
        Self {
            key: key.to_owned(),
            record_bytes: record_bytes.max(1),
        }
    }

    /// Adds a record; gives its place.
    ///
    /// # Errors
    /// Those of [`calls::state_append`]; [`Error::Invalid`] if it has another size.
    pub fn add(&self, record: &[u8]) -> Result<usize, Error> {
        if record.len() != self.record_bytes {
            return Err(Error::Invalid);
        }
        to_usize(calls::state_append(&self.key, record)? / self.record_bytes as u64)
    }

    /// How many records there are.
    ///
    /// # Errors
    /// Those of [`calls::state_size`], but a list that is not there is empty.
    pub fn len(&self) -> Result<usize, Error> {
        match calls::state_size(&self.key) {
            Ok(size) => to_usize(size / self.record_bytes as u64),
            Err(Error::NotFound) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Whether there are none.
    ///
    /// # Errors
    /// As for [`List::len`].
    pub fn is_empty(&self) -> Result<bool, Error> {
        self.len().map(|len| len == 0)
    }

    /// Copies a record.
    ///
    /// # Errors
    /// [`Error::NotFound`] beyond the last; else those of [`calls::state_read`].
    pub fn at(&self, place: usize) -> Result<Vec<u8>, Error> {
        let mut record = vec![0; self.record_bytes];
        let size = self.record_bytes as u64;
        let offset = (place as u64).checked_mul(size).ok_or(Error::NotFound)?;
        match calls::state_read(&self.key, offset, &mut record)? {
            count if count == size => Ok(record),
            _ => Err(Error::NotFound),
        }
    }

    /// The records that are there now, as memory, one after the other.
    ///
    /// # Errors
    /// Those of [`state::map`].
    pub fn view(&self) -> Result<View<u8>, Error> {
        state::map(&self.key, 0, self.len()? * self.record_bytes)
    }
}
