//! Runs a call that a function made: in its caller's stead, in a place of its own, or on another
//! node.

use std::sync::Arc;

use bytes::Bytes;
use executor::{Enqueued, Executor, Finished, HttpReply, Job, Rejected};
use futures::future::{Either, select};
use gateway::{InvocationSpan, NotRun, lambda_variables, own_variables};
use hostcalls::{PayloadRoom, Refused, Reply};
use http::Method;
use metering::GraphBook;
use model::{Kind, Outcome, Status};
use sandbox::Body;
use tracing::Instrument as _;

use crate::cluster::{Accepted, Input, Placing, Replied, http_input};
use crate::runner::{collect, guest_request};

/// The address that an http component sees when a function calls it.
const CALLED_URI: &str = "http://localhost/";

/// A call that is ready to be made.
pub(super) struct Ready {
    pub job: Job,
    pub kind: Kind,
    pub input: Bytes,
    pub span: InvocationSpan,
    pub room: Arc<PayloadRoom>,
}

/// Where a call finds room.
pub(super) enum Room {
    Here(Here),
    /// On another node.
    Away(Box<Accepted>),
}

/// Where a call finds room on this node.
pub(super) enum Here {
    /// In the stead of its caller.
    Stead(Executor),
    /// In a place of its own, or in the queues.
    Queue(Box<Enqueued>),
}

/// Where a spawned call waits.
pub(super) enum Entry {
    /// Here, if it must wait at all.
    Here(Box<Enqueued>),
    /// Nowhere: there is no room for it here, for this reason.
    Elsewhere(Refused),
}

impl Ready {
    fn bytes(&self) -> u64 {
        self.input.len() as u64
    }

    /// What another node is sent of it, beside its body.
    fn to_send(&self) -> Option<Input> {
        if self.kind == Kind::Http {
            let (parts, _) = request(&self.job, self.input.clone())?.into_parts();
            return Some(http_input(&parts));
        }
        let (args, env) = (Vec::new(), env(&self.job, self.kind));
        Some(Input::Plain { args, env })
    }

    /// Whether its function takes as much: asked before it is sent.
    fn fits(&self) -> bool {
        self.bytes() <= self.job.spec.settings.limits.input_bytes_max
    }

    /// Whether its function names keys, by which other nodes may be the better place.
    pub fn names_keys(&self) -> bool {
        !self.job.spec.settings.near.is_empty()
    }

    pub fn is_called_away(&self, placing: &Placing) -> bool {
        self.fits() && placing.is_called_away(&self.job, self.bytes())
    }

    pub fn has_room_elsewhere(&self, placing: &Placing) -> bool {
        self.fits() && placing.has_room_elsewhere(&self.job, self.bytes())
    }

    pub async fn offer_to_data(&self, placing: &Placing) -> Option<Accepted> {
        let input = self.to_send()?;
        placing.offer_to_data(&self.job, &input, self.bytes()).await
    }

    async fn offer_once(&self, placing: &Placing) -> Option<Accepted> {
        let input = self.to_send()?;
        placing.offer_once(&self.job, &input, self.bytes()).await
    }

    async fn offer(&self, placing: &Placing) -> Accepted {
        match self.to_send() {
            Some(input) if self.fits() => placing.offer(&self.job, &input, self.bytes()).await,
            // Here it is told why it does not run.
            _ => std::future::pending().await,
        }
    }
}

fn env(job: &Job, kind: Kind) -> Vec<(String, String)> {
    match kind {
        Kind::Command => own_variables(job.id, job.trace.to_string()).into(),
        Kind::Lambda => {
            let own = own_variables(job.id, job.trace.to_string());
            own.into_iter().chain(lambda_variables(&job.path)).collect()
        }
        Kind::Reactor | Kind::Http => Vec::new(),
    }
}

fn request(job: &Job, input: Bytes) -> Option<http::Request<Body>> {
    let method = Method::POST;
    guest_request(method.as_str(), CALLED_URI, Vec::new(), &job.trace, input)
}

/// Runs a call that was spawned, where there is a place for it first.
pub(super) async fn run_spawned(
    entry: Entry,
    ready: Ready,
    placing: Option<Arc<Placing>>,
    graphs: GraphBook,
) -> Result<Reply, Refused> {
    // On the heap: most calls need none of it, and are the smaller for that.
    let room = match (entry, placing) {
        (Entry::Here(enqueued), None) => Room::Here(Here::Queue(enqueued)),
        (Entry::Here(enqueued), Some(_)) if enqueued.is_placed() && !ready.names_keys() => {
            Room::Here(Here::Queue(enqueued))
        }
        (Entry::Here(enqueued), Some(placing)) => {
            Box::pin(find(*enqueued, &ready, &placing)).await?
        }
        (Entry::Elsewhere(refused), placing) => {
            let offered = match &placing {
                Some(placing) => Box::pin(ready.offer_once(placing)).await,
                None => None,
            };
            Room::Away(Box::new(offered.ok_or(refused)?))
        }
    };
    run(room, ready, &graphs).await
}

async fn find(enqueued: Enqueued, ready: &Ready, placing: &Placing) -> Result<Room, Refused> {
    if ready.is_called_away(placing)
        && let Some(accepted) = ready.offer_to_data(placing).await
    {
        return Ok(Room::Away(Box::new(accepted)));
    }
    let queued = |enqueued| Room::Here(Here::Queue(Box::new(enqueued)));
    if enqueued.is_placed() {
        return Ok(queued(enqueued));
    }
    let here = std::pin::pin!(enqueued.admitted());
    let away = std::pin::pin!(ready.offer(placing));
    // Whichever is left is dropped: the queue is left, or the offer withdrawn.
    match select(here, away).await {
        Either::Left((here, _)) => here.map(queued).map_err(|rejected| refused(&rejected)),
        Either::Right((accepted, _)) => Ok(Room::Away(Box::new(accepted))),
    }
}

/// Runs a call to its end. What is lost with its node has run, as far as anybody knows: its caller
/// is told so, and decides.
pub(super) async fn run(room: Room, ready: Ready, graphs: &GraphBook) -> Result<Reply, Refused> {
    let Ready {
        job,
        kind,
        input,
        span,
        room: replies,
    } = ready;
    let (id, inner) = (job.id, span.span());
    let ran = match room {
        Room::Here(here) if kind == Kind::Http => {
            run_http(here, job, input).instrument(inner).await
        }
        Room::Here(here) => run_bytes(here, job, kind, input).instrument(inner).await,
        // On the heap, as most calls stay here.
        Room::Away(accepted) => {
            let run = Box::pin(run_away(*accepted, job, input, graphs));
            run.instrument(inner).await
        }
    };
    let (outcome, result) = match ran {
        Ok(ran) => ran,
        Err(NotRun::Rejected(rejected)) => return Err(refused(&rejected)),
        Err(NotRun::NoNode(why)) => return Err(Refused::Exhausted(why)),
        Err(lost @ NotRun::Lost { .. }) => {
            let result = Err(format!("node-lost: {lost}"));
            return Ok(Reply { id, result });
        }
    };
    span.ended(&outcome);
    let result = result.and_then(|reply| replies.keep(reply));
    Ok(Reply { id, result })
}

type Ran = Result<(Outcome, Result<Bytes, String>), NotRun>;

async fn run_away(accepted: Accepted, job: Job, input: Bytes, graphs: &GraphBook) -> Ran {
    let root = job.branch.as_ref().map_or(job.id, |branch| branch.root());
    // One whose caller goes away has its end, too.
    let _watch = graphs.watch(root, job.id);
    graphs.sent(root, job.id, &accepted.node);
    let replied = accepted.run(input).await;
    let Replied {
        outcome,
        status,
        reply,
    } = replied.inspect_err(|lost| graphs.lost(root, job.id, &lost.to_string()))?;
    graphs.ended(root, job.id, &outcome);
    let result = match (&outcome.status, status) {
        (Status::Ok, None | Some(200..300)) => Ok(reply),
        (Status::Ok, Some(status)) => Err(format!("it answered {status}")),
        (status, _) => Err(status.to_string()),
    };
    Ok((outcome, result))
}

async fn run_bytes(here: Here, job: Job, kind: Kind, input: Bytes) -> Ran {
    let env = env(&job, kind);
    let finished = match here {
        Here::Stead(executor) => executor.invoke_nested(job, input, Vec::new(), env).await?,
        Here::Queue(enqueued) => enqueued.invoke(input, Vec::new(), env).await?,
    };
    let Finished { outcome, reply } = finished;
    let result = match &outcome.status {
        Status::Ok => Ok(reply),
        status => Err(status.to_string()),
    };
    Ok((outcome, result))
}

async fn run_http(here: Here, job: Job, input: Bytes) -> Ran {
    let bytes_max = job.spec.settings.limits.output_bytes_max;
    let Some(request) = request(&job, input) else {
        return Err(Rejected::Draining.into());
    };
    let HttpReply { head, done } = match here {
        Here::Stead(executor) => executor.invoke_http_nested(job, request).await?,
        Here::Queue(enqueued) => enqueued.invoke_http(request).await?,
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

pub(super) fn refused(rejected: &Rejected) -> Refused {
    match rejected {
        Rejected::QueueFull { .. } | Rejected::Sandbox(sandbox::SandboxError::Full { .. }) => {
            Refused::Exhausted(rejected.to_string())
        }
        Rejected::InputTooLarge { .. } => Refused::TooLarge(rejected.to_string()),
        other => Refused::Unavailable(other.to_string()),
    }
}
