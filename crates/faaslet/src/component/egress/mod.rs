//! The way out of a guest: where it may connect to, looked at before each connection.
//!
//! ```text
//!  request ─▶ is the name granted? ─▶ look it up, once ─▶ keep the addresses it may lead to
//!          ─▶ connect to one of them ─▶ TLS for the name ─▶ one exchange of HTTP/1.1
//! ```
//!
//! Invariants:
//! - Without a grant nothing leaves the guest, not even the question where a name leads.
//! - A connection goes to an address that was looked at: no name is looked up again after that.
//! - What a guest opened ends with its call, and never waits past its deadline.

mod dial;
mod exchange;
mod sockets;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Method, Request};
use model::Grants;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody,
    WasiHttpHooks,
};

use crate::metrics::{Way, count_egress};
use dial::{Target, Tls};
use exchange::Sent;

/// Longest time in which a connection is made, from the name to the end of the TLS handshake.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(30);

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

static FORBIDDEN_HEADERS: LazyLock<ForbiddenHeaderFilter> =
    LazyLock::new(|| Arc::new(|name| DEFAULT_FORBIDDEN_HEADERS.contains(name)));

/// What the calls of one program may reach.
pub(super) struct Rules {
    grants: Grants,
    connections_max: usize,
    tls: Tls,
}

impl Rules {
    /// The rules of a function with these grants; none if it may reach nothing.
    pub(super) fn of(grants: &Grants, connections_max: u32) -> Option<Arc<Self>> {
        if grants.egress.is_empty() {
            return None;
        }
        Some(Arc::new(Self {
            grants: grants.clone(),
            connections_max: connections_max as usize,
            tls: Tls::public(),
        }))
    }
}

/// The way out of one call; a cheap clone. The default leads nowhere.
#[derive(Clone, Default)]
pub(super) struct Egress(Option<Arc<Open>>);

/// A way that leads somewhere.
struct Open {
    rules: Arc<Rules>,
    /// When the call ends at the latest.
    deadline: Instant,
    /// One for each connection of a request.
    places: Arc<Semaphore>,
    /// The call's place in its trace, for requests that do not say their own.
    trace: Option<HeaderValue>,
    /// Where the names that sockets were connected by lead, in this call.
    known: Mutex<BTreeMap<String, Arc<[IpAddr]>>>,
}

impl Egress {
    /// The way out of a call that ends at `deadline`.
    pub(super) fn new(
        rules: &Arc<Rules>,
        deadline: std::time::Instant,
        trace: Option<HeaderValue>,
    ) -> Self {
        Self(Some(Arc::new(Open {
            places: Arc::new(Semaphore::new(rules.connections_max)),
            rules: rules.clone(),
            deadline: deadline.into(),
            trace,
            known: Mutex::default(),
        })))
    }

    /// Whether it leads anywhere.
    pub(super) fn is_open(&self) -> bool {
        self.0.is_some()
    }

    async fn send(
        self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
    ) -> Result<Sent, Error> {
        let target = Target::of(request.uri())?;
        if request.method() == Method::CONNECT {
            return Err(Error::HttpRequestMethodInvalid);
        }
        let Some(open) = &self.0 else {
            return Err(denied(&target, "nothing is granted"));
        };
        open.send(target, request, options.unwrap_or_default())
            .await
    }
}

impl Open {
    async fn send(
        &self,
        target: Target,
        mut request: Request<WasiBody>,
        options: RequestOptions,
    ) -> Result<Sent, Error> {
        let connect = options.connect_timeout.unwrap_or(CONNECT_TIME_MAX);
        let until = self.until(connect.min(CONNECT_TIME_MAX));
        let addresses = dial::addresses(&self.rules.grants, &target, until).await?;
        count_egress(Way::Http, true);
        let place = self.places.clone().acquire_owned();
        let place = match tokio::time::timeout_at(until, place).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) | Err(_) => return Err(Error::ConnectionLimitReached),
        };
        let stream = dial::connect(&target, &addresses, &self.rules.tls, until).await?;
        if let Some(trace) = &self.trace
            && !request.headers().contains_key(TRACEPARENT)
        {
            request.headers_mut().insert(TRACEPARENT, trace.clone());
        }
        let times = exchange::Times {
            first_byte: self.rest(options.first_byte_timeout),
            between_bytes: self.rest(options.between_bytes_timeout),
        };
        exchange::exchange(stream, request, times, place).await
    }

    /// The end of a time that begins now, within the call's.
    fn until(&self, time: Duration) -> Instant {
        Instant::now() + self.rest(Some(time))
    }

    /// A time that begins now, within the call's.
    fn rest(&self, time: Option<Duration>) -> Duration {
        let rest = self.deadline.saturating_duration_since(Instant::now());
        time.map_or(rest, |time| time.min(rest))
    }
}

/// The answer to a request that may not be made.
fn denied(target: &Target, reason: &'static str) -> Error {
    count_egress(Way::Http, false);
    tracing::debug!(%target, reason, "an outgoing request was denied");
    Error::HttpRequestDenied
}

impl WasiHttpHooks for Egress {
    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        FORBIDDEN_HEADERS.clone()
    }

    fn is_supported_scheme(&mut self, scheme: &Scheme) -> bool {
        *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        Box::new(self.clone().send(request, options))
    }
}
