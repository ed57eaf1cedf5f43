//! Calling a function through the admin API, and fetching the replies of asynchronous calls.

use std::time::Duration;

use api::v1::Accepted;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use model::{FunctionPath, InvocationId};

use crate::transport::{RequestBody, full, with_query};
use crate::{Client, ClientError};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The longest deadline of a function is a day; queueing and loading come on top.
const INVOCATION_MAX: Duration = Duration::from_secs(86_400 + 900);

/// One call of a function.
#[derive(Clone, Debug)]
pub struct Invoke {
    /// The function.
    pub path: FunctionPath,
    /// The request's body.
    pub body: Bytes,
    /// Its media type.
    pub content_type: Option<String>,
    /// Arguments that are added to the function's own.
    pub args: Vec<String>,
    /// Alias, or digest of a version, to call instead of `live`.
    pub target: Option<String>,
    /// Method that an http function sees; `POST` unless set.
    pub method: Option<String>,
    /// Path and query that the function sees; `/` unless set.
    pub guest_path: Option<String>,
    /// The same key accepts an asynchronous call once.
    pub idempotency_key: Option<String>,
}

/// What a function replied, as it comes.
#[derive(Debug)]
pub struct Reply {
    client: Client,
    response: Response<Incoming>,
}

impl Reply {
    /// The status that the function chose; commands and reactors have 200.
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The reply's header fields.
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The next bytes of the reply's body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.response.frame().await {
            let frame = frame.map_err(|error| self.client.broken(error))?;
            if let Ok(bytes) = frame.into_data() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

impl Client {
    /// Calls a function and waits for its reply.
    pub async fn invoke(&self, invoke: &Invoke) -> Result<Reply, ClientError> {
        let request = self.invocation_request(invoke, "sync")?;
        let response = self.send_for_reply(request, INVOCATION_MAX).await?;
        let client = self.clone();
        Ok(Reply { client, response })
    }

    /// Has a function called later; the answer comes once that is on disk.
    pub async fn invoke_async(&self, invoke: &Invoke) -> Result<Accepted, ClientError> {
        self.json(self.invocation_request(invoke, "async")?).await
    }

    /// What an asynchronous invocation replied.
    pub async fn result(&self, id: InvocationId) -> Result<Reply, ClientError> {
        let path = format!("/v1/invocations/{id}/result");
        let request = self.empty(Method::GET, &path)?;
        let response = self.send_for_reply(request, INVOCATION_MAX).await?;
        let client = self.clone();
        Ok(Reply { client, response })
    }

    fn invocation_request(
        &self,
        invoke: &Invoke,
        mode: &str,
    ) -> Result<Request<RequestBody>, ClientError> {
        let FunctionPath { app, function } = &invoke.path;
        let mut parameters = vec![("mode", Some(mode.to_owned()))];
        parameters.push(("alias", invoke.target.clone()));
        parameters.push(("method", invoke.method.clone()));
        parameters.push(("path", invoke.guest_path.clone()));
        parameters.extend(invoke.args.iter().map(|arg| ("arg", Some(arg.clone()))));
        let path = format!("/v1/apps/{app}/functions/{function}/invocations");
        let path = with_query(&path, &parameters);
        let mut request = self.request(Method::POST, &path, full(invoke.body.clone()))?;
        let fields = [
            (CONTENT_TYPE, &invoke.content_type),
            (IDEMPOTENCY_KEY, &invoke.idempotency_key),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                let value = HeaderValue::from_str(value).map_err(|_| ClientError::Unsendable {
                    what: format!("the header `{name}`"),
                })?;
                request.headers_mut().insert(name, value);
            }
        }
        Ok(request)
    }
}
