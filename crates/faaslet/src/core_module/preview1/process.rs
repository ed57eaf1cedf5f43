//! Calls about the process: arguments, environment, clocks, random bytes, signals, sockets.

use std::sync::LazyLock;
use std::time::Instant;

use super::Preview1;
use super::abi::{Code, clocks};
use super::fd::realtime_ns;
use super::guest::{Fail, Guest};

/// The guest's `argv[0]`.
const PROGRAM_NAME: &str = "function";
/// The smallest difference that a clock shows.
const RESOLUTION_NS: u64 = 1;

impl Preview1 {
    fn arguments(&self) -> impl Iterator<Item = &str> {
        let settings = self.parts.settings.args.iter().chain(&self.args);
        std::iter::once(PROGRAM_NAME).chain(settings.map(String::as_str))
    }

    /// The version's environment, and the call's over it.
    fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        let called = |name: &str| self.env.iter().any(|(over, _)| over == name);
        let settings = self.parts.settings.env.iter();
        settings
            .filter(move |(name, _)| !called(name))
            .chain(self.env.iter().map(|(name, value)| (name, value)))
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(super) fn args_sizes_get(
        &mut self,
        guest: &mut Guest,
        count: u32,
        bytes: u32,
    ) -> Result<(), Fail> {
        let sizes = self.arguments().map(|arg| arg.len() + 1);
        put_sizes(guest, count, bytes, sizes)
    }

    pub(super) fn args_get(
        &mut self,
        guest: &mut Guest,
        pointers: u32,
        buffer: u32,
    ) -> Result<(), Fail> {
        let texts = self.arguments().map(|arg| [arg, "\0", "", ""]);
        put_texts(guest, pointers, buffer, texts)
    }

    pub(super) fn environ_sizes_get(
        &mut self,
        guest: &mut Guest,
        count: u32,
        bytes: u32,
    ) -> Result<(), Fail> {
        let sizes = self
            .environment()
            .map(|(n, value)| n.len() + value.len() + 2);
        put_sizes(guest, count, bytes, sizes)
    }

    pub(super) fn environ_get(
        &mut self,
        guest: &mut Guest,
        pointers: u32,
        buffer: u32,
    ) -> Result<(), Fail> {
        let texts = self
            .environment()
            .map(|(name, value)| [name, "=", value, "\0"]);
        put_texts(guest, pointers, buffer, texts)
    }

    pub(super) fn clock_res_get(
        &mut self,
        guest: &mut Guest,
        clock: u32,
        out: u32,
    ) -> Result<(), Fail> {
        now_ns(clock)?;
        guest.put_u64(out, RESOLUTION_NS)
    }

    pub(super) fn clock_time_get(
        &mut self,
        guest: &mut Guest,
        clock: u32,
        out: u32,
    ) -> Result<(), Fail> {
        guest.put_u64(out, now_ns(clock)?)
    }

    pub(super) fn random_get(
        &mut self,
        guest: &mut Guest,
        at: u32,
        bytes: u32,
    ) -> Result<(), Fail> {
        let slot = guest.slot(at, bytes)?;
        getrandom::fill(slot).map_err(|_| Code::IO.into())
    }

    /// A descriptor that is open is no socket: none ever is.
    pub(super) fn no_socket(&mut self, fd: u32) -> Result<(), Fail> {
        self.descriptors.find(fd)?;
        Err(Code::NOTSOCK.into())
    }
}

fn put_sizes(
    guest: &mut Guest,
    count: u32,
    bytes: u32,
    sizes: impl Iterator<Item = usize>,
) -> Result<(), Fail> {
    let (mut texts, mut sum) = (0_u32, 0_u64);
    for size in sizes {
        texts = texts.saturating_add(1);
        sum = sum.saturating_add(size as u64);
    }
    guest.put_u32(count, texts)?;
    guest.put_u32(bytes, u32::try_from(sum).unwrap_or(u32::MAX))
}

/// Writes texts one after the other into `buffer`, and where each begins into `pointers`.
fn put_texts<'a>(
    guest: &mut Guest,
    mut pointers: u32,
    mut buffer: u32,
    texts: impl Iterator<Item = [&'a str; 4]>,
) -> Result<(), Fail> {
    for parts in texts {
        guest.put_u32(pointers, buffer)?;
        pointers = pointers.saturating_add(4);
        for part in parts {
            guest.write(buffer, part.as_bytes())?;
            buffer = buffer.saturating_add(part.len() as u32);
        }
    }
    Ok(())
}

/// What a clock shows. Guests have no clock of CPU time: their calls are accounted by the platform.
pub(super) fn now_ns(clock: u32) -> Result<u64, Fail> {
    match clock {
        clocks::REALTIME => Ok(realtime_ns()),
        clocks::MONOTONIC => Ok(monotonic_ns()),
        _ => Err(Code::INVAL.into()),
    }
}

fn monotonic_ns() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let ns = START.elapsed().as_nanos();
    // Never 0, which some programs take for no time at all.
    u64::try_from(ns).unwrap_or(u64::MAX).saturating_add(1)
}
