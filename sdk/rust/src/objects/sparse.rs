//! Sparse matrices, by compressed rows.

use super::{HEADER_BYTES, Header, Number, to_usize};
use crate::calls::{self, Error};
use crate::state::{self, View, ViewMut};

const MAGIC: &[u8; 8] = b"DUNLcsr1";

/// A sparse matrix to read.
#[derive(Debug)]
pub struct Sparse<T: Number> {
    cols: usize,
    starts: View<u64>,
    columns: Option<(View<u32>, View<T>)>,
}

/// A sparse matrix that is being filled in; nobody can open it before [`SparseDraft::publish`].
#[derive(Debug)]
pub struct SparseDraft<T: Number> {
    key: String,
    starts: ViewMut<u64>,
    columns: Option<(ViewMut<u32>, ViewMut<T>)>,
}

/// Where the parts begin.
struct Layout {
    rows: u64,
    count: usize,
    starts: u64,
    columns: u64,
    values: u64,
}

impl Layout {
    fn of<T: Number>(header: &Header) -> Result<Self, Error> {
        let [rows, _, count, ..] = header.large;
        if header.small[0] as usize != size_of::<T>() {
            return Err(Error::Invalid);
        }
        let starts = HEADER_BYTES as u64;
        let starts_bytes = rows.checked_add(1).and_then(|rows| rows.checked_mul(8));
        let columns = starts_bytes.and_then(|bytes| bytes.checked_add(starts));
        let columns_bytes = count.checked_mul(4).map(|bytes| bytes.next_multiple_of(8));
        let values = columns
            .zip(columns_bytes)
            .and_then(|(at, bytes)| at.checked_add(bytes));
        Ok(Self {
            rows,
            count: to_usize(count)?,
            starts,
            columns: columns.ok_or(Error::TooLarge)?,
            values: values.ok_or(Error::TooLarge)?,
        })
    }
}

impl<T: Number> Sparse<T> {
    /// Opens a matrix that is there and complete.
    ///
    /// # Errors
    /// Those of [`state::map`]; [`Error::Invalid`] if the value is not such a matrix.
    pub fn open(key: &str) -> Result<Self, Error> {
        let header = Header::read(key, MAGIC)?;
        let layout = Layout::of::<T>(&header)?;
        let columns = match layout.count {
            0 => None,
            count => Some((
                state::map(key, layout.columns, count)?,
                state::map(key, layout.values, count)?,
            )),
        };
        Ok(Self {
            cols: to_usize(header.large[1])?,
            starts: state::map(key, layout.starts, to_usize(layout.rows)? + 1)?,
            columns,
        })
    }

    /// How many rows it has.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.starts.len() - 1
    }

    /// How many columns it has.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The columns and numbers of a row; both empty beyond the last.
    #[must_use]
    pub fn row(&self, row: usize) -> (&[u32], &[T]) {
        let none: (&[u32], &[T]) = (&[], &[]);
        let Some((columns, values)) = &self.columns else {
            return none;
        };
        let (Some(&from), Some(&to)) = (self.starts.get(row), self.starts.get(row + 1)) else {
            return none;
        };
        let range = from as usize..to as usize;
        match (columns.get(range.clone()), values.get(range)) {
            (Some(columns), Some(values)) => (columns, values),
            _ => none,
        }
    }

    /// The number at a place; 0 where none is kept.
    #[must_use]
    pub fn at(&self, row: usize, col: u32) -> T {
        let (columns, values) = self.row(row);
        let found = columns.binary_search(&col);
        found.map_or_else(|_| T::default(), |at| values[at])
    }
}

impl<T: Number> SparseDraft<T> {
    /// Makes a matrix with room for `count` numbers; what was under the key is gone.
    ///
    /// # Errors
    /// Those of [`calls::state_set`] and [`state::map_mut`].
    pub fn make(key: &str, rows: usize, cols: usize, count: usize) -> Result<Self, Error> {
        let mut header = Header {
            magic: [0; 8],
            small: [size_of::<T>() as u32, 4],
            large: [rows as u64, cols as u64, count as u64, 0, 0, 0],
        };
        let layout = Layout::of::<T>(&header)?;
        header.large[3..].copy_from_slice(&[layout.starts, layout.columns, layout.values]);
        calls::state_set(key, &header.bytes())?;
        let columns = match count {
            0 => None,
            count => Some((
                state::map_mut(key, layout.columns, count)?,
                state::map_mut(key, layout.values, count)?,
            )),
        };
        Ok(Self {
            key: key.to_owned(),
            starts: state::map_mut(key, layout.starts, rows + 1)?,
            columns,
        })
    }

    /// Where each row begins, and after the last, how many numbers there are; the columns, rising
    /// within each row; the numbers.
    pub fn parts(&mut self) -> (&mut [u64], &mut [u32], &mut [T]) {
        match &mut self.columns {
            Some((columns, values)) => (&mut self.starts, columns, values),
            None => (&mut self.starts, &mut [], &mut []),
        }
    }

    /// Lets others open it.
    ///
    /// # Errors
    /// Those of [`calls::state_write`].
    pub fn publish(self) -> Result<(), Error> {
        calls::state_write(&self.key, 0, MAGIC).map(drop)
    }
}
