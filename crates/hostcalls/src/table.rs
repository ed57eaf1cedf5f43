//! The table: every call that a guest may make, once.

use sandbox::host::{Errno, HostCall, Param, Type, Walls};

/// What a row does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    StateSize,
    StateGet,
    StateSet,
    StateRead,
    StateWrite,
    StateAdd,
    StateAppend,
    StateTruncate,
    StateDelete,
    StateList,
    StateVersion,
    StateSwap,
    StateExpire,
    StateLock,
    StateUnlock,
    StateMap,
    StatePush,
    StatePull,
    ChainCall,
    ChainSpawn,
    ChainWait,
    ChainWaitAny,
    ChainWaitAll,
    ChainSize,
    ChainRead,
    ChainProblem,
    ChainId,
    ChainClose,
}

const fn param(name: &'static str, ty: Type, doc: &'static str) -> Param {
    Param { name, ty, doc }
}

const KEY: Param = param(
    "key",
    Type::Str,
    "The key: 1 to 512 bytes of UTF-8 without control characters.",
);
const OFFSET: Param = param("offset", Type::U64, "The first byte that is meant.");
const LEN: Param = param("len", Type::U64, "How many bytes; 0 for all up to the end.");
const VALUE: Param = param("value", Type::Bytes, "The whole new value.");
const DATA: Param = param("data", Type::Bytes, "The bytes.");
const OUT: Param = param("out", Type::Out, "Takes the bytes.");
const HANDLE: Param = param("handle", Type::U32, "The call.");
const HANDLES: Param = param(
    "handles",
    Type::Bytes,
    "The calls: their handles, each as 4 bytes, little-endian.",
);
const WAIT_MS: Param = param(
    "wait_ms",
    Type::U64,
    "How long to wait at most; 0 to look only.",
);
const FUNCTION: Param = param(
    "function",
    Type::Str,
    "`NAME` in the same app, or `APP/NAME`.",
);
const INPUT: Param = param("input", Type::Bytes, "The request body.");

const READ: &str = "a state prefix of the key, to read";
const WRITE: &str = "a state prefix of the key, to write";
const CALL: &str = "the function that is called";

const NO_ERRORS: &[Errno] = &[];
const NOT_THERE: &[Errno] = &[Errno::Denied, Errno::Invalid, Errno::NotFound];
const WRITES: &[Errno] = &[
    Errno::Denied,
    Errno::Invalid,
    Errno::TooLarge,
    Errno::Exhausted,
];

const fn state(
    name: &'static str,
    params: &'static [Param],
    result: &'static str,
    grant: &'static str,
    errors: &'static [Errno],
    doc: &'static str,
) -> HostCall {
    HostCall {
        interface: "state",
        name,
        doc,
        params,
        result,
        grant,
        errors,
        walls: Walls::All,
    }
}

const fn chain(
    name: &'static str,
    params: &'static [Param],
    result: &'static str,
    errors: &'static [Errno],
    doc: &'static str,
) -> HostCall {
    HostCall {
        interface: "chain",
        name,
        doc,
        params,
        result,
        grant: CALL,
        errors,
        walls: Walls::All,
    }
}

/// The rows, in the order of the table: their number is how back-ends name them.
pub(crate) const ROWS: &[(Op, HostCall)] = &[
    (
        Op::StateSize,
        state(
            "state_size",
            &[KEY],
            "the size in bytes",
            READ,
            NOT_THERE,
            "How long the value of a key is.",
        ),
    ),
    (
        Op::StateGet,
        state(
            "state_get",
            &[KEY, OUT],
            "the size in bytes, all of which were copied",
            READ,
            &[
                Errno::Denied,
                Errno::Invalid,
                Errno::NotFound,
                Errno::TooLarge,
            ],
            "Copies a whole value, as of one moment. `too-large` if it does not fit: nothing is \
             copied then.",
        ),
    ),
    (
        Op::StateSet,
        state(
            "state_set",
            &[KEY, VALUE],
            "the new version",
            WRITE,
            WRITES,
            "Replaces a value, creating the key if need be. Where the grant says `durable`, it is \
             on disk when the call returns.",
        ),
    ),
    (
        Op::StateRead,
        state(
            "state_read",
            &[KEY, OFFSET, OUT],
            "how many bytes were copied; less than asked at the end",
            READ,
            NOT_THERE,
            "Copies part of a value.",
        ),
    ),
    (
        Op::StateWrite,
        state(
            "state_write",
            &[KEY, OFFSET, DATA],
            "the new version",
            WRITE,
            WRITES,
            "Writes part of a value, which grows if need be; a gap is zeros. Durable keys have it \
             on disk after the next `state_push`.",
        ),
    ),
    (
        Op::StateAdd,
        state(
            "state_add",
            &[
                KEY,
                param("offset", Type::U64, "Where the number is: a multiple of 8."),
                param(
                    "amount",
                    Type::U64,
                    "What is added; to take away, the two's complement.",
                ),
                param("out", Type::Out, "Takes the sum: 8 bytes, little-endian."),
            ],
            "8, the bytes of the sum",
            WRITE,
            WRITES,
            "Adds to a number of 8 bytes, little-endian, in one step: no addition is lost, whether \
             others add by this call or by atomic instructions in a mapping. The sum wraps. A \
             value that ends before has zeros there. Of a durable value, this is safe after the \
             next `state_push`. `too-large` also if `out` has fewer than 8 bytes: nothing is added \
             then.",
        ),
    ),
    (
        Op::StateAppend,
        state(
            "state_append",
            &[KEY, DATA],
            "the offset at which the data begin",
            WRITE,
            WRITES,
            "Adds to the end of a value. Appends of several functions do not mix.",
        ),
    ),
    (
        Op::StateTruncate,
        state(
            "state_truncate",
            &[KEY, param("size", Type::U64, "The new size in bytes.")],
            "the new version",
            WRITE,
            WRITES,
            "Makes a value shorter, or longer with zeros.",
        ),
    ),
    (
        Op::StateDelete,
        state(
            "state_delete",
            &[KEY],
            "0",
            WRITE,
            NOT_THERE,
            "Removes a key. Sandboxes that have it mapped keep the bytes they see until they are \
             reset.",
        ),
    ),
    (
        Op::StateList,
        state(
            "state_list",
            &[
                param("prefix", Type::Str, "What the keys begin with."),
                param(
                    "after",
                    Type::Str,
                    "Only keys after this one; empty for all.",
                ),
                OUT,
            ],
            "how many bytes were written",
            READ,
            &[Errno::Denied, Errno::Invalid],
            "Writes the names of keys in order, each followed by a newline, as many as fit.",
        ),
    ),
    (
        Op::StateVersion,
        state(
            "state_version",
            &[KEY],
            "the version",
            READ,
            NOT_THERE,
            "The version of a value: it changes with every change, and none comes twice.",
        ),
    ),
    (
        Op::StateSwap,
        state(
            "state_swap",
            &[
                KEY,
                param(
                    "expected",
                    Type::U64,
                    "The version that must still hold; 0 if the key must not exist.",
                ),
                VALUE,
            ],
            "the new version",
            WRITE,
            &[
                Errno::Denied,
                Errno::Invalid,
                Errno::Conflict,
                Errno::TooLarge,
                Errno::Exhausted,
            ],
            "Replaces a value if nobody changed it since `expected`: compare and swap.",
        ),
    ),
    (
        Op::StateExpire,
        state(
            "state_expire",
            &[
                KEY,
                param(
                    "ttl_ms",
                    Type::U64,
                    "How long the key lives from now; 0 for ever.",
                ),
            ],
            "0",
            WRITE,
            NOT_THERE,
            "Sets when a key goes by itself.",
        ),
    ),
    (
        Op::StateLock,
        state(
            "state_lock",
            &[
                KEY,
                param("mode", Type::U32, "0 to share it, 1 to have it alone."),
                WAIT_MS,
                param(
                    "hold_ms",
                    Type::U64,
                    "How long it is held at most; 0 for as long as may be.",
                ),
            ],
            "0",
            WRITE,
            &[
                Errno::Denied,
                Errno::Invalid,
                Errno::TimedOut,
                Errno::Exhausted,
            ],
            "Takes the lock of a key, which need not exist. First come, first served. It is free \
             again when it is unlocked, when its time is over, or when the invocation ends.",
        ),
    ),
    (
        Op::StateUnlock,
        state(
            "state_unlock",
            &[KEY],
            "0",
            WRITE,
            &[Errno::Denied, Errno::Invalid, Errno::NotFound],
            "Gives a lock back. `not-found` if the invocation does not hold it, which may be \
             because its time was over.",
        ),
    ),
    (
        Op::StateMap,
        HostCall {
            walls: Walls::Mapped,
            ..state(
                "state_map",
                &[
                    KEY,
                    OFFSET,
                    LEN,
                    param("mode", Type::U32, "0 to read, 1 to write."),
                ],
                "the address of the byte at `offset`",
                "a state prefix of the key, to read or to write",
                WRITES,
                "Makes the bytes of a value part of the sandbox's own memory, until it ends: no \
                 copy, and what one function writes, others on the node see. To write, the value \
                 is made at least `offset + len` long. A mapping to read shows the live bytes; \
                 writing to it is an error that ends the call.",
            )
        },
    ),
    (
        Op::StatePush,
        state(
            "state_push",
            &[KEY, OFFSET, LEN],
            "the version that is safe now",
            WRITE,
            &[
                Errno::Denied,
                Errno::Invalid,
                Errno::NotFound,
                Errno::Unavailable,
            ],
            "Makes what was written to part of a value as safe as its durability says: of a \
             durable key, the chunks that changed are on disk when the call returns.",
        ),
    ),
    (
        Op::StatePull,
        state(
            "state_pull",
            &[KEY, OFFSET, LEN],
            "the version that was loaded",
            READ,
            &[
                Errno::Denied,
                Errno::Invalid,
                Errno::NotFound,
                Errno::Unavailable,
            ],
            "Loads part of a value to the node, so that reading it does not wait.",
        ),
    ),
    (
        Op::ChainCall,
        chain(
            "chain_call",
            &[FUNCTION, INPUT],
            "a handle on the reply",
            &[
                Errno::Denied,
                Errno::Invalid,
                Errno::NotFound,
                Errno::Exhausted,
            ],
            "Calls a function and waits until it has ended, well or badly: see `chain_size`.",
        ),
    ),
    (
        Op::ChainSpawn,
        chain(
            "chain_spawn",
            &[
                FUNCTION,
                INPUT,
                param(
                    "flags",
                    Type::U32,
                    "1 if it is to go on when the caller ends; else 0.",
                ),
            ],
            "a handle on the call",
            &[
                Errno::Denied,
                Errno::Invalid,
                Errno::NotFound,
                Errno::Exhausted,
            ],
            "Starts a call and goes on. Unless it is detached, it is cancelled when the caller \
             ends.",
        ),
    ),
    (
        Op::ChainWait,
        chain(
            "chain_wait",
            &[HANDLE, WAIT_MS],
            "0: it ended well",
            &[Errno::NotFound, Errno::TimedOut, Errno::Failed],
            "Waits for a call. `failed` if it ended badly, `timed-out` if it goes on.",
        ),
    ),
    (
        Op::ChainWaitAny,
        chain(
            "chain_wait_any",
            &[HANDLES, WAIT_MS],
            "the place in the list of one that has ended",
            &[Errno::Invalid, Errno::NotFound, Errno::TimedOut],
            "Waits until one of several calls has ended.",
        ),
    ),
    (
        Op::ChainWaitAll,
        chain(
            "chain_wait_all",
            &[HANDLES, WAIT_MS],
            "how many of them failed",
            &[Errno::Invalid, Errno::NotFound, Errno::TimedOut],
            "Waits until all of several calls have ended.",
        ),
    ),
    (
        Op::ChainSize,
        chain(
            "chain_size",
            &[HANDLE],
            "the size of the reply in bytes",
            &[Errno::NotFound, Errno::TimedOut, Errno::Failed],
            "How long a reply is. `failed` if the call ended badly, `timed-out` if it goes on.",
        ),
    ),
    (
        Op::ChainRead,
        chain(
            "chain_read",
            &[HANDLE, OFFSET, OUT],
            "how many bytes were copied; less than asked at the end",
            &[Errno::NotFound, Errno::TimedOut, Errno::Failed],
            "Copies part of a reply.",
        ),
    ),
    (
        Op::ChainProblem,
        chain(
            "chain_problem",
            &[HANDLE, OUT],
            "how many bytes were copied",
            &[Errno::NotFound, Errno::TimedOut],
            "Why a call failed, as text cut to fit; nothing if it ended well.",
        ),
    ),
    (
        Op::ChainId,
        chain(
            "chain_id",
            &[HANDLE, OUT],
            "how many bytes were copied",
            &[Errno::NotFound],
            "The invocation's id: 32 hexadecimal digits.",
        ),
    ),
    (
        Op::ChainClose,
        chain(
            "chain_close",
            &[HANDLE],
            "0",
            &[Errno::NotFound],
            "Forgets a call and its reply. One that still runs is cancelled, unless it is \
             detached.",
        ),
    ),
];

const fn rows() -> [HostCall; ROWS.len()] {
    let mut calls = [ROWS[0].1; ROWS.len()];
    let mut at = 0;
    while at < ROWS.len() {
        calls[at] = ROWS[at].1;
        at += 1;
    }
    calls
}

/// The table that back-ends, headers and docs are made from.
pub const TABLE: &[HostCall] = &rows();

/// Calls that move the payload of the invocation itself. Each back-end that carries bytes answers
/// them on its own; they ask nothing of the platform.
pub const PAYLOAD: &[HostCall] = &[
    HostCall {
        interface: "payload",
        name: "input_size",
        doc: "How long the request body is.",
        params: &[],
        result: "the size in bytes",
        grant: "",
        errors: NO_ERRORS,
        walls: Walls::Mapped,
    },
    HostCall {
        interface: "payload",
        name: "input_read",
        doc: "Copies part of the request body.",
        params: &[param("offset", Type::U32, "The first byte."), OUT],
        result: "how many bytes were copied",
        grant: "",
        errors: NO_ERRORS,
        walls: Walls::Mapped,
    },
    HostCall {
        interface: "payload",
        name: "output_write",
        doc: "Adds to the reply.",
        params: &[DATA],
        result: "0, or -1 if the reply would pass its limit",
        grant: "",
        errors: NO_ERRORS,
        walls: Walls::Mapped,
    },
    HostCall {
        interface: "payload",
        name: "log_write",
        doc: "Writes one log line.",
        params: &[
            param("level", Type::U32, "0 error, 1 warn, 2 info, 3 debug."),
            DATA,
        ],
        result: "nothing",
        grant: "",
        errors: NO_ERRORS,
        walls: Walls::Mapped,
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_begin_with_their_interface_and_come_once() {
        let mut names = BTreeSet::new();
        for call in TABLE {
            assert!(names.insert(call.name), "{} comes twice", call.name);
            let rest = call.name.strip_prefix(call.interface);
            assert!(
                rest.is_some_and(|rest| rest.starts_with('_')),
                "{}",
                call.name
            );
            assert!(call.errors.iter().all(|errno| Errno::ALL.contains(errno)));
        }
    }

    #[test]
    fn a_buffer_comes_last_and_beside_no_other_bytes() {
        for call in TABLE {
            let outs = call.params.iter().filter(|param| param.ty == Type::Out);
            let bytes = call.params.iter().filter(|param| param.ty == Type::Bytes);
            assert!(outs.clone().count() + bytes.count() <= 1, "{}", call.name);
            if outs.count() == 1 {
                let last = call.params.last().map(|param| param.ty);
                assert_eq!(last, Some(Type::Out), "{}", call.name);
            }
        }
    }
}
