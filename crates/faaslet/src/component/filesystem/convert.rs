//! Our words in those of the interfaces, which have each of them twice.

use files::{Errno, OpenFlags, Stat};
use wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime;
use wasmtime_wasi::p2::bindings::filesystem::types as p2;
use wasmtime_wasi::p3::bindings::clocks::system_clock::Instant;
use wasmtime_wasi::p3::bindings::filesystem::types as p3;

use super::{Modes, Opening};

const SECOND_NS: u64 = 1_000_000_000;

/// Words that both versions have by the same names.
macro_rules! same_words {
    ($types:ident, $code:ident, $kind:ident, $flags:ident, $modes:ident) => {
        pub(super) fn $code(errno: Errno) -> $types::ErrorCode {
            use $types::ErrorCode;
            match errno {
                Errno::NotPermitted => ErrorCode::NotPermitted,
                Errno::NoEntry => ErrorCode::NoEntry,
                Errno::Io => ErrorCode::Io,
                Errno::BadFile => ErrorCode::BadDescriptor,
                Errno::Access => ErrorCode::Access,
                Errno::Busy => ErrorCode::Busy,
                Errno::Exists => ErrorCode::Exist,
                Errno::NotDirectory => ErrorCode::NotDirectory,
                Errno::IsDirectory => ErrorCode::IsDirectory,
                Errno::Invalid => ErrorCode::Invalid,
                Errno::TooBig => ErrorCode::FileTooLarge,
                Errno::NoSpace => ErrorCode::InsufficientSpace,
                Errno::ReadOnly => ErrorCode::ReadOnly,
                Errno::TooManyLinks => ErrorCode::TooManyLinks,
                Errno::NameTooLong => ErrorCode::NameTooLong,
                Errno::NotEmpty => ErrorCode::NotEmpty,
                Errno::Loop => ErrorCode::Loop,
            }
        }

        pub(super) fn $kind(kind: files::Kind) -> $types::DescriptorType {
            match kind {
                files::Kind::File => $types::DescriptorType::RegularFile,
                files::Kind::Directory => $types::DescriptorType::Directory,
                files::Kind::Symlink => $types::DescriptorType::SymbolicLink,
            }
        }

        pub(super) fn $flags(
            path: $types::PathFlags,
            open: $types::OpenFlags,
            flags: $types::DescriptorFlags,
        ) -> Opening {
            let write = flags.contains($types::DescriptorFlags::WRITE);
            let of_file = OpenFlags {
                // What is opened for neither can be read.
                read: flags.contains($types::DescriptorFlags::READ) || !write,
                write,
                append: false,
                create: open.contains($types::OpenFlags::CREATE),
                exclusive: open.contains($types::OpenFlags::EXCLUSIVE),
                truncate: open.contains($types::OpenFlags::TRUNCATE),
                directory: open.contains($types::OpenFlags::DIRECTORY),
                no_follow: !path.contains($types::PathFlags::SYMLINK_FOLLOW),
            };
            Opening {
                flags: of_file,
                mutate: flags.contains($types::DescriptorFlags::MUTATE_DIRECTORY),
            }
        }

        pub(super) fn $modes(modes: Modes) -> $types::DescriptorFlags {
            let all = [
                (modes.read, $types::DescriptorFlags::READ),
                (modes.write, $types::DescriptorFlags::WRITE),
                (modes.mutate, $types::DescriptorFlags::MUTATE_DIRECTORY),
            ];
            let had = all.into_iter().filter(|(has, _)| *has);
            had.fold($types::DescriptorFlags::empty(), |flags, (_, flag)| {
                flags | flag
            })
        }
    };
}

same_words!(p2, p2_code, p2_kind, p2_open, p2_modes);
same_words!(p3, p3_code, p3_kind, p3_open, p3_modes);

pub(super) fn p2_stat(stat: &Stat) -> p2::DescriptorStat {
    let time = |ns: u64| {
        Some(Datetime {
            seconds: ns / SECOND_NS,
            nanoseconds: (ns % SECOND_NS) as u32,
        })
    };
    p2::DescriptorStat {
        type_: p2_kind(stat.kind),
        link_count: stat.links.into(),
        size: stat.bytes,
        data_access_timestamp: time(stat.times.accessed_ns),
        data_modification_timestamp: time(stat.times.modified_ns),
        status_change_timestamp: time(stat.times.changed_ns),
    }
}

pub(super) fn p3_stat(stat: &Stat) -> p3::DescriptorStat {
    let time = |ns: u64| {
        Some(Instant {
            seconds: (ns / SECOND_NS).cast_signed(),
            nanoseconds: (ns % SECOND_NS) as u32,
        })
    };
    p3::DescriptorStat {
        type_: p3_kind(stat.kind),
        link_count: stat.links.into(),
        size: stat.bytes,
        data_access_timestamp: time(stat.times.accessed_ns),
        data_modification_timestamp: time(stat.times.modified_ns),
        status_change_timestamp: time(stat.times.changed_ns),
    }
}

fn now_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let ns = since.map_or(0, |since| since.as_nanos());
    u64::try_from(ns).unwrap_or(u64::MAX)
}

/// Nanoseconds of a time; one that is too late for them is invalid.
fn ns_of(seconds: u64, nanoseconds: u32) -> Result<u64, Errno> {
    let ns = seconds.checked_mul(SECOND_NS);
    let ns = ns.and_then(|ns| ns.checked_add(nanoseconds.into()));
    ns.ok_or(Errno::Invalid)
}

pub(super) fn p2_time(new: p2::NewTimestamp) -> Result<Option<u64>, Errno> {
    Ok(match new {
        p2::NewTimestamp::NoChange => None,
        p2::NewTimestamp::Now => Some(now_ns()),
        p2::NewTimestamp::Timestamp(time) => Some(ns_of(time.seconds, time.nanoseconds)?),
    })
}

pub(super) fn p3_time(new: p3::NewTimestamp) -> Result<Option<u64>, Errno> {
    Ok(match new {
        p3::NewTimestamp::NoChange => None,
        p3::NewTimestamp::Now => Some(now_ns()),
        p3::NewTimestamp::Timestamp(time) => {
            let seconds = u64::try_from(time.seconds).map_err(|_| Errno::Invalid)?;
            Some(ns_of(seconds, time.nanoseconds)?)
        }
    })
}
