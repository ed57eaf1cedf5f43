//! One synchronous invocation over HTTP: the way from a request to a guest and back.

use api::Code;
use bytes::Bytes;
use executor::{Executor, Finished, HttpReply, Job};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Response, Uri};
use hyper::body::Body as HttpBody;
use invoker::Target;
use model::{InvocationId, Kind, NodeId, Outcome, StartKind, TraceParent};
use sandbox::BodyError;
use tracing::Instrument as _;

use crate::ListenerConfig;
use crate::address::{Place, host};
use crate::body::{collect, streamed};
use crate::cgi;
use crate::cluster::{Call, Cluster, Told};
use crate::failure::Failure;
use crate::lambda::lambda_variables;
use crate::metrics::Requests;
use crate::reply::ReplyBody;
use crate::span::{InvocationSpan, unix_ms};
use crate::trace::trace_header;

const INVOCATION_ID: HeaderName = HeaderName::from_static("dunlin-invocation-id");
const START: HeaderName = HeaderName::from_static("dunlin-start");
/// Names the node that ran the invocation, in a cluster.
const NODE: HeaderName = HeaderName::from_static("dunlin-node");
const VERSION: HeaderName = HeaderName::from_static("dunlin-version");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Headers that speak of one connection only, and so are neither passed on nor sent back.
const HOP_BY_HOP: [HeaderName; 6] = [
    http::header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    http::header::TE,
    http::header::TRANSFER_ENCODING,
    http::header::UPGRADE,
];

/// Calls functions.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) executor: Executor,
    pub(crate) cluster: Option<std::sync::Arc<dyn Cluster>>,
    pub(crate) logs: metering::LogBook,
    pub(crate) limits: std::sync::Arc<ListenerConfig>,
    pub(crate) requests: Requests,
}

/// An invocation that has begun: what its reply is labelled with.
pub(crate) struct Begun {
    pub(crate) id: InvocationId,
    pub(crate) id_header: HeaderValue,
    pub(crate) trace: TraceParent,
    trace_header: HeaderValue,
    pub(crate) span: InvocationSpan,
}

impl Caller {
    /// Calls `target` with a request. Dropping the future cancels the invocation.
    pub(crate) async fn call<B>(
        &self,
        target: &Target,
        parts: Parts,
        place: Place,
        body: B,
    ) -> Response<ReplyBody>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BodyError> + std::fmt::Display,
    {
        let begun = self.begin(target, &parts.headers);
        let departs = self.departs();
        // In boxes, for they are large, and what they are part of is copied for each request.
        let called = match target.spec.kind {
            Kind::Http => Box::pin(self.stream(target, &begun, parts, place, body)).await,
            _ => Box::pin(self.bytes(target, &begun, &parts, place, body)).await,
        };
        departs.stays();
        let (mut response, origin) = called.unwrap_or_else(|mut failure| {
            failure.problem.invocation = Some(begun.id.to_string());
            (failure.response(ReplyBody::whole), Origin::default())
        });
        begun.span.answered(response.status());
        begun.label(response.headers_mut(), target, &origin);
        response
    }

    /// A new invocation of `target`, in the trace that the headers name.
    pub(crate) fn begin(&self, target: &Target, headers: &HeaderMap) -> Begun {
        let id = InvocationId::new(unix_ms());
        let asked = headers.get(&TRACEPARENT);
        let asked = asked.and_then(|value| TraceParent::parse(value.as_bytes()));
        let span = InvocationSpan::new(id, target, asked.as_ref());
        let trace = span.trace(id, asked.as_ref());
        Begun {
            id,
            id_header: id_header(id),
            trace,
            trace_header: trace_header(&trace),
            span,
        }
    }

    /// Counts the client as gone if what it gives is dropped before it is told otherwise.
    pub(crate) fn departs(&self) -> Departs<'_> {
        Departs(Some(&self.requests))
    }

    async fn bytes<B>(
        &self,
        target: &Target,
        begun: &Begun,
        parts: &Parts,
        place: Place,
        body: B,
    ) -> Called
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let limits = &target.spec.settings.limits;
        let (args, env) = match target.spec.kind {
            Kind::Command => command_input(parts, place, begun)?,
            Kind::Lambda => {
                let mut env = lambda_variables(&target.path).to_vec();
                env.extend(cgi::own_variables(begun.id, begun.trace.to_string()));
                (Vec::new(), env)
            }
            Kind::Reactor | Kind::Http => (Vec::new(), Vec::new()),
        };
        let body = collect(body, limits.input_bytes_max, &self.limits).await?;
        let call = self.to_run(target, begun, parts.method.is_idempotent());
        let invoked = self.run(call, body, args, env);
        let Told { node, reply } = invoked.instrument(begun.span.span()).await?;
        let Finished { outcome, reply } = reply;
        begun.span.ended(&outcome);
        let start = Some(outcome.start);
        let origin = Origin { start, node };
        if !outcome.status.is_ok() {
            return Ok((problem_of(&outcome, begun.id), origin));
        }
        let kind = match target.spec.kind {
            Kind::Lambda => JSON,
            _ => content_type_of(&reply),
        };
        let mut response = Response::new(ReplyBody::whole(reply));
        response.headers_mut().insert(CONTENT_TYPE, kind);
        Ok((response, origin))
    }

    async fn stream<B>(
        &self,
        target: &Target,
        begun: &Begun,
        mut parts: Parts,
        place: Place,
        body: B,
    ) -> Called
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BodyError>,
    {
        address_guest(&mut parts, place)?;
        parts
            .headers
            .insert(TRACEPARENT, begun.trace_header.clone());
        parts.headers.insert(INVOCATION_ID, begun.id_header.clone());
        let call = self.to_run(target, begun, parts.method.is_idempotent());
        let request = http::Request::from_parts(parts, streamed(body, &self.limits));
        let invoked = self.run_http(call, request);
        let Told { node, reply } = invoked.instrument(begun.span.span()).await?;
        let HttpReply { head, done } = reply;
        if let Some(outcome) = done.now() {
            begun.span.ended(outcome);
        }
        let start = done.start();
        match head {
            Err(outcome) => {
                let start = Some(outcome.start);
                Ok((problem_of(&outcome, begun.id), Origin { start, node }))
            }
            Ok(mut response) => {
                strip(response.headers_mut(), &HOP_BY_HOP);
                let body = |body| ReplyBody::Streamed(begun.span.held_by(body));
                Ok((response.map(body), Origin { start, node }))
            }
        }
    }

    /// The job of an invocation that has begun, and whether it may run twice.
    pub(crate) fn to_run(&self, target: &Target, begun: &Begun, idempotent: bool) -> Call {
        let job = self.job(target, begun);
        Call { job, idempotent }
    }

    pub(crate) fn job(&self, target: &Target, begun: &Begun) -> Job {
        Job {
            id: begun.id,
            path: target.path.clone(),
            version: target.version,
            spec: target.spec.clone(),
            log: self.logs.function(&target.path),
            trace: begun.trace,
            branch: None,
        }
    }
}

type Called = Result<(Response<ReplyBody>, Origin), Failure>;

/// How and where an invocation began, as far as that is known.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    pub(crate) start: Option<StartKind>,
    /// In a cluster.
    pub(crate) node: Option<NodeId>,
}

pub(crate) type CommandInput = (Vec<String>, Vec<(String, String)>);

fn command_input(parts: &Parts, place: Place, begun: &Begun) -> Result<CommandInput, Failure> {
    let (args, mut env) = told(parts, place)?;
    env.extend(cgi::own_variables(begun.id, begun.trace.to_string()));
    Ok((args, env))
}

/// What a request tells a command: arguments and variables.
pub(crate) fn told(parts: &Parts, place: Place) -> Result<CommandInput, Failure> {
    let host = host(&parts.uri, &parts.headers).unwrap_or(NO_HOST);
    let refuse = |error: cgi::CgiError| Failure::new(Code::BadRequest, error.to_string());
    let args = cgi::arguments(place.rest(&parts.uri)).map_err(refuse)?;
    let env = cgi::variables(parts, place, host).map_err(refuse)?;
    Ok((args, env))
}

/// Makes the head of a request one for an http guest.
pub(crate) fn address_guest(parts: &mut Parts, place: Place) -> Result<(), Failure> {
    let prefix = HeaderValue::from_str(place.prefix(&parts.uri)).ok();
    parts.uri = guest_uri(parts, place)?;
    strip(&mut parts.headers, &HOP_BY_HOP);
    strip(&mut parts.headers, &[FORWARDED_PREFIX]);
    if let Some(prefix) = prefix.filter(|prefix| !prefix.is_empty()) {
        parts.headers.insert(FORWARDED_PREFIX, prefix);
    }
    Ok(())
}

/// Takes out headers of these names. Most requests and replies have few headers and none of these,
/// which is quicker seen by looking at what there is.
fn strip(headers: &mut HeaderMap, names: &[HeaderName]) {
    if headers.keys().any(|name| names.contains(name)) {
        for name in names {
            headers.remove(name);
        }
    }
}

/// The authority of a request that names none.
const NO_HOST: &str = "localhost";

/// The absolute address that an http guest sees.
fn guest_uri(parts: &Parts, place: Place) -> Result<Uri, Failure> {
    let refuse = |what: &str| Failure::new(Code::BadRequest, format!("the {what} is malformed"));
    let authority = match host(&parts.uri, &parts.headers) {
        Some(host) => host.parse::<Authority>().map_err(|_| refuse("host"))?,
        None => Authority::from_static(NO_HOST),
    };
    let rest = place.rest(&parts.uri);
    let path = match rest.as_bytes().first() {
        None => PathAndQuery::from_static("/"),
        Some(b'/') => rest.parse().map_err(|_| refuse("path"))?,
        Some(_) => format!("/{rest}").parse().map_err(|_| refuse("path"))?,
    };
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(authority);
    uri.path_and_query = Some(path);
    Uri::from_parts(uri).map_err(|_| refuse("address"))
}

/// The media type of what a command or reactor replied.
pub(crate) fn content_type_of(reply: &[u8]) -> HeaderValue {
    if std::str::from_utf8(reply).is_ok() {
        TEXT
    } else {
        BYTES
    }
}

fn problem_of(outcome: &Outcome, id: InvocationId) -> Response<ReplyBody> {
    let mut failure = Failure::of_status(&outcome.status);
    failure.problem.invocation = Some(id.to_string());
    failure.response(ReplyBody::whole)
}

impl Begun {
    /// Says in the headers of a reply which invocation it is of, and how that began.
    pub(crate) fn label(&self, headers: &mut HeaderMap, target: &Target, origin: &Origin) {
        headers.insert(INVOCATION_ID, self.id_header.clone());
        headers.insert(VERSION, short_header(target));
        headers.insert(TRACEPARENT, self.trace_header.clone());
        if let Some(start) = origin.start {
            headers.insert(START, HeaderValue::from_static(start.as_str()));
        }
        let node = origin.node.as_ref();
        if let Some(node) = node.and_then(|node| HeaderValue::from_str(node.as_str()).ok()) {
            headers.insert(NODE, node);
        }
    }
}

fn id_header(id: InvocationId) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(id.to_string()))
        .unwrap_or(HeaderValue::from_static(""))
}

fn short_header(target: &Target) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(target.version.short()))
        .unwrap_or(HeaderValue::from_static(""))
}

/// Counts an invocation whose client went away before the reply: its future is dropped.
pub(crate) struct Departs<'a>(Option<&'a Requests>);

impl Departs<'_> {
    pub(crate) fn stays(mut self) {
        self.0 = None;
    }
}

impl Drop for Departs<'_> {
    fn drop(&mut self) {
        if let Some(requests) = self.0 {
            requests.disconnects.increment(1);
        }
    }
}
