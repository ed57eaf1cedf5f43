//! The task of one connection: it owns the socket and the machine, and carries between them.
//!
//! ```text
//!  handles ─commands─▶ ┌──────────────┐ ◀─bytes─ Decoder ◀─ socket
//!  calls ◀──actions─── │   Machine    │
//!                      └──────────────┘ ─frames (when the socket can take them)─▶ socket
//! ```
//!
//! It is one future that does what it can without waiting and then waits for all of it at once:
//! no second task, no copy between halves. Whoever asks for something does it meanwhile, as long as
//! the task waits.

mod calls;
mod commands;
pub(crate) mod pace;
mod staged;

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{BufMut as _, BytesMut};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::sync::watch;
use tokio::time::{Sleep, timeout};
use tokio_util::io::poll_read_buf;

use crate::call::Command;
use crate::config::Config;
use crate::error::Close;
use crate::frame::{Decoder, HEADER_BYTES};
use crate::identity::Identity;
use crate::machine::{Action, Event, Machine};
use crate::metrics;
use crate::wire::Wire;

use calls::Entry;
pub(crate) use calls::{Dialled, Serving};
pub(crate) use commands::Commands;
use pace::Pace;
use staged::Staged;

/// Bytes of input that are read at a time.
const INPUT_BYTES: usize = 64 << 10;

/// Reads, writes and commands in a row before the others have their turn.
const READS_MAX: usize = 32;
const WRITES_MAX: usize = 8;
const COMMANDS_MAX: usize = 256;

/// Which role this end has, and what belongs to it.
pub(crate) enum Role {
    Dialler(Dialled),
    Acceptor(Serving),
}

/// A certificate that must stay valid.
pub(crate) struct Vouched {
    pub(crate) identity: Arc<Identity>,
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

/// What a connection is made of after its handshake.
pub(crate) struct Parts {
    pub(crate) wire: Wire,
    pub(crate) machine: Machine,
    pub(crate) decoder: Decoder,
    /// What came after the peer's greeting.
    pub(crate) input: BytesMut,
    pub(crate) role: Role,
    pub(crate) vouched: Option<Vouched>,
    pub(crate) closed: watch::Sender<Option<Arc<Close>>>,
}

pub(crate) struct Driver {
    wire: Wire,
    machine: Machine,
    decoder: Decoder,
    input: BytesMut,
    /// Bytes that a read put into a reader's buffer: of which call, how many, and if the last.
    landed: Option<(u64, usize, bool)>,
    /// Whether the last bytes went to a reader's buffer: those of the next frame may as well.
    is_landing: bool,
    commands: UnboundedReceiver<Command>,
    role: Role,
    vouched: Option<Vouched>,
    closed: watch::Sender<Option<Arc<Close>>>,
    calls: HashMap<u64, Entry>,
    /// The last id that was given to a call of this side.
    last: u64,
    staged: Staged,
    pace: Pace,
    unflushed: bool,
    /// Whether there was more to write than was allowed.
    has_more: bool,
    /// Wakes the connection's task, from when it begins until it ends.
    waker: Option<Waker>,
    sleep: Pin<Box<Sleep>>,
    armed: Instant,
    check_every: Duration,
    next_check: Instant,
    close_max: Duration,
    close: Option<Close>,
    counts: Counts,
}

struct Counts {
    sent_bytes: ::metrics::Counter,
    received_bytes: ::metrics::Counter,
    calls: ::metrics::Counter,
    calls_cut: ::metrics::Counter,
}

/// Makes a connection of what `parts` gives: the way to it, and what runs it.
pub(crate) fn drive(config: &Config, parts: impl FnOnce(Commands) -> Parts) -> (Commands, Running) {
    let (queue, receiver) = mpsc::unbounded_channel();
    let driver = Arc::new_cyclic(|driver| {
        let commands = Commands::new(queue.clone(), driver.clone());
        Mutex::new(Driver::new(parts(commands), receiver, config))
    });
    let commands = Commands::new(queue, Arc::downgrade(&driver));
    (commands, Running(driver))
}

/// A connection that is to be run.
pub(crate) struct Running(Arc<Mutex<Driver>>);

impl Running {
    /// Runs it to its end; every call has one by then.
    pub(crate) async fn run(self) -> Arc<Close> {
        let Self(driver) = self;
        let connections = ::metrics::gauge!(metrics::CONNECTIONS);
        connections.increment(1.0);
        let mut close = poll_fn(|cx| driver.lock().poll(cx)).await;
        if let Close::Io(error) = &close
            && error.kind() == io::ErrorKind::UnexpectedEof
        {
            // What TLS says of an end that was not announced.
            close = Close::Eof;
        }
        let close_max = driver.lock().close_max;
        if !matches!(close, Close::Io(_) | Close::Dead(_) | Close::Eof) {
            driver.lock().gather_last_words();
            // A peer that does not take the last frames in time has them cut off.
            let last_words = poll_fn(|cx| driver.lock().poll_last_words(cx));
            let _ = timeout(close_max, last_words).await;
        }
        if !matches!(close, Close::Drained) {
            ::metrics::counter!(metrics::CONNECTIONS_LOST_TOTAL).increment(1);
        }
        connections.decrement(1.0);
        let close = Arc::new(close);
        let mut driver = driver.lock();
        driver.end_all(&close);
        driver.closed.send_replace(Some(Arc::clone(&close)));
        close
    }
}

impl Driver {
    fn new(parts: Parts, commands: UnboundedReceiver<Command>, config: &Config) -> Self {
        let now = Instant::now();
        let side = match &parts.role {
            Role::Dialler(_) => "dialler",
            Role::Acceptor(_) => "acceptor",
        };
        let due = parts.machine.wake_at();
        Self {
            wire: parts.wire,
            machine: parts.machine,
            decoder: parts.decoder,
            input: parts.input,
            landed: None,
            is_landing: false,
            commands,
            role: parts.role,
            vouched: parts.vouched,
            closed: parts.closed,
            calls: HashMap::new(),
            last: 0,
            staged: Staged::default(),
            pace: Pace::default(),
            unflushed: false,
            has_more: false,
            waker: None,
            sleep: Box::pin(tokio::time::sleep_until(due.into())),
            armed: due,
            check_every: config.ping_after,
            next_check: now + config.ping_after,
            close_max: config.close_max,
            close: None,
            counts: Counts {
                sent_bytes: ::metrics::counter!(metrics::SENT_BYTES_TOTAL),
                received_bytes: ::metrics::counter!(metrics::RECEIVED_BYTES_TOTAL),
                calls: ::metrics::counter!(metrics::CALLS_TOTAL, "side" => side),
                calls_cut: ::metrics::counter!(metrics::CALLS_CUT_TOTAL, "side" => side),
            },
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Close> {
        if !(self.waker.as_ref()).is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
        loop {
            let now = Instant::now();
            let mut busy = self.take_commands(cx, now);
            busy |= self.read(cx, now);
            self.pass_time(cx);
            busy |= self.write(cx, now, WRITES_MAX);
            if let Some(close) = self.close.take() {
                // From now on nobody else sends.
                self.waker = None;
                return Poll::Ready(close);
            }
            if !busy {
                return Poll::Pending;
            }
        }
    }

    /// Hands an event to the machine and does what it says.
    fn handle(&mut self, now: Instant, event: Event) {
        self.machine.handle(now, event);
        self.act(now);
    }

    fn act(&mut self, now: Instant) {
        while let Some(action) = self.machine.next_action() {
            match action {
                Action::Closed(close) => self.close = Some(close),
                action => self.act_on(now, action),
            }
        }
    }

    fn read(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut busy = false;
        for _ in 0..READS_MAX {
            if self.close.is_some() {
                return true;
            }
            let event = match self.read_once(cx) {
                Poll::Pending => return busy,
                Poll::Ready(Ok(0)) => Some(Event::Eof),
                Poll::Ready(Ok(bytes)) => {
                    self.counts.received_bytes.increment(bytes as u64);
                    None
                }
                Poll::Ready(Err(error)) => {
                    self.close = Some(Close::Io(error));
                    return true;
                }
            };
            busy = true;
            match event {
                Some(event) => self.handle(now, event),
                None => self.decode(now),
            }
        }
        // There may be more, of which nothing else would remind us.
        busy
    }

    /// Reads into a reader's own buffer when what comes next belongs there, else into ours.
    fn read_once(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.is_empty()
            && let Some((id, left)) = self.decoder.expects()
            && let Some(entry) = self.calls.get(&id)
        {
            let wire = Pin::new(&mut self.wire);
            let landed = entry.call().land(left, |room| {
                let mut room = ReadBuf::new(room);
                wire.poll_read(cx, &mut room)
                    .map_ok(|()| room.filled().len())
            });
            if let Some(landed) = landed {
                if let Poll::Ready(Ok(bytes)) = landed
                    && bytes > 0
                {
                    let end = self.decoder.landed(bytes);
                    self.landed = Some((id, bytes, end));
                    self.is_landing = true;
                }
                return landed;
            }
        }
        if self.input.capacity() - self.input.len() < INPUT_BYTES / 4 {
            self.input.reserve(INPUT_BYTES);
        }
        let bytes_max = match self.is_landing {
            // The rest of the frame is to go where it belongs.
            true => HEADER_BYTES,
            false => usize::MAX,
        };
        let mut input = (&mut self.input).limit(bytes_max);
        let read = poll_read_buf(Pin::new(&mut self.wire), cx, &mut input);
        self.is_landing &= read.is_pending();
        read
    }

    fn decode(&mut self, now: Instant) {
        if let Some((id, bytes, end)) = self.landed.take() {
            self.handle(now, Event::Landed { id, bytes, end });
        }
        while self.close.is_none() {
            match self.decoder.decode(&mut self.input) {
                Ok(Some(frame)) => self.handle(now, Event::Received(frame)),
                Ok(None) => return,
                Err(error) => self.close = Some(Close::Frame(error)),
            }
        }
    }

    /// Writes what goes without a wait, in at most so many writes.
    fn write(&mut self, cx: &mut Context<'_>, now: Instant, writes_max: usize) -> bool {
        let mut busy = false;
        self.has_more = false;
        for turn in 0..=writes_max {
            while self.staged.has_room(self.pace.bytes()) {
                let Some(frame) = self.machine.transmit(now) else {
                    break;
                };
                self.staged.push(frame);
            }
            self.act(now);
            self.has_more = turn == writes_max && !self.staged.is_empty();
            if self.staged.is_empty() || self.has_more {
                break;
            }
            match self.staged.poll_write(Pin::new(&mut self.wire), cx) {
                Poll::Pending => return busy,
                Poll::Ready(Ok(bytes)) => {
                    self.counts.sent_bytes.increment(bytes as u64);
                    self.unflushed = true;
                    busy = true;
                    if let Some(bytes) = self.pace.sent(now, bytes, !self.staged.is_empty()) {
                        self.wire.set_unsent_bytes(bytes);
                    }
                }
                Poll::Ready(Err(error)) => {
                    self.close = Some(Close::Io(error));
                    return true;
                }
            }
        }
        if self.unflushed {
            match Pin::new(&mut self.wire).poll_flush(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => self.close = Some(Close::Io(error)),
            }
        }
        busy
    }

    /// Takes what the machine still has to say.
    fn gather_last_words(&mut self) {
        let now = Instant::now();
        while let Some(frame) = self.machine.transmit(now) {
            self.staged.push(frame);
        }
    }

    /// Sends it, and closes this direction.
    fn poll_last_words(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.staged.is_empty() {
            let wire = Pin::new(&mut self.wire);
            ready!(self.staged.poll_write(wire, cx))?;
        }
        ready!(Pin::new(&mut self.wire).poll_flush(cx))?;
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }

    /// Tells the machine that time has passed when it wants to know, and has the peer's
    /// certificate checked.
    fn pass_time(&mut self, cx: &mut Context<'_>) {
        let due = self.due();
        if due < self.armed {
            self.arm(due);
        }
        while self.close.is_none() && self.sleep.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            self.check(now);
            self.handle(now, Event::Tick);
            // What is due has been done, so that a time in the past can only be a rounding.
            let due = self.due().max(now + Duration::from_millis(1));
            self.arm(due);
        }
    }

    fn due(&self) -> Instant {
        self.machine.wake_at().min(self.next_check)
    }

    fn arm(&mut self, due: Instant) {
        self.armed = due;
        self.sleep.as_mut().reset(due.into());
    }

    /// A peer whose certificate has ended, or is no longer trusted, may finish what it began.
    fn check(&mut self, now: Instant) {
        if now < self.next_check {
            return;
        }
        self.next_check = now + self.check_every;
        let Some(vouched) = &self.vouched else {
            return;
        };
        if let Err(error) = vouched.identity.verify(&vouched.chain) {
            tracing::info!(%error, "draining a connection: the peer's certificate is not valid");
            self.handle(now, Event::Drain);
        }
    }
}
