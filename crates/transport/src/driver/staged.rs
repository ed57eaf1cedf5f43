//! Frames on their way to the socket.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use crate::frame::Encoded;

/// Frames that are written at once; each has up to two parts.
const FRAMES_MAX: usize = 32;

#[derive(Default)]
pub(super) struct Staged {
    frames: VecDeque<Encoded>,
    bytes: usize,
    /// Bytes of the first frame that are written.
    written: usize,
}

impl Staged {
    /// Whether there are fewer bytes here than that.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.bytes < bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(super) fn push(&mut self, frame: Encoded) {
        self.bytes += frame.bytes();
        self.frames.push_back(frame);
    }

    /// Writes what the socket takes in one go.
    pub(super) fn poll_write<W: AsyncWrite>(
        &mut self,
        wire: Pin<&mut W>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); 2 * FRAMES_MAX];
        let mut count = 0;
        let mut skip = self.written;
        for frame in self.frames.iter().take(FRAMES_MAX) {
            for part in [frame.head(), &frame.payload] {
                let skipped = skip.min(part.len());
                skip -= skipped;
                if skipped < part.len() {
                    slices[count] = IoSlice::new(&part[skipped..]);
                    count += 1;
                }
            }
        }
        let written = ready!(wire.poll_write_vectored(cx, &slices[..count]))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(written);
        Poll::Ready(Ok(written))
    }

    fn advance(&mut self, written: usize) {
        self.written += written;
        while let Some(first) = self.frames.front() {
            let bytes = first.bytes();
            if self.written < bytes {
                return;
            }
            self.written -= bytes;
            self.bytes -= bytes;
            self.frames.pop_front();
        }
    }
}
