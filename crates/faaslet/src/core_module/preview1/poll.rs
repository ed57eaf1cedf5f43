//! Waiting for clocks and descriptors.

use std::time::Duration;

use super::Preview1;
use super::abi::{Code, clocks, events};
use super::descriptors::{Body, Stream};
use super::guest::{Fail, Guest};
use super::process::now_ns;

/// The bit that says that a clock's time is a point and not a distance.
const ABSOLUTE: u16 = 1;

/// What a poll found.
pub(super) enum Polled {
    /// How many events were written.
    Events(u32),
    /// Nothing yet: so long until the next clock.
    Wait(Duration),
}

/// The guest's question.
#[derive(Clone, Copy)]
pub(super) struct Poll {
    pub subscriptions: u32,
    pub events: u32,
    pub count: u32,
}

struct Event {
    user: u64,
    code: u16,
    kind: u8,
    bytes: u64,
    flags: u16,
}

impl Preview1 {
    /// Writes what has happened, of a poll that began at `since` as the clocks show; with `waited`
    /// the next clock's time has come.
    pub(super) fn poll(
        &mut self,
        guest: &mut Guest,
        poll: Poll,
        since: Since,
        waited: Option<Duration>,
    ) -> Result<Polled, Fail> {
        if poll.count == 0 {
            return Err(Code::INVAL.into());
        }
        let (mut written, mut next) = (0, None::<u64>);
        for index in 0..poll.count {
            let at = entry(poll.subscriptions, index, events::SUBSCRIPTION_BYTES)?;
            let user = guest.u64(at)?;
            let kind = guest.u8(at.saturating_add(8))?;
            let body = at.saturating_add(16);
            let event = match kind {
                events::CLOCK => match until(guest, body, since) {
                    Ok(ns) if waited.is_some_and(|waited| waited.as_nanos() >= ns.into()) => {
                        Some(Ok(None))
                    }
                    Ok(0) => Some(Ok(None)),
                    Ok(ns) => {
                        next = Some(next.map_or(ns, |next| next.min(ns)));
                        None
                    }
                    Err(Fail::Code(code)) => Some(Err(code)),
                    Err(end) => return Err(end),
                },
                events::FD_READ | events::FD_WRITE => {
                    Some(self.ready(guest.u32(body)?, kind).map(Some))
                }
                _ => return Err(Code::INVAL.into()),
            };
            if let Some(outcome) = event {
                let (code, (bytes, flags)) = match outcome {
                    Ok(found) => (0, found.unwrap_or_default()),
                    Err(Code(code)) => (code, (0, 0)),
                };
                let event = Event {
                    user,
                    code,
                    kind,
                    bytes,
                    flags,
                };
                put_event(guest, poll.events, written, &event)?;
                written += 1;
            }
        }
        Ok(match next {
            Some(next) if written == 0 => Polled::Wait(Duration::from_nanos(next)),
            _ => Polled::Events(written),
        })
    }

    /// How many bytes can be read or written without waiting, which is always so; and flags.
    fn ready(&self, fd: u32, kind: u8) -> Result<(u64, u16), Code> {
        let read = kind == events::FD_READ;
        let found = self.descriptors.find(fd).map_err(|_| Code::BADF)?;
        match &found.body {
            // Who sent the input has sent all of it.
            Body::Stream(Stream::Input) if read => {
                let left = self.stdin.len() as u64;
                return Ok((left, if left == 0 { events::HANGUP } else { 0 }));
            }
            Body::Stream(Stream::Output(_)) if !read => return Ok((1, 0)),
            Body::Open(file) if read && file.read => {
                let stat = self.files.stat(file.ino())?;
                return Ok((stat.bytes.saturating_sub(file.offset), 0));
            }
            Body::Open(file) if !read && file.write => return Ok((1, 0)),
            _ => {}
        }
        Err(Code::BADF)
    }
}

/// What the clocks showed when a poll began.
#[derive(Clone, Copy)]
pub(super) struct Since {
    realtime_ns: u64,
    monotonic_ns: u64,
}

impl Since {
    pub(super) fn now() -> Result<Self, Fail> {
        Ok(Self {
            realtime_ns: now_ns(clocks::REALTIME)?,
            monotonic_ns: now_ns(clocks::MONOTONIC)?,
        })
    }
}

/// How long after a poll's begin a clock's time comes.
fn until(guest: &Guest, at: u32, since: Since) -> Result<u64, Fail> {
    let clock = guest.u32(at)?;
    let timeout = guest.u64(at.saturating_add(8))?;
    let flags = guest.u16(at.saturating_add(24))?;
    let now = match clock {
        clocks::REALTIME => since.realtime_ns,
        clocks::MONOTONIC => since.monotonic_ns,
        _ => return Err(Code::INVAL.into()),
    };
    match flags {
        0 => Ok(timeout),
        ABSOLUTE => Ok(timeout.saturating_sub(now)),
        _ => Err(Code::INVAL.into()),
    }
}

fn entry(array: u32, index: u32, bytes: u32) -> Result<u32, Fail> {
    let at = index
        .checked_mul(bytes)
        .and_then(|by| array.checked_add(by));
    at.ok_or_else(|| Fail::End(wasmtime::Trap::MemoryOutOfBounds.into()))
}

fn put_event(guest: &mut Guest, array: u32, index: u32, event: &Event) -> Result<(), Fail> {
    let at = entry(array, index, events::EVENT_BYTES)?;
    let mut bytes = [0; events::EVENT_BYTES as usize];
    bytes[..8].copy_from_slice(&event.user.to_le_bytes());
    bytes[8..10].copy_from_slice(&event.code.to_le_bytes());
    bytes[10] = event.kind;
    bytes[16..24].copy_from_slice(&event.bytes.to_le_bytes());
    bytes[24..26].copy_from_slice(&event.flags.to_le_bytes());
    guest.write(at, &bytes)
}
