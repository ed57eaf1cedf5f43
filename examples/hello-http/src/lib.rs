//! Replies "hello": the smallest http component, and the one that the http bench measures.
//!
//! Without std it imports wasi:http and wasi:io alone, so a node has little to link for it.
#![no_std]

use core::panic::PanicInfo;

use dlmalloc::GlobalDlmalloc;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

#[global_allocator]
static ALLOCATOR: GlobalDlmalloc = GlobalDlmalloc;

#[panic_handler]
fn trap(_panic: &PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}

wasip2::http::proxy::export!(Hello);

struct Hello;

impl Guest for Hello {
    fn handle(_request: IncomingRequest, to: ResponseOutparam) {
        let reply = reply(b"hello\n").ok_or(ErrorCode::InternalError(None));
        ResponseOutparam::set(to, reply);
    }
}

/// The body is complete before the response is handed over, so the host sends both at once.
fn reply(text: &[u8]) -> Option<OutgoingResponse> {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().ok()?;
    let out = body.write().ok()?;
    // A fresh stream has room for this much, but a stream may be written only after asking.
    out.check_write().ok()?;
    out.write(text).ok()?;
    drop(out);
    OutgoingBody::finish(body, None).ok()?;
    Some(response)
}
