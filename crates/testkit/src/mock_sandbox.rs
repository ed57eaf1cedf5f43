//! The sandbox of a scripted guest.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::Response;
use http_body_util::BodyExt;
use model::{Limits, Status, TrapKind};
use sandbox::host::{Arg, Errno};
use sandbox::{
    Asks, Body, Call, Completion, End, HttpCall, LogStream, Payload, Sandbox, SandboxError, State,
};

use crate::Guest;
use crate::mock::Shared;

/// Memory that a scripted guest has when it is fresh.
const FRESH_BYTES: u64 = 1 << 16;
const PAGE_BYTES: u64 = 4096;
/// Room for the answer to one who asks.
const ASK_BYTES: usize = 64 << 10;

pub(crate) struct MockSandbox {
    guest: Guest,
    shared: Arc<Shared>,
    state: State,
    /// What stands for the guest's memory.
    calls: u64,
    memory_bytes: u64,
}

impl MockSandbox {
    pub(crate) fn new(guest: Guest, shared: Arc<Shared>) -> Self {
        Self {
            guest,
            shared,
            state: State::Fresh,
            calls: 0,
            memory_bytes: FRESH_BYTES,
        }
    }

    async fn run(&mut self, call: Call) -> Completion {
        self.calls += 1;
        let Call {
            payload,
            limits,
            budget,
            log,
            asks,
            ..
        } = call;
        let deadline = Duration::from_millis(limits.deadline_ms);
        let body = match payload {
            Payload::Http(call) => {
                let served = tokio::time::timeout(deadline, self.serve(*call)).await;
                return served.unwrap_or_else(|_| Completion::without_reply(Status::Timeout));
            }
            Payload::Bytes { env, .. } if self.guest == Guest::Told => told(&env),
            Payload::Bytes { body, .. } => body,
        };
        if self.guest == Guest::Ask {
            let asked = tokio::time::timeout(deadline, ask(asks, &body)).await;
            return asked.unwrap_or_else(|_| Completion::without_reply(Status::Timeout));
        }
        let end = match &self.guest {
            Guest::Compute(ms) => compute(Some(*ms), budget, deadline).await,
            Guest::Loop => compute(None, budget, deadline).await,
            Guest::Hold(gate) => {
                let gate = self.shared.gate(gate);
                let passed = tokio::time::timeout(deadline, gate.pass()).await;
                End::Done(passed.map_or(Status::Timeout, |()| Status::Ok))
            }
            Guest::Block(gate) => {
                self.shared.gate(gate).pass_blocking();
                End::Done(Status::Ok)
            }
            Guest::Stuck => std::future::pending().await,
            _ => End::Done(self.at_once(&limits)),
        };
        if let Guest::Print(bytes) = self.guest {
            let line = [b'x'; 64];
            for _ in 0..bytes.div_ceil(64) {
                log.write(LogStream::Stderr, &line);
            }
        }
        let ok = end == End::Done(Status::Ok);
        let replies = ok || self.guest == Guest::Report;
        let reply = if replies {
            self.reply(body)
        } else {
            Bytes::new()
        };
        if self.guest == Guest::Grow {
            self.memory_bytes += 1 << 20;
        }
        Completion {
            end,
            reply,
            memory_peak_bytes: self.memory_bytes,
            cpu_elsewhere_ns: 0,
            input_bytes: 0,
            output_bytes: 0,
        }
    }

    /// How a guest ends that does not wait.
    fn at_once(&mut self, limits: &Limits) -> Status {
        match self.guest {
            Guest::Trap => trap(TrapKind::Unreachable, "unreachable"),
            Guest::Recurse => trap(TrapKind::StackOverflow, "call stack exhausted"),
            Guest::Hog => {
                self.memory_bytes = limits.memory_bytes_max;
                Status::OutOfMemory
            }
            Guest::Exit(code) if code != 0 => Status::Exit { code },
            Guest::Report => Status::Error {
                kind: "Mock.Reported".to_owned(),
                message: "as the script says".to_owned(),
            },
            Guest::Flood(bytes) if bytes > limits.output_bytes_max => Status::OutputLimit,
            Guest::Dirty(pages) => {
                self.memory_bytes = self.memory_bytes.max(pages * PAGE_BYTES);
                Status::Ok
            }
            #[expect(clippy::panic, reason = "the script says so")]
            Guest::Panic => panic!("the mock guest panics"),
            _ => Status::Ok,
        }
    }

    fn reply(&self, body: Bytes) -> Bytes {
        match self.guest {
            Guest::Counter => self.calls.to_string().into(),
            Guest::Canary if self.calls == 1 => "clean".into(),
            Guest::Canary => "dirty".into(),
            Guest::Grow => self.memory_bytes.to_string().into(),
            Guest::Flood(bytes) | Guest::Leak(bytes) => {
                vec![b'x'; usize::try_from(bytes).unwrap_or(usize::MAX)].into()
            }
            Guest::Exit(_) | Guest::Print(_) => Bytes::new(),
            _ => body,
        }
    }

    async fn serve(&mut self, call: HttpCall) -> Completion {
        let (mut sender, body) = Pipe::new();
        let mut completion = Completion::without_reply(Status::Ok);
        completion.memory_peak_bytes = self.memory_bytes;
        match &self.guest {
            Guest::HttpHold(gate) => {
                let gate = self.shared.gate(gate);
                let _ = call.respond.send(Response::new(body.boxed_unsync()));
                gate.pass().await;
                completion.output_bytes += sender.send(Bytes::from_static(b"held")).await;
            }
            Guest::HttpEcho => {
                let _ = call.respond.send(Response::new(body.boxed_unsync()));
                let mut request: Body = call.request.into_body();
                while let Some(Ok(frame)) = request.frame().await {
                    if let Ok(data) = frame.into_data() {
                        completion.input_bytes += data.len() as u64;
                        completion.output_bytes += sender.send(data).await;
                    }
                }
            }
            _ => {
                let message = "it ended without a response".to_owned();
                completion.end = End::Done(Status::NoResponse { message });
            }
        }
        completion
    }
}

/// The variables of a call as a JSON object.
fn told(env: &[(String, String)]) -> Bytes {
    let pairs = env.iter().map(|(key, value)| format!("{key:?}:{value:?}"));
    format!("{{{}}}", pairs.collect::<Vec<_>>().join(",")).into()
}

impl Sandbox for MockSandbox {
    fn invoke(&mut self, call: Call) -> BoxFuture<'_, Completion> {
        if let Err(error) = self.state.step(State::Running) {
            let message = error.to_string();
            return futures::future::ready(Completion::without_reply(Status::Platform { message }))
                .boxed();
        }
        // Made now: a call that is dropped before its first step leaves the sandbox spent, too.
        let in_call = InCall {
            sandbox: self,
            ended: false,
        };
        async move {
            // Moves the whole of it in.
            let mut in_call = in_call;
            let completion = in_call.sandbox.run(call).await;
            in_call.ended = true;
            completion
        }
        .boxed()
    }

    fn reset(&mut self) -> Result<(), SandboxError> {
        if self.guest == Guest::Sticky {
            self.state.step(State::Retired)?;
            return Err(SandboxError::Failed {
                doing: "reset",
                reason: "the mock guest sticks".to_owned(),
            });
        }
        self.state.step(State::Fresh)?;
        self.calls = 0;
        self.memory_bytes = FRESH_BYTES;
        self.shared.resets.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn state(&self) -> State {
        self.state
    }
}

impl Drop for MockSandbox {
    fn drop(&mut self) {
        self.shared.live.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Leaves the sandbox spent, also when the call is dropped.
struct InCall<'a> {
    sandbox: &'a mut MockSandbox,
    ended: bool,
}

impl Drop for InCall<'_> {
    fn drop(&mut self) {
        let to = if std::thread::panicking() {
            State::Retired
        } else {
            State::Spent
        };
        let _ = self.sandbox.state.step(to);
        if !self.ended {
            let dropped = &self.sandbox.shared.dropped_calls;
            dropped.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Computes for `ms`, or for ever, as far as the wall can see.
async fn compute(ms: Option<u64>, budget: Option<Duration>, deadline: Duration) -> End {
    let needs = ms.map_or(Duration::MAX, Duration::from_millis);
    if budget.is_some_and(|budget| needs > budget) {
        return End::OverBudget;
    }
    if needs <= deadline {
        return End::Done(Status::Ok);
    }
    tokio::time::sleep(deadline).await;
    End::Done(Status::Timeout)
}

/// Makes the first call of the table.
async fn ask(asks: Option<Box<Asks>>, body: &[u8]) -> Completion {
    let mut buffer = vec![0; ASK_BYTES];
    let asked = match asks {
        None => Err(Errno::Denied),
        Some(asks) => {
            let mut session = asks.host.session(asks.guest);
            let mut args = [Arg::Bytes(body), Arg::Out(buffer[..].as_mut().into())];
            session.call(0, &mut args, None).await
        }
    };
    match asked {
        Ok(length) => {
            buffer.truncate(usize::try_from(length).unwrap_or(ASK_BYTES));
            let mut completion = Completion::without_reply(Status::Ok);
            completion.reply = buffer.into();
            completion
        }
        Err(errno) => Completion::without_reply(Status::Exit { code: errno as i32 }),
    }
}

fn trap(kind: TrapKind, message: &str) -> Status {
    let message = message.to_owned();
    Status::Trap { kind, message }
}

/// A body that is sent chunk by chunk, each when the one before is taken.
struct Pipe(tokio::sync::mpsc::Receiver<Bytes>);

struct PipeSender(tokio::sync::mpsc::Sender<Bytes>);

impl Pipe {
    fn new() -> (PipeSender, Self) {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        (PipeSender(sender), Self(receiver))
    }
}

impl PipeSender {
    /// Sends a chunk, and says how many bytes were taken.
    async fn send(&mut self, data: Bytes) -> u64 {
        let length = data.len() as u64;
        self.0.send(data).await.map_or(0, |()| length)
    }
}

impl http_body::Body for Pipe {
    type Data = Bytes;
    type Error = sandbox::BodyError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        let polled = self.0.poll_recv(cx);
        polled.map(|data| data.map(|data| Ok(http_body::Frame::data(data))))
    }
}
