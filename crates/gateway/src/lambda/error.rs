//! Errors as Lambda's clients read them: an exception by name, and a function's own error.

use api::Code;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use model::{InvocationId, Status};
use serde_json::{Value, json};

use super::name::NameError;
use crate::failure::Failure;
use crate::reply::ReplyBody;

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(super) const REQUEST_ID: &str = "x-amzn-requestid";
const ERROR_TYPE: &str = "x-amzn-errortype";

/// An exception of Lambda's API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exception {
    status: u16,
    name: &'static str,
    message: String,
    retry_after_s: Option<u64>,
}

impl Exception {
    fn new(status: u16, name: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            name,
            message: message.into(),
            retry_after_s: None,
        }
    }

    /// A header or parameter has no meaning.
    pub fn parameter(message: impl Into<String>) -> Self {
        Self::new(400, "InvalidParameterValueException", message)
    }

    /// The body, or the client's context, is not what it has to be.
    pub fn content(message: impl Into<String>) -> Self {
        Self::new(400, "InvalidRequestContentException", message)
    }

    /// Who asks is not known.
    pub fn credentials() -> Self {
        let message = "The security token included in the request is invalid.";
        Self::new(403, "UnrecognizedClientException", message)
    }

    /// Answers with it.
    pub fn response(&self) -> Response<ReplyBody> {
        let kind = if self.status < 500 { "User" } else { "Service" };
        // Clients read either; which one a shape has is AWS's own history.
        let message = match self.name {
            "ResourceNotFoundException" | "ServiceException" => "Message",
            _ => "message",
        };
        let mut body = json!({"Type": kind, message: self.message});
        if self.name == TOO_MANY {
            body["Reason"] = "ConcurrentInvocationLimitExceeded".into();
        }
        let bytes = Bytes::from(body.to_string());
        let mut response = Response::new(ReplyBody::whole(bytes));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(ERROR_TYPE, HeaderValue::from_static(self.name));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

const TOO_MANY: &str = "TooManyRequestsException";

impl From<NameError> for Exception {
    fn from(error: NameError) -> Self {
        let message = error.to_string();
        match error {
            NameError::NotFound(_) => Self::new(404, "ResourceNotFoundException", message),
            NameError::Contradiction => Self::parameter(message),
        }
    }
}

impl From<Failure> for Exception {
    fn from(failure: Failure) -> Self {
        let detail = failure.problem.detail.clone();
        let (status, name) = match failure.problem.code {
            Code::FunctionNotFound
            | Code::AliasNotFound
            | Code::VersionNotFound
            | Code::InvalidName => (404, "ResourceNotFoundException"),
            Code::BodyTooLarge => (413, "RequestTooLargeException"),
            Code::BadRequest | Code::RequestTimeout => (400, "InvalidRequestContentException"),
            Code::QueueFull => (429, TOO_MANY),
            _ => (failure.problem.status.max(500), "ServiceException"),
        };
        Self {
            retry_after_s: failure.retry_after_s(),
            ..Self::new(status, name, detail)
        }
    }
}

/// A function's error: what it reported, or what Lambda says in its place. An exception if it is
/// not the function's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FunctionError {
    /// `Handled` if the function's runtime caught it and did not say otherwise.
    pub kind: &'static str,
    pub body: Bytes,
}

impl FunctionError {
    /// Of an invocation that ended so, with what it replied.
    pub fn of(status: &Status, reply: Bytes, id: InvocationId) -> Result<Self, Exception> {
        let kind = match status {
            Status::Error { kind, .. } if kind.eq_ignore_ascii_case(UNHANDLED) => UNHANDLED,
            Status::Error { .. } => "Handled",
            _ => UNHANDLED,
        };
        let name = match status {
            Status::Error { .. } if !reply.is_empty() => return Ok(Self { kind, body: reply }),
            Status::Error { kind, .. } => kind.as_str(),
            Status::Timeout => "Sandbox.Timedout",
            Status::OutOfMemory => "Runtime.OutOfMemory",
            Status::OutputLimit => "Function.ResponseSizeTooLarge",
            Status::Ok | Status::Exit { .. } | Status::Trap { .. } | Status::NoResponse { .. } => {
                "Runtime.ExitError"
            }
            Status::Cancelled | Status::Platform { .. } => {
                return Err(Failure::of_status(status).into());
            }
        };
        let words = match status {
            Status::Exit { code } => format!("Runtime exited with error: exit status {code}"),
            other => other.to_string(),
        };
        let message = format!("RequestId: {id} Error: {words}");
        let body: Value = json!({"errorType": name, "errorMessage": message});
        let body = Bytes::from(body.to_string());
        Ok(Self { kind, body })
    }
}

const UNHANDLED: &str = "Unhandled";

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use std::time::Duration;

    async fn check(failure: Failure, status: u16, name: &str, field: &str) {
        let response = Exception::from(failure).response();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()[ERROR_TYPE], name);
        let body = response.into_body().collect().await.expect("a body");
        let body: Value = serde_json::from_slice(&body.to_bytes()).expect("JSON");
        assert_eq!(body[field], "why", "{body}");
    }

    #[tokio::test]
    async fn problems_are_exceptions() {
        let why = |code| Failure::new(code, "why");
        let not_found = "ResourceNotFoundException";
        check(why(Code::FunctionNotFound), 404, not_found, "Message").await;
        check(why(Code::AliasNotFound), 404, not_found, "Message").await;
        check(
            why(Code::BodyTooLarge),
            413,
            "RequestTooLargeException",
            "message",
        )
        .await;
        check(why(Code::SandboxesFull), 503, "ServiceException", "Message").await;
        check(why(Code::Conflict), 500, "ServiceException", "Message").await;
        let full = why(Code::QueueFull).retry_after(Duration::from_secs(2));
        let response = Exception::from(full.clone()).response();
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        check(full, 429, "TooManyRequestsException", "message").await;
    }

    #[test]
    fn a_function_s_error_says_who_met_it() {
        let id = InvocationId::new(1);
        let check = |status: Status, reply: &'static str, kind: &str, part: &str| {
            let error = FunctionError::of(&status, Bytes::from(reply), id).expect("an error");
            let text = String::from_utf8_lossy(&error.body).into_owned();
            assert_eq!(error.kind, kind, "{text}");
            assert!(text.contains(part), "{text}");
        };
        let reported = |kind: &str| Status::Error {
            kind: kind.to_owned(),
            message: "words".to_owned(),
        };
        check(reported("T"), "{\"own\":1}", "Handled", "{\"own\":1}");
        check(
            reported("unhandled"),
            "{\"own\":1}",
            "Unhandled",
            "{\"own\":1}",
        );
        check(reported("T"), "", "Handled", "\"errorType\":\"T\"");
        check(Status::Timeout, "", "Unhandled", "Sandbox.Timedout");
        check(Status::Exit { code: 3 }, "", "Unhandled", "exit status 3");
        check(Status::OutOfMemory, "", "Unhandled", "Runtime.OutOfMemory");
        assert!(FunctionError::of(&Status::Cancelled, Bytes::new(), id).is_err());
    }
}
