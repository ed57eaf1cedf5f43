//! Calls of http components, of WASI 0.2 and 0.3.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::ready;
use std::time::{Duration, Instant};

use model::Status;
use sandbox::{Body, Completion, HttpCall};
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p3;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use super::drive::{Ended, drive};
use super::guest::Guest;
use super::program::{failure, in_time};
use super::reply::{Cut, Reply, RequestBody};
use super::ticker::Ticker;

const NO_RESPONSE: &str = "it ended without setting a response";
/// A guest that ends well without having ended its body has said all that it had to say: many
/// languages leave their last stream to the end of the program.
const UNFINISHED: Result<(), Cut> = Ok(());

/// An http component, ready to be instantiated.
pub(super) enum Handler {
    /// `wasi:http/incoming-handler` 0.2.
    P2(ProxyPre<Guest>),
    /// `wasi:http/handler` 0.3.
    P3(ServicePre<Guest>),
}

/// What a call may take.
pub(super) struct Bounds {
    pub(super) started: Instant,
    pub(super) deadline: Duration,
    pub(super) output_bytes_max: u64,
}

impl Handler {
    /// Calls the component in `store`, which is fresh.
    pub(super) async fn call(
        &self,
        store: &mut Store<Guest>,
        call: HttpCall,
        bounds: &Bounds,
        ticker: &Ticker,
    ) -> Completion {
        let reply = Reply::new(bounds.output_bytes_max);
        let mut sender = Sender {
            reply: reply.clone(),
            respond: Some(call.respond),
        };
        let (parts, body) = call.request.into_parts();
        let body = RequestBody {
            inner: body,
            reply: reply.clone(),
        };
        let request = http::Request::from_parts(parts, body);
        let guest = async {
            match self {
                Handler::P2(pre) => call_p2(store, pre, request, &reply).await,
                // Boxed, so that calls of the plain kind do not carry its size.
                Handler::P3(pre) => Box::pin(call_p3(store, pre, request, &reply)).await,
            }
        };
        let ended = drive(guest, in_time(bounds), ticker, |cx| {
            sender.send_streaming();
            matches!(
                sender.reply.poll_end(cx),
                std::task::Poll::Ready(Err(Cut::OverLimit))
            )
        })
        .await;
        let failed = match ended {
            Ended::Itself(Ok(())) => None,
            Ended::Itself(Err(error)) => failure(&error, store.data()),
            Ended::Deadline => Some(Status::Timeout),
            Ended::BrokenOff => Some(Status::OutputLimit),
        };
        let status = match failed {
            Some(status) => sender.fail(status),
            None => sender.finish(),
        };
        Completion {
            memory_peak_bytes: store.data().memory.peak_bytes as u64,
            input_bytes: reply.input_bytes.load(Ordering::Relaxed),
            output_bytes: reply.output_bytes(),
            ..Completion::without_reply(status)
        }
    }
}

/// Sends the response once, as late as that costs nobody any time.
struct Sender {
    reply: Arc<Reply>,
    respond: Option<oneshot::Sender<http::Response<Body>>>,
}

impl Sender {
    /// Sends the head, if the guest has set one: its body is streamed.
    fn send_streaming(&mut self) {
        if self.respond.is_none() {
            return;
        }
        match self.reply.take() {
            Some(Ok(response)) => self.send(response),
            Some(Err(message)) => self.reply.set(Err(message)),
            None => {}
        }
    }

    fn send(&mut self, response: http::Response<Body>) {
        if let Some(respond) = self.respond.take() {
            // A caller that has gone away drops the body with the response.
            let _ = respond.send(response);
        }
    }

    /// The guest is done; its whole reply, or the rest of it, is waiting.
    fn finish(&mut self) -> Status {
        if self.respond.is_none() {
            self.reply.finish(UNFINISHED);
            return self.status();
        }
        match self.reply.take() {
            Some(Ok(response)) => {
                self.reply.finish(UNFINISHED);
                let status = self.status();
                if status.is_ok() {
                    self.send(response);
                }
                status
            }
            Some(Err(message)) => Status::NoResponse { message },
            None => Status::NoResponse {
                message: NO_RESPONSE.into(),
            },
        }
    }

    fn status(&self) -> Status {
        match self.reply.end() {
            Some(Err(Cut::OverLimit)) => Status::OutputLimit,
            Some(Err(cut)) => Status::NoResponse {
                message: cut.to_string(),
            },
            Some(Ok(())) | None => Status::Ok,
        }
    }

    /// The guest has failed: a head that was not sent is not sent any more, and a body that is not
    /// complete is cut short, so that the caller does not take it for complete.
    fn fail(&mut self, status: Status) -> Status {
        let cut = match status {
            Status::OutputLimit => Cut::OverLimit,
            _ => Cut::Failed,
        };
        self.reply.finish(Err(cut));
        self.respond = None;
        status
    }
}

async fn call_p2(
    store: &mut Store<Guest>,
    pre: &ProxyPre<Guest>,
    request: http::Request<RequestBody>,
    reply: &Arc<Reply>,
) -> wasmtime::Result<()> {
    let scheme = match request.uri().scheme_str() {
        Some("https") => Scheme::Https,
        _ => Scheme::Http,
    };
    let mut view = store.data_mut().http();
    let request = view.new_incoming_request(scheme, request)?;
    let reply = reply.clone();
    let out = view.new_response_outparam_from_callback(move |head| {
        reply.set(head.map_err(|code| format!("it answered with the error {code}")));
    })?;
    let proxy = pre.instantiate_async(&mut *store).await?;
    store.data().instantiated()?;
    proxy
        .wasi_http_incoming_handler()
        .call_handle(store, request, out)
        .await
}

async fn call_p3(
    store: &mut Store<Guest>,
    pre: &ServicePre<Guest>,
    request: http::Request<RequestBody>,
    reply: &Arc<Reply>,
) -> wasmtime::Result<()> {
    let service = pre.instantiate_async(&mut *store).await?;
    store.data().instantiated()?;
    let (request, transmitted) = p3::Request::from_http(store.data_mut().http().hooks, request);
    store
        .run_concurrent(async |guest| {
            match service.handle(guest, request).await? {
                Ok(response) => {
                    let response = guest.with(|store| response.into_http(store, transmitted))?;
                    reply.set(Ok(response));
                    poll_fn(|cx| reply.poll_end(cx).map(|_| ())).await;
                }
                Err(code) => reply.set(Err(format!("it answered with the error {code}"))),
            }
            poll_fn(|cx| {
                ready!(guest.poll_no_interesting_tasks(cx));
                std::task::Poll::Ready(())
            })
            .await;
            Ok(())
        })
        .await?
}
