//! A call of a function that is a Lambda runtime: what it is given, and what came of it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use files::{Files, Layer};
use model::{Settings, Status};
use sandbox::{HeldLog, LogStream, Reply};

use super::api::{Ended as CallEnded, Invocation, RuntimeApi};
use super::environment;
use crate::linux::command::{self, Passed};
use crate::linux::egress::Egress;
use crate::linux::program::Program;
use crate::linux::request_loop::NotFrozen;
use crate::linux::saved::Saved;
use crate::linux::start::{self, Resume, Start};
use crate::linux::world::{Network, World};
use crate::machine::Machine;
use crate::microvm::{Ended, Given};

/// The program's name to itself.
const NAME: &str = "/var/task/bootstrap";
/// The event of a caller that sends none.
const NO_EVENT: &[u8] = b"{}";

/// Variables of a call that are headers of its invocation.
const ID: &str = "DUNLIN_INVOCATION_ID";
const TRACE: &str = "TRACEPARENT";
const ARN: &str = "LAMBDA_INVOKED_FUNCTION_ARN";
const CLIENT: &str = "LAMBDA_CLIENT_CONTEXT";

/// Runs a program that was prepared until it asks for an invocation, and freezes it there: its
/// memory is left in the machine.
pub(crate) async fn freeze(
    machine: &mut Machine,
    settings: &Settings,
    layer: &Arc<Layer>,
    guest: &[u8],
) -> Result<Saved, NotFrozen> {
    let time = Duration::from_millis(settings.limits.deadline_ms).min(command::INIT_TIME_MAX);
    let deadline = Instant::now() + time;
    let egress = Egress::new(settings.allow.clone(), deadline);
    let program = Program::decode(guest);
    let program = program.ok_or_else(|| NotFrozen::Platform(MALFORMED.to_owned()))?;
    let world = Box::new(command::InitWorld(egress));
    let start = start(&program, (settings, layer), world, deadline);
    let (saved, _) = start::freeze(machine, start, true).await?;
    Ok(saved)
}

/// Calls a program that a machine holds from its first instruction.
pub(crate) async fn call(
    machine: &mut Machine,
    given: Given<'_>,
    passed: &Passed<'_>,
    guest: &[u8],
) -> (Ended, bool) {
    let Some(program) = Program::decode(guest) else {
        return (Ended::Platform(MALFORMED.to_owned()), false);
    };
    let world = world(&given, passed.settings);
    let over = (passed.settings, passed.layer);
    let mut start = start(&program, over, world, given.until.of_run());
    if let Some(api) = &mut start.lambda {
        let event = given.input.clone();
        api.give(invocation(passed.env, event, given.until.deadline));
    }
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
    let event = given.input.clone();
    let resume = Resume {
        saved,
        env: Vec::new(),
        world: world(&given, passed.settings),
        deadline: given.until.of_run(),
        processors: passed.settings.limits.processors_max,
        input: Bytes::new(),
        invocation: Some(invocation(passed.env, event, given.until.deadline)),
    };
    let ended = start::resume(machine, resume).await;
    told(ended, &given)
}

const MALFORMED: &str = "its frozen state is malformed";

fn start<'a>(
    program: &'a Program,
    (settings, layer): (&Settings, &Arc<Layer>),
    world: Box<dyn World>,
    deadline: Instant,
) -> Start<'a> {
    let bytes_max = usize::try_from(settings.limits.output_bytes_max).unwrap_or(usize::MAX);
    let args = settings.args.iter().map(String::as_str);
    let args = std::iter::once(NAME).chain(args);
    Start {
        program,
        args: args.map(|arg| arg.as_bytes().to_vec()).collect(),
        env: environment::of(settings),
        input: Bytes::new(),
        files: Files::new(layer.clone(), command::quota(settings)),
        world,
        deadline,
        processors: settings.limits.processors_max,
        lambda: Some(RuntimeApi::new(bytes_max)),
    }
}

fn world(given: &Given<'_>, settings: &Settings) -> Box<LambdaWorld> {
    Box::new(LambdaWorld {
        egress: Egress::new(settings.allow.clone(), given.until.deadline),
        log: given.log.clone(),
    })
}

/// What the end of a program is for its call.
fn told(mut ended: start::Ended, given: &Given<'_>) -> (Ended, bool) {
    let call = ended.lambda.take();
    match (call, command::told(ended, given)) {
        (Some(call), _) => (of_call(call, given.reply), false),
        (None, (Ended::Code(0), refused)) => {
            let message = "its process ended before it posted its response".to_owned();
            (Ended::Told(Status::NoResponse { message }), refused)
        }
        (None, other) => other,
    }
}

/// The end of a call that its program brought about.
fn of_call(ended: CallEnded, reply: &Reply) -> Ended {
    let (body, told) = match ended {
        CallEnded::Response(body) => (body, Ended::Code(0)),
        CallEnded::TooLong => (Vec::new(), Ended::Told(Status::OutputLimit)),
        CallEnded::Error(report) | CallEnded::InitError(report) => {
            let (kind, message) = (report.kind, report.message);
            (report.body, Ended::Told(Status::Error { kind, message }))
        }
    };
    match reply.write(&body) {
        Ok(()) => told,
        Err(_) => Ended::Told(Status::OutputLimit),
    }
}

/// What a call gives to the program.
fn invocation(env: &[(String, String)], event: Bytes, deadline: Instant) -> Invocation {
    let of = |name: &str| {
        let mut found = env.iter().filter(|(key, _)| key == name);
        found.next().map(|(_, value)| value.clone())
    };
    let left = deadline.saturating_duration_since(Instant::now());
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let end = since.unwrap_or_default().saturating_add(left);
    Invocation {
        id: of(ID).unwrap_or_default(),
        deadline_unix_ms: u64::try_from(end.as_millis()).unwrap_or(u64::MAX),
        arn: of(ARN).unwrap_or_default(),
        trace: of(TRACE).and_then(|parent| trace_header(&parent)),
        client: of(CLIENT),
        event: match event.is_empty() {
            true => Bytes::from_static(NO_EVENT),
            false => event,
        },
    }
}

/// A `traceparent` as X-Ray writes it: the first 8 digits of a trace's id are its time there.
fn trace_header(parent: &str) -> Option<String> {
    let parent = model::TraceParent::parse(parent.as_bytes())?;
    let trace = format!("{:032x}", parent.trace);
    let (time, rest) = trace.split_at(8);
    let (span, sampled) = (parent.span, parent.flags & 1);
    Some(format!(
        "Root=1-{time}-{rest};Parent={span:016x};Sampled={sampled}"
    ))
}

/// The world of one call.
struct LambdaWorld {
    egress: Egress,
    log: HeldLog,
}

impl World for LambdaWorld {
    fn random(&mut self, out: &mut [u8]) {
        command::fill(out);
    }

    /// What a program prints is no reply here.
    fn reply(&mut self, data: &[u8]) -> bool {
        self.log(data)
    }

    fn log(&mut self, data: &[u8]) -> bool {
        self.log.write(LogStream::Stderr, data);
        command::may_hold(&self.log)
    }

    fn network(&mut self) -> &mut dyn Network {
        &mut self.egress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_s_variables_become_its_invocation() {
        let env = [
            (ID, "7"),
            (
                TRACE,
                "00-0123456789abcdef0123456789abcdef-00000000000000ff-01",
            ),
            (ARN, "arn"),
            ("OTHER", "x"),
        ];
        let env = env.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let given = invocation(&env, Bytes::new(), Instant::now());
        assert!(given.deadline_unix_ms > 1_700_000_000_000);
        let trace = "Root=1-01234567-89abcdef0123456789abcdef;Parent=00000000000000ff;Sampled=1";
        assert_eq!(
            Invocation {
                deadline_unix_ms: 0,
                ..given
            },
            Invocation {
                id: "7".into(),
                deadline_unix_ms: 0,
                arn: "arn".into(),
                trace: Some(trace.into()),
                client: None,
                event: Bytes::from_static(b"{}"),
            }
        );
    }
}
