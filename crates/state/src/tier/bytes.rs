//! Numbers and texts in messages: little-endian, and lengths before what is of any length.

use bytes::Bytes;

/// What is not a message of this release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message between nodes about state is malformed: {0}")]
pub struct WireError(pub(crate) &'static str);

/// Writes a message.
#[derive(Debug, Default)]
pub(crate) struct Out(Vec<u8>);

impl Out {
    pub fn with_room(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub fn byte(&mut self, byte: u8) -> &mut Self {
        self.0.push(byte);
        self
    }

    pub fn word(&mut self, word: u64) -> &mut Self {
        self.0.extend_from_slice(&word.to_le_bytes());
        self
    }

    pub fn wide(&mut self, wide: u128) -> &mut Self {
        self.0.extend_from_slice(&wide.to_le_bytes());
        self
    }

    pub fn data(&mut self, data: &[u8]) -> &mut Self {
        self.word(data.len() as u64);
        self.0.extend_from_slice(data);
        self
    }

    pub fn text(&mut self, text: &str) -> &mut Self {
        self.data(text.as_bytes())
    }

    pub fn maybe(&mut self, word: Option<u64>) -> &mut Self {
        match word {
            Some(word) => self.byte(1).word(word),
            None => self.byte(0),
        }
    }

    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn done(self) -> Bytes {
        self.0.into()
    }
}

/// Reads a message that others wrote.
#[derive(Debug)]
pub(crate) struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(WireError("it ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self
            .0
            .split_first_chunk()
            .ok_or(WireError("it ends early"))?;
        self.0 = rest;
        Ok(*taken)
    }

    pub fn byte(&mut self) -> Result<u8, WireError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn word(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn wide(&mut self) -> Result<u128, WireError> {
        self.array().map(u128::from_le_bytes)
    }

    pub fn data(&mut self) -> Result<&'a [u8], WireError> {
        let length = self.word()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    pub fn text(&mut self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.data()?).map_err(|_| WireError("a text is not UTF-8"))
    }

    pub fn flag(&mut self) -> Result<bool, WireError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError("a flag is neither 0 nor 1")),
        }
    }

    pub fn maybe(&mut self) -> Result<Option<u64>, WireError> {
        self.flag()?.then(|| self.word()).transpose()
    }

    pub fn map(&mut self) -> Result<[u8; 32], WireError> {
        self.array()
    }

    /// As many of something as follow, each of which takes at least `bytes_min`: never more than
    /// there are bytes for, so that nothing is allocated for what was not sent.
    pub fn many<T>(
        &mut self,
        bytes_min: usize,
        mut one: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let count = usize::try_from(self.word()?).unwrap_or(usize::MAX);
        if count > self.0.len() / bytes_min.max(1) {
            return Err(WireError("more is announced than follows"));
        }
        (0..count).map(|_| one(self)).collect()
    }

    /// That this was all.
    pub fn end(self) -> Result<(), WireError> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(WireError("it goes on after its end")),
        }
    }
}
