//! A Linux program as a command function: made ready at deploy, called, and its end told.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use files::{Files, Layer, Quota};
use model::{Settings, Snapshot};
use sandbox::{BodyError, HeldLog, LogStream, Reply};

use super::egress::Egress;
use super::process::Exit;
use super::program::Program;
use super::request_loop::NotFrozen;
use super::saved::Saved;
use super::start::{self, End, Resume, Start};
use super::world::{Network, World};
use crate::elf::Elf;
use crate::load::{LoadElfError, load};
use crate::machine::Machine;
use crate::microvm::{Ended, Given};
use crate::space::Space;

/// The program's name to itself.
const NAME: &str = "function";
/// Log bytes that are held back while a call may be repeated; with more it is, without a budget.
const HELD_BYTES_MAX: usize = 64 << 10;
/// Longest time in which a program comes to its request loop.
pub(super) const INIT_TIME_MAX: Duration = Duration::from_secs(10);
/// What a signal that ends a process adds to its number, as shells have it.
const SIGNAL_CODE: i32 = 128;

/// Maps a program. Gives what was added to its addresses, its entry, and what is to be remembered.
pub(crate) fn prepare(
    memory: &memory::Range,
    space: &mut Space,
    elf: &Elf,
    file: &[u8],
) -> Result<(u64, u64, Vec<u8>), LoadElfError> {
    let loaded = load(memory, space, elf, file)?;
    let program = Program::new(elf, &loaded);
    Ok((loaded.moved_by, loaded.entry, program.encode()))
}

/// Runs a program that was prepared up to its request loop, with the arguments and environment of
/// its version, and freezes it there: its memory is left in the machine.
pub(crate) async fn freeze(
    machine: &mut Machine,
    settings: &Settings,
    layer: &Arc<Layer>,
    guest: &[u8],
) -> Result<Saved, NotFrozen> {
    let platform = |reason: String| NotFrozen::Platform(reason);
    let malformed = || platform("its frozen state is malformed".into());
    let program = Program::decode(guest).ok_or_else(malformed)?;
    let time = Duration::from_millis(settings.limits.deadline_ms).min(INIT_TIME_MAX);
    let deadline = Instant::now() + time;
    let passed = Passed {
        settings,
        layer,
        args: &[],
        env: &[],
    };
    let start = Start {
        program: &program,
        args: passed.args(),
        env: passed.env(),
        input: Bytes::new(),
        files: Files::new(layer.clone(), quota(settings)),
        world: Box::new(InitWorld(Egress::new(settings.allow.clone(), deadline))),
        deadline,
        processors: settings.limits.processors_max,
        lambda: None,
    };
    let despite = settings.snapshot == Snapshot::Always;
    let (saved, _) = start::freeze(machine, start, despite).await?;
    Ok(saved)
}

/// Reads a process back that was frozen with its files over `layer`.
pub(crate) fn read(
    bytes: &[u8],
    settings: &Settings,
    layer: &Arc<Layer>,
) -> Result<Saved, BodyError> {
    Ok(Saved::decode(bytes, layer.clone(), quota(settings))?)
}

/// Most that the private layer of a call holds.
pub(super) fn quota(settings: &Settings) -> Quota {
    let limits = &settings.limits;
    Quota {
        bytes_max: limits.files_bytes_max.min(limits.memory_bytes_max),
        inodes_max: limits.files_max.into(),
    }
}

/// What one call passes beside its input.
pub(crate) struct Passed<'a> {
    pub settings: &'a Settings,
    /// What lies under its private files.
    pub layer: &'a Arc<Layer>,
    pub args: &'a [String],
    pub env: &'a [(String, String)],
}

/// Variables as a program finds them.
fn texts<'a>(all: impl Iterator<Item = (&'a String, &'a String)>) -> Vec<Vec<u8>> {
    all.map(|(key, value)| format!("{key}={value}").into_bytes())
        .collect()
}

/// Whether a process that is frozen can be called with these variables of the call's own.
pub(crate) fn takes(saved: &Saved, env: &[(String, String)]) -> bool {
    env.is_empty() || saved.takes(&texts(env.iter().map(|(key, value)| (key, value))))
}

impl Passed<'_> {
    fn args(&self) -> Vec<Vec<u8>> {
        let all = std::iter::once(NAME).chain(self.settings.args.iter().map(String::as_str));
        let all = all.chain(self.args.iter().map(String::as_str));
        all.map(|arg| arg.as_bytes().to_vec()).collect()
    }

    fn env(&self) -> Vec<Vec<u8>> {
        let over = |key: &String| self.env.iter().any(|(name, _)| name == key);
        let of_version = self.settings.env.iter().filter(|(key, _)| !over(key));
        let of_call = self.env.iter().map(|(key, value)| (key, value));
        texts(of_version.chain(of_call))
    }
}

/// Calls a program that a machine holds. Gives how that ended, and whether it was refused memory.
pub(crate) async fn call(
    machine: &mut Machine,
    given: Given<'_>,
    passed: &Passed<'_>,
    guest: &[u8],
) -> (Ended, bool) {
    let Some(program) = Program::decode(guest) else {
        return (
            Ended::Platform("its frozen state is malformed".into()),
            false,
        );
    };
    let start = Start {
        program: &program,
        args: passed.args(),
        env: passed.env(),
        files: Files::new(passed.layer.clone(), quota(passed.settings)),
        world: world(&given, passed.settings),
        deadline: given.until.of_run(),
        processors: passed.settings.limits.processors_max,
        input: given.input.clone(),
        lambda: None,
    };
    let ended = start::run(machine, start).await;
    told(ended, &given)
}

/// Calls a process that was frozen, and that a machine holds.
pub(crate) async fn resume(
    machine: &mut Machine,
    given: Given<'_>,
    passed: &Passed<'_>,
    saved: &Saved,
) -> (Ended, bool) {
    let resume = Resume {
        saved,
        env: texts(passed.env.iter().map(|(key, value)| (key, value))),
        world: world(&given, passed.settings),
        deadline: given.until.of_run(),
        processors: passed.settings.limits.processors_max,
        input: given.input.clone(),
        invocation: None,
    };
    let ended = start::resume(machine, resume).await;
    told(ended, &given)
}

fn world(given: &Given<'_>, settings: &Settings) -> Box<CallWorld> {
    Box::new(CallWorld {
        reply: given.reply.clone(),
        log: given.log.clone(),
        egress: Egress::new(settings.allow.clone(), given.until.deadline),
    })
}

/// What the end of a program is for its call.
pub(super) fn told(ended: start::Ended, given: &Given<'_>) -> (Ended, bool) {
    given.used_elsewhere(ended.elsewhere);
    tell_unknown(given.log, &ended.unknown);
    let refused = ended.refused_memory;
    match ended.end {
        End::Exit(Exit::Code(code)) => (Ended::Code(code.into()), false),
        End::Exit(Exit::Signal(signal)) if refused => {
            (Ended::Killed(format!("it ended by signal {signal}")), true)
        }
        End::Exit(Exit::Signal(signal)) => (Ended::Code(SIGNAL_CODE + i32::from(signal)), false),
        End::Exit(Exit::OutOfMemory) => (Ended::Killed("it has no memory left".into()), true),
        End::Exit(Exit::ReplyTooLong) => (Ended::Killed("its reply is too long".into()), false),
        End::Exit(Exit::LogTooLong) => (Ended::OverBudget, false),
        End::Exit(Exit::Host(reason)) => (Ended::Platform(reason), false),
        End::Fault(fault) => (Ended::Fault(fault), refused),
        End::Deadline => (given.until.end(), false),
        End::Broken(reason) => (Ended::Killed(reason), false),
    }
}

/// A line on the calls that are not offered, if there were any.
pub(super) fn tell_unknown(log: &HeldLog, unknown: &[(String, u64)]) {
    const WARN: u8 = 1;
    /// Calls that are told by name.
    const TOLD_MAX: usize = 16;
    if unknown.is_empty() {
        return;
    }
    let mut line = "system calls that are not offered:".to_owned();
    for (name, count) in unknown.iter().take(TOLD_MAX) {
        // Writing to a string does not fail.
        let _ = write!(line, " {name} ({count}),");
    }
    match unknown.len() > TOLD_MAX {
        true => line.push_str(" and others"),
        false => line.truncate(line.len() - 1),
    }
    line.push('\n');
    log.write(LogStream::Log(WARN), line.as_bytes());
}

/// Whether the log may take more: not if too much is held back already.
pub(super) fn may_hold(log: &HeldLog) -> bool {
    log.held_bytes().is_none_or(|held| held <= HELD_BYTES_MAX)
}

/// The world of one call.
struct CallWorld {
    reply: Reply,
    log: HeldLog,
    egress: Egress,
}

/// The world of a program that is on its way to its request loop: nothing that it says comes here.
pub(super) struct InitWorld(pub Egress);

impl World for InitWorld {
    fn random(&mut self, out: &mut [u8]) {
        fill(out);
    }

    fn reply(&mut self, _: &[u8]) -> bool {
        false
    }

    fn log(&mut self, _: &[u8]) -> bool {
        false
    }

    fn network(&mut self) -> &mut dyn Network {
        &mut self.0
    }
}

/// Fills `out` with random bytes.
pub(super) fn fill(out: &mut [u8]) {
    for piece in out.chunks_mut(32) {
        piece.copy_from_slice(&crate::entropy::fresh()[..piece.len()]);
    }
}

impl World for CallWorld {
    fn random(&mut self, out: &mut [u8]) {
        fill(out);
    }

    fn reply(&mut self, data: &[u8]) -> bool {
        self.reply.write(data).is_ok()
    }

    fn log(&mut self, data: &[u8]) -> bool {
        self.log.write(LogStream::Stderr, data);
        may_hold(&self.log)
    }

    fn network(&mut self) -> &mut dyn Network {
        &mut self.egress
    }
}
