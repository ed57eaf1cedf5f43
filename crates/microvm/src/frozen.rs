//! What is frozen beside a guest's memory: its registers, its address space, and what its kind of
//! guest has to remember; as an entry of the cache.

use model::Digest;
use serde::{Deserialize, Serialize};

use crate::frames::Frames;
use crate::kvm::{CpuState, XSAVE_WORDS};
use crate::space::{Area, Protection, Space};

/// The form of what is written; another is not read.
const VERSION: u32 = 3;

/// Why frozen state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FrozenError {
    /// It cannot be read.
    #[error("the frozen state is unusable")]
    Unreadable(#[from] serde_json::Error),
    /// It is of another version of this program.
    #[error("the frozen state is of form {0}, and {VERSION} is what is read here")]
    OtherForm(u32),
    /// It was made where processors can do other things.
    #[error(
        "the image was made on a processor with other features ({made}) than this one ({here}): \
         deploy the function again on this machine"
    )]
    OtherProcessor {
        /// The digest of the features where it was made.
        made: Digest,
        /// The digest of those here.
        here: Digest,
    },
    /// It contradicts itself.
    #[error("the frozen state is malformed")]
    Malformed,
}

/// Everything of a guest but its memory.
#[derive(Clone, Debug)]
pub struct Frozen {
    /// Registers.
    pub cpu: CpuState,
    /// Addresses.
    pub space: Space,
    /// What was added to the program's addresses.
    pub moved_by: u64,
    /// What its kind of guest has to remember.
    pub guest: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Written {
    form: u32,
    features: Digest,
    /// KVM's own structures, as their bytes.
    regs: Vec<u8>,
    sregs: Vec<u8>,
    events: Vec<u8>,
    xcrs: Vec<u8>,
    xsave: Vec<u32>,
    /// Start, end, frame, bits of the protection, whether the frames are the space's own.
    areas: Vec<(u64, u64, u64, u8, bool)>,
    frames_end: u64,
    frames_free: Vec<(u64, u64)>,
    frames_bytes: u64,
    moved_by: u64,
    guest: Vec<u8>,
}

/// A structure of plain numbers, without bytes that mean nothing.
///
/// # Safety
/// Every byte is part of a number, and every number is one of its values.
pub(crate) unsafe trait Plain: Default {}

// SAFETY: `repr(C)` structures of integers whose padding has names: see linux/kvm.h.
unsafe impl Plain for kvm_bindings::kvm_regs {}
// SAFETY: as above.
unsafe impl Plain for kvm_bindings::kvm_sregs {}
// SAFETY: as above.
unsafe impl Plain for kvm_bindings::kvm_vcpu_events {}
// SAFETY: as above.
unsafe impl Plain for kvm_bindings::kvm_xcrs {}

/// The bytes of a structure.
pub(crate) fn bytes_of<T: Plain>(value: &T) -> Vec<u8> {
    let bytes = std::ptr::from_ref(value).cast::<u8>();
    // SAFETY: `Plain` promises that all bytes of the value are there to be read.
    unsafe { std::slice::from_raw_parts(bytes, size_of::<T>()) }.to_vec()
}

/// The structure that bytes make.
pub(crate) fn of_bytes<T: Plain>(bytes: &[u8]) -> Result<T, FrozenError> {
    if bytes.len() != size_of::<T>() {
        return Err(FrozenError::Malformed);
    }
    let mut value = T::default();
    let to = std::ptr::from_mut(&mut value).cast::<u8>();
    // SAFETY: both are as long as the value, and `Plain` promises that any bytes make one.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    Ok(value)
}

/// A protection as a number.
pub(crate) fn bits(protection: Protection) -> u8 {
    u8::from(protection.read) | u8::from(protection.write) << 1 | u8::from(protection.execute) << 2
}

/// The protection that a number says.
pub(crate) fn protection(bits: u8) -> Protection {
    Protection {
        read: bits & 1 != 0,
        write: bits & 2 != 0,
        execute: bits & 4 != 0,
    }
}

impl Frozen {
    /// As an entry of the cache, for processors with `features`.
    pub fn encode(&self, features: &[u8]) -> Result<Vec<u8>, FrozenError> {
        let areas = self.space.areas();
        let areas = areas.map(|(start, area)| {
            let bits = bits(area.protection);
            (start, area.end, area.frame, bits, area.owned)
        });
        let (frames_end, frames_free, frames_bytes) = self.space.frames.parts();
        let written = Written {
            form: VERSION,
            features: Digest::of(features),
            regs: bytes_of(&self.cpu.regs),
            sregs: bytes_of(&self.cpu.sregs),
            events: bytes_of(&self.cpu.events),
            xcrs: bytes_of(&self.cpu.xcrs),
            xsave: self.cpu.xsave.to_vec(),
            areas: areas.collect(),
            frames_end,
            frames_free,
            frames_bytes,
            moved_by: self.moved_by,
            guest: self.guest.clone(),
        };
        Ok(serde_json::to_vec(&written)?)
    }

    /// Reads it back, for a guest that may have `bytes_max` bytes, where processors have
    /// `features`.
    pub fn decode(entry: &[u8], bytes_max: u64, features: &[u8]) -> Result<Self, FrozenError> {
        let read: Written = serde_json::from_slice(entry)?;
        if read.form != VERSION {
            return Err(FrozenError::OtherForm(read.form));
        }
        let here = Digest::of(features);
        if read.features != here {
            let made = read.features;
            return Err(FrozenError::OtherProcessor { made, here });
        }
        let mut xsave = Box::new([0; XSAVE_WORDS]);
        let words = read.xsave.as_slice();
        xsave.copy_from_slice(
            <&[u32; XSAVE_WORDS]>::try_from(words).map_err(|_| FrozenError::Malformed)?,
        );
        let areas = read
            .areas
            .into_iter()
            .map(|(start, end, frame, bits, owned)| {
                let area = Area {
                    end,
                    frame,
                    protection: protection(bits),
                    owned,
                };
                (start, area)
            });
        let free = read.frames_free;
        let frames = Frames::of_parts(read.frames_end, free, read.frames_bytes, bytes_max);
        Ok(Self {
            cpu: CpuState {
                regs: of_bytes(&read.regs)?,
                sregs: of_bytes(&read.sregs)?,
                xsave: xsave.into(),
                xcrs: of_bytes(&read.xcrs)?,
                events: of_bytes(&read.events)?,
            },
            space: Space::of_parts(areas.collect(), frames),
            moved_by: read.moved_by,
            guest: read.guest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frozen() -> Frozen {
        let mut frames = Frames::new(1 << 20);
        frames.take(3 * 4096).expect("there is room");
        let area = Area {
            end: 0x40_3000,
            frame: crate::layout::FRAMES,
            protection: Protection::READ_EXECUTE,
            owned: true,
        };
        let mut cpu = CpuState {
            regs: Default::default(),
            sregs: Default::default(),
            xsave: [0; XSAVE_WORDS].into(),
            xcrs: Default::default(),
            events: Default::default(),
        };
        let mut xsave = [0; XSAVE_WORDS];
        xsave[1000] = 9;
        cpu.xsave = xsave.into();
        (cpu.regs.rip, cpu.sregs.fs.base) = (7, 8);
        Frozen {
            cpu,
            space: Space::of_parts([(0x40_0000, area)].into(), frames),
            moved_by: 1,
            guest: b"guest".to_vec(),
        }
    }

    #[test]
    fn it_comes_back_as_it_was() {
        let frozen = frozen();
        let entry = frozen.encode(b"features").unwrap();
        let back = Frozen::decode(&entry, 1 << 20, b"features").unwrap();
        assert_eq!(back.encode(b"features").unwrap(), entry);
        assert_eq!(back.cpu.xsave[1000], 9);
        assert_eq!(back.space.area(0x40_2fff), frozen.space.area(0x40_2fff));
    }

    #[test]
    fn another_processor_or_form_is_refused_in_words() {
        let entry = frozen().encode(b"features").unwrap();
        let error = Frozen::decode(&entry, 1 << 20, b"others").unwrap_err();
        assert!(
            error.to_string().contains("deploy the function again"),
            "{error}"
        );
        let text = String::from_utf8(entry)
            .unwrap()
            .replace("\"form\":3", "\"form\":1");
        let error = Frozen::decode(text.as_bytes(), 1 << 20, b"features").unwrap_err();
        assert!(matches!(error, FrozenError::OtherForm(1)));
        assert!(Frozen::decode(b"{}", 1 << 20, b"features").is_err());
    }
}
