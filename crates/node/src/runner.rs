//! Runs asynchronous invocations: the invoker's attempts, on the executor.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use executor::{Executor, Finished, HttpReply, Job, Rejected};
use gateway::{Call, Cluster, InvocationSpan, NotRun, own_variables, trace_header};
use http::{HeaderName, HeaderValue, Method, Uri};
use http_body_util::BodyExt as _;
use invoker::{Attempt, Ran, Reply, ReplyHead, Request, RequestHead, Runner};
use metering::LogBook;
use model::{Outcome, StartKind, Status, TraceParent, Usage};
use sandbox::Body;
use tracing::Instrument as _;

/// The wiring between the queue and the executor.
struct NodeRunner {
    executor: Executor,
    logs: LogBook,
    cluster: Option<Arc<dyn Cluster>>,
}

#[async_trait]
impl Runner for NodeRunner {
    async fn run(&self, attempt: Attempt) -> Ran {
        let trace = attempt
            .traceparent
            .as_deref()
            .map(str::as_bytes)
            .and_then(TraceParent::parse);
        let span = InvocationSpan::of_queue(attempt.id, &attempt.target, trace.as_ref());
        let trace = span.trace(attempt.id, trace.as_ref());
        let inner = span.span();
        let ran = self.attempt(attempt, trace).instrument(inner).await;
        if let Ran::Ended { outcome, .. } = &ran {
            span.ended(outcome);
        }
        ran
    }
}

impl NodeRunner {
    async fn attempt(&self, attempt: Attempt, trace: TraceParent) -> Ran {
        let job = Job {
            id: attempt.id,
            path: attempt.target.path.clone(),
            version: attempt.target.version,
            spec: attempt.target.spec.clone(),
            log: self.logs.function(&attempt.target.path),
            trace,
            branch: None,
        };
        let Request { head, body } = attempt.request;
        let ran = match head {
            RequestHead::Plain { args, mut env } => {
                env.extend(own_variables(attempt.id, trace.to_string()));
                self.invoke(job, body, args, env).await.map(plain)
            }
            RequestHead::Http {
                method,
                uri,
                headers,
            } => match guest_request(&method, &uri, headers, &trace, body) {
                Some(request) => self.http(job, request).await,
                None => Ok(platform("the request's record is not a request")),
            },
        };
        ran.unwrap_or_else(not_run)
    }

    /// Runs it here, or where the cluster has room. An attempt that is lost with its node counts as
    /// one that the platform failed: the queue tries it again.
    async fn invoke(
        &self,
        job: Job,
        body: Bytes,
        args: Vec<String>,
        env: Vec<(String, String)>,
    ) -> Result<Finished, NotRun> {
        let Some(cluster) = &self.cluster else {
            return Ok(self.executor.invoke(job, body, args, env).await?);
        };
        let ran = cluster.invoke(attempt_of(job), body, args, env).await?;
        Ok(ran.reply)
    }

    async fn invoke_http(
        &self,
        job: Job,
        request: http::Request<Body>,
    ) -> Result<HttpReply, NotRun> {
        let Some(cluster) = &self.cluster else {
            return Ok(self.executor.invoke_http(job, request).await?);
        };
        Ok(cluster.invoke_http(attempt_of(job), request).await?.reply)
    }

    async fn http(&self, job: Job, request: http::Request<Body>) -> Result<Ran, NotRun> {
        let bytes_max = job.spec.settings.limits.output_bytes_max;
        let reply = self.invoke_http(job, request).await?;
        let response = match reply.head {
            Ok(response) => response,
            Err(outcome) => {
                return Ok(Ran::Ended {
                    outcome,
                    reply: Reply::plain(Bytes::new()),
                });
            }
        };
        let (parts, body) = response.into_parts();
        let collected = collect(body, bytes_max).await;
        let mut outcome = reply.done.await;
        let body = match collected {
            Ok(body) => body,
            Err(status) => {
                if outcome.status.is_ok() || outcome.status == Status::Cancelled {
                    outcome.status = status;
                }
                Bytes::new()
            }
        };
        let headers = parts.headers.iter();
        let head = ReplyHead::Http {
            status: parts.status.as_u16(),
            headers: headers
                .map(|(name, value)| (name.to_string(), value.as_bytes().into()))
                .collect(),
        };
        Ok(Ran::Ended {
            outcome,
            reply: Reply { head, body },
        })
    }
}

fn plain(Finished { outcome, reply }: Finished) -> Ran {
    Ran::Ended {
        outcome,
        reply: Reply::plain(reply),
    }
}

/// What did not run has no outcome of the executor's: either it waits, or the platform failed it.
fn not_run(not_run: NotRun) -> Ran {
    let rejected = match not_run {
        NotRun::Rejected(rejected) => rejected,
        NotRun::NoNode(_) => {
            let retry_after = FULL_RETRY_AFTER;
            return Ran::Overloaded { retry_after };
        }
        lost @ NotRun::Lost { .. } => return platform(&describe(&lost)),
    };
    match rejected {
        Rejected::QueueFull { retry_after, .. } => Ran::Overloaded { retry_after },
        Rejected::Sandbox(sandbox::SandboxError::Full { .. }) => Ran::Overloaded {
            retry_after: FULL_RETRY_AFTER,
        },
        Rejected::Draining => ended(Status::Cancelled),
        rejected => platform(&describe(&rejected)),
    }
}

/// A job of the queue, which counts its attempts itself.
fn attempt_of(job: Job) -> Call {
    Call {
        job,
        idempotent: false,
    }
}

const FULL_RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

/// An error and its causes.
fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn platform(message: &str) -> Ran {
    ended(Status::Platform {
        message: message.to_owned(),
    })
}

fn ended(status: Status) -> Ran {
    let outcome = Outcome {
        status,
        start: StartKind::Cold,
        usage: Usage::default(),
    };
    Ran::Ended {
        outcome,
        reply: Reply::plain(Bytes::new()),
    }
}

pub(crate) fn guest_request(
    method: &str,
    uri: &str,
    headers: Vec<(String, Vec<u8>)>,
    trace: &TraceParent,
    body: Bytes,
) -> Option<http::Request<Body>> {
    let length = body.len();
    let mut request = http::Request::new(sandbox::body_of(body));
    *request.method_mut() = Method::from_bytes(method.as_bytes()).ok()?;
    *request.uri_mut() = uri.parse::<Uri>().ok()?;
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        request
            .headers_mut()
            .append(name, HeaderValue::from_bytes(&value).ok()?);
    }
    request
        .headers_mut()
        .insert(http::header::CONTENT_LENGTH, length.into());
    request
        .headers_mut()
        .insert("traceparent", trace_header(trace));
    Some(request)
}

/// The whole of a streamed reply, up to its limit.
pub(crate) async fn collect(mut body: Body, bytes_max: u64) -> Result<Bytes, Status> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::NoResponse {
            message: error.to_string(),
        })?;
        if let Ok(data) = frame.into_data() {
            if (whole.len() + data.len()) as u64 > bytes_max {
                return Err(Status::OutputLimit);
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.freeze())
}

/// The runner as the invoker takes it.
pub(crate) fn runner(
    executor: Executor,
    logs: LogBook,
    cluster: Option<Arc<dyn Cluster>>,
) -> Arc<dyn Runner> {
    Arc::new(NodeRunner {
        executor,
        logs,
        cluster,
    })
}
