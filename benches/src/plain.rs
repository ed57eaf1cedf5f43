//! A plain hyper server: the reply that every platform's reply is held against.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::child::Server;

/// The argument that makes the bench program this server.
pub const VERB: &str = "serve-plain";

/// What it replies.
const REPLY: &[u8] = b"hello\n";

/// Starts the server in a process of its own.
pub fn start() -> Result<Server> {
    let address = xtask::node::free_address()?;
    let mut command = Command::new(std::env::current_exe().context("finding this program")?);
    command.args([VERB, &address]);
    Server::start(command, &address)
}

/// Is the server, until the process ends.
pub fn serve(address: &str) -> Result<()> {
    let address: SocketAddr = address.parse().context("the address to listen at")?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(listen(address))
}

async fn listen(address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address).await.context("listening")?;
    loop {
        let (stream, _) = listener.accept().await.context("accepting")?;
        stream
            .set_nodelay(true)
            .context("setting up a connection")?;
        tokio::spawn(async move {
            let service = service_fn(reply);
            // A connection that breaks off is the client's affair.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn reply(_: Request<hyper::body::Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(REPLY)));
    let kind = hyper::header::HeaderValue::from_static("text/plain; charset=utf-8");
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, kind);
    Ok(response)
}
