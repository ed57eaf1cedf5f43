//! Those messages of etcd's API version 3 that the store uses, with just the fields that it uses.
//!
//! Tags are those of `etcdserverpb/rpc.proto` and `mvccpb/kv.proto`. They are written down here,
//! and not generated, because generators need a `protoc` on each machine that builds.

use bytes::Bytes;
use prost::{Message, Oneof};

pub const RANGE: &str = "/etcdserverpb.KV/Range";
pub const TXN: &str = "/etcdserverpb.KV/Txn";
pub const WATCH: &str = "/etcdserverpb.Watch/Watch";
pub const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
pub const LEASE_REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
pub const LEASE_KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
pub const LEASE_TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";
pub const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";

/// What comes with every answer.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Header {
    #[prost(int64, tag = "3")]
    pub revision: i64,
}

/// A key with its value.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    #[prost(bytes = "bytes", tag = "5")]
    pub value: Bytes,
}

/// Keys from the last to the first, in [`RangeRequest::sort_order`].
pub const DESCENDING: i32 = 2;

#[derive(Clone, PartialEq, Message)]
pub struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Empty: the one key.
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
    /// 0: all.
    #[prost(int64, tag = "3")]
    pub limit: i64,
    /// 0: the present.
    #[prost(int64, tag = "4")]
    pub revision: i64,
    #[prost(int32, tag = "5")]
    pub sort_order: i32,
    #[prost(bool, tag = "9")]
    pub count_only: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct RangeResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
    #[prost(bool, tag = "3")]
    pub more: bool,
    #[prost(int64, tag = "4")]
    pub count: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    /// 0: none.
    #[prost(int64, tag = "3")]
    pub lease: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct DeleteRangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub struct RequestOp {
    #[prost(oneof = "Request", tags = "1, 2, 3")]
    pub request: Option<Request>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Request {
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    #[prost(message, tag = "2")]
    Put(PutRequest),
    #[prost(message, tag = "3")]
    Delete(DeleteRangeRequest),
}

/// [`Compare::result`]: the key has what the compare says.
pub const EQUAL: i32 = 0;
/// [`Compare::result`]: the key has less than the compare says.
pub const LESS: i32 = 2;
/// [`Compare::target`]: the revision that made the key; 0 for a key that is not there.
pub const CREATE: i32 = 1;
/// [`Compare::target`]: the revision of the key's last change.
pub const MOD: i32 = 2;
/// [`Compare::target`]: the key's value.
pub const VALUE: i32 = 3;

#[derive(Clone, PartialEq, Message)]
pub struct Compare {
    #[prost(int32, tag = "1")]
    pub result: i32,
    #[prost(int32, tag = "2")]
    pub target: i32,
    #[prost(bytes = "bytes", tag = "3")]
    pub key: Bytes,
    #[prost(oneof = "Target", tags = "5, 6, 7")]
    pub with: Option<Target>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Target {
    #[prost(int64, tag = "5")]
    CreateRevision(i64),
    #[prost(int64, tag = "6")]
    ModRevision(i64),
    #[prost(bytes = "bytes", tag = "7")]
    Value(Bytes),
}

#[derive(Clone, PartialEq, Message)]
pub struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<RequestOp>,
    #[prost(message, repeated, tag = "3")]
    pub failure: Vec<RequestOp>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TxnResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    #[prost(bool, tag = "2")]
    pub succeeded: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    pub create: Option<WatchCreate>,
}

#[derive(Clone, PartialEq, Message)]
pub struct WatchCreate {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
    #[prost(int64, tag = "3")]
    pub start_revision: i64,
    #[prost(bool, tag = "4")]
    pub progress_notify: bool,
    /// Large answers come in parts.
    #[prost(bool, tag = "8")]
    pub fragment: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct WatchResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    #[prost(bool, tag = "3")]
    pub created: bool,
    #[prost(bool, tag = "4")]
    pub canceled: bool,
    #[prost(int64, tag = "5")]
    pub compact_revision: i64,
    #[prost(string, tag = "6")]
    pub cancel_reason: String,
    /// More parts of this answer follow.
    #[prost(bool, tag = "7")]
    pub fragment: bool,
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Event>,
}

/// [`Event::kind`]: the key was deleted, or its lease ended.
pub const DELETED: i32 = 1;

#[derive(Clone, PartialEq, Message)]
pub struct Event {
    #[prost(int32, tag = "1")]
    pub kind: i32,
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct LeaseGrantRequest {
    #[prost(int64, tag = "1")]
    pub ttl_secs: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct LeaseGrantResponse {
    #[prost(int64, tag = "2")]
    pub id: i64,
    #[prost(string, tag = "4")]
    pub error: String,
}

/// Of `LeaseRevoke`, `LeaseKeepAlive` and `LeaseTimeToLive`, whose requests begin alike.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct LeaseRequest {
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// Of the same three.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct LeaseResponse {
    /// 0 or less: there is no such lease. A revoke says nothing here.
    #[prost(int64, tag = "3")]
    pub ttl_secs: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct AuthenticateRequest {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub password: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct AuthenticateResponse {
    #[prost(string, tag = "2")]
    pub token: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number a second time: as bytes, made by hand from etcd's definitions.
    #[test]
    fn messages_have_etcds_numbers() {
        let put = Request::Put(PutRequest {
            key: "k".into(),
            value: "v".into(),
            lease: 7,
        });
        let delete = Request::Delete(DeleteRangeRequest { key: "d".into() });
        let compare = |result, target, with| Compare {
            result,
            target,
            key: "k".into(),
            with: Some(with),
        };
        let txn = TxnRequest {
            compare: vec![
                compare(EQUAL, CREATE, Target::CreateRevision(0)),
                compare(LESS, MOD, Target::ModRevision(9)),
                compare(EQUAL, VALUE, Target::Value("v".into())),
            ],
            success: [put, delete].map(|r| RequestOp { request: Some(r) }).into(),
            failure: Vec::new(),
        };
        let expected = [
            &b"\x0a\x07\x10\x01\x1a\x01k\x28\x00"[..],
            b"\x0a\x09\x08\x02\x10\x02\x1a\x01k\x30\x09",
            b"\x0a\x08\x10\x03\x1a\x01k\x3a\x01v",
            b"\x12\x0a\x12\x08\x0a\x01k\x12\x01v\x18\x07",
            b"\x12\x05\x1a\x03\x0a\x01d",
        ];
        assert_eq!(txn.encode_to_vec(), expected.concat());
        let range = RangeRequest {
            key: "a".into(),
            range_end: "b".into(),
            limit: 3,
            revision: 4,
            sort_order: DESCENDING,
            count_only: true,
        };
        let expected = b"\x0a\x01a\x12\x01b\x18\x03\x20\x04\x28\x02\x48\x01";
        assert_eq!(range.encode_to_vec(), expected);
        let create = WatchCreate {
            key: "a".into(),
            range_end: "b".into(),
            start_revision: 5,
            progress_notify: true,
            fragment: true,
        };
        let create = WatchRequest {
            create: Some(create),
        };
        let expected = b"\x0a\x0c\x0a\x01a\x12\x01b\x18\x05\x20\x01\x40\x01";
        assert_eq!(create.encode_to_vec(), expected);
    }

    #[test]
    fn what_etcd_answers_is_read() {
        let kv = b"\x12\x0a\x0a\x01k\x18\x09\x2a\x01v\x30\x03";
        let event = [&b"\x5a\x0e\x08\x01"[..], kv].concat();
        let bytes = [
            &b"\x0a\x02\x18\x09\x20\x01\x28\x08\x32\x01r\x38\x01"[..],
            &event,
        ]
        .concat();
        let read = WatchResponse::decode(&*bytes).expect("it is a message");
        let kv = KeyValue {
            key: "k".into(),
            mod_revision: 9,
            value: "v".into(),
        };
        let expected = WatchResponse {
            header: Some(Header { revision: 9 }),
            created: false,
            canceled: true,
            compact_revision: 8,
            cancel_reason: "r".into(),
            fragment: true,
            events: vec![Event {
                kind: DELETED,
                kv: Some(kv),
            }],
        };
        // The message says "canceled" by its fourth field.
        assert_eq!(read, expected);
    }
}
