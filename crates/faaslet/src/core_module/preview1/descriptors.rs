//! What a guest has open, by number.

use files::{At, Files, Ino, Kind, OpenFile};

use super::abi::{Code, rights};
use super::guest::Fail;
use crate::stdio::Stdio;

/// Most that a guest has open at once.
const OPEN_MAX: usize = 4096;

pub(super) enum Stream {
    Input,
    Output(Stdio),
}

pub(super) enum Body {
    Stream(Stream),
    /// A file or directory.
    Open(OpenFile),
}

pub(super) struct Descriptor {
    pub body: Body,
    /// Flags as they were set last.
    pub flags: u32,
    /// The name that the guest was told beforehand.
    pub preopen: Option<&'static str>,
}

pub(super) struct Descriptors(Vec<Option<Descriptor>>);

impl Descriptors {
    pub fn new(stdout: Stdio, stderr: Stdio, root: OpenFile) -> Self {
        let stream = |stream| Some(Descriptor::of(Body::Stream(stream), 0));
        let mut root = Descriptor::of(Body::Open(root), 0);
        root.preopen = Some("/");
        Self(vec![
            stream(Stream::Input),
            stream(Stream::Output(stdout)),
            stream(Stream::Output(stderr)),
            Some(root),
        ])
    }

    pub fn find(&self, fd: u32) -> Result<&Descriptor, Fail> {
        let slot = self.0.get(fd as usize).and_then(Option::as_ref);
        slot.ok_or(Code::BADF.into())
    }

    pub fn find_mut(&mut self, fd: u32) -> Result<&mut Descriptor, Fail> {
        let slot = self.0.get_mut(fd as usize).and_then(Option::as_mut);
        slot.ok_or(Code::BADF.into())
    }

    /// What is open as a file or directory.
    pub fn open(&self, fd: u32) -> Result<&OpenFile, Fail> {
        match &self.find(fd)?.body {
            Body::Open(file) => Ok(file),
            Body::Stream(_) => Err(Code::BADF.into()),
        }
    }

    /// A regular file; anything else has not what a file has.
    pub fn file(&self, fd: u32) -> Result<&OpenFile, Fail> {
        match self.open(fd)? {
            file if file.kind() == Kind::File => Ok(file),
            _ => Err(Code::BADF.into()),
        }
    }

    /// A file that has a place to read and write at.
    pub fn seekable(&mut self, fd: u32) -> Result<&mut OpenFile, Fail> {
        match &mut self.find_mut(fd)?.body {
            Body::Stream(_) => Err(Code::SPIPE.into()),
            Body::Open(file) if file.kind() == Kind::File => Ok(file),
            Body::Open(_) => Err(Code::BADF.into()),
        }
    }

    /// A directory, for paths.
    pub fn directory(&self, fd: u32) -> Result<Ino, Fail> {
        match self.open(fd)? {
            file if file.kind() == Kind::Directory => Ok(file.ino()),
            _ => Err(Code::NOTDIR.into()),
        }
    }

    /// A path beneath a directory.
    pub fn at<'a>(&self, fd: u32, path: &'a [u8]) -> Result<At<'a>, Fail> {
        Ok(At::beneath(self.directory(fd)?, path))
    }

    /// Gives what is open the lowest free number; gives it back if there is none.
    pub fn add(&mut self, descriptor: Descriptor) -> Result<u32, Descriptor> {
        let free = self.0.iter().position(Option::is_none);
        let at = free.unwrap_or(self.0.len());
        if at >= OPEN_MAX {
            return Err(descriptor);
        }
        if at == self.0.len() {
            self.0.push(None);
        }
        self.0[at] = Some(descriptor);
        Ok(at as u32)
    }

    pub fn close(&mut self, fd: u32, files: &mut Files) -> Result<(), Fail> {
        let slot = self.0.get_mut(fd as usize).and_then(Option::take);
        if let Body::Open(file) = slot.ok_or(Code::BADF)?.body {
            files.close(file);
        }
        Ok(())
    }

    /// Makes `to` mean what `from` means, and `from` nothing. Both are open.
    pub fn renumber(&mut self, from: u32, to: u32, files: &mut Files) -> Result<(), Fail> {
        self.find(from)?;
        self.find(to)?;
        if from != to {
            self.close(to, files)?;
            self.0.swap(from as usize, to as usize);
        }
        Ok(())
    }
}

impl Descriptor {
    pub fn of(body: Body, flags: u32) -> Self {
        Self {
            body,
            flags,
            preopen: None,
        }
    }

    pub fn kind(&self) -> Option<Kind> {
        match &self.body {
            Body::Open(file) => Some(file.kind()),
            Body::Stream(_) => None,
        }
    }

    /// What it may do, and what may be done with what is opened in it.
    pub fn rights(&self) -> (u64, u64) {
        match &self.body {
            Body::Stream(Stream::Input) => (rights::FD_READ | rights::POLL_FD_READWRITE, 0),
            Body::Stream(Stream::Output(_)) => (rights::FD_WRITE | rights::POLL_FD_READWRITE, 0),
            Body::Open(file) if file.kind() == Kind::Directory => {
                (rights::DIRECTORY, rights::INHERITING)
            }
            Body::Open(file) => {
                let read = if file.read { rights::FD_READ } else { 0 };
                let write = if file.write { rights::WRITABLE } else { 0 };
                (rights::FILE | read | write, 0)
            }
        }
    }
}
