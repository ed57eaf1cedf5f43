//! Functions that call functions: the host calls' `Chain`, on the registry and the executor.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use executor::{
    Enqueued, Executor, Finished, HeirId, HttpReply, Job, Rejected, Stead, WeakExecutor,
};
use futures::future::{BoxFuture, FutureExt as _};
use gateway::{InvocationSpan, lambda_variables, own_variables};
use hostcalls::{Caller, Chain, PayloadRoom, Refused, Reply, Request, Spawned};
use http::Method;
use invoker::{Registry, Select, Target};
use metering::{Begun, GraphBook, LogBook, unix_us};
use model::{InvocationId, Kind, Outcome, Status};
use parking_lot::Mutex;
use sandbox::Body;
use sandbox::host::Guest;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use crate::runner::{collect, guest_request};

/// The address that an http component sees when a function calls it.
const CALLED_URI: &str = "http://localhost/";

/// What a node's functions are called with.
#[derive(Clone)]
pub(crate) struct NodeChain(Arc<Parts>);

struct Parts {
    registry: Registry,
    logs: LogBook,
    graphs: GraphBook,
    guests: Handle,
    /// Set once: the executor is made with the host calls, which are made with this.
    executor: OnceLock<WeakExecutor>,
}

impl NodeChain {
    pub fn new(registry: Registry, logs: LogBook, graphs: GraphBook, guests: Handle) -> Self {
        Self(Arc::new(Parts {
            registry,
            logs,
            graphs,
            guests,
            executor: OnceLock::new(),
        }))
    }

    /// Says what runs the calls. Guests that were there before cannot have called.
    pub fn run_on(&self, executor: &Executor) {
        // A second time is the same executor.
        let _ = self.0.executor.set(executor.downgrade());
    }
}

impl Chain for NodeChain {
    fn caller(&self, guest: &Guest) -> Box<dyn Caller> {
        Box::new(GuestCaller {
            chain: self.clone(),
            guest: guest.clone(),
            stead: Stead::new(),
            heirs: Mutex::default(),
            is_noted: AtomicBool::new(false),
        })
    }
}

/// The calls of one invocation.
struct GuestCaller {
    chain: NodeChain,
    guest: Guest,
    stead: Stead,
    heirs: Mutex<HashMap<InvocationId, HeirId>>,
    /// Whether its graph has it.
    is_noted: AtomicBool,
}

/// A call that is ready to be made.
struct Ready {
    job: Job,
    kind: Kind,
    input: Bytes,
    span: InvocationSpan,
    room: Arc<PayloadRoom>,
}

/// Where a call finds room.
enum Room {
    /// In the stead of its caller.
    Stead(Executor),
    /// In the queues.
    Queue(Box<Enqueued>),
}

impl Caller for GuestCaller {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Reply, Refused>> {
        Box::pin(async move {
            let executor = self.executor()?;
            let ready = self.ready(request)?;
            let (root, id) = (self.root_of(&ready.job), ready.job.id);
            let ran = run(Room::Stead(executor), ready).await;
            if let Err(refused) = &ran {
                let graphs = &self.chain.0.graphs;
                graphs.refused(root, id, &refused.to_string());
            }
            ran
        })
    }

    fn spawn(&self, request: Request) -> Result<Spawned, Refused> {
        let executor = self.executor()?;
        let detached = request.detached;
        let ready = self.ready(request)?;
        let (root, id) = (self.root_of(&ready.job), ready.job.id);
        let heir = self.stead.heir();
        let heir_id = heir.id();
        let enqueued = executor
            .enqueue(ready.job.clone(), heir)
            .map_err(|rejected| {
                let refused = refused(&rejected);
                let graphs = &self.chain.0.graphs;
                graphs.refused(root, id, &refused.to_string());
                refused
            })?;
        self.heirs.lock().insert(id, heir_id);
        let work = self.noted(root, id, run(Room::Queue(Box::new(enqueued)), ready));
        let task = Task {
            handle: self.chain.0.guests.spawn(work),
            detached,
        };
        Ok(Spawned {
            id,
            reply: task.ended().boxed(),
        })
    }

    fn lend(&self, to: &[InvocationId]) -> Box<dyn Send> {
        let heirs = self.heirs.lock();
        let to = to.iter().filter_map(|id| heirs.get(id).copied());
        Box::new(self.stead.lend(to))
    }
}

impl GuestCaller {
    fn executor(&self) -> Result<Executor, Refused> {
        let executor = self.chain.0.executor.get();
        let executor = executor.and_then(WeakExecutor::upgrade);
        executor.ok_or_else(|| Refused::Unavailable("the node starts or ends".to_owned()))
    }

    /// Finds the function, and notes the call in the graph.
    fn ready(&self, request: Request) -> Result<Ready, Refused> {
        let parts = &self.chain.0;
        let target = parts.registry.resolve(&request.callee, &Select::Live);
        let target: Target = target.map_err(|_| Refused::NotFound)?;
        let now_us = unix_us();
        let id = InvocationId::new(now_us / 1000);
        let branch = request.branch;
        let span = InvocationSpan::of_call(id, &target, &branch.trace);
        let job = Job {
            id,
            trace: span.trace(id, Some(&branch.trace)),
            path: target.path.clone(),
            version: target.version,
            spec: target.spec.clone(),
            log: parts.logs.function(&target.path),
            branch: Some(Arc::new(branch)),
        };
        self.note(&job, now_us, request.detached);
        Ok(Ready {
            job,
            kind: target.spec.kind,
            input: request.input,
            span,
            room: request.room,
        })
    }

    fn root_of(&self, job: &Job) -> InvocationId {
        let branch = job.branch.as_ref();
        branch.map_or(self.guest.id, |branch| branch.root())
    }

    fn note(&self, job: &Job, now_us: u64, detached: bool) {
        let (graphs, guest) = (&self.chain.0.graphs, &self.guest);
        let root = self.root_of(job);
        if root == guest.id && !self.is_noted.swap(true, Ordering::Relaxed) {
            graphs.root(root, || Begun {
                id: guest.id,
                path: guest.path.clone(),
                version: guest.spec.digest(),
                unix_us: now_us.saturating_sub(elapsed_us(guest)),
            });
        }
        let begun = Begun {
            id: job.id,
            path: job.path.clone(),
            version: job.version,
            unix_us: now_us,
        };
        graphs.child(root, guest.id, begun, detached);
    }

    /// `run`, whose refusal is noted in the graph; one that is aborted while it queues has its end
    /// there, too.
    fn noted(
        &self,
        root: InvocationId,
        id: InvocationId,
        run: impl Future<Output = Result<Reply, Refused>> + Send + 'static,
    ) -> impl Future<Output = Result<Reply, Refused>> + Send + 'static {
        let graphs = self.chain.0.graphs.clone();
        // A task that is aborted before its first step is dropped as it is: the watch goes with it.
        let watch = graphs.watch(root, id);
        async move {
            let ran = run.await;
            if let Err(refused) = &ran {
                graphs.refused(root, id, &refused.to_string());
            }
            drop(watch);
            ran
        }
    }
}

/// Time since the guest's call began.
fn elapsed_us(guest: &Guest) -> u64 {
    let deadline = std::time::Duration::from_millis(guest.spec.settings.limits.deadline_ms);
    let left = guest.deadline.saturating_duration_since(Instant::now());
    u64::try_from(deadline.saturating_sub(left).as_micros()).unwrap_or(0)
}

async fn run(room: Room, ready: Ready) -> Result<Reply, Refused> {
    let Ready {
        job,
        kind,
        input,
        span,
        room: replies,
    } = ready;
    let id = job.id;
    let inner = span.span();
    let ran = match kind {
        Kind::Http => run_http(room, job, input).instrument(inner).await,
        _ => run_bytes(room, job, kind, input).instrument(inner).await,
    };
    let (outcome, result) = ran.map_err(|rejected| refused(&rejected))?;
    span.ended(&outcome);
    let result = result.and_then(|reply| replies.keep(reply));
    Ok(Reply { id, result })
}

type Ran = Result<(Outcome, Result<Bytes, String>), Rejected>;

async fn run_bytes(room: Room, job: Job, kind: Kind, input: Bytes) -> Ran {
    let env = match kind {
        Kind::Command => own_variables(job.id, job.trace.to_string()).into(),
        Kind::Lambda => {
            let own = own_variables(job.id, job.trace.to_string());
            own.into_iter().chain(lambda_variables(&job.path)).collect()
        }
        Kind::Reactor | Kind::Http => Vec::new(),
    };
    let finished = match room {
        Room::Stead(executor) => executor.invoke_nested(job, input, Vec::new(), env).await?,
        Room::Queue(enqueued) => enqueued.invoke(input, Vec::new(), env).await?,
    };
    let Finished { outcome, reply } = finished;
    let result = match &outcome.status {
        Status::Ok => Ok(reply),
        status => Err(status.to_string()),
    };
    Ok((outcome, result))
}

async fn run_http(room: Room, job: Job, input: Bytes) -> Ran {
    let bytes_max = job.spec.settings.limits.output_bytes_max;
    let method = Method::POST;
    let request = guest_request(method.as_str(), CALLED_URI, Vec::new(), &job.trace, input);
    let Some(request): Option<http::Request<Body>> = request else {
        return Err(Rejected::Draining);
    };
    let HttpReply { head, done } = match room {
        Room::Stead(executor) => executor.invoke_http_nested(job, request).await?,
        Room::Queue(enqueued) => enqueued.invoke_http(request).await?,
    };
    let response = match head {
        Ok(response) => response,
        Err(outcome) => {
            let problem = outcome.status.to_string();
            return Ok((outcome, Err(problem)));
        }
    };
    let status = response.status();
    let body = collect(response.into_body(), bytes_max).await;
    let outcome = done.await;
    let result = match body {
        Ok(body) if status.is_success() && outcome.status.is_ok() => Ok(body),
        Ok(_) if outcome.status.is_ok() => Err(format!("it answered {status}")),
        Ok(_) => Err(outcome.status.to_string()),
        Err(cut) => Err(cut.to_string()),
    };
    Ok((outcome, result))
}

fn refused(rejected: &Rejected) -> Refused {
    match rejected {
        Rejected::QueueFull { .. } | Rejected::Sandbox(sandbox::SandboxError::Full { .. }) => {
            Refused::Exhausted(rejected.to_string())
        }
        Rejected::InputTooLarge { .. } => Refused::TooLarge(rejected.to_string()),
        other => Refused::Unavailable(other.to_string()),
    }
}

/// A call that runs beside its caller.
struct Task {
    handle: JoinHandle<Result<Reply, Refused>>,
    detached: bool,
}

impl Task {
    async fn ended(mut self) -> Result<Reply, Refused> {
        let ended = (&mut self.handle).await;
        let broke_off = |_| Err(Refused::Unavailable("it was cancelled".to_owned()));
        ended.unwrap_or_else(broke_off)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if !self.detached {
            self.handle.abort();
        }
    }
}
