//! A dictionary: a hash table of keys and values of bounded size.

use std::time::Duration;

use super::{HEADER_BYTES, Header, to_usize};
use crate::calls::{self, Error};
use crate::state::{self, Mode, View, ViewMut, millis};

const MAGIC: &[u8; 8] = b"DUNLdic1";
const FIRST_SLOTS: u64 = 64;

// Where the numbers of the header lie.
const SLOTS: usize = 16;
const USED: usize = 24;

#[derive(Debug)]
enum Memory {
    Read(View<u8>),
    Write(ViewMut<u8>),
}

/// A dictionary that is mapped; look into it under a lock.
#[derive(Debug)]
pub struct Dictionary {
    key: String,
    memory: Memory,
    /// The most bytes of a key and of a value.
    key_bytes_max: usize,
    value_bytes_max: usize,
    value_at: usize,
    slot_bytes: usize,
    first_slots: usize,
}

/// A dictionary whose lock is held, until this is dropped.
#[must_use = "the lock is given back when this is dropped"]
#[derive(Debug)]
pub struct Locked<'a> {
    dictionary: &'a mut Dictionary,
    mode: Mode,
}

impl Dictionary {
    /// Opens a dictionary to write, which is made empty unless it is there.
    ///
    /// # Errors
    /// Those of [`state::map_mut`]; [`Error::Conflict`] if one with other sizes is there.
    pub fn make(key: &str, key_bytes_max: u32, value_bytes_max: u32) -> Result<Self, Error> {
        let wanted = Header {
            magic: *MAGIC,
            small: [key_bytes_max, value_bytes_max],
            large: [FIRST_SLOTS, 0, FIRST_SLOTS, 0, 0, 0],
        };
        let there = wanted.make(key)?;
        if there.small != wanted.small {
            return Err(Error::Conflict);
        }
        let memory = Memory::Write(state::map_mut(key, 0, HEADER_BYTES)?);
        Self::of(key, &there, memory)
    }

    /// Opens a dictionary that is there, to read.
    ///
    /// # Errors
    /// Those of [`state::map`]; [`Error::Invalid`] if the value is no dictionary.
    pub fn open(key: &str) -> Result<Self, Error> {
        let there = Header::read(key, MAGIC)?;
        let memory = Memory::Read(state::map(key, 0, HEADER_BYTES)?);
        Self::of(key, &there, memory)
    }

    /// Opens a dictionary that is there, to write.
    ///
    /// # Errors
    /// As for [`Dictionary::open`].
    pub fn open_mut(key: &str) -> Result<Self, Error> {
        let there = Header::read(key, MAGIC)?;
        let memory = Memory::Write(state::map_mut(key, 0, HEADER_BYTES)?);
        Self::of(key, &there, memory)
    }

    fn of(key: &str, header: &Header, memory: Memory) -> Result<Self, Error> {
        let [key_bytes_max, value_bytes_max] = header.small.map(|bytes| bytes as usize);
        let value_at = 8 + key_bytes_max.next_multiple_of(8);
        let first_slots = to_usize(header.large[2])?;
        if !first_slots.is_power_of_two() {
            return Err(Error::Invalid);
        }
        Ok(Self {
            key: key.to_owned(),
            memory,
            key_bytes_max,
            value_bytes_max,
            value_at,
            slot_bytes: value_at + value_bytes_max.next_multiple_of(8),
            first_slots,
        })
    }

    /// Takes the lock, alone to write or with others to read.
    ///
    /// # Errors
    /// Those of [`calls::state_lock`].
    pub fn lock(&mut self, mode: Mode, wait: Duration) -> Result<Locked<'_>, Error> {
        calls::state_lock(&self.key, mode as u32, millis(wait), 0)?;
        let locked = Locked {
            dictionary: self,
            mode,
        };
        locked.dictionary.follow()?;
        Ok(locked)
    }

    fn bytes(&self) -> &[u8] {
        match &self.memory {
            Memory::Read(view) => view,
            Memory::Write(view) => view,
        }
    }

    fn bytes_mut(&mut self) -> Result<&mut [u8], Error> {
        match &mut self.memory {
            Memory::Read(_) => Err(Error::Denied),
            Memory::Write(view) => Ok(view),
        }
    }

    fn number(&self, at: usize) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|i| self.bytes()[at + i]))
    }

    fn set_number(&mut self, at: usize, number: u64) -> Result<(), Error> {
        self.bytes_mut()?[at..at + 8].copy_from_slice(&number.to_le_bytes());
        Ok(())
    }

    /// Where the table of so many slots begins: each lies after the one that it replaced.
    fn table(&self, slots: usize) -> usize {
        HEADER_BYTES + (slots - self.first_slots) * self.slot_bytes
    }

    /// The end of the table of so many slots.
    fn end(&self, slots: usize) -> Result<usize, Error> {
        let before = slots.checked_sub(self.first_slots).ok_or(Error::Invalid)?;
        let bytes = before
            .checked_add(slots)
            .and_then(|all| all.checked_mul(self.slot_bytes));
        let end = bytes.and_then(|bytes| bytes.checked_add(HEADER_BYTES));
        end.ok_or(Error::TooLarge)
    }

    /// Maps so many bytes, if they are not yet.
    fn map(&mut self, bytes: usize) -> Result<(), Error> {
        if bytes <= self.bytes().len() {
            return Ok(());
        }
        self.memory = match self.memory {
            Memory::Read(_) => Memory::Read(state::map(&self.key, 0, bytes)?),
            Memory::Write(_) => Memory::Write(state::map_mut(&self.key, 0, bytes)?),
        };
        Ok(())
    }

    /// Maps the table that counts now; another function may have made it larger.
    fn follow(&mut self) -> Result<(), Error> {
        let slots = to_usize(self.number(SLOTS))?;
        if !slots.is_power_of_two() {
            return Err(Error::Invalid);
        }
        self.map(self.end(slots)?)
    }

    fn word(&self, at: usize) -> usize {
        u32::from_le_bytes(std::array::from_fn(|i| self.bytes()[at + i])) as usize
    }

    /// The name in a slot; none in an empty one.
    fn name(&self, slot: usize) -> Option<&[u8]> {
        let length = self.word(slot).checked_sub(1)?.min(self.key_bytes_max);
        Some(&self.bytes()[slot + 8..slot + 8 + length])
    }

    /// Where the slot of a name lies, or the empty one where it would go; none in a full table.
    fn find(&self, slots: usize, name: &[u8]) -> Option<usize> {
        let first = hash(name) as usize & (slots - 1);
        let places = (0..slots).map(|step| (first + step) & (slots - 1));
        let mut places = places.map(|place| self.table(slots) + place * self.slot_bytes);
        places.find(|&slot| self.name(slot).is_none_or(|there| there == name))
    }

    /// Doubles the table: the new one is filled behind the old one, and then made the one that
    /// counts, so that a function that dies meanwhile leaves the old one.
    fn grow(&mut self) -> Result<(), Error> {
        let slots = to_usize(self.number(SLOTS))?;
        let larger = slots.checked_mul(2).ok_or(Error::TooLarge)?;
        self.map(self.end(larger)?)?;
        let (start, end) = (self.table(larger), self.end(larger)?);
        self.bytes_mut()?[start..end].fill(0);
        for place in 0..slots {
            let from = self.table(slots) + place * self.slot_bytes;
            let Some(name) = self.name(from) else {
                continue;
            };
            let to = self.find(larger, name).ok_or(Error::Invalid)?;
            let slot_bytes = self.slot_bytes;
            self.bytes_mut()?.copy_within(from..from + slot_bytes, to);
        }
        self.set_number(SLOTS, larger as u64)
    }
}

impl Locked<'_> {
    /// How many names there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.dictionary.number(USED)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn slots(&self) -> Result<usize, Error> {
        to_usize(self.dictionary.number(SLOTS))
    }

    /// The value of a name, in the dictionary's own memory.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let dictionary = &*self.dictionary;
        let slot = dictionary.find(self.slots().ok()?, name)?;
        dictionary.name(slot)?;
        let length = dictionary.word(slot + 4).min(dictionary.value_bytes_max);
        let start = slot + dictionary.value_at;
        Some(&dictionary.bytes()[start..start + length])
    }

    /// Sets the value of a name.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if either is over its limit; [`Error::Denied`] if it was opened to read
    /// or the lock is shared; those of [`state::map_mut`] where the table grows.
    pub fn put(&mut self, name: &[u8], value: &[u8]) -> Result<(), Error> {
        self.writable()?;
        let slots = self.slots()?;
        let dictionary = &mut *self.dictionary;
        if name.len() > dictionary.key_bytes_max || value.len() > dictionary.value_bytes_max {
            return Err(Error::TooLarge);
        }
        let used = dictionary.number(USED);
        let mut slot = dictionary.find(slots, name);
        let is_new = slot.is_none_or(|slot| dictionary.name(slot).is_none());
        if is_new && (used + 1) * 4 > slots as u64 * 3 {
            dictionary.grow()?;
            slot = dictionary.find(slots * 2, name);
        }
        let slot = slot.ok_or(Error::Invalid)?;
        let start = slot + dictionary.value_at;
        let bytes = dictionary.bytes_mut()?;
        bytes[start..start + value.len()].copy_from_slice(value);
        bytes[slot + 4..slot + 8].copy_from_slice(&(value.len() as u32).to_le_bytes());
        if is_new {
            bytes[slot + 8..slot + 8 + name.len()].copy_from_slice(name);
            bytes[slot..slot + 4].copy_from_slice(&(name.len() as u32 + 1).to_le_bytes());
            dictionary.set_number(USED, used + 1)?;
        }
        Ok(())
    }

    /// Takes a name out; says whether it was there.
    ///
    /// # Errors
    /// [`Error::Denied`] if it was opened to read or the lock is shared.
    pub fn remove(&mut self, name: &[u8]) -> Result<bool, Error> {
        self.writable()?;
        let slots = self.slots()?;
        let dictionary = &mut *self.dictionary;
        let found = dictionary.find(slots, name);
        let Some(slot) = found.filter(|&slot| dictionary.name(slot).is_some()) else {
            return Ok(false);
        };
        let (table, size, mask) = (dictionary.table(slots), dictionary.slot_bytes, slots - 1);
        let mut hole = (slot - table) / size;
        for step in 1..slots {
            let next = ((slot - table) / size + step) & mask;
            let Some(name) = dictionary.name(table + next * size) else {
                break;
            };
            // A slot moves into the hole unless its own place lies behind the hole.
            let own = hash(name) as usize & mask;
            if next.wrapping_sub(own) & mask >= next.wrapping_sub(hole) & mask {
                let from = table + next * size;
                dictionary
                    .bytes_mut()?
                    .copy_within(from..from + size, table + hole * size);
                hole = next;
            }
        }
        let start = table + hole * size;
        dictionary.bytes_mut()?[start..start + size].fill(0);
        dictionary.set_number(USED, dictionary.number(USED).saturating_sub(1))?;
        Ok(true)
    }

    fn writable(&self) -> Result<(), Error> {
        match (self.mode, &self.dictionary.memory) {
            (Mode::Exclusive, Memory::Write(_)) => Ok(()),
            _ => Err(Error::Denied),
        }
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // It may be another's by now, if its time was over; then there is nothing to give back.
        let _ = calls::state_unlock(&self.dictionary.key);
    }
}

/// FNV-1a of 64 bits, folded once.
fn hash(name: &[u8]) -> u64 {
    let hash = name.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash ^ (hash >> 32)
}
