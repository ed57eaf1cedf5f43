//! What can be done with an open thing now, without waiting.

use super::descriptor::{Object, OpenId};
use super::errno::Errno;
use super::process::Process;

/// There is something to read.
pub const IN: u32 = 1;
/// Something can be written.
pub const OUT: u32 = 4;
/// Something is wrong with it.
pub const ERR: u32 = 8;
/// The other end is closed.
pub const HUP: u32 = 0x10;
/// The descriptor is not open.
pub const NVAL: u32 = 0x20;
/// The other end sends nothing more.
pub const RDHUP: u32 = 0x2000;

/// Epolls that look at each other are followed so far.
const DEPTH_MAX: u32 = 5;

/// What can be done, and a count that changes whenever that may have become more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Bits.
    pub events: u32,
    /// The count.
    pub changes: u64,
    /// Whether a call of the function would bring something to read.
    pub awaits: bool,
}

impl Process {
    /// What can be done with an open thing.
    pub fn ready(&mut self, id: OpenId) -> Result<Ready, Errno> {
        self.ready_within(id, DEPTH_MAX)
    }

    fn ready_within(&mut self, id: OpenId, depth: u32) -> Result<Ready, Errno> {
        let now = self.now.monotonic_ns;
        let (events, changes) = match &self.descriptors.open(id)?.object {
            Object::Input if self.input.is_awaited() => {
                return Ok(Ready {
                    awaits: true,
                    ..Ready::default()
                });
            }
            Object::Input => (IN, 0),
            Object::Reply | Object::Log => (OUT, 0),
            Object::File(_)
            | Object::Null
            | Object::Zero
            | Object::Full
            | Object::Random
            | Object::Text(..) => (IN | OUT, 0),
            Object::Event(event) => {
                let readable = if event.count > 0 { IN } else { 0 };
                let writable = if event.count < u64::MAX - 1 { OUT } else { 0 };
                (readable | writable, event.changes)
            }
            Object::Timer(timer) => {
                let due = timer.next.is_some_and(|next| next <= now);
                // Each time that it goes off is news, also when nobody has read of the last.
                (if due { IN } else { 0 }, timer.changes + u64::from(due))
            }
            Object::PipeReader(pipe) => {
                let pipe = self.pipes.find(*pipe).ok_or(Errno::EBADF)?;
                let readable = if pipe.has_data() { IN } else { 0 };
                let ended = if pipe.has_writers() { 0 } else { HUP };
                (readable | ended, pipe.changes)
            }
            Object::PipeWriter(pipe) => {
                let pipe = self.pipes.find(*pipe).ok_or(Errno::EBADF)?;
                let writable = if pipe.has_room() { OUT } else { 0 };
                let ended = if pipe.has_readers() { 0 } else { ERR | OUT };
                (writable | ended, pipe.changes)
            }
            Object::Socket(socket) => {
                let socket = *socket;
                return Ok(self.socket_ready(socket));
            }
            Object::Epoll(epoll) => {
                let looked_at = epoll.watched();
                return Ok(self.any_ready(&looked_at, depth));
            }
        };
        Ok(Ready {
            events,
            changes,
            awaits: false,
        })
    }

    /// What an epoll that looks at others is itself.
    fn any_ready(&mut self, watched: &[(OpenId, u32)], depth: u32) -> Ready {
        let mut all = Ready::default();
        let Some(depth) = depth.checked_sub(1) else {
            return all;
        };
        for (id, wanted) in watched {
            let Ok(ready) = self.ready_within(*id, depth) else {
                continue;
            };
            if ready.events & (wanted | ERR | HUP) != 0 {
                all.events = IN;
            }
            all.awaits |= ready.awaits && wanted & IN != 0;
        }
        all
    }
}
