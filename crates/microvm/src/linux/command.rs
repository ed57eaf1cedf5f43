//! A Linux program as a command function: made ready at deploy, called, and its end told.

use std::fmt::Write;
use std::sync::{Arc, OnceLock};

use files::{Contents, Files, Layer, LayerBuilder, LayerError, Quota};
use model::Settings;
use sandbox::{HeldLog, LogStream, Reply};

use super::egress::Egress;
use super::process::Exit;
use super::program::Program;
use super::run::{self, End, Start};
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
/// Most that the private layer of a call holds.
const FILES_MAX: Quota = Quota {
    bytes_max: 64 << 20,
    inodes_max: 65_536,
};
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

/// What one call passes beside its input.
pub(crate) struct Passed<'a> {
    pub settings: &'a Settings,
    pub args: &'a [String],
    pub env: &'a [(String, String)],
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
        let all = of_version.chain(of_call);
        all.map(|(key, value)| format!("{key}={value}").into_bytes())
            .collect()
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
    let layer = match base() {
        Ok(layer) => layer,
        Err(error) => return (Ended::Platform(error.to_string()), false),
    };
    let until = given.until;
    let world = CallWorld {
        reply: given.reply.clone(),
        log: given.log.clone(),
        egress: Egress::new(passed.settings.allow.clone(), until.deadline),
    };
    let quota = Quota {
        bytes_max: FILES_MAX
            .bytes_max
            .min(passed.settings.limits.memory_bytes_max),
        ..FILES_MAX
    };
    let ended = run::run(
        machine,
        Start {
            program: &program,
            args: passed.args(),
            env: passed.env(),
            input: given.input,
            files: Files::new(layer, quota),
            world: Box::new(world),
            deadline: until.of_run(),
        },
    )
    .await;
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
        End::Deadline => (until.end(), false),
        End::Broken(reason) => (Ended::Killed(reason), false),
    }
}

/// A line on the calls that are not offered, if there were any.
fn tell_unknown(log: &HeldLog, unknown: &[(String, u64)]) {
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

/// What every program finds: names of its user, of its host, and where to put temporary files.
fn base() -> Result<Arc<Layer>, LayerError> {
    static BASE: OnceLock<Arc<Layer>> = OnceLock::new();
    if let Some(base) = BASE.get() {
        return Ok(base.clone());
    }
    let mut layer = LayerBuilder::default();
    for directory in ["tmp", "etc", "bin", "home"] {
        layer.directory(directory)?;
    }
    for (path, text) in [
        ("etc/passwd", "function:x:1000:1000::/tmp:/bin/sh\n"),
        ("etc/group", "function:x:1000:\n"),
        ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
        ("etc/resolv.conf", "nameserver 127.0.0.1\n"),
        ("etc/nsswitch.conf", "hosts: files dns\n"),
    ] {
        layer.file(path, Contents::of(text.as_bytes()), false)?;
    }
    Ok(BASE.get_or_init(|| Arc::new(layer.build())).clone())
}

/// The world of one call.
struct CallWorld {
    reply: Reply,
    log: HeldLog,
    egress: Egress,
}

impl World for CallWorld {
    fn random(&mut self, out: &mut [u8]) {
        for piece in out.chunks_mut(32) {
            piece.copy_from_slice(&crate::entropy::fresh()[..piece.len()]);
        }
    }

    fn reply(&mut self, data: &[u8]) -> bool {
        self.reply.write(data).is_ok()
    }

    fn log(&mut self, data: &[u8]) -> bool {
        self.log.write(LogStream::Stderr, data);
        self.log
            .held_bytes()
            .is_none_or(|held| held <= HELD_BYTES_MAX)
    }

    fn network(&mut self) -> &mut dyn Network {
        &mut self.egress
    }
}
