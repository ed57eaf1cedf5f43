//! Preview 1's numbers and layouts.

use files::{Errno, Kind};

/// An error number of preview 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code(pub u16);

impl Code {
    pub const ACCES: Code = Code(2);
    pub const BADF: Code = Code(8);
    pub const BUSY: Code = Code(10);
    pub const EXIST: Code = Code(20);
    pub const FBIG: Code = Code(22);
    pub const ILSEQ: Code = Code(25);
    pub const INVAL: Code = Code(28);
    pub const IO: Code = Code(29);
    pub const ISDIR: Code = Code(31);
    pub const LOOP: Code = Code(32);
    pub const MFILE: Code = Code(33);
    pub const MLINK: Code = Code(34);
    pub const NAMETOOLONG: Code = Code(37);
    pub const NOENT: Code = Code(44);
    pub const NOSPC: Code = Code(51);
    pub const NOSYS: Code = Code(52);
    pub const NOTDIR: Code = Code(54);
    pub const NOTEMPTY: Code = Code(55);
    pub const NOTSOCK: Code = Code(57);
    pub const NOTSUP: Code = Code(58);
    pub const PERM: Code = Code(63);
    pub const ROFS: Code = Code(69);
    pub const SPIPE: Code = Code(70);
}

impl From<Errno> for Code {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NotPermitted => Code::PERM,
            Errno::NoEntry => Code::NOENT,
            Errno::Io => Code::IO,
            Errno::BadFile => Code::BADF,
            Errno::Access => Code::ACCES,
            Errno::Busy => Code::BUSY,
            Errno::Exists => Code::EXIST,
            Errno::NotDirectory => Code::NOTDIR,
            Errno::IsDirectory => Code::ISDIR,
            Errno::Invalid => Code::INVAL,
            Errno::TooBig => Code::FBIG,
            Errno::NoSpace => Code::NOSPC,
            Errno::ReadOnly => Code::ROFS,
            Errno::TooManyLinks => Code::MLINK,
            Errno::NameTooLong => Code::NAMETOOLONG,
            Errno::NotEmpty => Code::NOTEMPTY,
            Errno::Loop => Code::LOOP,
        }
    }
}

/// A file type's number; streams have none of those that there are.
pub(super) fn filetype(kind: Option<Kind>) -> u8 {
    match kind {
        None => 0,
        Some(Kind::Directory) => 3,
        Some(Kind::File) => 4,
        Some(Kind::Symlink) => 7,
    }
}

/// Bits of a descriptor's flags.
pub(super) mod fdflags {
    pub const APPEND: u32 = 1;
    pub const ALL: u32 = 31;
}

/// Bits that say how to open.
pub(super) mod oflags {
    pub const CREAT: u32 = 1;
    pub const DIRECTORY: u32 = 2;
    pub const EXCL: u32 = 4;
    pub const TRUNC: u32 = 8;
    pub const ALL: u32 = 15;
}

/// Bits that say which times to set, and to what.
pub(super) mod fstflags {
    pub const ATIM: u32 = 1;
    pub const ATIM_NOW: u32 = 2;
    pub const MTIM: u32 = 4;
    pub const MTIM_NOW: u32 = 8;
    pub const ALL: u32 = 15;
}

/// Bits of rights.
pub(super) mod rights {
    pub const FD_DATASYNC: u64 = 1;
    pub const FD_READ: u64 = 1 << 1;
    pub const FD_SEEK: u64 = 1 << 2;
    pub const FD_FDSTAT_SET_FLAGS: u64 = 1 << 3;
    pub const FD_SYNC: u64 = 1 << 4;
    pub const FD_TELL: u64 = 1 << 5;
    pub const FD_WRITE: u64 = 1 << 6;
    pub const FD_ADVISE: u64 = 1 << 7;
    pub const FD_ALLOCATE: u64 = 1 << 8;
    pub const FD_READDIR: u64 = 1 << 14;
    pub const FD_FILESTAT_GET: u64 = 1 << 21;
    pub const FD_FILESTAT_SET_SIZE: u64 = 1 << 22;
    pub const FD_FILESTAT_SET_TIMES: u64 = 1 << 23;
    pub const POLL_FD_READWRITE: u64 = 1 << 27;

    /// All that begin with `path_`, but to set a size by path, which no call does.
    const PATH: u64 = (((1 << 27) - 1) & !((1 << 9) - 1))
        & !(FD_READDIR | PATH_FILESTAT_SET_SIZE | FD_FILESTAT_GET)
        & !(FD_FILESTAT_SET_SIZE | FD_FILESTAT_SET_TIMES);
    const PATH_FILESTAT_SET_SIZE: u64 = 1 << 19;

    /// Of a directory.
    pub const DIRECTORY: u64 = PATH | FD_READDIR | FD_FILESTAT_GET | FD_FILESTAT_SET_TIMES;
    /// Of a file, before it is said whether it may be read or written.
    pub const FILE: u64 = FD_DATASYNC
        | FD_SEEK
        | FD_FDSTAT_SET_FLAGS
        | FD_SYNC
        | FD_TELL
        | FD_ADVISE
        | FD_FILESTAT_GET
        | FD_FILESTAT_SET_TIMES
        | POLL_FD_READWRITE;
    /// Of a file that may be written.
    pub const WRITABLE: u64 = FD_WRITE | FD_ALLOCATE | FD_FILESTAT_SET_SIZE;
    /// Of what is opened in a directory.
    pub const INHERITING: u64 = DIRECTORY | FILE | FD_READ | WRITABLE;
}

/// Kinds of events.
pub(super) mod events {
    pub const CLOCK: u8 = 0;
    pub const FD_READ: u8 = 1;
    pub const FD_WRITE: u8 = 2;
    /// The other end is closed, or the end is reached.
    pub const HANGUP: u16 = 1;
    pub const SUBSCRIPTION_BYTES: u32 = 48;
    pub const EVENT_BYTES: u32 = 32;
}

/// Clocks' numbers.
pub(super) mod clocks {
    pub const REALTIME: u32 = 0;
    pub const MONOTONIC: u32 = 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_have_the_bits_of_the_interface() {
        // path_create_directory (9) to path_unlink_file (26) but path_filestat_set_size (19) and
        // fd_filestat_set_size (22).
        let path = (9..=26).filter(|bit| ![19, 22].contains(bit));
        let directory = path.fold(0_u64, |bits, bit| bits | 1 << bit);
        assert_eq!(rights::DIRECTORY, directory);
        let all = (0..=27).filter(|bit| *bit != 19);
        assert_eq!(
            rights::INHERITING,
            all.fold(0_u64, |bits, bit| bits | 1 << bit)
        );
    }
}
