//! Freestanding guests: one call of their `handle`, as [`crate::abi`] has it.

use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use sandbox::LogStream;
use sandbox::host::{Errno, Session};

use crate::abi::{self, CallPage};
use crate::asks::{self, Told};
use crate::elf::Elf;
use crate::fault::Fault;
use crate::kvm::KvmError;
use crate::layout::{self, FRAMES, PAGE, USER_END, USER_START};
use crate::load::{LoadElfError, MOVED_TO, load, moved_by};
use crate::machine::{HostCall, Machine, Stop};
use crate::microvm::{Ended, Given};
use crate::space::{Protection, Space};
use crate::standing::{self, Catch, Standing};
use crate::view::{BadAddress, View};

/// Log bytes that are held back while a guest may be repeated; with more it is not.
const HELD_BYTES_MAX: usize = 64 << 10;
/// The hole below the stack.
pub(crate) const STACK_GUARD: Range<u64> = STACK - abi::STACK_GUARD_BYTES..STACK;
const STACK: u64 = abi::STACK_END - abi::STACK_BYTES;

/// Bytes of the stack that most guests use.
const STACK_TOP_BYTES: u64 = 32 << 10;
const STACK_TOP: u64 = abi::STACK_END - STACK_TOP_BYTES;
/// What every guest begins with, over the first frames, in this order.
const FIRST: [(u64, u64); 2] = [
    (STACK_TOP, STACK_TOP_BYTES),
    (abi::CALL_PAGE, abi::CALL_PAGE_BYTES),
];
/// Frames of a program, after those, that are touched by its first call at the latest.
const PROGRAM_PAGES: u64 = 4;

/// Bytes of frames that a guest has beside its program and its stack.
pub(crate) const EXTRA_BYTES: u64 = abi::CALL_AREA_BYTES;

/// Maps a program, its stack and its call area. Gives what was added to its addresses, its entry,
/// and where its heap begins.
pub(crate) fn prepare(
    memory: &memory::Range,
    space: &mut Space,
    elf: &Elf,
    file: &[u8],
    stack_bytes: u64,
) -> Result<(u64, u64, u64), LoadElfError> {
    if elf.packed_relocations {
        let reason =
            "its relocations are packed; link it with -z nopack-relative-relocs or -no-pie";
        return Err(crate::elf::ElfError::Refused(reason.into()).into());
    }
    if elf.span().end.saturating_add(moved_by(elf)) > STACK_GUARD.start {
        let reason = format!("it ends past {:#x}, where its stack is", STACK_GUARD.start);
        return Err(crate::elf::ElfError::Refused(reason).into());
    }
    // An image need not hold what is zero behind its last page, so zeros come last.
    for (start, bytes) in FIRST {
        space.map(memory, start, bytes, Protection::READ_WRITE)?;
    }
    let loaded = load(memory, space, elf, file)?;
    let buffers = abi::CALL_AREA_BYTES - abi::CALL_PAGE_BYTES;
    let stack = abi::STACK_END - stack_bytes;
    for (start, bytes) in [(stack, STACK_TOP - stack), (abi::INPUT, buffers)] {
        space.map(memory, start, bytes, Protection::READ_WRITE)?;
    }
    let heap = loaded.end.next_multiple_of(layout::TABLE_SPAN);
    Ok((loaded.moved_by, loaded.entry, heap))
}

/// The entries of page tables for what every guest begins with, with where they go.
pub(crate) fn first_entries() -> impl Iterator<Item = (u64, u64)> {
    let pages = FIRST.into_iter().flat_map(|(start, bytes)| {
        let addresses = start..start + bytes;
        addresses.step_by(PAGE as usize)
    });
    let frames = (FRAMES..).step_by(PAGE as usize);
    pages
        .zip(frames)
        .map(|(page, frame)| (layout::entry(page), Protection::READ_WRITE.entry(frame)))
}

/// Guest-physical memory, in bytes from where on, that nearly every guest touches or its image
/// fills: the end of its stack, its call page, the start of its program, and tables for those; and
/// what it begins with.
pub(crate) fn touched() -> [(u64, u64); 6] {
    let stack_end = FRAMES + STACK_TOP_BYTES - PAGE;
    let table = |address| (layout::entry(address) & !(PAGE - 1), PAGE);
    [
        (layout::STUB_DATA, PAGE),
        (layout::VECTORS_DATA, PAGE),
        table(MOVED_TO),
        table(STACK_TOP),
        table(abi::CALL_PAGE),
        (stack_end, 2 * PAGE + PROGRAM_PAGES * PAGE),
    ]
}

/// One run of a guest up to its next `vm_next`.
struct Run<'a> {
    machine: &'a mut Machine,
    given: Given<'a>,
    session: Option<Box<dyn Session>>,
    standing: Standing,
    /// Whether memory was refused.
    refused: bool,
    /// Whether its initialisation is over.
    begun: bool,
}

/// Calls a guest that stands at `vm_next`. Gives how that ended, and whether it was refused memory.
pub(crate) async fn call(machine: &mut Machine, given: Given<'_>, guest: &[u8]) -> (Ended, bool) {
    let Some(standing) = Standing::decode(guest) else {
        return (
            Ended::Platform("its frozen state is malformed".into()),
            false,
        );
    };
    if let Err(error) = begin(&machine.view(), &given) {
        return (killed_for(&error), false);
    }
    machine.cpu.finish(abi::CALL_PAGE);
    let mut run = Run {
        machine,
        given,
        session: None,
        standing,
        refused: false,
        begun: true,
    };
    let ended = run.finish().await;
    let drained = run.drain();
    let ended = match (ended, drained) {
        (Ended::Code(_), Err(error)) => killed_for(&error),
        (ended, _) => ended,
    };
    (ended, run.refused)
}

/// Runs a guest that was just loaded up to its first `vm_next`, and notes what it has asked for.
pub(crate) async fn initialise(
    machine: &mut Machine,
    given: Given<'_>,
    standing: &mut Standing,
) -> (Ended, bool) {
    let mut run = Run {
        machine,
        given,
        session: None,
        standing: *standing,
        refused: false,
        begun: false,
    };
    let ended = run.finish().await;
    *standing = run.standing;
    (ended, run.refused)
}

fn begin(view: &View<'_>, given: &Given<'_>) -> Result<(), BadAddress> {
    let input = &given.input;
    let here = input.len().min(abi::INPUT_BYTES as usize);
    let output_max = given.reply.bytes_max().min(abi::OUTPUT_BYTES);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
    let page = CallPage {
        input_size: input.len() as u64,
        input_here: here as u64,
        output_max,
        now_ns: now,
        random: crate::entropy::fresh(),
    };
    view.write(abi::CALL_PAGE, &page.encode())?;
    view.write(abi::INPUT, &input[..here])
}

fn killed_for(bad: &BadAddress) -> Ended {
    Ended::Killed(format!("it called its host with a bad address: {bad}"))
}

impl Run<'_> {
    async fn finish(&mut self) -> Ended {
        let mut until = self.given.until;
        let mut end = until.of_run();
        loop {
            let stop = match self.machine.cpu.run(end) {
                Ok(stop) => stop,
                Err(error) => return Ended::Platform(error.to_string()),
            };
            let call = match stop {
                Stop::HostCall(call) => call,
                Stop::Syscall => return Ended::Killed("it made a system call".into()),
                Stop::Fault(fault) => match self.deliver(&fault) {
                    Ok(true) => continue,
                    Ok(false) => return Ended::Fault(fault),
                    Err(error) => return Ended::Platform(error.to_string()),
                },
                Stop::Deadline => return until.end(),
                Stop::Broken(why) => return Ended::Killed(why),
            };
            match self.answer(call).await {
                Answered::Goes(result) => self.machine.cpu.finish(result),
                Answered::Waited(told) => {
                    self.machine.cpu.finish_told(told);
                    end = until.of_run();
                }
                Answered::Ends(ended) => return ended,
            }
            if self
                .given
                .log
                .held_bytes()
                .is_none_or(|bytes| bytes > HELD_BYTES_MAX)
            {
                // What was handed on cannot be taken back: no repetition from here.
                self.given.log.release();
                until.budget = None;
                end = until.deadline;
            }
        }
    }

    /// Tells the guest of a fault of its own, if it wants to know.
    fn deliver(&mut self, fault: &Fault) -> Result<bool, KvmError> {
        let Some(handler) = self.standing.handler(fault) else {
            return Ok(false);
        };
        self.machine.cpu.deliver(fault, handler)?;
        Ok(true)
    }

    async fn answer(&mut self, call: HostCall) -> Answered {
        let answered = match call.number {
            abi::NEXT | abi::EXIT => return Answered::Ends(Ended::Code(call.args[0] as i32)),
            abi::GROW => Ok(self.grow(call.args[0])),
            abi::MAP => Ok(self.map(call.args)),
            abi::CATCH => Ok(self.catch(call.args)),
            abi::TRAP => return Answered::Ends(self.trap(call.args)),
            abi::INPUT_SIZE => Ok(self.given.input.len() as i64),
            abi::INPUT_READ => self.input_read(call.args),
            abi::OUTPUT_WRITE => self.output_write(call.args),
            abi::LOG_WRITE => self.log_write(call.args),
            _ => return self.ask(call).await,
        };
        match answered {
            Ok(result) => Answered::Goes(result as u64),
            Err(bad) => Answered::Ends(killed_for(&bad)),
        }
    }

    fn grow(&mut self, bytes: u64) -> i64 {
        match self.standing.grow(self.machine, bytes) {
            Ok(end) => end as i64,
            Err(errno) => {
                self.refused = true;
                errno.code()
            }
        }
    }

    fn map(&mut self, args: [u64; 6]) -> i64 {
        let [at, bytes, rights, ..] = args;
        match standing::map(self.machine, at, bytes, rights) {
            Ok(()) => 0,
            Err(errno) => {
                self.refused |= errno == Errno::Exhausted;
                errno.code()
            }
        }
    }

    fn catch(&mut self, args: [u64; 6]) -> i64 {
        let [handler, start, end, ..] = args;
        if !(USER_START..USER_END).contains(&handler) || start > end {
            return Errno::Invalid.code();
        }
        self.standing.catch = Some(Catch {
            handler,
            start,
            end,
        });
        0
    }

    fn trap(&mut self, args: [u64; 6]) -> Ended {
        let [kind, at, length, ..] = args;
        let kind = usize::try_from(kind).ok();
        let kind = kind.and_then(|at| abi::TRAPS.get(at).copied());
        let text = self.copy(at, length.min(abi::TRAP_TEXT_BYTES));
        match (kind, text) {
            (Some(kind), Ok(text)) => {
                Ended::Trapped(kind, String::from_utf8_lossy(&text).into_owned())
            }
            (None, _) => Ended::Killed("it ended as a trap that there is not".into()),
            (_, Err(bad)) => killed_for(&bad),
        }
    }

    fn input_read(&mut self, args: [u64; 6]) -> Result<i64, BadAddress> {
        let [offset, at, length, ..] = args;
        let input: &Bytes = &self.given.input;
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = input.get(from..).unwrap_or_default();
        let count = rest
            .len()
            .min(usize::try_from(length).unwrap_or(usize::MAX));
        self.machine.view().write(at, &rest[..count])?;
        Ok(count as i64)
    }

    fn output_write(&mut self, args: [u64; 6]) -> Result<i64, BadAddress> {
        self.drain_output()?;
        let data = self.copy(args[0], args[1])?;
        Ok(match self.given.reply.write(&data) {
            Ok(()) => 0,
            Err(_) => -1,
        })
    }

    fn log_write(&mut self, args: [u64; 6]) -> Result<i64, BadAddress> {
        self.drain_log()?;
        let data = self.copy(args[1], args[2])?;
        self.log_line(args[0] as u32, &data);
        Ok(0)
    }

    fn copy(&self, at: u64, length: u64) -> Result<Vec<u8>, BadAddress> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.machine.view().copy(at, length)
    }

    fn log_line(&self, level: u32, line: &[u8]) {
        let level = LogStream::Log(u8::try_from(level).unwrap_or(u8::MAX));
        self.given.log.write(level, line);
        if !line.ends_with(b"\n") {
            self.given.log.write(level, b"\n");
        }
    }

    /// Takes what the guest has left in its buffers.
    fn drain(&mut self) -> Result<(), BadAddress> {
        self.drain_log()?;
        self.drain_output()
    }

    fn drain_output(&mut self) -> Result<(), BadAddress> {
        let used = self.used(abi::OUTPUT_USED, abi::OUTPUT, abi::OUTPUT_BYTES)?;
        if used > 0 {
            let bytes = self.machine.view().copy(abi::OUTPUT, used)?;
            // What is over the limit is remembered as such, and told as the end of the call.
            let _ = self.given.reply.write(&bytes);
        }
        Ok(())
    }

    fn drain_log(&mut self) -> Result<(), BadAddress> {
        let used = self.used(abi::LOG_USED, abi::LOG, abi::LOG_BYTES)?;
        let lines = self.machine.view().copy(abi::LOG, used)?;
        let mut rest = lines.as_slice();
        while let Some((head, after)) = rest.split_first_chunk::<{ abi::LOG_HEAD_BYTES }>() {
            let [a, b, c, d, e, f, g, h] = *head;
            let length = u32::from_le_bytes([e, f, g, h]) as usize;
            let Some(line) = after.get(..length) else {
                break;
            };
            self.log_line(u32::from_le_bytes([a, b, c, d]), line);
            rest = &after[length..];
        }
        Ok(())
    }

    /// What the guest says that it has used of a buffer; forgotten with that.
    fn used(&self, counter: u64, buffer: u64, most: u64) -> Result<usize, BadAddress> {
        let view = self.machine.view();
        let used = view.read_u64(counter)?;
        if used == 0 {
            return Ok(0);
        }
        if used > most {
            return Err(BadAddress {
                address: buffer,
                bytes: used,
            });
        }
        view.write(counter, &0u64.to_le_bytes())?;
        Ok(used as usize)
    }

    async fn ask(&mut self, call: HostCall) -> Answered {
        let Some(index) = self.given.numbers.row(call.number) else {
            let number = call.number;
            let why = format!("it made host call {number:#x}, which is not offered");
            return Answered::Ends(Ended::Killed(why));
        };
        let row = &self.given.table[index];
        if self.session.is_none() {
            let asks = self.given.asks.take();
            self.session = asks.map(|asks| asks.host.session(asks.guest));
        }
        let Some(session) = self.session.as_deref_mut() else {
            // Initialisation at deploy has no platform to ask, and a function without grants may
            // not ask it.
            let errno = if self.begun {
                Errno::Denied
            } else {
                Errno::Unavailable
            };
            return Answered::Goes(errno.code() as u64);
        };
        let linear = self.standing.linear;
        let asked = asks::answer(self.machine, session, (index, row), call.args, linear);
        match tokio::time::timeout_at(self.given.until.deadline.into(), asked).await {
            Ok(Ok(told)) => Answered::Waited(told),
            Ok(Err(bad)) => Answered::Ends(killed_for(&bad)),
            Err(_) => Answered::Ends(Ended::Timeout),
        }
    }
}

/// What came of a host call.
enum Answered {
    /// The guest goes on with this.
    Goes(u64),
    /// The same, after time that was not its own.
    Waited(Told),
    /// The call is over.
    Ends(Ended),
}
