//! Tokens: who may speak to the node. Only their SHA-256 digests are kept.
//!
//! A token is `dunlin_ID_SECRET`: the id finds the record, and the digest of the whole text is
//! compared in constant time. The secret has 256 random bits, so a plain digest is enough.

mod follow;

use std::fmt;
use std::sync::Arc;

use model::Digest;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use storage::{StorageError, Store, Txn};
use subtle::ConstantTimeEq as _;

use self::follow::{Follower, Known, Records};

const KEY_PREFIX: &str = "tokens/";
const TEXT_PREFIX: &str = "dunlin_";
const ID_HEX: usize = 12;
/// Longest name of a token, in characters.
const NAME_CHARS_MAX: usize = 64;
/// Most tokens of one node.
const TOKENS_MAX: usize = 1000;

/// What the store keeps of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    name: String,
    created_unix_ms: u64,
    digest: Digest,
}

/// A token without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenInfo {
    /// Its id.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// When it was made.
    pub created_unix_ms: u64,
}

/// What can go wrong with tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The name is empty or too long.
    #[error("a token's name has 1 to {NAME_CHARS_MAX} printable characters")]
    Name,
    /// There are too many.
    #[error("there are {TOKENS_MAX} tokens already: revoke one first")]
    TooMany,
    /// No such token.
    #[error("no token has the id `{0}`")]
    NotFound(String),
    /// A record is not readable.
    #[error("the record of token `{0}` is damaged")]
    Damaged(String),
    /// The store failed.
    #[error("the tokens could not be read or written")]
    Storage(#[from] StorageError),
}

/// All tokens of a node, or of its cluster; cheap to clone.
#[derive(Clone)]
pub struct Tokens {
    store: Arc<dyn Store>,
    known: Arc<Known>,
    _follower: Arc<Follower>,
}

/// A token's id and record.
fn read(key: &[u8], value: &[u8]) -> Result<(String, Record), TokenError> {
    let id = String::from_utf8_lossy(&key[KEY_PREFIX.len()..]).into_owned();
    match serde_json::from_slice(value) {
        Ok(record) => Ok((id, record)),
        Err(_) => Err(TokenError::Damaged(id)),
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("known", &self.known.read().by_id.len())
            .finish()
    }
}

impl Tokens {
    /// Reads the tokens of `store`, and follows them; call it within a tokio runtime.
    pub async fn open(store: Arc<dyn Store>) -> Result<Self, TokenError> {
        let (known, revision) = follow::load(&*store).await?;
        let known = Arc::new(RwLock::new(Records::new(known)));
        let follower = Arc::new(Follower::start(&store, &known, revision));
        Ok(Self {
            store,
            known,
            _follower: follower,
        })
    }

    /// Makes a token; the text is given this once.
    pub async fn create(
        &self,
        name: &str,
        unix_ms: u64,
    ) -> Result<(TokenInfo, String), TokenError> {
        let printable = name.chars().all(|c| !c.is_control());
        if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || !printable {
            return Err(TokenError::Name);
        }
        if self.known.read().by_id.len() >= TOKENS_MAX {
            return Err(TokenError::TooMany);
        }
        let id = hex::encode(rand::random::<[u8; ID_HEX / 2]>());
        let text = format!(
            "{TEXT_PREFIX}{id}_{}",
            hex::encode(rand::random::<[u8; 32]>())
        );
        let record = Record {
            name: name.to_owned(),
            created_unix_ms: unix_ms,
            digest: Digest::of(text.as_bytes()),
        };
        let json = serde_json::to_vec(&record).map_err(|_| TokenError::Damaged(id.clone()))?;
        let key = format!("{KEY_PREFIX}{id}");
        let done = self
            .store
            .transact(Txn::new().if_absent(key.clone()).put(key, json))
            .await?;
        if !done.is_committed() {
            return Err(TokenError::Damaged(id));
        }
        let info = info(&id, &record);
        self.known.write().insert(id, record);
        Ok((info, text))
    }

    /// Ends a token.
    pub async fn revoke(&self, id: &str) -> Result<(), TokenError> {
        if !self.known.read().by_id.contains_key(id) {
            return Err(TokenError::NotFound(id.chars().take(40).collect()));
        }
        let txn = Txn::new().delete(format!("{KEY_PREFIX}{id}"));
        let _ = self.store.transact(txn).await?;
        self.known.write().revoke(id);
        Ok(())
    }

    /// All tokens, the oldest first.
    pub fn list(&self) -> Vec<TokenInfo> {
        let mut all: Vec<_> = self
            .known
            .read()
            .by_id
            .iter()
            .map(|(id, r)| info(id, r))
            .collect();
        all.sort_by_key(|token| token.created_unix_ms);
        all
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.known.read().by_id.is_empty()
    }

    /// Whether `authorization` carries a token of this node.
    pub fn admits(&self, authorization: Option<&http::HeaderValue>) -> bool {
        let text = authorization.and_then(|value| bearer(value.as_bytes()));
        text.is_some_and(|text| self.knows(text))
    }

    /// Whether `text` is a token of this node.
    pub(crate) fn knows(&self, text: &[u8]) -> bool {
        let id = text
            .strip_prefix(TEXT_PREFIX.as_bytes())
            .and_then(|rest| rest.get(..ID_HEX))
            .and_then(|id| std::str::from_utf8(id).ok());
        let Some(id) = id else { return false };
        let known = self.known.read();
        let Some(record) = known.by_id.get(id) else {
            return false;
        };
        let given = Digest::of(text);
        given.as_bytes().ct_eq(record.digest.as_bytes()).into()
    }
}

fn info(id: &str, record: &Record) -> TokenInfo {
    TokenInfo {
        id: id.to_owned(),
        name: record.name.clone(),
        created_unix_ms: record.created_unix_ms,
    }
}

/// The credentials of a `Bearer` authorization.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, text) = value.split_at_checked(SCHEME.len())?;
    scheme
        .eq_ignore_ascii_case(SCHEME)
        .then_some(text.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn store() -> Arc<dyn Store> {
        let config = storage::Config::default();
        Arc::new(storage::RedbStore::in_memory(config).expect("it opens"))
    }

    fn header(text: &str) -> HeaderValue {
        HeaderValue::from_str(text).expect("a header")
    }

    #[tokio::test]
    async fn a_token_is_admitted_until_it_is_revoked() {
        let tokens = Tokens::open(store()).await.expect("open");
        let (info, text) = tokens.create("laptop", 1).await.expect("created");
        let good = header(&format!("Bearer {text}"));
        assert!(tokens.admits(Some(&good)));
        assert!(tokens.admits(Some(&header(&format!("bearer {text}")))));
        tokens.revoke(&info.id).await.expect("revoked");
        assert!(!tokens.admits(Some(&good)));
        assert!(matches!(
            tokens.revoke(&info.id).await,
            Err(TokenError::NotFound(_))
        ));
    }

    #[tokio::test]
    async fn the_store_never_holds_the_secret_and_tokens_survive_a_restart() {
        let store = store();
        let tokens = Tokens::open(store.clone()).await.expect("open");
        let (info, text) = tokens.create("laptop", 1).await.expect("created");
        let key = format!("{KEY_PREFIX}{}", info.id);
        let kept = store
            .get(key.as_bytes())
            .await
            .expect("read")
            .expect("there")
            .value;
        let secret = text.rsplit('_').next().expect("a secret");
        assert!(!String::from_utf8_lossy(&kept).contains(secret));
        let again = Tokens::open(store).await.expect("open");
        assert!(again.admits(Some(&header(&format!("Bearer {text}")))));
        assert_eq!(again.list(), vec![info]);
    }

    #[tokio::test]
    async fn other_credentials_are_refused() {
        let tokens = Tokens::open(store()).await.expect("open");
        let (_, text) = tokens.create("laptop", 1).await.expect("created");
        let cases = [
            String::new(),
            "Bearer".to_owned(),
            "Bearer ".to_owned(),
            text.clone(),
            format!("Basic {text}"),
            format!("Bearer {text}0"),
            format!("Bearer {}", &text[..text.len() - 1]),
            format!("Bearer {}", text.replace("dunlin_", "other_")),
        ];
        for case in cases {
            assert!(!tokens.admits(Some(&header(&case))), "{case}");
        }
        assert!(!tokens.admits(None));
    }

    #[tokio::test]
    async fn tokens_of_another_node_on_the_store_are_seen() {
        let store = store();
        let here = Tokens::open(store.clone()).await.expect("open");
        let there = Tokens::open(store).await.expect("open");
        let (info, text) = there.create("laptop", 1).await.expect("created");
        let good = header(&format!("Bearer {text}"));
        while !here.admits(Some(&good)) {
            tokio::task::yield_now().await;
        }
        there.revoke(&info.id).await.expect("revoked");
        while here.admits(Some(&good)) {
            tokio::task::yield_now().await;
        }
        assert!(here.is_empty());
    }

    #[tokio::test]
    async fn names_out_of_range_are_refused() {
        let tokens = Tokens::open(store()).await.expect("open");
        for name in ["", "a\nb", &"x".repeat(65)] {
            assert!(
                matches!(tokens.create(name, 1).await, Err(TokenError::Name)),
                "{name}"
            );
        }
    }
}
