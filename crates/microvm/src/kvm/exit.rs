//! Why a processor left its guest.

/// A port instruction of the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Io {
    /// Whether it writes to the port.
    pub out: bool,
    /// The port.
    pub port: u16,
    /// Bytes of one element: 1, 2 or 4.
    pub size: u8,
    /// Elements.
    pub count: u32,
}

/// Why a processor left its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A port instruction.
    Io(Io),
    /// It was kicked, or a signal came.
    Interrupted,
    /// It touched guest-physical memory that there is not, or that the host does not let it touch.
    Memory,
    /// It waits for an interrupt.
    Halt,
    /// It is beyond saving: a fault while a fault was delivered, and again.
    Shutdown,
    /// The hypervisor gave up on it, with its own number for why.
    Failed(u64),
    /// Something that no guest of ours can cause where the hypervisor is right.
    Other(u32),
}
