//! Files as streams.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use files::Errno;
use tokio::sync::oneshot;
use wasmtime::StoreContextMut;
use wasmtime::component::{Destination, Source, StreamConsumer, StreamProducer, StreamResult};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError};
use wasmtime_wasi::p3::bindings::filesystem::types::ErrorCode;

use super::Opened;
use super::convert::p3_code;

/// Bytes that are read or written at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// Where a stream's next bytes go.
#[derive(Clone, Copy)]
pub(super) enum Into {
    Offset(u64),
    End,
}

impl Into {
    /// Writes a part of `data`, and moves on.
    fn write(&mut self, opened: &Opened, data: &[u8]) -> Result<usize, Errno> {
        match self {
            Into::End => opened.append(data),
            Into::Offset(offset) => {
                let count = opened.write(*offset, data)?;
                *offset = offset.saturating_add(count as u64);
                Ok(count)
            }
        }
    }
}

/// A file that is read from an offset on.
pub(super) struct Reader {
    pub opened: Opened,
    pub offset: u64,
}

/// A file that is written to.
pub(super) struct Writer {
    pub opened: Opened,
    pub into: Into,
}

fn failed(errno: Errno) -> StreamError {
    StreamError::LastOperationFailed(errno.into())
}

#[async_trait::async_trait]
impl Pollable for Reader {
    async fn ready(&mut self) {}
}

impl InputStream for Reader {
    fn read(&mut self, size: usize) -> Result<Bytes, StreamError> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        let mut bytes = BytesMut::zeroed(size.min(CHUNK_BYTES));
        match self.opened.read(self.offset, &mut bytes).map_err(failed)? {
            0 => Err(StreamError::Closed),
            count => {
                self.offset = self.offset.saturating_add(count as u64);
                bytes.truncate(count);
                Ok(bytes.freeze())
            }
        }
    }
}

#[async_trait::async_trait]
impl Pollable for Writer {
    async fn ready(&mut self) {}
}

impl OutputStream for Writer {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let count = self.into.write(&self.opened, rest).map_err(failed)?;
            rest = &rest[count..];
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(CHUNK_BYTES)
    }
}

/// How a stream of 0.3 ends, told once.
pub(super) struct Ending(Option<oneshot::Sender<Result<(), ErrorCode>>>);

impl Ending {
    pub fn new() -> (Self, oneshot::Receiver<Result<(), ErrorCode>>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Some(sender)), receiver)
    }

    pub fn tell(&mut self, result: Result<(), Errno>) {
        if let Some(sender) = self.0.take() {
            // Who does not listen does not want to know.
            let _ = sender.send(result.map_err(p3_code));
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.tell(Ok(()));
    }
}

/// [`Reader`] for 0.3.
pub(super) struct Produced {
    pub reader: Reader,
    pub ending: Ending,
}

impl<D> StreamProducer<D> for Produced {
    type Item = u8;
    type Buffer = BytesMut;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        store: StoreContextMut<'a, D>,
        dst: Destination<'a, u8, BytesMut>,
        _: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let mut direct = dst.as_direct(store, CHUNK_BYTES);
        let room = direct.remaining();
        if room.is_empty() {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let Reader { opened, offset } = &mut self.reader;
        let read = opened.read(*offset, room);
        Poll::Ready(Ok(match read {
            Ok(0) => {
                self.ending.tell(Ok(()));
                StreamResult::Dropped
            }
            Ok(count) => {
                *offset = offset.saturating_add(count as u64);
                direct.mark_written(count);
                StreamResult::Completed
            }
            Err(errno) => {
                self.ending.tell(Err(errno));
                StreamResult::Dropped
            }
        }))
    }
}

/// [`Writer`] for 0.3.
pub(super) struct Consumed {
    pub writer: Writer,
    pub ending: Ending,
}

impl<D> StreamConsumer<D> for Consumed {
    type Item = u8;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        store: StoreContextMut<D>,
        src: Source<'_, u8>,
        _: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let mut direct = src.as_direct(store);
        let Writer { opened, into } = &mut self.writer;
        let written = into.write(opened, direct.remaining());
        Poll::Ready(Ok(match written {
            Ok(count) => {
                direct.mark_read(count);
                StreamResult::Completed
            }
            Err(errno) => {
                self.ending.tell(Err(errno));
                StreamResult::Dropped
            }
        }))
    }
}
