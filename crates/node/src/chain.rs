//! Functions that call functions: the host calls' `Chain`, on the registry and the executor.
//!
//! A call that its caller waits for runs in its caller's stead, which always has room; one that is
//! spawned needs a place of its own, here or on another node: see `cluster/away.rs`. Both go to the
//! node that has their data first, where the function names keys.

mod run;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use executor::{Executor, HeirId, Job, Stead, WeakExecutor};
use futures::future::{BoxFuture, FutureExt as _};
use gateway::InvocationSpan;
use hostcalls::{Caller, Chain, Refused, Reply, Request, Spawned};
use invoker::{Registry, Select, Target};
use metering::{Begun, GraphBook, LogBook, unix_us};
use model::InvocationId;
use parking_lot::Mutex;
use sandbox::host::Guest;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use self::run::{Entry, Here, Ready, Room, refused, run, run_spawned};
use crate::cluster::{Accepted, Placing};

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
    /// Set once, on a node of a cluster.
    placing: OnceLock<Weak<Placing>>,
}

impl NodeChain {
    pub fn new(registry: Registry, logs: LogBook, graphs: GraphBook, guests: Handle) -> Self {
        Self(Arc::new(Parts {
            registry,
            logs,
            graphs,
            guests,
            executor: OnceLock::new(),
            placing: OnceLock::new(),
        }))
    }

    /// Says what runs the calls. Guests that were there before cannot have called.
    pub fn run_on(&self, executor: &Executor) {
        // A second time is the same executor.
        let _ = self.0.executor.set(executor.downgrade());
    }

    /// Says what finds other nodes.
    pub fn place_by(&self, placing: &Arc<Placing>) {
        // A second time is the same.
        let _ = self.0.placing.set(Arc::downgrade(placing));
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

impl Caller for GuestCaller {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Reply, Refused>> {
        Box::pin(async move {
            let executor = self.executor()?;
            let ready = self.ready(request)?;
            let (root, id) = (self.root_of(&ready.job), ready.job.id);
            let graphs = &self.chain.0.graphs;
            // One whose caller goes away while it is offered has its end in the graph, too.
            let _watch = ready.names_keys().then(|| graphs.watch(root, id));
            let away = match ready.names_keys() {
                true => Box::pin(self.offer_to_data(&ready)).await,
                false => None,
            };
            let stead = || Room::Here(Here::Stead(executor));
            let room = away.map_or_else(stead, |accepted| Room::Away(Box::new(accepted)));
            let ran = run(room, ready, graphs).await;
            if let Err(refused) = &ran {
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
        let placing = self.placing();
        let entry = match executor.enqueue(ready.job.clone(), heir) {
            Ok(enqueued) => Entry::Here(Box::new(enqueued)),
            Err(rejected) => {
                let refused = refused(&rejected);
                if placing
                    .as_ref()
                    .is_none_or(|placing| !ready.has_room_elsewhere(placing))
                {
                    self.chain.0.graphs.refused(root, id, &refused.to_string());
                    return Err(refused);
                }
                Entry::Elsewhere(refused)
            }
        };
        self.heirs.lock().insert(id, heir_id);
        let graphs = self.chain.0.graphs.clone();
        let run = run_spawned(entry, ready, placing, graphs);
        let task = Task {
            handle: self.chain.0.guests.spawn(self.noted(root, id, run)),
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

    fn placing(&self) -> Option<Arc<Placing>> {
        self.chain.0.placing.get().and_then(Weak::upgrade)
    }

    async fn offer_to_data(&self, ready: &Ready) -> Option<Accepted> {
        let placing = self.placing()?;
        if !ready.is_called_away(&placing) {
            return None;
        }
        ready.offer_to_data(&placing).await
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
        let sent_by = guest.branch.as_ref().filter(|branch| branch.is_grafted());
        let is_first = root == guest.id || sent_by.is_some();
        if is_first && !self.is_noted.swap(true, Ordering::Relaxed) {
            let begun = || Begun {
                id: guest.id,
                path: guest.path.clone(),
                version: guest.spec.digest(),
                unix_us: now_us.saturating_sub(elapsed_us(guest)),
            };
            match sent_by {
                None => graphs.root(root, begun),
                Some(branch) => graphs.part(root, branch.parent, begun()),
            }
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
