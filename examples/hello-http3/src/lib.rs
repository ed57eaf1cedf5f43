//! Replies "hello" through wasi:http/service 0.3, whose handler is asynchronous.

use wasip3::exports::http::handler::Guest;
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::{wit_bindgen, wit_future, wit_stream};

wasip3::http::service::export!(Hello);

struct Hello;

impl Guest for Hello {
    async fn handle(_request: Request) -> Result<Response, ErrorCode> {
        let (mut body, body_reader) = wit_stream::new();
        let (trailers, trailers_reader) = wit_future::new(|| Ok(None));
        let (response, _sent) = Response::new(Fields::new(), Some(body_reader), trailers_reader);
        // Without trailers the future's default, written on drop, ends the response.
        drop(trailers);
        wit_bindgen::spawn_local(async move {
            // What the host did not take is a client that went away: there is nobody to tell.
            let _untaken = body.write_all(b"hello\n".to_vec()).await;
        });
        Ok(response)
    }
}
