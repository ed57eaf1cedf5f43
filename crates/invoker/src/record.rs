//! How an asynchronous invocation is stored.
//!
//! ```text
//!  inv/r/ID               what was accepted; never changes
//!  inv/s/ID               where it is; every change compares the last one's revision
//!  inv/q/ID, inv/a/ID     request and reply, unless they are blobs
//!  inv/due/MS/ID          queued, in the order of their due times
//!  inv/run/ID             running
//!  inv/exp/MS/ID          final, in the order of their removal
//!  inv/dead/APP/FN/ID     dead letters
//!  inv/key/APP/FN/SHA     idempotency keys
//!  inv/blob/SHA           which blobs are in use, and by which invocation
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use model::{Digest, FunctionPath, InvocationId, Outcome};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use storage::Txn;

use crate::life::Counts;
use crate::{InvocationState, InvokerError};

/// Prefix of the queue, in the order of due times.
pub const DUE: &str = "inv/due/";
/// Prefix of what runs.
pub const RUN: &str = "inv/run/";
/// Prefix of what is to be removed, in order.
pub const EXPIRY: &str = "inv/exp/";
/// Prefix of all progress, in the order of acceptance.
pub const PROGRESS: &str = "inv/s/";

/// What was accepted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Accepted {
    pub path: FunctionPath,
    pub version: Digest,
    /// What the caller asked for, to be asked for again by a redrive; none means `live`.
    pub select: Option<String>,
    pub accepted_ms: u64,
    pub attempts_max: u32,
    pub request: Place,
    pub idempotency: Option<Digest>,
    pub traceparent: Option<String>,
}

/// Where a request or reply is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// In the store, beside the record.
    Inline,
    /// In this blob.
    Blob(Digest),
}

/// Where an invocation is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Progress {
    pub state: InvocationState,
    /// Counts the changes.
    pub seq: u64,
    pub counts: Counts,
    /// Attempts begun.
    pub starts: u32,
    pub changed_ms: u64,
    /// When the next attempt is due, while it is queued.
    pub due_ms: Option<u64>,
    /// When the record is removed, once it is final.
    pub expires_ms: Option<u64>,
    /// Of the last attempt that ended.
    pub outcome: Option<Outcome>,
    /// Why it cannot be run, or what else went wrong outside of the guest.
    pub error: Option<String>,
    pub reply: Option<Place>,
    pub redriven_as: Option<InvocationId>,
}

impl Progress {
    pub fn new(now_ms: u64) -> Self {
        Self {
            state: InvocationState::Queued,
            seq: 0,
            counts: Counts::default(),
            starts: 0,
            changed_ms: now_ms,
            due_ms: Some(now_ms),
            expires_ms: None,
            outcome: None,
            error: None,
            reply: None,
            redriven_as: None,
        }
    }

    /// The same, changed to `state`, on no index.
    pub fn changed(&self, state: InvocationState, now_ms: u64) -> Self {
        let mut next = self.clone();
        (next.state, next.seq, next.changed_ms) = (state, self.seq + 1, now_ms);
        (next.due_ms, next.expires_ms) = (None, None);
        next
    }

    /// Puts it, and the index entry of its state.
    pub fn put(&self, txn: Txn, id: InvocationId) -> Result<Txn, InvokerError> {
        let txn = txn.put(progress_key(id), encode(self)?);
        Ok(match self.index_key(id) {
            Some(key) => txn.put(key, Bytes::new()),
            None => txn,
        })
    }

    /// Takes it off the index of its state.
    pub fn leave(&self, txn: Txn, id: InvocationId) -> Txn {
        match self.index_key(id) {
            Some(key) => txn.delete(key),
            None => txn,
        }
    }

    fn index_key(&self, id: InvocationId) -> Option<String> {
        match (self.state, self.due_ms, self.expires_ms) {
            (InvocationState::Queued, Some(due_ms), _) => Some(due_key(due_ms, id)),
            (InvocationState::Running, ..) => Some(format!("{RUN}{id}")),
            (_, _, Some(expires_ms)) => Some(format!("{EXPIRY}{expires_ms:016x}/{id}")),
            _ => None,
        }
    }
}

/// Who has an idempotency key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyHolder {
    pub id: InvocationId,
    /// Digest of the request that it was given with.
    pub request: Digest,
}

pub fn accepted_key(id: InvocationId) -> String {
    format!("inv/r/{id}")
}

pub fn progress_key(id: InvocationId) -> String {
    format!("{PROGRESS}{id}")
}

pub fn request_key(id: InvocationId) -> String {
    format!("inv/q/{id}")
}

pub fn reply_key(id: InvocationId) -> String {
    format!("inv/a/{id}")
}

pub fn due_key(due_ms: u64, id: InvocationId) -> String {
    format!("{DUE}{due_ms:016x}/{id}")
}

/// The first key of an index by time that is past `ms`.
pub fn past(prefix: &str, ms: u64) -> String {
    format!("{prefix}{:016x}", ms.saturating_add(1))
}

pub fn dead_prefix(path: &FunctionPath) -> String {
    format!("inv/dead/{path}/")
}

pub fn dead_key(path: &FunctionPath, id: InvocationId) -> String {
    format!("{}{id}", dead_prefix(path))
}

pub fn idempotency_key(path: &FunctionPath, key: &Digest) -> String {
    format!("inv/key/{path}/{}", key.hex())
}

pub fn blob_key(blob: &Digest) -> String {
    format!("inv/blob/{}", blob.hex())
}

/// The id at the end of an index key.
pub fn id_of(key: &[u8]) -> Result<InvocationId, InvokerError> {
    let text = String::from_utf8_lossy(key);
    let id = text.rsplit('/').next().unwrap_or_default();
    id.parse()
        .map_err(|error| InvokerError::damaged(text.clone(), error))
}

/// The time and the id of a key of an index by time.
pub fn time_and_id(prefix: &str, key: &[u8]) -> Result<(u64, InvocationId), InvokerError> {
    let text = String::from_utf8_lossy(key);
    let time = text.strip_prefix(prefix).and_then(|rest| rest.get(..16));
    let time = time.and_then(|time| u64::from_str_radix(time, 16).ok());
    let time = time.ok_or_else(|| InvokerError::damaged(text.clone(), "no time in it"))?;
    Ok((time, id_of(key)?))
}

pub fn encode(value: &impl Serialize) -> Result<Vec<u8>, InvokerError> {
    serde_json::to_vec(value).map_err(|error| InvokerError::damaged("a new record", error))
}

pub fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, InvokerError> {
    serde_json::from_slice(bytes).map_err(|error| InvokerError::damaged(key, error))
}

/// Whose blob it is, and which of the two. It is part of the blob's bytes, so that no two
/// invocations share a blob and each can delete its own.
#[derive(Clone, Copy, Debug)]
pub struct Owner(pub InvocationId, pub Part);

/// Which payload of an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Request,
    Reply,
}

impl Owner {
    /// The store's key of this payload when it is inline.
    pub fn key(self) -> String {
        match self.1 {
            Part::Request => request_key(self.0),
            Part::Reply => reply_key(self.0),
        }
    }

    fn tag(self) -> String {
        let part = if self.1 == Part::Request { 'q' } else { 'a' };
        format!("{part}{}", self.0)
    }
}

/// Owner, length of the head, head, body.
pub fn pack(owner: Owner, head: &impl Serialize, body: &Bytes) -> Result<Bytes, InvokerError> {
    let (tag, head) = (owner.tag(), encode(head)?);
    let mut bytes = BytesMut::with_capacity(tag.len() + 4 + head.len() + body.len());
    bytes.put_slice(tag.as_bytes());
    let length = u32::try_from(head.len());
    bytes.put_u32_le(length.map_err(|error| InvokerError::damaged("a head", error))?);
    bytes.put_slice(&head);
    bytes.put_slice(body);
    Ok(bytes.freeze())
}

pub fn unpack<H: DeserializeOwned>(
    owner: Owner,
    mut bytes: Bytes,
) -> Result<(H, Bytes), InvokerError> {
    let (key, tag) = (owner.key(), owner.tag());
    let cut = || InvokerError::damaged(&key, "it is cut short or of another invocation");
    if !bytes.starts_with(tag.as_bytes()) || bytes.len() < tag.len() + 4 {
        return Err(cut());
    }
    let mut length = [0; 4];
    length.copy_from_slice(&bytes[tag.len()..tag.len() + 4]);
    let mut rest = bytes.split_off(tag.len() + 4);
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > rest.len() {
        return Err(cut());
    }
    let body = rest.split_off(length);
    Ok((decode(&key, &rest)?, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Request, RequestHead};

    #[test]
    fn a_payload_reads_back_and_belongs_to_one_invocation() {
        let owner = Owner(InvocationId::new(1), Part::Request);
        let request = Request::plain("body");
        let packed = pack(owner, &request.head, &request.body).unwrap();
        let (head, body) = unpack::<RequestHead>(owner, packed.clone()).unwrap();
        assert_eq!(Request { head, body }, request);
        let other = Owner(InvocationId::new(1), Part::Request);
        assert!(unpack::<RequestHead>(other, packed.clone()).is_err());
        for end in 0..packed.len() - request.body.len() {
            assert!(
                unpack::<RequestHead>(owner, packed.slice(..end)).is_err(),
                "{end}"
            );
        }
    }

    #[test]
    fn index_keys_sort_by_time_and_read_back() {
        let id = InvocationId::new(7);
        assert!(due_key(9, id) < due_key(10, id) && due_key(10, id) < past(DUE, 10));
        assert!(past(DUE, 9) <= due_key(10, id));
        assert_eq!(
            time_and_id(DUE, due_key(10, id).as_bytes()).unwrap(),
            (10, id)
        );
        assert!(time_and_id(DUE, b"inv/due/x").is_err());
    }

    /// The records' spelling is a disk format: what an older node wrote must still be read.
    #[test]
    fn the_spelling_of_a_record_is_pinned() {
        let golden = r#"{"state":"queued","seq":0,"counts":{"failures":0,"interruptions":0,"refusals":0},"starts":0,"changed_ms":5,"due_ms":5,"expires_ms":null,"outcome":null,"error":null,"reply":null,"redriven_as":null}"#;
        assert_eq!(
            String::from_utf8(encode(&Progress::new(5)).unwrap()).unwrap(),
            golden
        );
        let accepted = r#"{"path":{"app":"a","function":"f"},"version":"sha256:0000000000000000000000000000000000000000000000000000000000000000","select":null,"accepted_ms":1,"attempts_max":3,"request":"inline","idempotency":null,"traceparent":null}"#;
        let read: Accepted = decode("golden", accepted.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(encode(&read).unwrap()).unwrap(), accepted);
    }
}
