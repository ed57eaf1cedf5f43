//! How an asynchronous invocation is stored.
//!
//! ```text
//!  inv/r/ID               what was accepted; never changes
//!  inv/s/ID               where it is; every change compares the last one's revision
//!  inv/q/ID, inv/a/ID     request and reply, unless they are blobs
//!  QUEUE/due/MS/ID        queued, in the order of their due times
//!  QUEUE/run/ID           running
//!  QUEUE/blob/SHA         a blob that was placed, or is about to be, and is not yet named
//!  inv/exp/MS/ID          final, in the order of their removal
//!  inv/dead/APP/FN/ID     dead letters
//!  inv/key/APP/FN/SHA     idempotency keys
//!  inv/blob/SHA           which blobs are in use, and by which invocation
//! ```
//!
//! Each tenure has a queue of its own, `inv/own/NODE/TOKEN`, so that nodes never contend for one.
//! Its keys change only while the tenure lasts, or by those who take over what it left. The queue
//! of a node alone is `inv`; it keeps no note of blobs, since nobody else's are among its own.

use bytes::{BufMut, Bytes, BytesMut};
use model::{Digest, FunctionPath, InvocationId, Outcome};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use storage::Txn;

use crate::life::Counts;
use crate::{InvocationState, InvokerError, Tenure};

/// Prefix of the queues of tenures.
pub const QUEUES: &str = "inv/own/";
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
    /// In whose queue it is, or was last.
    #[serde(default, skip_serializing_if = "Queue::is_alone")]
    pub owner: Queue,
}

/// The part of the index that belongs to one tenure; none: to a node alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Queue(Option<Tenure>);

impl Queue {
    pub fn of(tenure: &Tenure) -> Self {
        Self(Some(tenure).filter(|tenure| !tenure.is_alone()).cloned())
    }

    pub fn tenure(&self) -> Option<&Tenure> {
        self.0.as_ref()
    }

    pub fn is_alone(&self) -> bool {
        self.0.is_none()
    }

    /// What its keys begin with.
    pub fn root(&self) -> String {
        match &self.0 {
            Some(Tenure { node, token }) => format!("{QUEUES}{node}/{token:016x}/"),
            None => "inv/".to_owned(),
        }
    }

    /// Prefix of what is queued, in the order of due times.
    pub fn due(&self) -> String {
        format!("{}due/", self.root())
    }

    /// Prefix of what runs.
    pub fn run(&self) -> String {
        format!("{}run/", self.root())
    }

    /// Prefix of the blobs that no record names yet.
    pub fn unnamed(&self) -> Option<String> {
        (!self.is_alone()).then(|| format!("{}blob/", self.root()))
    }

    /// The queue that a key below [`QUEUES`] is in.
    pub fn of_key(key: &[u8]) -> Option<Self> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(QUEUES)?;
        let (node, rest) = rest.split_once('/')?;
        let (token, _) = rest.split_once('/')?;
        let token = u64::from_str_radix(token, 16).ok()?;
        let node = node.parse().ok()?;
        Some(Self(Some(Tenure { node, token })))
    }

    /// The first key after all of its own.
    pub fn end(&self) -> String {
        let mut root = self.root();
        root.pop();
        // What follows the slash in the order of keys.
        root.push('0');
        root
    }
}

impl Progress {
    pub fn new(now_ms: u64, owner: Queue) -> Self {
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
            owner,
        }
    }

    /// The same, changed to `state` by the owner of `queue`, on no index.
    pub fn changed(&self, state: InvocationState, now_ms: u64, queue: &Queue) -> Self {
        let mut next = self.clone();
        (next.state, next.seq, next.changed_ms) = (state, self.seq + 1, now_ms);
        (next.due_ms, next.expires_ms) = (None, None);
        next.owner = queue.clone();
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

    /// Where the index has it.
    pub fn index_key(&self, id: InvocationId) -> Option<String> {
        match (self.state, self.due_ms, self.expires_ms) {
            (InvocationState::Queued, Some(due_ms), _) => Some(due_key(&self.owner, due_ms, id)),
            (InvocationState::Running, ..) => Some(format!("{}{id}", self.owner.run())),
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

pub fn due_key(queue: &Queue, due_ms: u64, id: InvocationId) -> String {
    format!("{}{due_ms:016x}/{id}", queue.due())
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

/// The blob at the end of a key.
pub fn blob_of(key: &[u8]) -> Result<Digest, InvokerError> {
    let text = String::from_utf8_lossy(key);
    let hex = text.rsplit('/').next().unwrap_or_default();
    let blob = format!("sha256:{hex}").parse();
    blob.map_err(|_| InvokerError::damaged(text.clone(), "no digest in it"))
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

/// Whose payload it is, and which of the two. It is part of the bytes, so that no two invocations
/// share a blob and each can delete its own.
#[derive(Clone, Copy, Debug)]
pub struct Payload(pub InvocationId, pub Part);

/// Which payload of an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Request,
    Reply,
}

/// Hexadecimal digits of a token in a payload.
const TOKEN_DIGITS: usize = 16;

impl Payload {
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

    /// What the bytes begin with: in a tenure its token too, so that what another tenure places
    /// for the same invocation is another blob, and removing the one never removes the other.
    fn mark(self, queue: &Queue) -> String {
        match queue.tenure() {
            Some(tenure) => format!("{}{:016x}", self.tag().to_ascii_uppercase(), tenure.token),
            None => self.tag(),
        }
    }

    /// How long the mark at the beginning of `bytes` is; none when it is not of this payload.
    fn mark_bytes(self, bytes: &[u8]) -> Option<usize> {
        let tag = self.tag();
        if bytes.starts_with(tag.as_bytes()) {
            return Some(tag.len());
        }
        let is_marked = bytes.starts_with(tag.to_ascii_uppercase().as_bytes());
        is_marked.then_some(tag.len() + TOKEN_DIGITS)
    }
}

/// Mark, length of the head, head, body.
pub fn pack(
    payload: Payload,
    queue: &Queue,
    head: &impl Serialize,
    body: &Bytes,
) -> Result<Bytes, InvokerError> {
    let (mark, head) = (payload.mark(queue), encode(head)?);
    let mut bytes = BytesMut::with_capacity(mark.len() + 4 + head.len() + body.len());
    bytes.put_slice(mark.as_bytes());
    let length = u32::try_from(head.len());
    bytes.put_u32_le(length.map_err(|error| InvokerError::damaged("a head", error))?);
    bytes.put_slice(&head);
    bytes.put_slice(body);
    Ok(bytes.freeze())
}

pub fn unpack<H: DeserializeOwned>(
    payload: Payload,
    mut bytes: Bytes,
) -> Result<(H, Bytes), InvokerError> {
    let key = payload.key();
    let cut = || InvokerError::damaged(&key, "it is cut short or of another invocation");
    let start = payload.mark_bytes(&bytes).ok_or_else(cut)?;
    if bytes.len() < start + 4 {
        return Err(cut());
    }
    let mut length = [0; 4];
    length.copy_from_slice(&bytes[start..start + 4]);
    let mut rest = bytes.split_off(start + 4);
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
    use crate::{ReplyHead, Request, RequestHead};

    fn queue(token: u64) -> Queue {
        let node = "n1".parse().unwrap();
        Queue::of(&Tenure { node, token })
    }

    #[test]
    fn a_payload_reads_back_and_belongs_to_one_invocation() {
        let payload = Payload(InvocationId::new(1), Part::Request);
        let request = Request::plain("body");
        for queue in [queue(0), queue(7)] {
            let packed = pack(payload, &queue, &request.head, &request.body).unwrap();
            let (head, body) = unpack::<RequestHead>(payload, packed.clone()).unwrap();
            assert_eq!(Request { head, body }, request);
            let other = Payload(InvocationId::new(1), Part::Request);
            assert!(unpack::<RequestHead>(other, packed.clone()).is_err());
            for end in 0..packed.len() - request.body.len() {
                let cut = unpack::<RequestHead>(payload, packed.slice(..end));
                assert!(cut.is_err(), "{end}");
            }
        }
    }

    #[test]
    fn what_two_tenures_place_is_not_the_same_and_a_node_alone_spells_as_ever() {
        let payload = Payload(InvocationId::new(1), Part::Reply);
        let packed = |token| pack(payload, &queue(token), &ReplyHead::Plain, &"x".into()).unwrap();
        assert_ne!(packed(1), packed(2));
        let golden = format!("a{}\x10\0\0\0{{\"kind\":\"plain\"}}x", payload.0);
        assert_eq!(packed(0), golden);
    }

    #[test]
    fn index_keys_sort_by_time_and_read_back() {
        let id = InvocationId::new(7);
        for queue in [queue(0), queue(7)] {
            let (due, key) = (queue.due(), |ms| due_key(&queue, ms, id));
            assert!(key(9) < key(10) && key(10) < past(&due, 10));
            assert!(past(&due, 9) <= key(10));
            assert_eq!(time_and_id(&due, key(10).as_bytes()).unwrap(), (10, id));
            assert!(time_and_id(&due, format!("{due}x").as_bytes()).is_err());
        }
    }

    #[test]
    fn a_queue_is_known_by_its_keys_and_ends_after_them() {
        let (one, next) = (queue(7), queue(8));
        let key = due_key(&one, u64::MAX, InvocationId::new(u64::MAX >> 16));
        assert_eq!(Queue::of_key(key.as_bytes()), Some(one.clone()));
        assert!(key < one.end() && one.end() < next.root());
        assert_eq!(one.run(), "inv/own/n1/0000000000000007/run/");
        let alone = queue(0);
        assert_eq!(
            (alone.due(), alone.run()),
            ("inv/due/".into(), "inv/run/".into())
        );
        for key in [
            "inv/own/",
            "inv/own/n1/",
            "inv/own/n1/x/due/",
            "inv/due/1/2",
        ] {
            assert_eq!(Queue::of_key(key.as_bytes()), None, "{key}");
        }
    }

    /// The records' spelling is a disk format: what an older node wrote must still be read.
    #[test]
    fn the_spelling_of_a_record_is_pinned() {
        let golden = r#"{"state":"queued","seq":0,"counts":{"failures":0,"interruptions":0,"refusals":0},"starts":0,"changed_ms":5,"due_ms":5,"expires_ms":null,"outcome":null,"error":null,"reply":null,"redriven_as":null}"#;
        assert_eq!(
            String::from_utf8(encode(&Progress::new(5, queue(0))).unwrap()).unwrap(),
            golden
        );
        let owner = r#""redriven_as":null,"owner":{"node":"n1","token":7}}"#;
        let owned = golden.replace(r#""redriven_as":null}"#, owner);
        assert_eq!(
            String::from_utf8(encode(&Progress::new(5, queue(7))).unwrap()).unwrap(),
            owned
        );
        let read: Progress = decode("golden", golden.as_bytes()).unwrap();
        assert_eq!(read.owner, queue(0));
        let accepted = r#"{"path":{"app":"a","function":"f"},"version":"sha256:0000000000000000000000000000000000000000000000000000000000000000","select":null,"accepted_ms":1,"attempts_max":3,"request":"inline","idempotency":null,"traceparent":null}"#;
        let read: Accepted = decode("golden", accepted.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(encode(&read).unwrap()).unwrap(), accepted);
    }
}
