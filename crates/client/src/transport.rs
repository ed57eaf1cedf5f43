//! Requests and answers over HTTP/1.1, with their limits.

use std::time::Duration;

use api::{PROBLEM_JSON, Problem};
use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ClientError;

/// Most bytes of a document that is read into memory.
const DOCUMENT_BYTES_MAX: usize = 64 << 20;
/// Most characters of an answer that is not understood, as they are shown.
const SHOWN_CHARS_MAX: usize = 200;
const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(crate) type RequestBody = BoxBody<Bytes, std::io::Error>;

/// Where the node is, and how long to wait for it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Admin address: `HOST:PORT` or `http://HOST:PORT`.
    pub admin: String,
    /// Token to show.
    pub token: Option<String>,
    /// Longest wait for a connection.
    pub connect_max: Duration,
    /// Longest wait for the head of an answer; a deploy compiles for this long at most.
    pub answer_max: Duration,
}

impl Config {
    /// The node at `admin`, with the usual patience.
    pub fn new(admin: impl Into<String>) -> Self {
        Self {
            admin: admin.into(),
            token: None,
            connect_max: Duration::from_secs(5),
            answer_max: Duration::from_secs(900),
        }
    }
}

/// Talks to one node. Cheap to clone; connections are shared.
#[derive(Clone, Debug)]
pub struct Client {
    http: Http<HttpConnector, RequestBody>,
    authority: Authority,
    token: Option<HeaderValue>,
    answer_max: Duration,
}

impl Client {
    /// A client of the node that `config` names. Nothing is sent yet.
    pub fn new(config: &Config) -> Result<Self, ClientError> {
        let authority = authority(&config.admin)?;
        let token = config.token.as_deref().map(bearer).transpose()?;
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(config.connect_max));
        connector.set_nodelay(true);
        Ok(Self {
            http: Http::builder(TokioExecutor::new()).build(connector),
            authority,
            token,
            answer_max: config.answer_max,
        })
    }

    /// The admin address that is asked.
    pub fn admin(&self) -> &str {
        self.authority.as_str()
    }

    /// Sends a request, and reads the JSON of a successful answer.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        request: Request<RequestBody>,
    ) -> Result<T, ClientError> {
        let response = self.send(request).await?;
        let bytes = self.read(response).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.protocol(error.to_string()))
    }

    /// Sends a request whose successful answer says nothing more.
    pub(crate) async fn done(&self, request: Request<RequestBody>) -> Result<(), ClientError> {
        let response = self.send(request).await?;
        self.read(response).await.map(drop)
    }

    /// Sends a request, and gives the head of a successful answer; every other is an error.
    pub(crate) async fn send(
        &self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, ClientError> {
        let response = self.exchange(request, self.answer_max).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.problem(response).await)
    }

    /// The same for the call of a function. What the function itself answers is no error, whatever
    /// its status: only the node writes problems.
    pub(crate) async fn send_for_reply(
        &self,
        request: Request<RequestBody>,
        waited: Duration,
    ) -> Result<Response<Incoming>, ClientError> {
        let response = self.exchange(request, waited).await?;
        if response.status().is_success() || !is_problem(&response) {
            return Ok(response);
        }
        Err(self.problem(response).await)
    }

    async fn exchange(
        &self,
        mut request: Request<RequestBody>,
        waited: Duration,
    ) -> Result<Response<Incoming>, ClientError> {
        if let Some(token) = &self.token {
            request.headers_mut().insert(AUTHORIZATION, token.clone());
        }
        let answer = tokio::time::timeout(waited, self.http.request(request));
        let admin = || self.admin().to_owned();
        match answer.await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(source)) => Err(ClientError::Unreachable {
                admin: admin(),
                source,
            }),
            Err(_) => Err(ClientError::Silent {
                admin: admin(),
                waited,
            }),
        }
    }

    /// Reads a document to its end.
    pub(crate) async fn read(&self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        let body = Limited::new(response.into_body(), DOCUMENT_BYTES_MAX);
        match body.collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) => match error.downcast::<hyper::Error>() {
                Ok(source) => Err(self.broken(*source)),
                Err(error) => Err(self.protocol(error.to_string())),
            },
        }
    }

    async fn problem(&self, response: Response<Incoming>) -> ClientError {
        let status = response.status();
        let told = is_problem(&response);
        let bytes = match self.read(response).await {
            Ok(bytes) => bytes,
            Err(error) => return error,
        };
        match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) if told => ClientError::Problem(Box::new(problem)),
            _ => {
                let text = String::from_utf8_lossy(&bytes);
                let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
                self.protocol(format!("{status} {shown}"))
            }
        }
    }

    pub(crate) fn protocol(&self, reason: String) -> ClientError {
        let admin = self.admin().to_owned();
        ClientError::Protocol { admin, reason }
    }

    pub(crate) fn broken(&self, source: hyper::Error) -> ClientError {
        let admin = self.admin().to_owned();
        ClientError::Broken { admin, source }
    }

    /// A request without a body. `path` and `query` are already encoded.
    pub(crate) fn empty(
        &self,
        method: Method,
        path: &str,
    ) -> Result<Request<RequestBody>, ClientError> {
        self.request(
            method,
            path,
            Empty::new().map_err(|never| match never {}).boxed(),
        )
    }

    /// A request with a JSON body.
    pub(crate) fn with_json(
        &self,
        method: Method,
        path: &str,
        value: &impl Serialize,
    ) -> Result<Request<RequestBody>, ClientError> {
        let text = serde_json::to_vec(value).map_err(|_| ClientError::Unsendable {
            what: "the request".into(),
        })?;
        let mut request = self.request(method, path, full(text.into()))?;
        request.headers_mut().insert(CONTENT_TYPE, JSON);
        Ok(request)
    }

    /// A request whose body is sent as it comes; it has `bytes` bytes, if that is known.
    pub(crate) fn with_stream(
        &self,
        method: Method,
        path: &str,
        bytes: Option<u64>,
        body: impl Stream<Item = std::io::Result<Bytes>> + Send + Sync + 'static,
    ) -> Result<Request<RequestBody>, ClientError> {
        let body = StreamBody::new(body.map_ok(Frame::data)).boxed();
        let mut request = self.request(method, path, body)?;
        if let Some(bytes) = bytes {
            request.headers_mut().insert(CONTENT_LENGTH, bytes.into());
        }
        Ok(request)
    }

    pub(crate) fn request(
        &self,
        method: Method,
        path: &str,
        body: RequestBody,
    ) -> Result<Request<RequestBody>, ClientError> {
        let refused = || ClientError::Unsendable {
            what: format!("`{path}`"),
        };
        let uri = Uri::builder()
            .scheme("http")
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .map_err(|_| refused())?;
        let request = Request::builder().method(method).uri(uri).body(body);
        request.map_err(|_| refused())
    }
}

fn is_problem(response: &Response<Incoming>) -> bool {
    let kind = response.headers().get(CONTENT_TYPE);
    kind.and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.starts_with(PROBLEM_JSON))
}

pub(crate) fn full(bytes: Bytes) -> RequestBody {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

fn bearer(token: &str) -> Result<HeaderValue, ClientError> {
    let refused = |_| ClientError::Unsendable {
        what: "the token".into(),
    };
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(refused)?;
    value.set_sensitive(true);
    Ok(value)
}

fn authority(admin: &str) -> Result<Authority, ClientError> {
    let refuse = |reason: &str| ClientError::Address {
        address: admin.chars().take(SHOWN_CHARS_MAX).collect(),
        reason: reason.to_owned(),
    };
    let rest = match admin.split_once("://") {
        Some(("http", rest)) => rest,
        Some(("https", _)) => {
            return Err(refuse(
                "a node speaks plain http on its admin listener; reach it through a tunnel",
            ));
        }
        Some(_) => return Err(refuse("use HOST:PORT or http://HOST:PORT")),
        None => admin,
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let authority: Authority = rest.parse().map_err(|_| refuse("use HOST:PORT"))?;
    if authority.as_str().contains('@') {
        return Err(refuse("it must not name a user"));
    }
    match authority.port_u16() {
        Some(_) => Ok(authority),
        None => Err(refuse("the port is missing; the usual one is 8081")),
    }
}

/// `text` as one part of a path or a query.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// `path` with those parameters that are given.
pub(crate) fn with_query(path: &str, parameters: &[(&str, Option<String>)]) -> String {
    let mut path = path.to_owned();
    let mut separator = '?';
    for (name, value) in parameters {
        if let Some(value) = value {
            path.push(separator);
            path.push_str(&format!("{name}={}", encode(value)));
            separator = '&';
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_and_without_a_scheme_are_the_same() {
        let all = [
            "127.0.0.1:8081",
            "http://127.0.0.1:8081",
            "http://127.0.0.1:8081/",
        ];
        for address in all {
            let found = authority(address).map(|a| a.to_string());
            assert_eq!(found.expect(address), "127.0.0.1:8081");
        }
        assert!(authority("http://[::1]:8081").is_ok());
        assert!(authority("localhost:8081").is_ok());
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_reason() {
        let cases = [
            ("", "HOST:PORT"),
            ("localhost", "port is missing"),
            ("https://localhost:1", "plain http"),
            ("ftp://localhost:1", "http://HOST:PORT"),
            ("http://a b:1", "HOST:PORT"),
            ("http://localhost:1/v1", "HOST:PORT"),
            ("user@localhost:1", "user"),
        ];
        for (address, reason) in cases {
            let error = authority(address).expect_err(address).to_string();
            assert!(error.contains(reason), "{address}: {error}");
        }
    }

    #[test]
    fn a_token_that_no_header_can_carry_is_refused() {
        assert!(bearer("a\nb").is_err());
        assert!(bearer("dunlin_abc").is_ok_and(|value| value.is_sensitive()));
    }

    #[test]
    fn queries_are_encoded() {
        let path = with_query(
            "/v1/logs",
            &[
                ("app", Some("a&b=c".into())),
                ("n", None),
                ("since", Some("é".into())),
            ],
        );
        assert_eq!(path, "/v1/logs?app=a%26b%3Dc&since=%C3%A9");
    }
}
