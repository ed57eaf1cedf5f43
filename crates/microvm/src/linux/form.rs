//! How what is not of this module is written where a process is: registers and protections.

/// A protection, as its bits.
pub mod protection {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::frozen::{bits, protection};
    use crate::space::Protection;

    pub fn serialize<S: Serializer>(value: &Protection, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u8(bits(*value))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Protection, D::Error> {
        u8::deserialize(from).map(protection)
    }
}

/// General registers, as the bytes of KVM's own structure.
pub mod registers {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::frozen::{bytes_of, of_bytes};
    use crate::kvm::kvm_regs;

    pub fn serialize<S: Serializer>(value: &kvm_regs, to: S) -> Result<S::Ok, S::Error> {
        bytes_of(value).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<kvm_regs, D::Error> {
        let bytes = Vec::<u8>::deserialize(from)?;
        of_bytes(&bytes).map_err(D::Error::custom)
    }
}

/// Vector registers, as words.
pub mod vectors {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::kvm::XSAVE_WORDS;

    type Vectors = Option<Box<[u32; XSAVE_WORDS]>>;

    pub fn serialize<S: Serializer>(value: &Vectors, to: S) -> Result<S::Ok, S::Error> {
        let words = value.as_ref().map(|words| words.as_slice());
        words.serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vectors, D::Error> {
        let words = Option::<Vec<u32>>::deserialize(from)?;
        let whole = |words: Vec<u32>| {
            let words = words.into_boxed_slice().try_into();
            words.map_err(|_| D::Error::custom("vector registers of another size"))
        };
        words.map(whole).transpose()
    }
}
