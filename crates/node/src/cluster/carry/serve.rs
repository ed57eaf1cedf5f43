//! Gives other nodes the blobs that they ask for.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::sync::Semaphore;
use transport::{CallError, Handler, Incoming, Responder, Status};

use super::super::metrics;
use super::super::router::NO_SERVICE;
use super::others::{Ask, FAILED, LENGTH_BYTES, MISSING};
use super::{Carrier, Name, Span, part};

/// Bytes of a blob that go with their length in one frame: less than every node takes.
const TOGETHER_BYTES: usize = 32 << 10;
/// Bytes that are handed to the connection at a time.
const PIECE_BYTES: usize = 256 << 10;
/// Bytes of a request that are read.
const REQUEST_BYTES_MAX: usize = 64;

/// The service.
pub(in crate::cluster) struct Serve {
    carrier: Carrier,
    sending: Semaphore,
}

impl Serve {
    pub fn new(carrier: Carrier, sending_max: usize) -> Self {
        Self {
            carrier,
            sending: Semaphore::new(sending_max),
        }
    }

    /// Sends a file of a cache as it is: whoever gets it compares it.
    async fn send_file(&self, responder: Responder, path: PathBuf) -> Result<(), CallError> {
        let _place = self.sending.acquire().await;
        let opened = blocking(|| {
            let file = File::open(path)?;
            let bytes = file.metadata()?.len();
            Ok((file, bytes))
        });
        let Ok((file, bytes)) = opened.await else {
            return responder.reply(MISSING, Bytes::new());
        };
        let (mut file, mut left) = (Some(file), bytes);
        let mut sender = responder.stream(Status::OK)?;
        sender
            .send(Bytes::copy_from_slice(&bytes.to_le_bytes()))
            .await?;
        while left > 0
            && let Some(mut reading) = file.take()
        {
            let length = left.min(PIECE_BYTES as u64) as usize;
            let read = blocking(move || {
                let mut piece = BytesMut::zeroed(length);
                reading.read_exact(&mut piece)?;
                Ok((reading, piece.freeze()))
            });
            // A stream that ends before its length says that something went wrong.
            let Ok((reading, piece)) = read.await else {
                break;
            };
            (file, left) = (Some(reading), left - length as u64);
            sender.send(piece).await?;
        }
        sender.finish()?;
        ::metrics::counter!(metrics::SENT_BYTES_TOTAL).increment(bytes - left);
        Ok(())
    }

    async fn send(&self, responder: Responder, blob: Bytes) -> Result<(), CallError> {
        // Only what is sent takes a place: whoever waits for the bucket keeps nobody from it. The
        // semaphore is never closed.
        let _place = self.sending.acquire().await;
        let length = (blob.len() as u64).to_le_bytes();
        let sent = blob.len() as u64;
        if blob.len() <= TOGETHER_BYTES {
            let mut reply = BytesMut::with_capacity(LENGTH_BYTES + blob.len());
            reply.extend_from_slice(&length);
            reply.extend_from_slice(&blob);
            responder.reply(Status::OK, reply.freeze())?;
        } else {
            let mut sender = responder.stream(Status::OK)?;
            sender.send(Bytes::copy_from_slice(&length)).await?;
            let mut rest = blob;
            while !rest.is_empty() {
                let piece = rest.split_to(rest.len().min(PIECE_BYTES));
                sender.send(piece).await?;
            }
            sender.finish()?;
        }
        ::metrics::counter!(metrics::SENT_BYTES_TOTAL).increment(sent);
        Ok(())
    }

    async fn give_part(&self, call: Incoming) {
        let request = call.body.collect(REQUEST_BYTES_MAX).await;
        let span = request.ok().and_then(|bytes| Span::read(&bytes));
        // Who asks may have gone, and then nobody is to be told.
        let _ = match span {
            Some(span) => part::send(call.responder, self.carrier.0.part(span).await).await,
            None => call.responder.reply(NO_SERVICE, "there is no such part"),
        };
    }
}

/// Runs what reads files where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await?
}

#[async_trait]
impl Handler for Serve {
    async fn handle(&self, call: Incoming) {
        if call.method == part::METHOD {
            return self.give_part(call).await;
        }
        let known = [Ask::Held, Ask::Bring];
        let ask = known.into_iter().find(|ask| ask.method() == call.method);
        let request = call.body.collect(REQUEST_BYTES_MAX).await;
        let name = request.ok().and_then(|bytes| Name::read(&bytes));
        let (Some(ask), Some(name)) = (ask, name) else {
            // Here and below: who asks may have gone, and then nobody is to be told.
            let _ = call
                .responder
                .reply(NO_SERVICE, "there is no such blob or method");
            return;
        };
        if ask == Ask::Held
            && let Some(path) = self.carrier.0.image_path(&name.digest)
        {
            let _ = self.send_file(call.responder, path).await;
            return;
        }
        let found = match ask {
            Ask::Held => Ok(self.carrier.0.held(name).await),
            Ask::Bring => self.carrier.brought(name).await,
        };
        let _ = match found {
            Ok(Some(blob)) => self.send(call.responder, blob).await,
            Ok(None) => call.responder.reply(MISSING, Bytes::new()),
            Err(error) => {
                tracing::warn!(%error, digest = %name.digest, "a blob cannot be brought");
                call.responder.reply(FAILED, Bytes::new())
            }
        };
    }
}
