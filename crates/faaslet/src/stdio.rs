//! Where a guest's standard streams go: into its reply, or into its log.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use sandbox::LogStream;
pub(crate) use sandbox::{HeldLog as Log, Reply, ReplyTooLong};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

/// Bytes that a guest may write at a time.
const WRITE_BYTES_MAX: usize = 1 << 20;
/// A standard stream of the guest's.
#[derive(Clone)]
pub(crate) enum Stdio {
    /// Its bytes are the reply.
    Reply(Reply),
    /// Its bytes are log lines.
    Log(LogStream, Log),
}

impl Stdio {
    pub fn take(&self, data: &[u8]) -> Result<(), ReplyTooLong> {
        match self {
            Stdio::Reply(reply) => reply.write(data),
            Stdio::Log(stream, log) => {
                log.write(*stream, data);
                Ok(())
            }
        }
    }
}

impl IsTerminal for Stdio {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stdio {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for Stdio {
    async fn ready(&mut self) {}
}

impl OutputStream for Stdio {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes)
            .map_err(|error| StreamError::Trap(error.into()))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

impl AsyncWrite for Stdio {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let taken = self.take(data).map(|()| data.len());
        Poll::Ready(taken.map_err(std::io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
