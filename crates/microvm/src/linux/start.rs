//! How a process begins: at a program's first instruction, or where it was frozen.

use std::time::{Duration, Instant};

use bytes::Bytes;
use files::Files;

use super::frame;
use super::lambda::{self, Invocation, RuntimeApi};
use super::numbers;
use super::process::{Beginning, Exit, OTHERS, Process};
use super::program::Program;
use super::request_loop::{NotFrozen, Stage};
use super::run::{Left, Runner};
use super::saved::Saved;
use super::stack;
use super::thread::FIRST;
use super::world::World;
use crate::fault::Fault;
use crate::kvm::KvmError;
use crate::layout::USER_END;
use crate::machine::Machine;

/// What a program begins with.
pub struct Start<'a> {
    /// The program, which the machine holds.
    pub program: &'a Program,
    /// Its arguments, its own name first.
    pub args: Vec<Vec<u8>>,
    /// Its environment, as `NAME=VALUE`.
    pub env: Vec<Vec<u8>>,
    /// What it reads from descriptor 0.
    pub input: Bytes,
    /// Its files.
    pub files: Files,
    /// Everything else that it reaches.
    pub world: Box<dyn World>,
    /// When it ends at the latest.
    pub deadline: Instant,
    /// Threads of it that may run at once.
    pub processors: u32,
    /// What gives it its invocations, if it asks for them.
    pub lambda: Option<RuntimeApi>,
}

/// What a process that was frozen goes on with.
pub struct Resume<'a> {
    /// The process, whose memory and registers the machine holds.
    pub saved: &'a Saved,
    /// Variables of the call, as `NAME=VALUE`; such as [`Saved::takes`].
    pub env: Vec<Vec<u8>>,
    /// What it reads from descriptor 0.
    pub input: Bytes,
    /// Everything else that it reaches.
    pub world: Box<dyn World>,
    /// When it ends at the latest.
    pub deadline: Instant,
    /// Threads of it that may run at once.
    pub processors: u32,
    /// What it is given if it asks for invocations.
    pub invocation: Option<Invocation>,
}

/// How a program came to its end.
#[derive(Debug)]
pub enum End {
    /// As a process does.
    Exit(Exit),
    /// By a fault that it did not handle.
    Fault(Fault),
    /// At its deadline.
    Deadline,
    /// The machine is not to be used again.
    Broken(String),
}

/// A program that has ended.
pub struct Ended {
    /// How.
    pub end: End,
    /// Calls that it made and that are not offered, with how often.
    pub unknown: Vec<(String, u64)>,
    /// Whether it was refused memory.
    pub refused_memory: bool,
    /// Processor time that it used beside that of the thread that ran it.
    pub elsewhere: Duration,
    /// What it reached.
    pub world: Box<dyn World>,
    /// Its files, as it left them.
    pub files: Files,
    /// How it said that its invocation ended, if it did.
    pub lambda: Option<lambda::Ended>,
}

/// Runs the program that `machine` holds from its first instruction to its end. It holds its thread
/// while the program computes, and yields it while all its threads wait; until the deadline at the
/// longest.
pub async fn run(machine: &mut Machine, start: Start<'_>) -> Ended {
    let deadline = start.deadline;
    let process = match set_up(machine, start, Stage::Call) {
        Ok(process) => process,
        Err(ended) => return *ended,
    };
    to_the_end(Runner::at_entry(machine, process, deadline)).await
}

/// Runs it up to its request loop, and freezes it there: what is left in the machine belongs to the
/// process. `despite` freezes it despite what it has asked. Nothing is replied or logged. Gives the
/// process, and the world that it leaves.
pub async fn freeze(
    machine: &mut Machine,
    start: Start<'_>,
    despite: bool,
) -> Result<(Saved, Box<dyn World>), NotFrozen> {
    let (begin, deadline) = (Instant::now(), start.deadline);
    let process = set_up(machine, start, Stage::Init { despite });
    let process = process.map_err(|ended| not_frozen(&ended.end, begin))?;
    let failed = |error: KvmError| NotFrozen::Platform(error.to_string());
    let mut runner = Runner::at_entry(machine, process, deadline);
    match runner.run().await.map_err(failed)? {
        Left::Loop(awaits) => tracing::debug!(?awaits, "a process stands at its request loop"),
        Left::Unfit(reason) => return Err(reason),
        Left::End(end) => {
            let lambda = runner.process.lambda.as_mut();
            return Err(match lambda.and_then(RuntimeApi::take_end) {
                Some(lambda::Ended::InitError(report)) => NotFrozen::Reported(report.words()),
                _ => not_frozen(&end, begin),
            });
        }
    }
    if runner.process.is_connected() {
        return Err(NotFrozen::Connected);
    }
    let loaded = runner.settle().map_err(failed)?;
    Ok(Saved::of(*runner.process, loaded))
}

/// Lets a process go on that was frozen, to its end, as [`run`] does. The machine equals the image
/// that was taken of it then.
pub async fn resume(machine: &mut Machine, resume: Resume<'_>) -> Ended {
    let memory_bytes_max = machine.space.frames.bytes_max();
    let saved = resume.saved;
    let bounds = (memory_bytes_max, resume.processors);
    let mut process = Box::new(saved.process(resume.input, resume.world, bounds));
    if let (Some(api), Some(invocation)) = (process.lambda.as_mut(), resume.invocation) {
        api.give(invocation);
    }
    if let Some(at) = process.random_at {
        let mut random = [0; 16];
        process.world.random(&mut random);
        // Where the process has taken the page away it reads nothing of them.
        let _ = machine.view().write(at, &random);
    }
    let written = process.places.and_then(|places| places.fill(&resume.env));
    for (at, bytes) in written.into_iter().flatten() {
        if !bytes.is_empty() && process.write(machine, at, &bytes).is_err() {
            let reason = "the variables of the call have no place".to_owned();
            return ended(process, End::Exit(Exit::Host(reason)));
        }
    }
    let said = std::mem::take(&mut process.said);
    if !said.is_empty() && !process.world.log(&said) {
        return ended(process, End::Exit(Exit::LogTooLong));
    }
    to_the_end(Runner::resumed(machine, process, saved, resume.deadline)).await
}

async fn to_the_end(mut runner: Runner<'_>) -> Ended {
    let end = match runner.run().await {
        Ok(Left::End(end)) => end,
        Ok(Left::Loop(_) | Left::Unfit(_)) => End::Broken("a call has no request loop".into()),
        Err(error) => {
            tracing::warn!(%error, "a micro-VM failed");
            End::Broken(error.to_string())
        }
    };
    Ended {
        elsewhere: runner.elsewhere,
        ..ended(runner.process, end)
    }
}

fn not_frozen(end: &End, begin: Instant) -> NotFrozen {
    match end {
        End::Exit(exit) => NotFrozen::ended(exit),
        End::Fault(fault) => NotFrozen::Ended(fault.to_string()),
        End::Deadline => {
            let ms = begin.elapsed().as_millis();
            NotFrozen::Deadline(u64::try_from(ms).unwrap_or(u64::MAX))
        }
        End::Broken(reason) => NotFrozen::Ended(reason.clone()),
    }
}

fn ended(process: Box<Process>, end: End) -> Ended {
    let name = |number: u64| match numbers::name(number) {
        Some(name) => name.to_owned(),
        None if number == OTHERS => "others".to_owned(),
        None => format!("call {number}"),
    };
    let unknown = process.unknown.iter();
    Ended {
        end,
        unknown: unknown
            .map(|(number, count)| (name(*number), *count))
            .collect(),
        refused_memory: process.refused_memory,
        elsewhere: Duration::ZERO,
        world: process.world,
        files: process.files,
        lambda: process.lambda.and_then(|mut api| api.take_end()),
    }
}

/// A process whose stack is in place, and whose first thread is at its entry.
fn set_up(
    machine: &mut Machine,
    start: Start<'_>,
    stage: Stage,
) -> Result<Box<Process>, Box<Ended>> {
    let mut process = Box::new(Process::new(Beginning {
        segments: start.program.segments(),
        args: start.args,
        stage,
        input: start.input,
        files: start.files,
        world: start.world,
        memory_bytes_max: machine.space.frames.bytes_max(),
        processors: start.processors,
        lambda: start.lambda,
    }));
    if let Err(errno) = put_stack(&mut process, machine, start.program, &start.env) {
        let reason = format!("its arguments and environment do not fit: {errno:?}");
        let exit = process.exit.clone().unwrap_or(Exit::Host(reason));
        return Err(Box::new(ended(process, End::Exit(exit))));
    }
    Ok(process)
}

fn put_stack(
    process: &mut Process,
    machine: &mut Machine,
    program: &Program,
    env: &[Vec<u8>],
) -> Result<(), super::errno::Errno> {
    let mut random = [0; 16];
    process.world.random(&mut random);
    let args = process.args.clone();
    let built = stack::build(
        &stack::Start {
            args: &args,
            env,
            program,
            random,
            signal_bytes: frame::BYTES_MAX,
            // Who is given invocations is told of its call by them.
            places: process.stage == (Stage::Init { despite: true }) && process.lambda.is_none(),
        },
        USER_END,
    )?;
    process.write(machine, built.rsp, &built.bytes)?;
    process.random_at = Some(built.random_at);
    process.places = built.places;
    if let Some(thread) = process.threads.find_mut(FIRST) {
        (thread.regs.rip, thread.regs.rsp) = (program.entry, built.rsp);
    }
    Ok(())
}
