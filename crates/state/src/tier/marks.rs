//! What owners leave in the store for those after them: which apps have values in memory only, and
//! which versions were given.
//!
//! Before the first value of an app in a slot that is in memory only is acknowledged, the slot's
//! owner puts a mark. The next owner finds it, and knows by it that values were lost, unless the
//! mark was removed because there were none any more.

use bytes::Bytes;
use model::AppName;
use storage::{Store, Txn, TxnOutcome};

use super::Holding;
use crate::{GlobalError, record};

/// How many versions one owner gives before they may come twice: more than a microsecond each for
/// 50 days of changes of one key.
const VERSIONS: u64 = 1 << 42;
/// How often the versions are asked for when others do so at the same time.
const TRIES_MAX: usize = 64;

/// A mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    /// Whether there may be values.
    live: bool,
    /// When some were last lost; 0 for never.
    lost_ms: u64,
}

/// A number that is greater than all versions that were given until now. Asked for after the claim
/// for which it is: then nobody gives versions by an earlier one any more.
pub(crate) async fn base(store: &dyn Store, clock_us: u64) -> Result<u64, GlobalError> {
    let key = record::versions_key();
    for _ in 0..TRIES_MAX {
        let found = store.get(&key).await?;
        let last = match &found {
            Some(found) => record::read_word(&found.value)?,
            None => 0,
        };
        let base = last.saturating_add(VERSIONS).max(clock_us);
        let txn = match found {
            Some(found) => Txn::new().if_revision(key.clone(), found.revision),
            None => Txn::new().if_absent(key.clone()),
        };
        let txn = txn.put(key.clone(), record::write_word(base));
        if store.transact(txn).await?.is_committed() {
            return Ok(base);
        }
    }
    Err(GlobalError::Busy)
}

/// Reads what the last owner left, and notes what was lost with it. Losses from before `since_ms`
/// are forgotten.
pub(crate) async fn take_over(
    store: &dyn Store,
    holding: &Holding,
    now_ms: u64,
    since_ms: u64,
) -> Result<(), GlobalError> {
    let prefix = record::marks_prefix(holding.slot);
    let mut next = Some(storage::Range::prefix(prefix.as_str()));
    while let Some(range) = next {
        let page = store.range(range.clone()).await?;
        for entry in &page.entries {
            let app = std::str::from_utf8(&entry.key[prefix.len()..]).ok();
            let app = app.and_then(|app| app.parse::<AppName>().ok());
            let app = app.ok_or(GlobalError::Damaged("a mark"))?;
            let mark = read(&entry.value)?;
            let key = entry.key.clone();
            if mark.live {
                let lost_ms = now_ms.max(1);
                tracing::warn!(slot = %holding.slot, %app, "values in memory only were lost");
                write(
                    store,
                    holding,
                    key,
                    Some(Mark {
                        live: false,
                        lost_ms,
                    }),
                )
                .await?;
                holding.lose(app, lost_ms);
            } else if mark.lost_ms > since_ms {
                holding.lose(app, mark.lost_ms);
            } else {
                write(store, holding, key, None).await?;
            }
        }
        next = range.rest(&page);
    }
    Ok(())
}

/// Marks that an app has values in memory only in the slot, unless it is marked.
pub(crate) async fn mark(
    store: &dyn Store,
    holding: &Holding,
    app: &AppName,
) -> Result<(), GlobalError> {
    if holding.is_marked(app) {
        return Ok(());
    }
    let lost_ms = holding.lost_ms(app);
    let mark = Mark {
        live: true,
        lost_ms,
    };
    let key = record::mark_key(holding.slot, app);
    write(store, holding, key, Some(mark)).await?;
    holding.set_marked(app);
    Ok(())
}

/// Notes that values of an app were lost now.
pub(crate) async fn lose(
    store: &dyn Store,
    holding: &Holding,
    app: &AppName,
    now_ms: u64,
) -> Result<(), GlobalError> {
    let lost_ms = now_ms.max(1);
    let mark = Mark {
        live: holding.is_marked(app),
        lost_ms,
    };
    let key = record::mark_key(holding.slot, app);
    write(store, holding, key, Some(mark)).await?;
    holding.lose(app.clone(), lost_ms);
    Ok(())
}

/// Says that there are no values in memory only any more.
pub(crate) async fn unmark(store: &dyn Store, holding: &Holding) -> Result<(), GlobalError> {
    for app in holding.marked() {
        let key = record::mark_key(holding.slot, &app);
        let mark = match holding.lost_ms(&app) {
            0 => None,
            lost_ms => Some(Mark {
                live: false,
                lost_ms,
            }),
        };
        write(store, holding, key, mark).await?;
    }
    Ok(())
}

async fn write(
    store: &dyn Store,
    holding: &Holding,
    key: Bytes,
    mark: Option<Mark>,
) -> Result<(), GlobalError> {
    let txn = match mark {
        Some(mark) => {
            let mut bytes = vec![u8::from(mark.live)];
            bytes.extend_from_slice(&record::write_word(mark.lost_ms));
            Txn::new().put(key, bytes)
        }
        None => Txn::new().delete(key),
    };
    match store.transact(holding.claim.guard(txn)).await? {
        TxnOutcome::Committed { .. } => Ok(()),
        TxnOutcome::Conflict => Err(GlobalError::Fenced),
    }
}

fn read(bytes: &[u8]) -> Result<Mark, GlobalError> {
    match bytes.split_first() {
        Some((live @ (0 | 1), word)) => Ok(Mark {
            live: *live == 1,
            lost_ms: record::read_word(word)?,
        }),
        _ => Err(GlobalError::Damaged("a mark")),
    }
}
