//! Requests and replies: what was written reads back, and nothing else is taken for one.

use std::time::Duration;

use bytes::Bytes;
use memory::Out;
use model::Durability;
use proptest::prelude::*;

use super::*;
use crate::global::Head;
use crate::tier::copies::{CopyAsk, CopyOp};
use crate::tier::reply::Reply;
use crate::{ANSWER_HEAD_BYTES, Came, Done, Info, Listed, StateError, WatchItem};

fn whole(request: &Request<'_>) -> Bytes {
    let (head, data) = request.parts();
    [&head[..], data].concat().into()
}

fn answer(reply: Reply) -> Bytes {
    let (head, data) = reply.parts();
    [head, data].concat().into()
}

fn key() -> impl Strategy<Value = crate::Key> {
    "[a-zé/]{1,40}".prop_map(|text| text.parse().unwrap())
}

fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![
        Just(Durability::Ephemeral),
        Just(Durability::Durable),
        Just(Durability::Replicated),
    ]
}

fn ms() -> impl Strategy<Value = Duration> {
    (0..u64::MAX / 1000).prop_map(Duration::from_millis)
}

/// An operation whose data is leaked, as tests may.
fn op() -> impl Strategy<Value = Op<'static>> {
    let data = || {
        let bytes = prop::collection::vec(any::<u8>(), 0..200);
        bytes.prop_map(|bytes| &*bytes.leak())
    };
    let word = any::<u64>;
    let maybe = || prop::option::of(any::<u64>());
    let put = (maybe(), prop::option::of(ms())).prop_map(|(expected, ttl)| Put { expected, ttl });
    let made = prop::option::of(durability());
    prop_oneof![
        Just(Op::Info),
        (word(), word(), word()).prop_map(|(offset, length, version)| Op::Read {
            offset,
            length,
            version
        }),
        (made, put, data()).prop_map(|(create, put, data)| {
            let data = data.into();
            Op::Put { create, put, data }
        }),
        (durability(), word(), data()).prop_map(|(create, offset, data)| Op::Write {
            create,
            offset,
            data
        }),
        (durability(), data()).prop_map(|(create, data)| Op::Append { create, data }),
        (durability(), word(), word()).prop_map(|(create, offset, amount)| Op::Add {
            create,
            offset,
            amount
        }),
        (durability(), word()).prop_map(|(create, size)| Op::Truncate { create, size }),
        maybe().prop_map(|expected| Op::Delete { expected }),
        prop::option::of(ms()).prop_map(|ttl| Op::Expire { ttl }),
        (any::<bool>(), any::<u128>(), ms(), ms()).prop_map(|(alone, owner, wait, hold)| {
            let mode = if alone { Mode::Exclusive } else { Mode::Shared };
            Op::Lock {
                mode,
                owner,
                wait,
                hold,
            }
        }),
        any::<u128>().prop_map(|owner| Op::Unlock { owner }),
        (word(), word()).prop_map(|(offset, length)| Op::Push { offset, length }),
        (word(), word(), prop::collection::vec(any::<u128>(), 0..9)).prop_map(
            |(first, version, hashes)| Op::Compare {
                first,
                hashes,
                version
            }
        ),
        (
            prop::option::of(durability()),
            word(),
            prop::collection::vec((word(), data()), 0..5)
        )
            .prop_map(|(create, size, chunks)| Op::Merge {
                create,
                size,
                chunks
            }),
    ]
}

fn what() -> impl Strategy<Value = What<'static>> {
    let text = || "[a-z]{0,9}".prop_map(|text| &*text.leak());
    let app = || "[a-z]{1,9}".prop_map(|text| text.parse::<model::AppName>().unwrap());
    let list = (text(), prop::option::of(text()), any::<u64>());
    let watch = (text(), any::<u64>(), ms());
    let ask = prop_oneof![
        list.prop_map(|(prefix, after, limit)| Ask::List {
            prefix,
            after,
            limit
        }),
        watch.prop_map(|(prefix, watch, wait)| Ask::Watch {
            prefix,
            watch,
            wait
        }),
    ];
    prop_oneof![
        (any::<u64>(), app(), key(), op()).prop_map(|(claim, app, key, op)| What::Key {
            claim,
            name: Name { app, key },
            op,
        }),
        (app(), ask).prop_map(|(app, ask)| What::App { app, ask }),
        any::<u128>().prop_map(|owner| What::Release { owner }),
        copy().prop_map(What::Copy),
    ]
}

fn name() -> impl Strategy<Value = Name> {
    let app = "[a-z]{1,9}".prop_map(|text| text.parse::<model::AppName>().unwrap());
    (app, key()).prop_map(|(app, key)| Name { app, key })
}

fn head() -> impl Strategy<Value = Head> {
    any::<[u64; 3]>().prop_map(|[version, size, expires_ms]| Head {
        version,
        size,
        expires_ms,
    })
}

fn copy() -> impl Strategy<Value = CopyAsk<'static>> {
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    let chunk = (any::<u64>(), bytes.prop_map(|bytes| &*bytes.leak()));
    let chunks = prop::collection::vec(chunk, 0..4);
    let op = prop_oneof![
        Just(CopyOp::Reset),
        Just(CopyOp::Fence),
        (name(), head(), chunks).prop_map(|(name, head, chunks)| CopyOp::Push {
            name,
            head,
            chunks
        }),
        name().prop_map(|name| CopyOp::Remove { name }),
        prop::option::of(name()).prop_map(|after| CopyOp::Heads { after }),
        (name(), any::<u64>()).prop_map(|(name, first)| CopyOp::Chunks { name, first }),
        Just(CopyOp::Forget),
    ];
    (any::<u8>(), any::<u64>(), op).prop_map(|(slot, claim, op)| CopyAsk {
        slot: crate::Slot::numbered(slot),
        claim,
        op,
    })
}

fn info() -> impl Strategy<Value = Info> {
    (any::<u64>(), any::<u64>(), any::<u64>(), durability()).prop_map(
        |(version, size, expires_ms, durability)| Info {
            version,
            size,
            durability,
            expires_ms,
        },
    )
}

fn done() -> impl Strategy<Value = Done> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
    let item = prop_oneof![
        (key(), any::<u64>(), any::<bool>()).prop_map(|(key, version, deleted)| {
            WatchItem::Changed {
                key,
                version,
                deleted,
            }
        }),
        any::<u64>().prop_map(WatchItem::Missed),
    ];
    let listed = (key(), info()).prop_map(|(key, info)| Listed { key, info });
    prop_oneof![
        Just(Done::Nothing),
        info().prop_map(Done::Info),
        (info(), bytes()).prop_map(|(info, bytes)| Done::Bytes(info, bytes)),
        (any::<u64>(), any::<u64>()).prop_map(|(number, version)| Done::Number(number, version)),
        any::<bool>().prop_map(Done::Was),
        (info(), any::<bool>()).prop_map(|(info, existed)| Done::Made(info, existed)),
        (info(), prop::collection::vec((any::<u64>(), bytes()), 0..4))
            .prop_map(|(info, chunks)| Done::Chunks(info, chunks)),
        (any::<[u8; 32]>(), prop::collection::vec(listed, 0..4))
            .prop_map(|(slots, listed)| Done::Listed(slots, listed)),
        (any::<u64>(), prop::collection::vec(item, 0..4))
            .prop_map(|(watch, items)| Done::Watched(watch, items)),
        prop::collection::vec((name(), head()), 0..4).prop_map(Done::Heads),
    ]
}

proptest! {
    #[test]
    fn a_request_reads_back(from in any::<u64>(), what in what()) {
        let request = Request { from, what };
        let bytes = whole(&request);
        prop_assert_eq!(Request::decode(&bytes).unwrap(), request);
        // None of its beginnings is another one.
        for length in 0..bytes.len() {
            prop_assert!(Request::decode(&bytes.slice(..length)).is_err());
        }
    }

    #[test]
    fn a_reply_reads_back(done in done()) {
        let bytes = answer(Reply::Done(done.clone()));
        match Reply::decode(&bytes).unwrap() {
            Reply::Done(read) => prop_assert_eq!(read, done),
            other => prop_assert!(false, "{:?}", other),
        }
        for length in 0..bytes.len() {
            prop_assert!(Reply::decode(&bytes.slice(..length)).is_err());
        }
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        head in any::<bool>(),
    ) {
        if head && bytes.len() > 10 {
            // Far enough in to be worth it.
            (bytes[0], bytes[9], bytes[1]) = (VERSION, bytes[9] % 4, bytes[1] % 6);
        }
        let bytes = bytes.into();
        let _ = Request::decode(&bytes);
        let _ = Reply::decode(&bytes);
    }
}

#[test]
fn bytes_that_land_are_known_by_their_head_and_others_are_put_together() {
    let info = Info {
        version: 3,
        size: 90,
        expires_ms: 4,
        durability: Durability::Replicated,
    };
    let landed = |reply: Reply| {
        let whole = answer(reply);
        let mut out = Out::of_zeros(80);
        let mut part = out.lend(0..80).unwrap();
        let rest = &whole[ANSWER_HEAD_BYTES..];
        part.as_mut()[..rest.len()].copy_from_slice(rest);
        let bytes = whole.slice(..ANSWER_HEAD_BYTES);
        let rest = Some((part, rest.len()));
        Reply::of(Came { bytes, rest }).unwrap()
    };
    let bytes = Bytes::from_static(b"a part of the value");
    let count = bytes.len();
    match landed(Reply::Done(Done::Bytes(info, bytes))) {
        Reply::Done(done) => assert_eq!(done, Done::Landed(info, count)),
        other => panic!("{other:?}"),
    }
    let why = "it is of no kind that is known to this node";
    match landed(Reply::Malformed(why.to_owned())) {
        Reply::Malformed(told) => assert_eq!(told, why),
        other => panic!("{other:?}"),
    }
}

#[test]
fn errors_read_back() {
    let errors = [
        StateError::NotFound,
        StateError::Conflict { version: 7 },
        StateError::TooLarge { asked: 2, max: 1 },
        StateError::Full {
            quota: crate::Quota::Watchers,
            max: 5,
        },
        StateError::Outside {
            offset: 1,
            length: 2,
            size: 3,
        },
        StateError::Misaligned { offset: 3 },
        StateError::Ttl { ms: 0, max_ms: 9 },
        StateError::LockTimedOut,
        StateError::LockUpgrade,
        StateError::NotLocked,
        StateError::Lost,
        StateError::Refused("why".into()),
    ];
    for error in errors {
        let text = error.to_string();
        match Reply::decode(&answer(Reply::Refused(error))).unwrap() {
            Reply::Refused(StateError::Refused(read)) => assert!(read.contains("why")),
            Reply::Refused(read) => assert_eq!(read.to_string(), text),
            other => panic!("{other:?}"),
        }
    }
    let store = StateError::Global(crate::GlobalError::Busy);
    match Reply::decode(&answer(Reply::Refused(store))).unwrap() {
        Reply::Refused(StateError::Refused(why)) => assert!(why.contains("too often"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_is_written_as_documented() {
    let what = What::Key {
        claim: 2,
        name: Name {
            app: "shop".parse().unwrap(),
            key: "a".parse().unwrap(),
        },
        op: Op::Append {
            create: Durability::Durable,
            data: b"hi",
        },
    };
    let bytes = whole(&Request { from: 1, what });
    let golden = [
        &[1][..],
        &1u64.to_le_bytes(),
        &[0],
        &2u64.to_le_bytes(),
        &4u64.to_le_bytes(),
        b"shop",
        &1u64.to_le_bytes(),
        b"a",
        &[4, 2],
        &2u64.to_le_bytes(),
        b"hi",
    ];
    assert_eq!(bytes, golden.concat());
}

#[test]
fn another_version_is_refused() {
    let release = What::Release { owner: 1 };
    let request = Request {
        from: 1,
        what: release,
    };
    let mut bytes = whole(&request).to_vec();
    bytes[0] = 2;
    assert!(Request::decode(&bytes.into()).is_err());
}
