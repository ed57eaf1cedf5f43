//! Descriptors, and the open things that they stand for.

use std::collections::BTreeMap;

use files::OpenFile;
use serde::{Deserialize, Serialize};

use super::epoll::Epoll;
use super::errno::Errno;
use super::pipe::PipeId;
use super::process::Process;
use super::sockets::SocketId;

/// Most descriptors of a process.
pub const DESCRIPTORS_MAX: u32 = 1024;

/// Flags of open.
pub const O_WRONLY: u32 = 1;
pub const O_RDWR: u32 = 2;
pub const O_ACCMODE: u32 = 3;
pub const O_CREAT: u32 = 0o100;
pub const O_EXCL: u32 = 0o200;
pub const O_TRUNC: u32 = 0o1000;
pub const O_APPEND: u32 = 0o2000;
pub const O_NONBLOCK: u32 = 0o4000;
pub const O_DIRECTORY: u32 = 0o200_000;
pub const O_NOFOLLOW: u32 = 0o400_000;
pub const O_CLOEXEC: u32 = 0o2_000_000;
pub const O_PATH: u32 = 0o10_000_000;
pub const O_TMPFILE: u32 = 0o20_000_000;

/// What a descriptor stands for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Object {
    /// The input of the call.
    Input,
    /// Its reply.
    Reply,
    /// Its log.
    Log,
    /// A file or directory.
    File(OpenFile),
    /// /dev/null.
    Null,
    /// /dev/zero.
    Zero,
    /// /dev/full.
    Full,
    /// /dev/random and /dev/urandom.
    Random,
    /// A text that the system makes up, and how far it was read.
    Text(Vec<u8>, u64),
    /// The reading end of a pipe.
    PipeReader(PipeId),
    /// The writing end.
    PipeWriter(PipeId),
    /// A counter.
    Event(Event),
    /// A timer.
    Timer(Timer),
    /// What is ready of others.
    Epoll(Epoll),
    /// A socket.
    Socket(SocketId),
}

/// An eventfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its count.
    pub count: u64,
    /// Whether reading takes one, not all.
    pub semaphore: bool,
    /// Counts what has happened.
    pub changes: u64,
}

/// A timerfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// Whether its times are those of the real-time clock.
    pub realtime: bool,
    /// When it goes off next, in nanoseconds of the monotonic clock.
    pub next: Option<u64>,
    /// How often after that; 0 for never.
    pub interval: u64,
    /// Counts what has happened.
    pub changes: u64,
}

impl Timer {
    /// How often it has gone off until `now`; it starts counting anew.
    pub fn take(&mut self, now: u64) -> u64 {
        let Some(next) = self.next.filter(|next| *next <= now) else {
            return 0;
        };
        self.changes += 1;
        let Some(more) = (now - next).checked_div(self.interval) else {
            self.next = None;
            return 1;
        };
        let count = more.saturating_add(1);
        self.next = Some(next.saturating_add(self.interval.saturating_mul(count)));
        count
    }
}

/// The number of an open thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OpenId(u32);

/// An open thing; several descriptors may stand for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Open {
    /// What it is.
    pub object: Object,
    /// Its O_ flags: how it was opened, and how it is used.
    pub flags: u32,
    descriptors: u32,
}

impl Open {
    /// Whether calls fail instead of waiting.
    pub fn nonblocking(&self) -> bool {
        self.flags & O_NONBLOCK != 0
    }

    /// Whether it was opened to read.
    pub fn reads(&self) -> bool {
        self.flags & (O_ACCMODE | O_PATH) != O_WRONLY && self.flags & O_PATH == 0
    }

    /// Whether it was opened to write.
    pub fn writes(&self) -> bool {
        self.flags & O_ACCMODE != 0 && self.flags & O_PATH == 0
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Descriptor {
    open: OpenId,
    close_on_exec: bool,
}

/// The descriptors of a process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Descriptors {
    table: BTreeMap<u32, Descriptor>,
    opens: BTreeMap<OpenId, Open>,
    next: u32,
}

impl Descriptors {
    /// The three that every process begins with; of one that does not reply by what it writes, the
    /// second is its log, too.
    pub fn standard(replies: bool) -> Self {
        let output = if replies { Object::Reply } else { Object::Log };
        let mut descriptors = Self::default();
        for (object, flags) in [(Object::Input, 0), (output, 1), (Object::Log, 1)] {
            // Three fit.
            let _ = descriptors.add(object, flags, false, 0);
        }
        descriptors
    }

    /// The lowest descriptor that is free, from `least` on.
    fn vacant(&self, least: u32) -> Result<u32, Errno> {
        let mut at = least;
        for taken in self.table.range(least..).map(|(at, _)| *at) {
            if taken != at {
                break;
            }
            at += 1;
        }
        if at >= DESCRIPTORS_MAX {
            Err(Errno::EMFILE)
        } else {
            Ok(at)
        }
    }

    /// Whether one more fits.
    pub fn check_room(&self) -> Result<(), Errno> {
        self.vacant(0).map(|_| ())
    }

    /// A descriptor for `object`, or the object back if none is free.
    pub fn add(
        &mut self,
        object: Object,
        flags: u32,
        close_on_exec: bool,
        least: u32,
    ) -> Result<u32, Object> {
        let Ok(at) = self.vacant(least) else {
            return Err(object);
        };
        let open = OpenId(self.next);
        self.next = self.next.wrapping_add(1);
        let opened = Open {
            object,
            flags,
            descriptors: 1,
        };
        self.opens.insert(open, opened);
        let descriptor = Descriptor {
            open,
            close_on_exec,
        };
        self.table.insert(at, descriptor);
        Ok(at)
    }

    /// Which open thing a descriptor stands for.
    pub fn id(&self, descriptor: i32) -> Result<OpenId, Errno> {
        let at = u32::try_from(descriptor).map_err(|_| Errno::EBADF)?;
        self.table
            .get(&at)
            .map(|found| found.open)
            .ok_or(Errno::EBADF)
    }

    /// An open thing, by a descriptor.
    pub fn find(&self, descriptor: i32) -> Result<&Open, Errno> {
        self.open(self.id(descriptor)?)
    }

    /// The same, to be changed.
    pub fn find_mut(&mut self, descriptor: i32) -> Result<&mut Open, Errno> {
        let id = self.id(descriptor)?;
        self.opens.get_mut(&id).ok_or(Errno::EBADF)
    }

    /// An open thing.
    pub fn open(&self, id: OpenId) -> Result<&Open, Errno> {
        self.opens.get(&id).ok_or(Errno::EBADF)
    }

    /// The same, to be changed.
    pub fn open_mut(&mut self, id: OpenId) -> Result<&mut Open, Errno> {
        self.opens.get_mut(&id).ok_or(Errno::EBADF)
    }

    /// Whether a descriptor is closed when another program is executed.
    pub fn close_on_exec(&self, descriptor: i32) -> Result<bool, Errno> {
        let at = u32::try_from(descriptor).map_err(|_| Errno::EBADF)?;
        let found = self.table.get(&at).ok_or(Errno::EBADF)?;
        Ok(found.close_on_exec)
    }

    /// Sets that.
    pub fn set_close_on_exec(&mut self, descriptor: i32, close: bool) -> Result<(), Errno> {
        let at = u32::try_from(descriptor).map_err(|_| Errno::EBADF)?;
        let found = self.table.get_mut(&at).ok_or(Errno::EBADF)?;
        found.close_on_exec = close;
        Ok(())
    }

    /// All descriptors.
    pub fn all(&self) -> Vec<i32> {
        self.table.keys().map(|at| *at as i32).collect()
    }

    /// All open things.
    pub fn opens(&self) -> impl Iterator<Item = &Open> {
        self.opens.values()
    }

    /// When a timer goes off next.
    pub fn next_timer(&self) -> Option<u64> {
        let timers = self.opens.values().filter_map(|open| match &open.object {
            Object::Timer(timer) => timer.next,
            _ => None,
        });
        timers.min()
    }

    /// Another descriptor for the same.
    pub fn duplicate(&mut self, old: i32, least: u32, close: bool) -> Result<u32, Errno> {
        let open = self.id(old)?;
        let at = self.vacant(least)?;
        self.point(at, open, close)?;
        Ok(at)
    }

    fn point(&mut self, at: u32, open: OpenId, close_on_exec: bool) -> Result<(), Errno> {
        self.open_mut(open)?.descriptors += 1;
        let descriptor = Descriptor {
            open,
            close_on_exec,
        };
        self.table.insert(at, descriptor);
        Ok(())
    }

    /// Takes a descriptor away; what it stood for, if it was the last that did.
    fn remove(&mut self, descriptor: i32) -> Result<Option<(OpenId, Open)>, Errno> {
        let id = self.id(descriptor)?;
        self.table.remove(&(descriptor as u32));
        let open = self.open_mut(id)?;
        open.descriptors -= 1;
        if open.descriptors > 0 {
            return Ok(None);
        }
        Ok(self.opens.remove(&id).map(|open| (id, open)))
    }
}

impl Process {
    /// A descriptor for `object`; the object is closed if none is free.
    pub fn add_descriptor(&mut self, object: Object, flags: u32) -> Result<u64, Errno> {
        let close = flags & O_CLOEXEC != 0;
        let added = self.descriptors.add(object, flags & !O_CLOEXEC, close, 0);
        added.map(u64::from).map_err(|object| {
            self.close_object(object);
            Errno::EMFILE
        })
    }

    /// Closes a descriptor.
    pub fn close_descriptor(&mut self, descriptor: i32) -> Result<(), Errno> {
        let closed = self.descriptors.remove(descriptor)?;
        if let Some((id, open)) = closed {
            self.forget_in_epolls(id);
            self.close_object(open.object);
        }
        Ok(())
    }

    /// Makes descriptor `new` stand for what `old` does.
    pub fn replace_descriptor(&mut self, old: i32, new: i32, close: bool) -> Result<(), Errno> {
        let open = self.descriptors.id(old)?;
        let at = u32::try_from(new).ok().filter(|at| *at < DESCRIPTORS_MAX);
        let at = at.ok_or(Errno::EBADF)?;
        if self.descriptors.id(new).is_ok() {
            self.close_descriptor(new)?;
        }
        self.descriptors.point(at, open, close)
    }

    /// Ends an object that no descriptor stands for.
    pub fn close_object(&mut self, object: Object) {
        match object {
            Object::File(file) => self.files.close(file),
            Object::PipeReader(pipe) => self.pipes.close_reader(pipe),
            Object::PipeWriter(pipe) => self.pipes.close_writer(pipe),
            Object::Socket(socket) => self.close_socket(socket),
            Object::Input
            | Object::Reply
            | Object::Log
            | Object::Null
            | Object::Zero
            | Object::Full
            | Object::Random
            | Object::Text(..)
            | Object::Event(_)
            | Object::Timer(_)
            | Object::Epoll(_) => {}
        }
        self.stir();
    }

    fn forget_in_epolls(&mut self, id: OpenId) {
        for open in self.descriptors.opens.values_mut() {
            if let Object::Epoll(epoll) = &mut open.object {
                epoll.forget(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_descriptor_is_used_and_there_are_so_many() {
        let mut descriptors = Descriptors::standard(true);
        assert_eq!(descriptors.add(Object::Null, 0, false, 0).unwrap(), 3);
        descriptors.remove(1).unwrap();
        assert_eq!(descriptors.duplicate(3, 0, false), Ok(1));
        assert_eq!(descriptors.duplicate(3, 10, true), Ok(10));
        assert!(descriptors.close_on_exec(10).unwrap());
        assert!(descriptors.remove(3).unwrap().is_none());
        while descriptors.check_room().is_ok() {
            descriptors.add(Object::Null, 0, false, 0).unwrap();
        }
        assert_eq!(descriptors.all().len() as u32, DESCRIPTORS_MAX);
        assert_eq!(descriptors.duplicate(1, 0, false), Err(Errno::EMFILE));
    }

    #[test]
    fn a_timer_counts_what_was_missed() {
        let mut timer = Timer {
            realtime: false,
            next: Some(100),
            interval: 10,
            changes: 0,
        };
        assert_eq!(
            (timer.take(99), timer.take(100), timer.take(135)),
            (0, 1, 3)
        );
        assert_eq!(timer.next, Some(140));
        timer.interval = 0;
        assert_eq!((timer.take(u64::MAX), timer.next), (1, None));
    }
}
