//! Calls that are accepted now and made later.

use api::Code;
use api::v1::Accepted;
use bytes::Bytes;
use http::HeaderMap;
use http::request::Parts;
use hyper::body::Body as HttpBody;
use invoker::{InvokerError, Request, RequestHead, Select, Submission, Target};
use model::{Kind, TraceParent};

use crate::address::Place;
use crate::body::collect;
use crate::call::{address_guest, told};
use crate::failure::Failure;
use crate::lambda::lambda_variables;
use crate::shared::Shared;

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const TRACEPARENT: &str = "traceparent";

/// Accepts a call: it is durable when this answers.
pub(crate) async fn accept<B>(
    shared: &Shared,
    target: &Target,
    select: Select,
    mut parts: Parts,
    place: Place,
    body: B,
) -> Result<Accepted, Failure>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    if shared.is_draining() {
        return Err(Failure::new(
            Code::Draining,
            "the node finishes what it has accepted",
        ));
    }
    let idempotency_key = text_header(&parts.headers, IDEMPOTENCY_KEY)?;
    let traceparent = text_header(&parts.headers, TRACEPARENT)?;
    let traceparent = traceparent.filter(|text| TraceParent::parse(text.as_bytes()).is_some());
    let head = match target.spec.kind {
        Kind::Http => http_head(&mut parts, place)?,
        Kind::Command => {
            let (args, env) = told(&parts, place)?;
            RequestHead::Plain { args, env }
        }
        Kind::Lambda => RequestHead::Plain {
            args: Vec::new(),
            env: lambda_variables(&target.path).to_vec(),
        },
        Kind::Reactor => RequestHead::Plain {
            args: Vec::new(),
            env: Vec::new(),
        },
    };
    let bytes_max = target.spec.settings.limits.input_bytes_max;
    let body = collect(body, bytes_max, &shared.config.data).await?;
    let submission = Submission {
        path: target.path.clone(),
        select,
        request: Request { head, body },
        idempotency_key,
        traceparent,
    };
    let receipt = shared.invoker.submit(submission).await?;
    Ok(Accepted {
        id: receipt.id.to_string(),
        location: format!("/v1/invocations/{}", receipt.id),
        repeated: receipt.is_repeat,
    })
}

fn http_head(parts: &mut Parts, place: Place) -> Result<RequestHead, Failure> {
    address_guest(parts, place)?;
    // The body is whole when the call is made: its length is known then.
    parts.headers.remove(http::header::CONTENT_LENGTH);
    parts.headers.remove(http::header::EXPECT);
    let headers = parts.headers.iter();
    Ok(RequestHead::Http {
        method: parts.method.to_string(),
        uri: parts.uri.to_string(),
        headers: headers
            .map(|(name, value)| (name.to_string(), value.as_bytes().into()))
            .collect(),
    })
}

fn text_header(headers: &HeaderMap, name: &str) -> Result<Option<String>, Failure> {
    let text = headers
        .get(name)
        .map(|value| value.to_str().map(str::to_owned))
        .transpose();
    text.map_err(|_| {
        Failure::new(
            Code::BadRequest,
            format!("the header `{name}` is not ASCII"),
        )
    })
}

impl From<InvokerError> for Failure {
    fn from(error: InvokerError) -> Self {
        let detail = error.to_string();
        let code = match &error {
            InvokerError::UnknownFunction(_) => Code::FunctionNotFound,
            InvokerError::UnknownAlias { .. } => Code::AliasNotFound,
            InvokerError::UnknownVersion { .. } => Code::VersionNotFound,
            InvokerError::AliasName(cause) => {
                return Self::new(Code::InvalidName, format!("{detail}: {cause}"));
            }
            InvokerError::AliasTargets(_)
            | InvokerError::LiveIsNeeded(_)
            | InvokerError::NothingToRollBackTo(_) => Code::InvalidAlias,
            InvokerError::Limits(_) => Code::InvalidSettings,
            InvokerError::Contended { .. }
            | InvokerError::RouteTaken { .. }
            | InvokerError::TooMany { .. } => Code::Conflict,
            InvokerError::BodyTooLarge { .. } | InvokerError::HeadTooLarge { .. } => {
                Code::BodyTooLarge
            }
            InvokerError::IdempotencyKeySize { .. } => Code::BadRequest,
            InvokerError::IdempotencyConflict { .. } => Code::IdempotencyMismatch,
            InvokerError::NotMember => {
                return Self::new(Code::NoNode, detail).retry_after(OVERLOADED_RETRY_AFTER);
            }
            InvokerError::Overloaded { .. } | InvokerError::TooManyWatches { .. } => {
                return Self::new(Code::QueueFull, detail).retry_after(OVERLOADED_RETRY_AFTER);
            }
            InvokerError::UnknownInvocation(_) => Code::InvocationNotFound,
            InvokerError::NotRedrivable { .. } => Code::NotADeadLetter,
            InvokerError::Store(error) => return Self::of_storage(error),
            _ => return Self::platform(&error),
        };
        Self::new(code, detail)
    }
}

/// How long a client is told to wait when the queue is full, or the node no member.
const OVERLOADED_RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(10);
