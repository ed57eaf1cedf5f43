//! Where a value's bytes are: on the heap while they are few and nobody maps them, as they came if
//! they came as a whole and nobody has touched them since, else in a region.

use std::sync::Arc;

use bytes::Bytes;
use memory::{REGION_UNIT_BYTES, Region};
use parking_lot::Mutex;

use crate::budget::Charge;
use crate::{Data, StateError};

/// Values up to this size are kept on the heap until they are mapped. A region costs a file
/// descriptor and at least a page.
pub(crate) const SMALL_BYTES_MAX: usize = memory::PAGE_BYTES;
/// Values of this size and more are kept as they came.
const WHOLE_BYTES_MIN: usize = REGION_UNIT_BYTES;
/// Bytes of the numbers that are added to.
pub(crate) const WORD_BYTES: usize = size_of::<u64>();
/// A region that nobody maps is given up for values this many times smaller.
const SHRINK_FACTOR: usize = 4;

#[derive(Debug)]
enum Place {
    /// As long as the value.
    Small(Vec<u8>),
    /// As long as the value. Who reads it shares it, and keeps it as it was.
    Whole(Bytes),
    /// At least as long as the value.
    Shared(Arc<Region>),
}

/// A value's bytes, and what they cost.
#[derive(Debug)]
pub(crate) struct Body {
    place: Place,
    /// Of a region that is mapped, held until nobody maps it.
    charge: Arc<Mutex<Charge>>,
    bytes_max: usize,
    /// Whether a guest may have written past the value's end: it maps whole units.
    scribbled: bool,
}

impl Body {
    pub fn new(charge: Charge, bytes_max: usize) -> Self {
        Self {
            place: Place::Small(Vec::new()),
            charge: Arc::new(Mutex::new(charge)),
            bytes_max,
            scribbled: false,
        }
    }

    /// Copies bytes out; all must be within the value.
    pub fn read(&self, offset: usize, out: &mut [u8]) -> Result<(), StateError> {
        match &self.place {
            Place::Small(bytes) => out.copy_from_slice(&bytes[offset..offset + out.len()]),
            Place::Whole(bytes) => out.copy_from_slice(&bytes[offset..offset + out.len()]),
            Place::Shared(region) => region.read(offset, out)?,
        }
        Ok(())
    }

    /// Bytes as they are now, all of which must be within the value.
    pub fn copy(&self, offset: usize, length: usize) -> Result<Bytes, StateError> {
        Ok(match &self.place {
            Place::Small(bytes) => Bytes::copy_from_slice(&bytes[offset..offset + length]),
            Place::Whole(bytes) => bytes.slice(offset..offset + length),
            Place::Shared(region) => region.copy(offset, length)?.into(),
        })
    }

    /// Copies bytes in; all must be within the value.
    pub fn write(&mut self, offset: usize, data: &[u8]) -> Result<(), StateError> {
        match &mut self.place {
            Place::Small(bytes) => bytes[offset..offset + data.len()].copy_from_slice(data),
            Place::Whole(_) if data.is_empty() => {}
            Place::Whole(_) => self.region(0)?.write(offset, data)?,
            Place::Shared(region) => region.write(offset, data)?,
        }
        Ok(())
    }

    /// Adds to word `number` and gives the sum; the word must be within the value.
    pub fn add_to_word(&mut self, number: usize, amount: u64) -> Result<u64, StateError> {
        match &mut self.place {
            Place::Small(bytes) => {
                let at = number * WORD_BYTES;
                let mut word = [0; WORD_BYTES];
                word.copy_from_slice(&bytes[at..at + WORD_BYTES]);
                let sum = u64::from_le_bytes(word).wrapping_add(amount);
                bytes[at..at + WORD_BYTES].copy_from_slice(&sum.to_le_bytes());
                Ok(sum)
            }
            Place::Whole(_) => Ok(self.region(0)?.add_to_word(number, amount)?),
            Place::Shared(region) => Ok(region.add_to_word(number, amount)?),
        }
    }

    /// Makes a value of `size` bytes one of `new`, longer, whose added bytes are zero.
    pub fn extend(&mut self, size: usize, new: usize) -> Result<(), StateError> {
        self.check(new)?;
        match &mut self.place {
            Place::Small(bytes) if new <= SMALL_BYTES_MAX => {
                self.charge.lock().hold(new, false)?;
                bytes.resize(new, 0);
                return Ok(());
            }
            Place::Small(_) | Place::Whole(_) => self.share(new)?,
            Place::Shared(_) => {}
        }
        if let Place::Shared(region) = &self.place {
            let old = region.bytes();
            if new > old {
                self.charge.lock().hold(units(new), true)?;
                region
                    .grow_to(new)
                    .inspect_err(|_| drop(self.charge.lock().hold(old, true)))?;
            }
            if self.scribbled {
                region.zero(size, new.min(old).saturating_sub(size))?;
            }
        }
        Ok(())
    }

    /// Makes a value of `size` bytes one of `new`, shorter.
    pub fn cut(&mut self, size: usize, new: usize) -> Result<(), StateError> {
        match &mut self.place {
            Place::Small(bytes) => {
                bytes.truncate(new);
                self.charge.lock().hold(new, false)
            }
            Place::Whole(_) => Ok(self.region(0)?.zero(new, size.saturating_sub(new))?),
            Place::Shared(region) => Ok(region.zero(new, size.saturating_sub(new))?),
        }
    }

    /// Puts `data` in the place of a value of `size` bytes.
    pub fn replace(&mut self, size: usize, data: &Data<'_>) -> Result<(), StateError> {
        self.check(data.len())?;
        if let Some(whole) = self.whole(data) {
            self.charge.lock().hold(whole.len(), false)?;
            self.place = Place::Whole(whole);
            self.scribbled = false;
            return Ok(());
        }
        let is_too_large = match &self.place {
            Place::Small(_) => false,
            Place::Whole(_) => true,
            Place::Shared(region) => data.len() <= region.bytes() / SHRINK_FACTOR,
        };
        if is_too_large && !self.is_held() {
            self.clear();
            self.extend(0, data.len())?;
        } else if data.len() > size {
            self.extend(size, data.len())?;
        } else {
            self.cut(size, data.len())?;
        }
        self.write(0, data)
    }

    /// What is to be kept as it is, if `data` is, in the place of what is here.
    fn whole(&self, data: &Data<'_>) -> Option<Bytes> {
        match (&self.place, data) {
            _ if self.is_held() => None,
            (_, Data::Given(bytes)) if bytes.len() >= WHOLE_BYTES_MIN => Some(bytes.clone()),
            // No region is made, and filled, to be written over.
            (Place::Whole(_), data) if data.len() > SMALL_BYTES_MAX => {
                Some(Bytes::copy_from_slice(data))
            }
            _ => None,
        }
    }

    /// Gives everything up; who maps the region keeps it, and shares it with nobody new.
    pub fn clear(&mut self) {
        if self.is_held() {
            // Who maps it keeps it, and it is charged until they do not.
            let fresh = self.charge.lock().another();
            self.charge = Arc::new(Mutex::new(fresh));
        }
        self.place = Place::Small(Vec::new());
        self.scribbled = false;
        // Holding less cannot be refused.
        let _ = self.charge.lock().hold(0, false);
    }

    /// The region, made if there is none, of at least `bytes` bytes.
    pub fn region(&mut self, bytes: usize) -> Result<&Arc<Region>, StateError> {
        if !matches!(self.place, Place::Shared(_)) {
            self.share(bytes.max(1))?;
        }
        match &self.place {
            Place::Shared(region) => Ok(region),
            Place::Small(_) | Place::Whole(_) => Err(StateError::NotFound),
        }
    }

    /// Whether somebody besides the value holds the region, and so may map it.
    pub fn is_held(&self) -> bool {
        match &self.place {
            Place::Small(_) | Place::Whole(_) => false,
            Place::Shared(region) => Arc::strong_count(region) > 1,
        }
    }

    /// From now on, guests may write past the value's end.
    pub fn set_scribbled(&mut self) {
        self.scribbled = true;
    }

    fn check(&self, size: usize) -> Result<(), StateError> {
        if size > self.bytes_max {
            return Err(StateError::TooLarge {
                asked: size as u64,
                max: self.bytes_max as u64,
            });
        }
        Ok(())
    }

    /// Moves bytes into a region of at least `bytes`.
    fn share(&mut self, bytes: usize) -> Result<(), StateError> {
        let here = match &self.place {
            Place::Small(bytes) => &bytes[..],
            Place::Whole(bytes) => &bytes[..],
            Place::Shared(_) => return Ok(()),
        };
        let length = here.len();
        self.charge.lock().hold(units(bytes.max(length)), true)?;
        let made = Region::new(self.bytes_max).and_then(|region| {
            region.grow_to(bytes.max(length))?;
            region.write(0, here)?;
            Ok(region)
        });
        match made {
            Ok(region) => {
                region.keep(Box::new(self.charge.clone()));
                self.place = Place::Shared(Arc::new(region));
            }
            Err(error) => {
                self.charge.lock().hold(length, false)?;
                return Err(error.into());
            }
        }
        Ok(())
    }
}

fn units(bytes: usize) -> usize {
    bytes.next_multiple_of(REGION_UNIT_BYTES)
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
