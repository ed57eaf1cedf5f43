//! Passes its request on to the host that its query names, by wasi:http 0.3, and streams the
//! answer back; what the tests of outgoing requests call.

use wasip3::exports::http::handler::Guest;
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Request, Response, Scheme};
use wasip3::wit_future;

wasip3::http::service::export!(Fetch);

struct Fetch;

impl Guest for Fetch {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let path = request.get_path_with_query().unwrap_or_default();
        let (_, authority) = path.split_once('?').unwrap_or_default();
        let response = client::send(get(authority)?).await?;
        // Without a word from here the response is taken as it comes.
        let (taken, taken_reader) = wit_future::new(|| Ok(()));
        drop(taken);
        let (body, trailers) = Response::consume_body(response, taken_reader);
        let (response, _sent) = Response::new(Fields::new(), Some(body), trailers);
        Ok(response)
    }
}

fn get(authority: &str) -> Result<Request, ErrorCode> {
    let (trailers, trailers_reader) = wit_future::new(|| Ok(None));
    // Without trailers the future's default, written on drop, ends the request.
    drop(trailers);
    let (request, _sent) = Request::new(Fields::new(), None, trailers_reader, None);
    let invalid = |()| ErrorCode::HttpRequestUriInvalid;
    request.set_scheme(Some(&Scheme::Http)).map_err(invalid)?;
    request.set_authority(Some(authority)).map_err(invalid)?;
    request.set_path_with_query(Some("/")).map_err(invalid)?;
    Ok(request)
}
