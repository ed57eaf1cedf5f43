//! Vectors and matrices of numbers.

use std::ops::{Deref, DerefMut};

use super::{HEADER_BYTES, Header, to_usize};
use crate::calls::Error;
use crate::state::{self, Plain, View, ViewMut};

const MAGIC: &[u8; 8] = b"DUNLmtx1";

/// What matrices are made of.
pub trait Number: Plain + Default {}

impl Number for f32 {}
impl Number for f64 {}

/// A row of numbers: [`View`] to read, [`ViewMut`] to write.
pub struct Vector;

impl Vector {
    /// Opens a vector that is there, to read.
    ///
    /// # Errors
    /// Those of [`state::map`].
    pub fn open<T: Number>(key: &str) -> Result<View<T>, Error> {
        state::map(key, 0, 0)
    }

    /// Opens a vector of at least `length` numbers, to write; new ones are 0.
    ///
    /// # Errors
    /// Those of [`state::map_mut`].
    pub fn open_mut<T: Number>(key: &str, length: usize) -> Result<ViewMut<T>, Error> {
        state::map_mut(key, 0, length)
    }
}

/// Rows of numbers, one after the other; `S` is a [`View`] or a [`ViewMut`].
#[derive(Debug)]
pub struct Matrix<S> {
    cells: S,
    rows: usize,
    cols: usize,
}

impl<T: Number> Matrix<View<T>> {
    /// Opens a matrix that is there, to read.
    ///
    /// # Errors
    /// Those of [`state::map`]; [`Error::Invalid`] if the value is not a matrix of such numbers.
    pub fn open(key: &str) -> Result<Self, Error> {
        let header = Header::read(key, MAGIC)?;
        let (rows, cols) = shape::<T>(&header)?;
        Ok(Self {
            cells: state::map(key, HEADER_BYTES as u64, cells(rows, cols)?)?,
            rows,
            cols,
        })
    }
}

impl<T: Number> Matrix<ViewMut<T>> {
    /// Opens a matrix to write, which is made of zeros unless it is there.
    ///
    /// # Errors
    /// Those of [`state::map_mut`]; [`Error::Conflict`] if one of another shape is there,
    /// [`Error::Invalid`] if something else is.
    pub fn make(key: &str, rows: usize, cols: usize) -> Result<Self, Error> {
        let wanted = Header {
            magic: *MAGIC,
            small: [size_of::<T>() as u32, 0],
            large: [rows as u64, cols as u64, 0, 0, 0, 0],
        };
        let count = cells(rows, cols)?;
        if shape::<T>(&wanted.make(key)?)? != (rows, cols) {
            return Err(Error::Conflict);
        }
        Ok(Self {
            cells: state::map_mut(key, HEADER_BYTES as u64, count)?,
            rows,
            cols,
        })
    }

    /// Opens a matrix that is there, to write.
    ///
    /// # Errors
    /// Those of [`state::map_mut`]; [`Error::Invalid`] if the value is no matrix of such numbers.
    pub fn open_mut(key: &str) -> Result<Self, Error> {
        let (rows, cols) = shape::<T>(&Header::read(key, MAGIC)?)?;
        Self::make(key, rows, cols)
    }
}

impl<T: Number, S: Deref<Target = [T]>> Matrix<S> {
    /// How many rows it has.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many numbers a row has.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// All numbers, row by row.
    #[must_use]
    pub fn cells(&self) -> &[T] {
        &self.cells
    }

    /// One row; none beyond the last.
    #[must_use]
    pub fn row(&self, row: usize) -> Option<&[T]> {
        let start = row.checked_mul(self.cols)?;
        self.cells.get(start..start.checked_add(self.cols)?)
    }
}

impl<T: Number, S: DerefMut<Target = [T]>> Matrix<S> {
    /// All numbers, row by row.
    pub fn cells_mut(&mut self) -> &mut [T] {
        &mut self.cells
    }

    /// One row, to write; none beyond the last.
    pub fn row_mut(&mut self, row: usize) -> Option<&mut [T]> {
        let start = row.checked_mul(self.cols)?;
        self.cells.get_mut(start..start.checked_add(self.cols)?)
    }
}

fn shape<T: Number>(header: &Header) -> Result<(usize, usize), Error> {
    if header.small[0] as usize != size_of::<T>() {
        return Err(Error::Invalid);
    }
    Ok((to_usize(header.large[0])?, to_usize(header.large[1])?))
}

/// How many numbers there are; a matrix has at least one.
fn cells(rows: usize, cols: usize) -> Result<usize, Error> {
    match rows.checked_mul(cols) {
        Some(0) => Err(Error::Invalid),
        cells => cells.ok_or(Error::TooLarge),
    }
}
