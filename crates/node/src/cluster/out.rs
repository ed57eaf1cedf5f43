//! Sends pieces: small ones go together, large ones without a copy.

use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use http_body_util::BodyExt as _;
use sandbox::{Body, BodyError};
use transport::{CallError, Leaving, Responder, Sender};

use super::wire::{self, ACCEPTED};

/// Bytes that are gathered before they are sent: less than one frame of the transport takes.
pub(super) const TOGETHER_BYTES: usize = 32 << 10;

/// Where pieces go.
pub(super) struct Out {
    to: To,
    pub pending: BytesMut,
}

enum To {
    /// A reply that has not begun: one that is small goes in one frame.
    Reply(Responder),
    Begun(Sender),
    /// Taken out for a moment, or ended.
    Nowhere,
}

/// Why a body was not sent to its end.
pub(super) enum Cut {
    /// Whoever makes it failed.
    Body(BodyError),
    /// Nobody takes it any more.
    Call(CallError),
}

impl Out {
    /// The reply to a call that was not accepted yet: the first bytes say that it is.
    pub fn reply(responder: Responder) -> Self {
        Self {
            to: To::Reply(responder),
            pending: BytesMut::new(),
        }
    }

    /// A body that has begun.
    pub fn begun(sender: Sender) -> Self {
        Self {
            to: To::Begun(sender),
            pending: BytesMut::new(),
        }
    }

    /// Says at once that the call is accepted.
    pub fn accept(&mut self) -> Result<(), CallError> {
        self.to = match std::mem::replace(&mut self.to, To::Nowhere) {
            To::Reply(responder) => To::Begun(responder.stream(ACCEPTED)?),
            to => to,
        };
        Ok(())
    }

    /// Whether it was said that the call is accepted.
    pub fn is_begun(&self) -> bool {
        !matches!(self.to, To::Reply(_))
    }

    /// Gives the responder back, if nothing was said yet.
    pub fn into_responder(self) -> Option<Responder> {
        match self.to {
            To::Reply(responder) => Some(responder),
            _ => None,
        }
    }

    /// Sends what was gathered.
    pub async fn flush(&mut self) -> Result<(), CallError> {
        let pending = self.pending.split().freeze();
        self.send(pending).await
    }

    async fn send(&mut self, bytes: Bytes) -> Result<(), CallError> {
        self.accept()?;
        match &mut self.to {
            To::Begun(sender) if !bytes.is_empty() => sender.send(bytes).await,
            To::Begun(_) => Ok(()),
            _ => Err(CallError::Over),
        }
    }

    /// Bytes of the body.
    pub async fn data(&mut self, bytes: Bytes) -> Result<(), CallError> {
        if self.pending.len() + bytes.len() <= TOGETHER_BYTES {
            wire::put_data(&bytes, &mut self.pending);
            return Ok(());
        }
        wire::put_data_length(bytes.len(), &mut self.pending);
        self.flush().await?;
        self.send(bytes).await
    }

    /// All of a body that comes as it comes.
    pub async fn body(&mut self, mut body: Body) -> Result<(), Cut> {
        loop {
            let now = body.frame().now_or_never();
            let frame = match now {
                Some(frame) => frame,
                None => {
                    // What is there goes out before a wait.
                    self.flush().await.map_err(Cut::Call)?;
                    body.frame().await
                }
            };
            match frame {
                None => return Ok(()),
                Some(Err(error)) => return Err(Cut::Body(error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.data(data).await.map_err(Cut::Call)?,
                    Err(frame) => {
                        if let Some(trailers) = frame.trailers_ref() {
                            wire::put_trailers(trailers, &mut self.pending);
                        }
                    }
                },
            }
        }
    }

    /// Sends the rest, and that it was all.
    pub async fn finish(self) -> Result<(), CallError> {
        self.finish_tracked().await.map(drop)
    }

    /// The same; gives a reply that is small on its way.
    pub async fn finish_tracked(mut self) -> Result<Option<Leaving>, CallError> {
        if let To::Reply(responder) = self.to {
            if self.pending.len() <= TOGETHER_BYTES {
                let leaving = responder.reply_tracked(ACCEPTED, self.pending.freeze());
                return leaving.map(Some);
            }
            self.to = To::Reply(responder);
        }
        self.flush().await?;
        match self.to {
            To::Begun(sender) => sender.finish().map(|()| None),
            _ => Err(CallError::Over),
        }
    }
}
