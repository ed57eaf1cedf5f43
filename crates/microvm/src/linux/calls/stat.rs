//! Calls that tell what is known of files.

use files::{Kind, Stat};

use super::super::descriptor::Object;
use super::super::errno::Errno;
use super::super::process::{Answer, Call, USER};
use super::super::pseudo::{Device, Pseudo};
use super::paths::{AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, Path, path};

const S_IFIFO: u32 = 0o010_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFSOCK: u32 = 0o140_000;
const AT_FDCWD: i32 = -100;
/// Bytes that reading and writing go well with.
const BLOCK: u64 = 4096;

/// What is told of a file.
#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    ino: u64,
    mode: u32,
    links: u64,
    bytes: u64,
    allocated: u64,
    /// Accessed, modified, changed.
    times: [u64; 3],
    device: u64,
}

impl Facts {
    fn of(stat: &Stat) -> Self {
        let kind = match stat.kind {
            Kind::File => S_IFREG,
            Kind::Directory => S_IFDIR,
            Kind::Symlink => S_IFLNK,
        };
        Self {
            ino: stat.ino.number(),
            mode: kind | u32::from(stat.mode),
            links: stat.links.into(),
            bytes: stat.bytes,
            allocated: stat.allocated_bytes,
            times: [
                stat.times.accessed_ns,
                stat.times.modified_ns,
                stat.times.changed_ns,
            ],
            device: 0,
        }
    }

    fn made_up(mode: u32, bytes: u64) -> Self {
        Self {
            // Not a number of any file's.
            ino: u64::from(mode) << 32 | 1,
            mode,
            links: 1,
            bytes,
            device: if mode & S_IFCHR == S_IFCHR { 0x103 } else { 0 },
            ..Self::default()
        }
    }

    /// As `struct stat`.
    fn bytes(&self) -> [u8; 144] {
        let mut bytes = [0; 144];
        let mut put = |at: usize, word: u64| bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        put(0, 1);
        put(8, self.ino);
        put(16, self.links);
        put(24, u64::from(self.mode) | u64::from(USER) << 32);
        put(32, USER.into());
        put(40, self.device);
        put(48, self.bytes);
        put(56, BLOCK);
        put(64, self.allocated.div_ceil(512));
        for (index, time) in self.times.iter().enumerate() {
            put(72 + index * 16, time / 1_000_000_000);
            put(80 + index * 16, time % 1_000_000_000);
        }
        bytes
    }

    /// As `struct statx`.
    fn extended_bytes(&self) -> [u8; 256] {
        const BASIC: u64 = 0x7ff;
        let mut bytes = [0; 256];
        let mut put = |at: usize, word: u64| bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        put(0, BASIC | BLOCK << 32);
        put(16, self.links | u64::from(USER) << 32);
        put(24, u64::from(USER) | u64::from(self.mode) << 32);
        put(32, self.ino);
        put(40, self.bytes);
        put(48, self.allocated.div_ceil(512));
        let [accessed, modified, changed] = self.times;
        for (at, time) in [(64, accessed), (96, changed), (112, modified)] {
            put(at, time / 1_000_000_000);
            put(at + 8, time % 1_000_000_000);
        }
        put(128, (self.device >> 8) | (self.device & 0xff) << 32);
        put(136, 1 << 32);
        bytes
    }
}

fn facts_of_pseudo(call: &mut Call<'_>, pseudo: Pseudo, follow: bool) -> Result<Facts, Errno> {
    Ok(match pseudo {
        Pseudo::Device(Device::Descriptor(descriptor)) => return facts_of_open(call, descriptor),
        Pseudo::Device(_) => Facts::made_up(S_IFCHR | 0o666, 0),
        Pseudo::Text(_) => Facts::made_up(S_IFREG | 0o444, 0),
        Pseudo::Link(_) if !follow => Facts::made_up(S_IFLNK | 0o777, 0),
        Pseudo::Link(_) => Facts::made_up(S_IFREG | 0o555, 0),
        Pseudo::Directory => Facts::made_up(S_IFDIR | 0o555, 0),
    })
}

fn facts_of_open(call: &mut Call<'_>, descriptor: i32) -> Result<Facts, Errno> {
    let open = call.process.descriptors.find(descriptor)?;
    Ok(match &open.object {
        Object::File(file) => Facts::of(&call.process.files.stat(file.ino())?),
        Object::Input | Object::Reply | Object::Log => Facts::made_up(S_IFIFO | 0o600, 0),
        Object::PipeReader(_) | Object::PipeWriter(_) => Facts::made_up(S_IFIFO | 0o600, 0),
        Object::Null | Object::Zero | Object::Full | Object::Random => {
            Facts::made_up(S_IFCHR | 0o666, 0)
        }
        Object::Text(text, _) => Facts::made_up(S_IFREG | 0o444, text.len() as u64),
        Object::Socket(_) => Facts::made_up(S_IFSOCK | 0o777, 0),
        Object::Event(_) | Object::Timer(_) | Object::Epoll(_) => Facts::made_up(0o600, 0),
    })
}

fn facts_at(call: &mut Call<'_>, path: &Path, follow: bool) -> Result<Facts, Errno> {
    match path.pseudo() {
        Some(pseudo) => facts_of_pseudo(call, pseudo, follow),
        None => Ok(Facts::of(&call.process.files.stat_at(path.at(), follow)?)),
    }
}

/// `stat`.
pub fn stat(call: &mut Call<'_>) -> Answer {
    named(call, true)
}

/// `lstat`.
pub fn lstat(call: &mut Call<'_>) -> Answer {
    named(call, false)
}

fn named(call: &mut Call<'_>, follow: bool) -> Answer {
    let path = path(call, AT_FDCWD, call.arg(0))?;
    let facts = facts_at(call, &path, follow)?;
    call.write(call.arg(1), &facts.bytes())?;
    Ok(0)
}

/// `fstat`.
pub fn fstat(call: &mut Call<'_>) -> Answer {
    let facts = facts_of_open(call, call.int(0))?;
    call.write(call.arg(1), &facts.bytes())?;
    Ok(0)
}

/// What a descriptor, a path and flags name together.
fn facts_there(call: &mut Call<'_>, flags: u32) -> Result<Facts, Errno> {
    let descriptor = call.int(0);
    // Some programs leave the path out altogether.
    if flags & AT_EMPTY_PATH != 0 && call.arg(1) == 0 {
        return facts_of_open(call, descriptor);
    }
    let path = path(call, descriptor, call.arg(1))?;
    if path.is_empty() && flags & AT_EMPTY_PATH != 0 && descriptor != AT_FDCWD {
        return facts_of_open(call, descriptor);
    }
    facts_at(call, &path, flags & AT_SYMLINK_NOFOLLOW == 0)
}

/// `newfstatat`.
pub fn newfstatat(call: &mut Call<'_>) -> Answer {
    let facts = facts_there(call, call.uint(3))?;
    call.write(call.arg(2), &facts.bytes())?;
    Ok(0)
}

/// `statx`.
pub fn statx(call: &mut Call<'_>) -> Answer {
    let facts = facts_there(call, call.uint(2))?;
    call.write(call.arg(4), &facts.extended_bytes())?;
    Ok(0)
}

/// `statfs`, `fstatfs`.
pub fn statfs(call: &mut Call<'_>) -> Answer {
    const TMPFS: u64 = 0x0102_1994;
    let usage = call.process.files.usage();
    let pages = usage.quota.bytes_max / BLOCK;
    let free = pages.saturating_sub(usage.bytes / BLOCK);
    let inodes = usage.quota.inodes_max;
    let words = [
        TMPFS,
        BLOCK,
        pages,
        free,
        free,
        inodes,
        inodes.saturating_sub(usage.inodes),
        0,
        255,
        BLOCK,
        0,
        0,
        0,
        0,
        0,
    ];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    call.write(call.arg(1), &bytes)?;
    Ok(0)
}

/// `getdents64`.
pub fn getdents64(call: &mut Call<'_>) -> Answer {
    const HEAD: usize = 19;
    let most = call.arg(2).min(64 << 10) as usize;
    let process = &mut *call.process;
    let open = process.descriptors.find_mut(call.request.args[0] as i32)?;
    let Object::File(file) = &mut open.object else {
        return Err(Errno::ENOTDIR.into());
    };
    let (mut listed, mut cookie) = (Vec::new(), file.offset);
    while let Some(entry) = process.files.entry(file, cookie)? {
        let bytes = (HEAD + entry.name.len() + 1).next_multiple_of(8);
        if listed.len() + bytes > most {
            break;
        }
        let kind = match entry.kind {
            Kind::File => 8,
            Kind::Directory => 4,
            Kind::Symlink => 10,
        };
        let end = listed.len() + bytes;
        listed.extend_from_slice(&entry.ino.number().to_le_bytes());
        listed.extend_from_slice(&entry.next_cookie.to_le_bytes());
        listed.extend_from_slice(&(bytes as u16).to_le_bytes());
        listed.push(kind);
        listed.extend_from_slice(&entry.name);
        listed.resize(end, 0);
        cookie = entry.next_cookie;
    }
    if listed.is_empty() && process.files.entry(file, cookie)?.is_some() {
        return Err(Errno::EINVAL.into());
    }
    file.offset = cookie;
    call.write(call.arg(1), &listed)?;
    Ok(listed.len() as u64)
}
