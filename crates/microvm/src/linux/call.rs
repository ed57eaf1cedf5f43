//! One system call of a thread: its arguments, and the guest's memory that they name.

use super::errno::Errno;
use super::process::{Guest, Halt, IO_BYTES_MAX, PATH_BYTES_MAX, Process};
use super::thread::{Request, Thread, Tid, Wait};
use crate::space::Protection;

/// One call of a thread's.
pub struct Call<'a> {
    /// Its process.
    pub process: &'a mut Process,
    /// The guest.
    pub guest: &'a mut dyn Guest,
    /// The thread.
    pub tid: Tid,
    /// What it asks.
    pub request: Request,
    /// If it is made again: until when it waits at the latest.
    pub retried: Option<Option<u64>>,
}

impl Call<'_> {
    /// An argument.
    pub fn arg(&self, index: usize) -> u64 {
        self.request.args[index]
    }

    /// An argument that is an int.
    pub fn int(&self, index: usize) -> i32 {
        self.request.args[index] as i32
    }

    /// An argument that is an unsigned int.
    pub fn uint(&self, index: usize) -> u32 {
        self.request.args[index] as u32
    }

    /// The calling thread.
    pub fn thread(&mut self) -> Result<&mut Thread, Errno> {
        self.process.threads.find_mut(self.tid).ok_or(Errno::ESRCH)
    }

    /// Copies from the guest.
    pub fn read(&mut self, at: u64, out: &mut [u8]) -> Result<(), Errno> {
        self.process.read(self.guest, at, out)
    }

    /// A copy of `bytes` bytes at `at`, at most [`IO_BYTES_MAX`].
    pub fn copy(&mut self, at: u64, bytes: u64) -> Result<Vec<u8>, Errno> {
        let bytes = bytes.min(IO_BYTES_MAX as u64);
        self.process
            .touch(self.guest, at, bytes, Protection::READ)?;
        let mut copy = vec![0; bytes as usize];
        self.guest.read(at, &mut copy)?;
        Ok(copy)
    }

    /// Copies to the guest.
    pub fn write(&mut self, at: u64, data: &[u8]) -> Result<(), Errno> {
        self.process.write(self.guest, at, data)
    }

    /// Copies a number to the guest.
    pub fn write_u32(&mut self, at: u64, number: u32) -> Result<(), Errno> {
        self.write(at, &number.to_le_bytes())
    }

    /// The same.
    pub fn write_u64(&mut self, at: u64, number: u64) -> Result<(), Errno> {
        self.write(at, &number.to_le_bytes())
    }

    /// The number at `at`.
    pub fn read_u32(&mut self, at: u64) -> Result<u32, Errno> {
        self.process.read_u32(self.guest, at)
    }

    /// The same.
    pub fn read_u64(&mut self, at: u64) -> Result<u64, Errno> {
        self.process.read_u64(self.guest, at)
    }

    /// Numbers of 8 bytes at `at`.
    pub fn read_words<const N: usize>(&mut self, at: u64) -> Result<[u64; N], Errno> {
        let mut words = [0; N];
        for (index, word) in words.iter_mut().enumerate() {
            *word = self.read_u64(at.wrapping_add(index as u64 * 8))?;
        }
        Ok(words)
    }

    /// The bytes at `at` up to the first zero; [`Errno::ENAMETOOLONG`] if that is far.
    pub fn text(&mut self, at: u64) -> Result<Vec<u8>, Errno> {
        const AT_A_TIME: u64 = 256;
        let (mut text, mut at) = (Vec::new(), at);
        while text.len() < PATH_BYTES_MAX {
            // Up to a boundary that pages share, so that what follows need not be there.
            let piece = self.copy(at, AT_A_TIME - at % AT_A_TIME)?;
            if let Some(end) = piece.iter().position(|byte| *byte == 0) {
                text.extend_from_slice(&piece[..end]);
                return Ok(text);
            }
            text.extend_from_slice(&piece);
            at = at.wrapping_add(piece.len() as u64);
        }
        Err(Errno::ENAMETOOLONG)
    }

    /// A `struct timespec` as nanoseconds; the largest there is if it is larger.
    pub fn timespec(&mut self, at: u64) -> Result<u64, Errno> {
        let [seconds, nanoseconds] = self.read_words(at)?;
        if seconds > i64::MAX as u64 || nanoseconds >= 1_000_000_000 {
            return Err(Errno::EINVAL);
        }
        Ok(seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(nanoseconds))
    }

    /// Writes a `struct timespec`.
    pub fn write_timespec(&mut self, at: u64, ns: u64) -> Result<(), Errno> {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&(ns / 1_000_000_000).to_le_bytes());
        bytes[8..].copy_from_slice(&(ns % 1_000_000_000).to_le_bytes());
        self.write(at, &bytes)
    }

    /// The end of a wait that begins now and lasts `ns` at most; of one that goes on, its end.
    pub fn until(&self, ns: Option<u64>) -> Option<u64> {
        match self.retried {
            Some(until) => until,
            None => ns.map(|ns| self.process.now.monotonic_ns.saturating_add(ns)),
        }
    }

    /// Waits for a change, or fails with `otherwise` when the time for that is over.
    pub fn wait(&self, until: Option<u64>, otherwise: Halt) -> Halt {
        match until {
            Some(until) if until <= self.process.now.monotonic_ns => otherwise,
            _ => Halt::Wait(Wait::Change, until),
        }
    }
}
