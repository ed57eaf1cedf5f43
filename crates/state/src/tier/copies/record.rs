//! What the store says of a slot's copies: `state/1/r/` slot.
//!
//! | value | |
//! |---|---|
//! | format (1) | 1 |
//! | nodes | how many (8), and of each its name and the token of its membership (8) |
//! | apps | how many (8), and their names |

use bytes::Bytes;
use storage::{Store, Txn, TxnOutcome};

use super::Set;
use crate::tier::bytes::{In, Out, WireError};
use crate::tier::{Holding, Member, Slot};
use crate::{GlobalError, record};

const FORMAT: u8 = 1;

/// The set that the last owner recorded.
pub(super) async fn read(store: &dyn Store, slot: Slot) -> Result<Option<Set>, GlobalError> {
    match store.get(&record::copies_key(slot)).await? {
        Some(found) => match decode(&found.value) {
            Ok(set) => Ok(Some(set)),
            Err(_) => Err(GlobalError::Damaged("a record of copies")),
        },
        None => Ok(None),
    }
}

/// Records a set, while the slot is this node's.
pub(super) async fn write(
    store: &dyn Store,
    holding: &Holding,
    set: &Set,
) -> Result<(), GlobalError> {
    let txn = Txn::new().put(record::copies_key(holding.slot), encode(set));
    commit(store, holding, txn).await
}

/// Says that there are no copies.
pub(super) async fn remove(store: &dyn Store, holding: &Holding) -> Result<(), GlobalError> {
    let txn = Txn::new().delete(record::copies_key(holding.slot));
    commit(store, holding, txn).await
}

async fn commit(store: &dyn Store, holding: &Holding, txn: Txn) -> Result<(), GlobalError> {
    match store.transact(holding.claim.guard(txn)).await? {
        TxnOutcome::Committed { .. } => Ok(()),
        TxnOutcome::Conflict => Err(GlobalError::Fenced),
    }
}

fn encode(set: &Set) -> Bytes {
    let mut out = Out::default();
    out.byte(FORMAT).word(set.members.len() as u64);
    for member in &set.members {
        out.text(member.node.as_str()).word(member.token);
    }
    out.word(set.apps.len() as u64);
    for app in &set.apps {
        out.text(app.as_str());
    }
    out.done()
}

fn decode(bytes: &[u8]) -> Result<Set, WireError> {
    let mut read = In::new(bytes);
    if read.byte()? != FORMAT {
        return Err(WireError("its format is not known"));
    }
    let member = |read: &mut In<'_>| {
        let node = read.text()?.parse();
        Ok(Member {
            node: node.map_err(|_| WireError("a node's name is none"))?,
            token: read.word()?,
        })
    };
    let app = |read: &mut In<'_>| {
        let app = read.text()?.parse::<model::AppName>();
        app.map_err(|_| WireError("an app's name is none"))
    };
    let set = Set {
        members: read.many(16, member)?,
        apps: read.many(8, app)?.into_iter().collect(),
        recorded: true,
        unsure: false,
    };
    read.end()?;
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_written_as_documented_and_reads_back() {
        let set = Set {
            members: vec![Member {
                node: "n2".parse().unwrap(),
                token: 9,
            }],
            apps: ["shop".parse().unwrap()].into(),
            recorded: true,
            unsure: false,
        };
        let bytes = encode(&set);
        let golden = [
            &[1][..],
            &1u64.to_le_bytes(),
            &2u64.to_le_bytes(),
            b"n2",
            &9u64.to_le_bytes(),
            &1u64.to_le_bytes(),
            &4u64.to_le_bytes(),
            b"shop",
        ];
        assert_eq!(bytes, golden.concat());
        assert_eq!(decode(&bytes).unwrap(), set);
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err());
        }
    }
}
