//! Transactions in etcd's words.

use bytes::Bytes;

use super::members::Repeat;
use super::wire::{self, Request, Target};
use crate::{Compare, LeaseId, Op, Txn};

/// A lease that etcd never grants, for numbers that it cannot: 0 would mean no lease at all.
const NO_LEASE: i64 = i64::MAX;

/// A lease as etcd numbers it.
pub fn lease_id(lease: LeaseId) -> i64 {
    i64::try_from(lease.0)
        .ok()
        .filter(|id| *id != 0)
        .unwrap_or(NO_LEASE)
}

/// The request; `key` puts the store's prefix before a key.
pub fn request(txn: &Txn, key: impl Fn(&[u8]) -> Bytes) -> wire::TxnRequest {
    let compare = txn.compares.iter().map(|c| compare(c, &key)).collect();
    let mut success: Vec<_> = txn.ops.iter().map(|op| operation(op, &key)).collect();
    let mut failure = Vec::new();
    if success.is_empty() {
        // Without a read that must be of the present, etcd compares with what one member knows.
        let read = wire::RangeRequest {
            key: key(b""),
            count_only: true,
            ..wire::RangeRequest::default()
        };
        let read = wire::RequestOp {
            request: Some(Request::Range(read)),
        };
        success.push(read.clone());
        failure.push(read);
    }
    wire::TxnRequest {
        compare,
        success,
        failure,
    }
}

fn compare(compare: &Compare, key: impl Fn(&[u8]) -> Bytes) -> wire::Compare {
    let (target, with) = match compare {
        Compare::Absent(_) => (wire::CREATE, Target::CreateRevision(0)),
        Compare::Revision(_, revision) => {
            (wire::MOD, Target::ModRevision(revision.0.cast_signed()))
        }
        Compare::Value(_, value) => (wire::VALUE, Target::Value(value.clone())),
    };
    // A key that is not there has revision 0 for etcd, and for us none; so 0, and what etcd
    // cannot count to, never holds. Nothing is below a revision of 0.
    let result = match with {
        Target::ModRevision(revision) if revision <= 0 => wire::LESS,
        _ => wire::EQUAL,
    };
    wire::Compare {
        result,
        target,
        key: key(compare.key()),
        with: Some(match with {
            Target::ModRevision(revision) => Target::ModRevision(revision.max(0)),
            with => with,
        }),
    }
}

fn operation(op: &Op, key: impl Fn(&[u8]) -> Bytes) -> wire::RequestOp {
    let request = match op {
        Op::Put {
            key: name,
            value,
            lease,
        } => Request::Put(wire::PutRequest {
            key: key(name),
            value: value.clone(),
            lease: lease.map_or(0, lease_id),
        }),
        Op::Delete { key: name } => Request::Delete(wire::DeleteRangeRequest { key: key(name) }),
    };
    wire::RequestOp {
        request: Some(request),
    }
}

/// Whether the transaction may be made again when its outcome is open: when it changes nothing,
/// or when having taken effect makes it conflict for ever, since no revision comes twice.
pub fn repeat(txn: &Txn) -> Repeat {
    let is_guard = |compare: &Compare| match compare {
        Compare::Revision(key, _) => txn.ops.iter().any(|op| op.key() == key),
        Compare::Absent(_) | Compare::Value(..) => false,
    };
    match txn.ops.is_empty() || txn.compares.iter().any(is_guard) {
        true => Repeat::Free,
        false => Repeat::Never,
    }
}

/// The leases that the transaction names, each once.
pub fn leases(txn: &Txn) -> Vec<LeaseId> {
    let mut leases: Vec<_> = (txn.ops.iter())
        .filter_map(|op| match op {
            Op::Put { lease, .. } => *lease,
            Op::Delete { .. } => None,
        })
        .collect();
    leases.sort();
    leases.dedup();
    leases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Revision;

    #[test]
    fn only_what_cannot_count_twice_is_repeated() {
        let check = |txn: Txn, expected: Repeat| assert_eq!(repeat(&txn), expected, "{txn:?}");
        let at = Revision(3);
        check(Txn::new(), Repeat::Free);
        check(Txn::new().if_value("a", "1"), Repeat::Free);
        check(Txn::new().put("a", "1"), Repeat::Never);
        check(Txn::new().if_absent("a").put("a", "1"), Repeat::Never);
        check(Txn::new().if_value("a", "0").put("a", "1"), Repeat::Never);
        check(Txn::new().if_revision("a", at).put("a", "1"), Repeat::Free);
        check(Txn::new().if_revision("a", at).delete("a"), Repeat::Free);
        check(Txn::new().if_revision("a", at).put("b", "1"), Repeat::Never);
    }

    #[test]
    fn what_never_holds_for_us_never_holds_for_etcd() {
        let check = |revision: u64, result: i32, with: i64| {
            let txn = Txn::new().if_revision("a", Revision(revision));
            let found = &request(&txn, Bytes::copy_from_slice).compare[0];
            assert_eq!((found.result, found.target), (result, wire::MOD));
            assert_eq!(found.with, Some(Target::ModRevision(with)), "{revision}");
        };
        check(0, wire::LESS, 0);
        check(7, wire::EQUAL, 7);
        check(u64::MAX, wire::LESS, 0);
    }

    #[test]
    fn leases_keep_their_numbers_and_none_is_zero() {
        let check = |lease: u64, id: i64| assert_eq!(lease_id(LeaseId(lease)), id);
        check(0, NO_LEASE);
        check(5, 5);
        check(u64::MAX, NO_LEASE);
        let txn = Txn::new().put_leased("a", "1", LeaseId(2)).put("b", "2");
        let txn = txn
            .put_leased("c", "3", LeaseId(1))
            .put_leased("d", "4", LeaseId(2));
        assert_eq!(leases(&txn), [LeaseId(1), LeaseId(2)]);
    }
}
