//! An HTTP server that has worker processes answer: what a node is held against.
//!
//! ```text
//!  request ─▶ an idle worker, or a fresh process where the request asks for a cold start
//!                └─ its length and body by a pipe, the reply's length and bytes by another
//! ```

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use crate::child::Server;

/// The argument that makes the bench program this server.
pub const VERB: &str = "serve-workers";

/// The request's header that asks for a worker which was not there before.
pub const COLD: &str = "bench-cold";

/// Starts the server in a process of its own, with so many workers that run `line`.
pub fn start(workers: usize, line: &[String]) -> Result<Server> {
    let address = xtask::node::free_address()?;
    let mut command = Command::new(std::env::current_exe().context("finding this program")?);
    command.args([VERB, &address, &workers.to_string()]);
    command.args(line);
    Server::start(command, &address)
}

/// Is the server, until the process ends. Every worker has started before it listens.
pub fn serve(address: &str, workers: &str, line: &[String]) -> Result<()> {
    let address: SocketAddr = address.parse().context("the address to listen at")?;
    let count: usize = workers.parse().context("how many workers")?;
    let front = Front::new(count, line)?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(listen(address, Arc::new(front)))
}

struct Front {
    line: Vec<String>,
    idle: Mutex<Vec<Worker>>,
}

/// A process; dropped, it is ended.
struct Worker(Child);

impl Front {
    fn new(count: usize, line: &[String]) -> Result<Self> {
        let mut workers = Vec::new();
        for _ in 0..count {
            workers.push(Worker::start(line)?);
        }
        // One that answers has loaded its weights.
        for worker in &mut workers {
            worker.ask(b"")?;
        }
        Ok(Self {
            line: line.to_vec(),
            idle: Mutex::new(workers),
        })
    }

    async fn answer(self: Arc<Self>, cold: bool, body: Bytes) -> Result<Vec<u8>> {
        let idle = self.idle.lock().await.pop();
        let idle = idle.context("more requests at once than workers")?;
        let line = cold.then(|| self.line.clone());
        let (worker, reply, replaced) = tokio::task::spawn_blocking(move || {
            let (mut worker, replaced) = match line {
                Some(line) => (Worker::start(&line)?, Some(idle)),
                None => (idle, None),
            };
            let reply = worker.ask(&body)?;
            anyhow::Ok((worker, reply, replaced))
        })
        .await??;
        self.idle.lock().await.push(worker);
        // Ending it is nobody's wait.
        tokio::task::spawn_blocking(move || drop(replaced));
        Ok(reply)
    }
}

impl Worker {
    fn start(line: &[String]) -> Result<Self> {
        let [program, arguments @ ..] = line else {
            anyhow::bail!("which program?");
        };
        let mut command = Command::new(program);
        command.args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn();
        Ok(Self(child.with_context(|| format!("starting {program}"))?))
    }

    fn ask(&mut self, body: &[u8]) -> Result<Vec<u8>> {
        let (Some(input), Some(output)) = (&mut self.0.stdin, &mut self.0.stdout) else {
            anyhow::bail!("a worker has pipes");
        };
        input.write_all(&u32::try_from(body.len())?.to_ne_bytes())?;
        input.write_all(body)?;
        let mut length = [0; 4];
        output.read_exact(&mut length).context("a worker ended")?;
        let mut reply = vec![0; u32::from_ne_bytes(length) as usize];
        output.read_exact(&mut reply)?;
        Ok(reply)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail on a worker that is gone already, which is what is wanted.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

async fn listen(address: SocketAddr, front: Arc<Front>) -> Result<()> {
    let listener = TcpListener::bind(address).await.context("listening")?;
    loop {
        let (stream, _) = listener.accept().await.context("accepting")?;
        stream
            .set_nodelay(true)
            .context("setting up a connection")?;
        let front = Arc::clone(&front);
        tokio::spawn(async move {
            let service = service_fn(|request| reply(Arc::clone(&front), request));
            // A connection that breaks off is the client's affair.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn reply(
    front: Arc<Front>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let cold = request.headers().contains_key(COLD);
    let answered = async {
        let body = request.into_body().collect().await?.to_bytes();
        front.answer(cold, body).await
    };
    let (status, body) = match answered.await {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}").into_bytes()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    Ok(response)
}
