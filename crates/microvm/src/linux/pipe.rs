//! Pipes: bytes, or messages, from one end to the other. Sockets within a process are two of them.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::errno::Errno;

/// Bytes that a pipe holds.
pub const PIPE_BYTES: usize = 64 << 10;
/// Most pipes of a process, so that what they hold stays below 16 MiB.
const PIPES_MAX: usize = 256;
/// Most messages that a pipe holds.
const MESSAGES_MAX: usize = 256;
/// Bytes that are written whole or not at all.
const ATOMIC_BYTES: usize = 4096;

/// The number of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PipeId(u32);

/// A pipe.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pipe {
    bytes: VecDeque<u8>,
    /// The lengths of messages; none if there are no bounds between bytes.
    messages: Option<VecDeque<usize>>,
    readers: u32,
    writers: u32,
    /// Counts what has happened, for those that ask what is new.
    pub changes: u64,
}

impl Pipe {
    /// Whether there is something to read.
    pub fn has_data(&self) -> bool {
        match &self.messages {
            Some(messages) => !messages.is_empty(),
            None => !self.bytes.is_empty(),
        }
    }

    /// Whether something can be written.
    pub fn has_room(&self) -> bool {
        let messages = self.messages.as_ref();
        self.bytes.len() + ATOMIC_BYTES <= PIPE_BYTES
            && messages.is_none_or(|messages| messages.len() < MESSAGES_MAX)
    }

    /// Whether somebody may write.
    pub fn has_writers(&self) -> bool {
        self.writers > 0
    }

    /// Whether somebody may read.
    pub fn has_readers(&self) -> bool {
        self.readers > 0
    }

    /// Bytes that can be read.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes up to `most` bytes, or one message cut at that; none at the end.
    pub fn read(&mut self, most: usize, peek: bool) -> Result<Vec<u8>, Errno> {
        if !self.has_data() {
            return if self.has_writers() {
                Err(Errno::EAGAIN)
            } else {
                Ok(Vec::new())
            };
        }
        let whole = match &self.messages {
            Some(messages) => messages.front().copied().unwrap_or(0),
            None => self.bytes.len().min(most),
        };
        if peek {
            return Ok(self.bytes.iter().take(whole.min(most)).copied().collect());
        }
        let mut taken: Vec<u8> = self.bytes.drain(..whole).collect();
        taken.truncate(most);
        if let Some(messages) = &mut self.messages {
            messages.pop_front();
        }
        self.changes += 1;
        Ok(taken)
    }

    /// Takes as many bytes as fit, or all of a message; how many.
    pub fn write(&mut self, data: &[u8]) -> Result<usize, Errno> {
        if !self.has_readers() {
            return Err(Errno::EPIPE);
        }
        let room = PIPE_BYTES - self.bytes.len();
        let whole = self.messages.is_some() || data.len() <= ATOMIC_BYTES;
        if whole && self.messages.is_some() && data.len() > PIPE_BYTES {
            return Err(Errno::EMSGSIZE);
        }
        let full = self
            .messages
            .as_ref()
            .is_some_and(|all| all.len() >= MESSAGES_MAX);
        if full || (whole && data.len() > room) || (room == 0 && !data.is_empty()) {
            return Err(Errno::EAGAIN);
        }
        let count = data.len().min(room);
        self.bytes.extend(&data[..count]);
        if let Some(messages) = &mut self.messages {
            messages.push_back(count);
        }
        self.changes += 1;
        Ok(count)
    }
}

/// The pipes of a process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Pipes {
    all: BTreeMap<PipeId, Pipe>,
    next: u32,
}

impl Pipes {
    /// A pipe with one reader and one writer.
    pub fn make(&mut self, messages: bool) -> Result<PipeId, Errno> {
        if self.all.len() >= PIPES_MAX {
            return Err(Errno::ENFILE);
        }
        let id = PipeId(self.next);
        self.next = self.next.wrapping_add(1);
        let pipe = Pipe {
            bytes: VecDeque::new(),
            messages: messages.then(VecDeque::new),
            readers: 1,
            writers: 1,
            changes: 0,
        };
        self.all.insert(id, pipe);
        Ok(id)
    }

    /// A pipe.
    pub fn find(&self, id: PipeId) -> Option<&Pipe> {
        self.all.get(&id)
    }

    /// The same, to be changed.
    pub fn find_mut(&mut self, id: PipeId) -> Result<&mut Pipe, Errno> {
        self.all.get_mut(&id).ok_or(Errno::EBADF)
    }

    /// The reading end is closed.
    pub fn close_reader(&mut self, id: PipeId) {
        self.close(id, |pipe| pipe.readers = 0);
    }

    /// The writing end is closed.
    pub fn close_writer(&mut self, id: PipeId) {
        self.close(id, |pipe| pipe.writers = 0);
    }

    fn close(&mut self, id: PipeId, end: impl FnOnce(&mut Pipe)) {
        if let Some(pipe) = self.all.get_mut(&id) {
            end(pipe);
            pipe.changes += 1;
            if pipe.readers == 0 && pipe.writers == 0 {
                self.all.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_and_the_end_is_told() {
        let mut pipes = Pipes::default();
        let id = pipes.make(false).unwrap();
        let pipe = pipes.find_mut(id).unwrap();
        assert_eq!(pipe.read(10, false), Err(Errno::EAGAIN));
        assert_eq!(pipe.write(b"hello"), Ok(5));
        assert_eq!(pipe.read(2, true).unwrap(), b"he");
        assert_eq!(pipe.read(2, false).unwrap(), b"he");
        pipes.close_writer(id);
        let pipe = pipes.find_mut(id).unwrap();
        assert_eq!(pipe.read(10, false).unwrap(), b"llo");
        assert_eq!(pipe.read(10, false).unwrap(), b"");
        pipes.close_reader(id);
        assert!(pipes.find(id).is_none());
    }

    #[test]
    fn a_full_pipe_takes_small_writes_whole_or_not_at_all() {
        let mut pipes = Pipes::default();
        let id = pipes.make(false).unwrap();
        let pipe = pipes.find_mut(id).unwrap();
        assert_eq!(pipe.write(&vec![1; PIPE_BYTES - 100]), Ok(PIPE_BYTES - 100));
        assert_eq!(pipe.write(&[2; 200]), Err(Errno::EAGAIN));
        assert_eq!(pipe.write(&[2; 8000]), Ok(100));
        assert_eq!(pipe.write(&[2; 8000]), Err(Errno::EAGAIN));
        pipes.close_reader(id);
        assert_eq!(pipes.find_mut(id).unwrap().write(b"x"), Err(Errno::EPIPE));
    }

    #[test]
    fn messages_keep_their_bounds() {
        let mut pipes = Pipes::default();
        let id = pipes.make(true).unwrap();
        let pipe = pipes.find_mut(id).unwrap();
        pipe.write(b"one").unwrap();
        pipe.write(b"").unwrap();
        pipe.write(b"three").unwrap();
        assert_eq!(pipe.read(2, false).unwrap(), b"on");
        assert_eq!(pipe.read(9, false).unwrap(), b"");
        assert_eq!(pipe.read(9, false).unwrap(), b"three");
    }

    #[test]
    fn there_are_so_many_pipes_and_no_more() {
        let mut pipes = Pipes::default();
        for _ in 0..PIPES_MAX {
            pipes.make(false).unwrap();
        }
        assert_eq!(pipes.make(false), Err(Errno::ENFILE));
    }
}
