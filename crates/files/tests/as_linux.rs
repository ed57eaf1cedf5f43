//! The same random operations on our files and on a directory of Linux: the same answers.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use files::{
    At, Errno, Files, Ino, Kind, Layer, OpenFile, OpenFlags, Quota, Replace, Stat, Whence,
};
use proptest::prelude::*;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, SeekFrom};
use rustix::io::Errno as Native;

/// So deep that no path of a test, with all links that it may follow, leads out of the directory.
const DEPTH: usize = 48;
const SLOTS: usize = 3;

#[derive(Clone, Debug)]
enum Op {
    MakeDirectory(String),
    RemoveDirectory(String),
    Unlink(String),
    Symlink(String, String),
    Link(String, bool, String),
    Rename(String, String, bool),
    Open(usize, String, Flags),
    Close(usize),
    Read(usize, usize),
    Write(usize, Vec<u8>),
    ReadAt(usize, u64, usize),
    WriteAt(usize, u64, Vec<u8>),
    Seek(usize, i64, u8),
    Truncate(usize, u64),
    Allocate(usize, u64, u64),
    TruncateAt(String, u64),
    Stat(String, bool),
    StatOpen(usize),
    ReadLink(String),
    List(usize),
}

#[derive(Clone, Copy, Debug)]
struct Flags(u8);

impl Flags {
    fn has(self, bit: u8) -> bool {
        self.0 & (1 << bit) != 0
    }

    fn ours(self) -> OpenFlags {
        OpenFlags {
            read: !self.has(0) || self.has(1),
            write: self.has(0),
            append: self.has(2),
            create: self.has(3),
            exclusive: self.has(4) && self.has(3),
            truncate: self.has(5) && self.has(0),
            directory: self.has(6) && self.has(7),
            no_follow: self.has(7),
        }
    }

    fn native(self) -> OFlags {
        let ours = self.ours();
        let mut flags = match (ours.read, ours.write) {
            (true, true) => OFlags::RDWR,
            (false, true) => OFlags::WRONLY,
            _ => OFlags::RDONLY,
        };
        flags.set(OFlags::APPEND, ours.append);
        flags.set(OFlags::CREATE, ours.create);
        flags.set(OFlags::EXCL, ours.exclusive);
        flags.set(OFlags::TRUNC, ours.truncate);
        flags.set(OFlags::DIRECTORY, ours.directory);
        flags.set(OFlags::NOFOLLOW, ours.no_follow);
        flags
    }
}

/// What an operation gave, in terms of both.
#[derive(Debug, PartialEq)]
enum Answer {
    Done,
    Bytes(Vec<u8>),
    Count(u64),
    Stat(u8, u64, u64),
    Names(Vec<(Vec<u8>, u8)>),
    Failed(i32),
    NothingOpen,
}

fn answer<T>(result: Result<T, Errno>, good: impl FnOnce(T) -> Answer) -> Answer {
    result.map_or_else(|errno| Answer::Failed(errno.linux()), good)
}

fn native<T>(result: Result<T, Native>, good: impl FnOnce(T) -> Answer) -> Answer {
    result.map_or_else(|errno| Answer::Failed(errno.raw_os_error()), good)
}

fn kind_code(kind: Kind) -> u8 {
    match kind {
        Kind::File => 0,
        Kind::Directory => 1,
        Kind::Symlink => 2,
    }
}

fn stat_of(stat: Stat) -> Answer {
    // What a directory or a link takes is every file system's own.
    let bytes = if stat.kind == Kind::File {
        stat.bytes
    } else {
        0
    };
    Answer::Stat(kind_code(stat.kind), bytes, stat.links.into())
}

struct Ours {
    files: Files,
    directory: Ino,
    open: [Option<OpenFile>; SLOTS],
}

impl Ours {
    fn new() -> Self {
        let quota = Quota {
            bytes_max: 64 << 20,
            inodes_max: 10_000,
        };
        let mut files = Files::new(Layer::empty(), quota);
        let mut directory = Ino::ROOT;
        for _ in 0..DEPTH {
            let at = At::rooted(directory, b"w");
            directory = files.make_directory(at, 0o755).unwrap().ino;
        }
        Self {
            files,
            directory,
            open: Default::default(),
        }
    }

    fn apply(&mut self, op: &Op) -> Answer {
        let files = &mut self.files;
        let directory = self.directory;
        let at = |path: &'_ str| -> At<'static> {
            At::rooted(directory, path.as_bytes().to_vec().leak())
        };
        let done = |_| Answer::Done;
        match op {
            Op::MakeDirectory(path) => {
                answer(files.make_directory(at(path), 0o755), |_| Answer::Done)
            }
            Op::RemoveDirectory(path) => answer(files.remove_directory(at(path)), done),
            Op::Unlink(path) => answer(files.unlink(at(path)), done),
            Op::Symlink(target, path) => {
                answer(files.make_symlink(target.as_bytes(), at(path)), |_| {
                    Answer::Done
                })
            }
            Op::Link(from, follow, to) => answer(files.link(at(from), *follow, at(to)), done),
            Op::Rename(from, to, replace) => {
                let replace = if *replace { Replace::Yes } else { Replace::No };
                answer(files.rename(at(from), at(to), replace), done)
            }
            Op::Open(slot, path, flags) => {
                if let Some(file) = self.open[*slot].take() {
                    files.close(file);
                }
                answer(files.open(at(path), flags.ours(), 0o644), |file| {
                    self.open[*slot] = Some(file);
                    Answer::Done
                })
            }
            Op::TruncateAt(path, bytes) => answer(files.truncate_at(at(path), *bytes), done),
            Op::Stat(path, follow) => answer(files.stat_at(at(path), *follow), stat_of),
            Op::ReadLink(path) => {
                answer(files.read_link(at(path)), |to| Answer::Bytes(to.to_vec()))
            }
            Op::Close(slot) => match self.open[*slot].take() {
                None => Answer::NothingOpen,
                Some(file) => {
                    files.close(file);
                    Answer::Done
                }
            },
            other => self.apply_open(other),
        }
    }

    fn apply_open(&mut self, op: &Op) -> Answer {
        let files = &mut self.files;
        let (Op::Read(slot, _)
        | Op::Write(slot, _)
        | Op::ReadAt(slot, ..)
        | Op::WriteAt(slot, ..)
        | Op::Seek(slot, ..)
        | Op::Truncate(slot, _)
        | Op::Allocate(slot, ..)
        | Op::StatOpen(slot)
        | Op::List(slot)) = op
        else {
            unreachable!("{op:?}");
        };
        let Some(file) = &mut self.open[*slot] else {
            return Answer::NothingOpen;
        };
        let mut into = [0; 64];
        match op {
            Op::Read(_, n) => answer(files.read(file, &mut into[..*n]), |count| {
                Answer::Bytes(into[..count].to_vec())
            }),
            Op::ReadAt(_, at, n) => answer(files.read_at(file, *at, &mut into[..*n]), |count| {
                Answer::Bytes(into[..count].to_vec())
            }),
            Op::Write(_, data) => answer(files.write(file, data), |n| Answer::Count(n as u64)),
            Op::WriteAt(_, at, data) => {
                // Linux's pwrite appends to what was opened to append, whatever the offset, if it
                // and the bytes' end are offsets.
                let end = at.saturating_add(data.len() as u64);
                let at = match file.append && i64::try_from(end).is_ok() {
                    true => files.stat(file.ino()).unwrap().bytes,
                    false => *at,
                };
                answer(files.write_at(file, at, data), |n| Answer::Count(n as u64))
            }
            Op::Seek(..) if file.kind() == Kind::Directory => Answer::Done,
            Op::Seek(_, delta, whence) => {
                let whence = [Whence::Start, Whence::Current, Whence::End][*whence as usize];
                answer(files.seek(file, *delta, whence), Answer::Count)
            }
            Op::Truncate(_, bytes) => answer(files.truncate(file, *bytes), |()| Answer::Done),
            Op::Allocate(..) if file.kind() == Kind::Directory => Answer::Done,
            Op::Allocate(_, at, n) => answer(files.allocate(file, *at, *n), |()| Answer::Done),
            Op::StatOpen(_) => answer(files.stat(file.ino()), stat_of),
            _ => answer(list(files, file), Answer::Names),
        }
    }
}

fn list(files: &Files, directory: &OpenFile) -> Result<Vec<(Vec<u8>, u8)>, Errno> {
    let (mut cookie, mut names) = (0, Vec::new());
    while let Some(entry) = files.entry(directory, cookie)? {
        names.push((entry.name.to_vec(), kind_code(entry.kind)));
        cookie = entry.next_cookie;
    }
    names.sort();
    Ok(names)
}

struct Linux {
    directory: OwnedFd,
    open: [Option<OwnedFd>; SLOTS],
    _kept: tempfile::TempDir,
}

impl Linux {
    fn new() -> Self {
        let kept = tempfile::tempdir().unwrap();
        let path = kept.path().join(["w"; DEPTH].join("/"));
        std::fs::create_dir_all(&path).unwrap();
        Self {
            directory: File::open(&path).unwrap().into(),
            open: Default::default(),
            _kept: kept,
        }
    }

    fn apply(&mut self, op: &Op) -> Answer {
        let at = &self.directory;
        let done = |_| Answer::Done;
        let mode = Mode::from_raw_mode(0o755);
        match op {
            Op::MakeDirectory(path) => native(rustix::fs::mkdirat(at, path, mode), done),
            Op::RemoveDirectory(path) => {
                native(rustix::fs::unlinkat(at, path, AtFlags::REMOVEDIR), done)
            }
            Op::Unlink(path) => native(rustix::fs::unlinkat(at, path, AtFlags::empty()), done),
            Op::Symlink(target, path) => native(rustix::fs::symlinkat(target, at, path), done),
            Op::Link(from, follow, to) => {
                let flags = match follow {
                    true => AtFlags::SYMLINK_FOLLOW,
                    false => AtFlags::empty(),
                };
                native(rustix::fs::linkat(at, from, at, to, flags), done)
            }
            Op::Rename(from, to, replace) => {
                let flags = match replace {
                    true => RenameFlags::empty(),
                    false => RenameFlags::NOREPLACE,
                };
                native(rustix::fs::renameat_with(at, from, at, to, flags), done)
            }
            Op::Open(slot, path, flags) => {
                self.open[*slot] = None;
                let mode = Mode::from_raw_mode(0o644);
                native(rustix::fs::openat(at, path, flags.native(), mode), |file| {
                    self.open[*slot] = Some(file);
                    Answer::Done
                })
            }
            Op::TruncateAt(path, bytes) => {
                // There is no truncateat; opening to write says the same of what is there.
                let file = rustix::fs::openat(at, path, OFlags::WRONLY, Mode::empty());
                native(
                    file.and_then(|file| rustix::fs::ftruncate(file, *bytes)),
                    done,
                )
            }
            Op::Stat(path, follow) => {
                let flags = match follow {
                    true => AtFlags::empty(),
                    false => AtFlags::SYMLINK_NOFOLLOW,
                };
                native(rustix::fs::statat(at, path, flags), native_stat)
            }
            Op::ReadLink(path) => native(rustix::fs::readlinkat(at, path, Vec::new()), |to| {
                Answer::Bytes(to.into_bytes())
            }),
            Op::Close(slot) => match self.open[*slot].take() {
                None => Answer::NothingOpen,
                Some(_) => Answer::Done,
            },
            other => self.apply_open(other),
        }
    }

    fn apply_open(&mut self, op: &Op) -> Answer {
        let (Op::Read(slot, _)
        | Op::Write(slot, _)
        | Op::ReadAt(slot, ..)
        | Op::WriteAt(slot, ..)
        | Op::Seek(slot, ..)
        | Op::Truncate(slot, _)
        | Op::Allocate(slot, ..)
        | Op::StatOpen(slot)
        | Op::List(slot)) = op
        else {
            unreachable!("{op:?}");
        };
        let Some(file) = &self.open[*slot] else {
            return Answer::NothingOpen;
        };
        let mut into = [0; 64];
        let count = |n: usize| Answer::Count(n as u64);
        match op {
            Op::Read(_, n) => native(rustix::io::read(file, &mut into[..*n]), |count| {
                Answer::Bytes(into[..count].to_vec())
            }),
            Op::ReadAt(_, at, n) => native(rustix::io::pread(file, &mut into[..*n], *at), |n| {
                Answer::Bytes(into[..n].to_vec())
            }),
            Op::Write(_, data) => native(rustix::io::write(file, data), count),
            Op::WriteAt(_, at, data) => native(rustix::io::pwrite(file, data, *at), count),
            // Where a directory's listing stands is every file system's own.
            Op::Seek(..) | Op::Allocate(..) if is_directory(file) => Answer::Done,
            Op::Seek(_, delta, whence) => {
                let to = match whence {
                    0 if *delta < 0 => return Answer::Failed(Errno::Invalid.linux()),
                    0 => SeekFrom::Start(*delta as u64),
                    1 => SeekFrom::Current(*delta),
                    _ => SeekFrom::End(*delta),
                };
                native(rustix::fs::seek(file, to), Answer::Count)
            }
            Op::Truncate(_, bytes) => {
                native(rustix::fs::ftruncate(file, *bytes), |()| Answer::Done)
            }
            Op::Allocate(_, at, n) => native(
                rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), *at, *n),
                |()| Answer::Done,
            ),
            Op::StatOpen(_) => native(rustix::fs::fstat(file), native_stat),
            _ => native(native_list(file), Answer::Names),
        }
    }
}

fn is_directory(file: &OwnedFd) -> bool {
    let stat = rustix::fs::fstat(file).unwrap();
    rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory
}

fn native_stat(stat: rustix::fs::Stat) -> Answer {
    let kind = native_kind(rustix::fs::FileType::from_raw_mode(stat.st_mode));
    let bytes = if kind == 0 { stat.st_size as u64 } else { 0 };
    Answer::Stat(kind, bytes, stat.st_nlink)
}

fn native_kind(kind: rustix::fs::FileType) -> u8 {
    match kind {
        rustix::fs::FileType::RegularFile => 0,
        rustix::fs::FileType::Directory => 1,
        rustix::fs::FileType::Symlink => 2,
        other => panic!("{other:?}"),
    }
}

fn native_list(file: &OwnedFd) -> Result<Vec<(Vec<u8>, u8)>, Native> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(file)? {
        let entry = entry?;
        names.push((
            entry.file_name().to_bytes().to_vec(),
            native_kind(entry.file_type()),
        ));
    }
    names.sort();
    Ok(names)
}

fn path() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        8 => prop::sample::select(vec!["a", "b", "c", "d"]),
        1 => Just("."),
        1 => Just(".."),
    ];
    let slash = prop_oneof![9 => Just("/"), 1 => Just("//")];
    let parts = prop::collection::vec((part, slash), 1..4);
    (parts, prop::bool::weighted(0.15)).prop_map(|(parts, trailing)| {
        let mut path = String::new();
        for (part, slash) in &parts {
            path.push_str(part);
            path.push_str(slash);
        }
        if !trailing {
            path.truncate(path.trim_end_matches('/').len());
        }
        path
    })
}

fn operation() -> impl Strategy<Value = Op> {
    let slot = || 0..SLOTS;
    let data = || prop::collection::vec(any::<u8>(), 0..40);
    // Around the edges of pages, where mistakes are.
    let offset = || prop_oneof![0..64_u64, 4_080..4_112_u64, 8_180..8_200_u64];
    // No file reaches there: the last byte that one can have, and what Linux takes for negative.
    let far = prop::sample::select(vec![i64::MAX as u64, 1 << 63, u64::MAX]);
    let place = move || prop_oneof![8 => offset(), 1 => far.clone()];
    prop_oneof![
        3 => path().prop_map(Op::MakeDirectory),
        1 => path().prop_map(Op::RemoveDirectory),
        1 => path().prop_map(Op::Unlink),
        2 => (path(), path()).prop_map(|(target, at)| Op::Symlink(target, at)),
        2 => (path(), any::<bool>(), path()).prop_map(|(from, f, to)| Op::Link(from, f, to)),
        4 => (path(), path(), prop::bool::weighted(0.8))
            .prop_map(|(from, to, replace)| Op::Rename(from, to, replace)),
        6 => (slot(), path(), any::<u8>()).prop_map(|(s, p, f)| Op::Open(s, p, Flags(f))),
        1 => slot().prop_map(Op::Close),
        2 => (slot(), 0..64_usize).prop_map(|(slot, n)| Op::Read(slot, n)),
        3 => (slot(), data()).prop_map(|(slot, data)| Op::Write(slot, data)),
        2 => (slot(), place(), 0..64_usize).prop_map(|(slot, at, n)| Op::ReadAt(slot, at, n)),
        3 => (slot(), place(), data()).prop_map(|(slot, at, data)| Op::WriteAt(slot, at, data)),
        2 => (slot(), -100..9_000_i64, 0..3_u8).prop_map(|(s, d, w)| Op::Seek(s, d, w)),
        2 => (slot(), offset()).prop_map(|(slot, bytes)| Op::Truncate(slot, bytes)),
        1 => (slot(), offset(), offset()).prop_map(|(slot, at, n)| Op::Allocate(slot, at, n)),
        1 => (path(), offset()).prop_map(|(path, bytes)| Op::TruncateAt(path, bytes)),
        2 => (path(), any::<bool>()).prop_map(|(path, follow)| Op::Stat(path, follow)),
        2 => slot().prop_map(Op::StatOpen),
        1 => path().prop_map(Op::ReadLink),
        2 => slot().prop_map(Op::List),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn our_files_answer_as_linux_does(ops in prop::collection::vec(operation(), 1..60)) {
        let (mut ours, mut linux) = (Ours::new(), Linux::new());
        for (at, op) in ops.iter().enumerate() {
            let (our, theirs) = (ours.apply(op), linux.apply(op));
            prop_assert_eq!(our, theirs, "operation {} of {:?}", at, &ops[..=at]);
        }
    }
}

fn answer_alike(ops: &[Op]) {
    let (mut ours, mut linux) = (Ours::new(), Linux::new());
    for op in ops {
        assert_eq!(ours.apply(op), linux.apply(op), "{op:?}");
    }
}

#[test]
fn a_trailing_slash_asks_for_a_directory_first_of_all() {
    answer_alike(&[
        Op::Symlink("c".into(), "a".into()),
        Op::MakeDirectory("c".into()),
        Op::MakeDirectory("c/c".into()),
        Op::Rename("a".into(), "c/".into(), true),
        Op::Rename("a".into(), "c/".into(), false),
        Op::Rename("a/".into(), "c".into(), false),
        Op::Rename("a/".into(), "b".into(), false),
    ]);
}

#[test]
fn no_room_is_asked_for_nothing_whatever_the_file_is_open_for() {
    answer_alike(&[Op::Open(2, "a".into(), Flags(172)), Op::Allocate(2, 0, 0)]);
}

#[test]
fn no_bytes_end_past_the_largest_offset() {
    answer_alike(&[
        Op::Open(0, "a".into(), Flags(43)),
        Op::WriteAt(0, i64::MAX as u64, vec![0]),
        Op::WriteAt(0, i64::MAX as u64, vec![]),
        Op::ReadAt(0, i64::MAX as u64, 1),
        Op::ReadAt(0, i64::MAX as u64, 0),
        Op::ReadAt(0, i64::MAX as u64 - 1, 1),
    ]);
}

#[test]
fn appending_nothing_moves_nothing() {
    answer_alike(&[
        Op::Open(2, "a".into(), Flags(47)),
        Op::WriteAt(2, 0, vec![0]),
        Op::Write(2, Vec::new()),
        Op::Read(2, 1),
    ]);
}

#[test]
fn a_file_on_disk_is_the_contents_of_a_layer() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("large");
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
    std::fs::write(&path, &bytes)?;
    let contents = files::Contents::open(Path::new(&path)).unwrap();
    let mut into = vec![0; bytes.len() + 1];
    assert_eq!(contents.read(0, &mut into), bytes.len());
    assert_eq!(into[..bytes.len()], bytes[..]);
    Ok(())
}
