//! A guest's memory, reached within its bounds.

use wasmtime::Trap;

use super::abi::Code;

/// Why a call did not do what it was asked.
#[derive(Debug)]
pub(super) enum Fail {
    /// The guest is told.
    Code(Code),
    /// The guest ends.
    End(wasmtime::Error),
}

impl From<Code> for Fail {
    fn from(code: Code) -> Self {
        Fail::Code(code)
    }
}

impl From<files::Errno> for Fail {
    fn from(errno: files::Errno) -> Self {
        Fail::Code(errno.into())
    }
}

/// What lies outside of the guest's memory.
fn outside() -> Fail {
    Fail::End(Trap::MemoryOutOfBounds.into())
}

/// The memory; every pointer is checked.
pub(super) struct Guest<'a>(pub &'a mut [u8]);

/// A buffer that a guest passed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub at: u32,
    pub bytes: u32,
}

impl Guest<'_> {
    pub fn read(&self, at: u32, bytes: u32) -> Result<&[u8], Fail> {
        let at = at as usize;
        self.0.get(at..at + bytes as usize).ok_or_else(outside)
    }

    pub fn slot(&mut self, at: u32, bytes: u32) -> Result<&mut [u8], Fail> {
        let at = at as usize;
        self.0.get_mut(at..at + bytes as usize).ok_or_else(outside)
    }

    pub fn write(&mut self, at: u32, data: &[u8]) -> Result<(), Fail> {
        let bytes = u32::try_from(data.len()).map_err(|_| outside())?;
        self.slot(at, bytes)?.copy_from_slice(data);
        Ok(())
    }

    fn array<const N: usize>(&self, at: u32) -> Result<[u8; N], Fail> {
        let bytes = self.read(at, N as u32)?;
        bytes.try_into().map_err(|_| outside())
    }

    pub fn u8(&self, at: u32) -> Result<u8, Fail> {
        Ok(self.array::<1>(at)?[0])
    }

    pub fn u16(&self, at: u32) -> Result<u16, Fail> {
        self.array(at).map(u16::from_le_bytes)
    }

    pub fn u32(&self, at: u32) -> Result<u32, Fail> {
        self.array(at).map(u32::from_le_bytes)
    }

    pub fn u64(&self, at: u32) -> Result<u64, Fail> {
        self.array(at).map(u64::from_le_bytes)
    }

    pub fn put_u32(&mut self, at: u32, value: u32) -> Result<(), Fail> {
        self.write(at, &value.to_le_bytes())
    }

    pub fn put_u64(&mut self, at: u32, value: u64) -> Result<(), Fail> {
        self.write(at, &value.to_le_bytes())
    }

    /// A path: text, and not empty memory for a NUL to hide in.
    pub fn path(&self, span: Span) -> Result<&[u8], Fail> {
        let bytes = self.read(span.at, span.bytes)?;
        match std::str::from_utf8(bytes) {
            Ok(_) => Ok(bytes),
            Err(_) => Err(Code::ILSEQ.into()),
        }
    }

    /// The buffer `index` of an array of them.
    pub fn buffer(&self, array: u32, index: u32) -> Result<Span, Fail> {
        let at = index.checked_mul(8).and_then(|by| array.checked_add(by));
        let at = at.ok_or_else(outside)?;
        Ok(Span {
            at: self.u32(at)?,
            bytes: self.u32(at.checked_add(4).ok_or_else(outside)?)?,
        })
    }
}
