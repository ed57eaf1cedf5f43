//! Values on their way in. A value is set as a whole, so all of it is held until it is there; what
//! all values hold together is bounded.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use api::Code;
use bytes::Bytes;
use hyper::body::Body as HttpBody;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ListenerConfig;
use crate::body::{next_frame, too_large, too_slow};
use crate::failure::Failure;

/// Room is given away in pieces of so many bytes.
const UNIT_BYTES: u64 = 64 << 10;
/// Least room of a value whose length was not announced.
const ROOM_BYTES_MIN: u64 = UNIT_BYTES;
/// When those who found no room are told to come back.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The room that all values have that are being sent.
#[derive(Clone)]
pub(crate) struct Uploads {
    units: Arc<Semaphore>,
    bytes_max: u64,
}

/// A value that was sent, which takes room until it is dropped.
pub(super) struct Upload {
    bytes: Vec<u8>,
    room: Option<OwnedSemaphorePermit>,
}

impl Uploads {
    pub(crate) fn new(bytes_max: u64) -> Self {
        let units = (bytes_max / UNIT_BYTES).min(u64::from(u32::MAX));
        Self {
            units: Arc::new(Semaphore::new(units as usize)),
            bytes_max,
        }
    }

    /// Collects a value of at most `bytes_max` bytes. One that announces more is not read at all,
    /// and one for which there is no room neither.
    pub(super) async fn collect<B>(
        &self,
        body: B,
        bytes_max: u64,
        config: &ListenerConfig,
    ) -> Result<Upload, Failure>
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: fmt::Display,
    {
        let whole = self.collect_frames(body, bytes_max, config.body_idle_timeout);
        match tokio::time::timeout(config.body_timeout, whole).await {
            Ok(done) => done,
            Err(_) => Err(too_slow(config.body_timeout)),
        }
    }

    async fn collect_frames<B>(
        &self,
        mut body: B,
        bytes_max: u64,
        idle: Duration,
    ) -> Result<Upload, Failure>
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: fmt::Display,
    {
        let announced = body.size_hint().lower();
        let mut upload = Upload {
            bytes: Vec::new(),
            room: None,
        };
        if announced > bytes_max {
            return Err(too_large(bytes_max));
        }
        self.grow(&mut upload, announced)?;
        while let Some(frame) = next_frame(&mut body, idle).await? {
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let length = (upload.bytes.len() + data.len()) as u64;
            if length > bytes_max {
                return Err(too_large(bytes_max));
            }
            let room = upload.bytes.capacity() as u64;
            if length > room {
                let more = room.saturating_mul(2).max(ROOM_BYTES_MIN).min(bytes_max);
                self.grow(&mut upload, more.max(length))?;
            }
            upload.bytes.extend_from_slice(&data);
        }
        Ok(upload)
    }

    /// Takes room for `bytes` in all.
    fn grow(&self, upload: &mut Upload, bytes: u64) -> Result<(), Failure> {
        let full = || {
            let max = self.bytes_max;
            let detail = format!("values that are being sent hold at most {max} bytes together");
            Failure::new(Code::StateBusy, detail).retry_after(RETRY_AFTER)
        };
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).map_err(|_| full())?;
        let held = upload.room.as_ref().map_or(0, |room| room.num_permits());
        let more = units.saturating_sub(u32::try_from(held).unwrap_or(u32::MAX));
        if more > 0 {
            let more = self.units.clone().try_acquire_many_owned(more);
            let more = more.map_err(|_| full())?;
            match &mut upload.room {
                Some(room) => room.merge(more),
                room => *room = Some(more),
            }
        }
        let more = usize::try_from(bytes).unwrap_or(usize::MAX);
        let more = more.saturating_sub(upload.bytes.len());
        upload.bytes.try_reserve_exact(more).map_err(|_| full())
    }
}

impl Upload {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;
    use sandbox::BodyError;

    const UNIT: usize = UNIT_BYTES as usize;

    fn frames(lengths: &[usize]) -> impl HttpBody<Data = Bytes, Error = BodyError> + Unpin {
        let frames = lengths.iter().map(|n| Ok(Frame::data(vec![7; *n].into())));
        StreamBody::new(stream::iter(frames.collect::<Vec<_>>()))
    }

    async fn code(uploads: &Uploads, lengths: &[usize], max: usize) -> Result<Upload, Code> {
        let config = ListenerConfig::default();
        let collected = uploads.collect(frames(lengths), max as u64, &config);
        collected.await.map_err(|failure| failure.problem.code)
    }

    #[tokio::test]
    async fn frames_are_put_together_and_room_is_given_back() {
        let uploads = Uploads::new(4 * UNIT_BYTES);
        for lengths in [&[][..], &[1], &[UNIT, 1], &[UNIT, UNIT, UNIT, UNIT]] {
            let upload = code(&uploads, lengths, 4 * UNIT).await.expect("collected");
            assert_eq!(upload.bytes().len(), lengths.iter().sum::<usize>());
            drop(upload);
            assert_eq!(uploads.units.available_permits(), 4);
        }
    }

    #[tokio::test]
    async fn what_is_too_large_or_finds_no_room_is_refused() {
        let uploads = Uploads::new(2 * UNIT_BYTES);
        let large = code(&uploads, &[3, 3], 5).await;
        assert_eq!(large.err(), Some(Code::BodyTooLarge));
        let held = code(&uploads, &[UNIT], 4 * UNIT).await.expect("collected");
        let full = code(&uploads, &[UNIT, 1], 4 * UNIT).await;
        assert_eq!(full.err(), Some(Code::StateBusy));
        drop(held);
        assert!(code(&uploads, &[UNIT, 1], 4 * UNIT).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_announced_is_refused_before_it_is_read() {
        let uploads = Uploads::new(UNIT_BYTES);
        let config = ListenerConfig::default();
        let body = || Full::new(Bytes::from(vec![0; UNIT + 1]));
        for (max, expected) in [(UNIT, Code::BodyTooLarge), (2 * UNIT, Code::StateBusy)] {
            let refused = uploads.collect(body(), max as u64, &config).await;
            let refused = refused.err().expect("refused");
            assert_eq!(refused.problem.code, expected);
        }
    }
}
