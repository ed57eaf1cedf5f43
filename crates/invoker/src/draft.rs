//! What is written when an invocation is accepted.

use model::{Digest, InvocationId};
use storage::Txn;

use crate::record::{self, Accepted, KeyHolder, Progress};
use crate::shared::{Placed, Term};
use crate::{InvokerError, Request, Target};

/// An invocation that is about to be accepted.
pub struct Draft<'a> {
    pub target: &'a Target,
    pub select: Option<String>,
    pub request: &'a Request,
    /// The key's digest, and the request's.
    pub idempotency: Option<(Digest, Digest)>,
    pub traceparent: Option<String>,
}

impl Draft<'_> {
    /// Puts all its records, into the queue of the term.
    pub fn put(
        &self,
        id: InvocationId,
        term: &Term,
        placed: &Placed,
        txn: Txn,
    ) -> Result<Txn, InvokerError> {
        let path = &self.target.path;
        let accepted = Accepted {
            path: path.clone(),
            version: self.target.version,
            select: self.select.clone(),
            accepted_ms: id.unix_ms(),
            attempts_max: self.target.spec.settings.limits.attempts_max,
            request: placed.place,
            idempotency: self.idempotency.map(|(key, _)| key),
            traceparent: self.traceparent.clone(),
        };
        let mut txn = placed.put(txn);
        txn = txn.put(record::accepted_key(id), record::encode(&accepted)?);
        txn = Progress::new(id.unix_ms(), term.queue.clone()).put(txn, id)?;
        if let Some((key, request)) = self.idempotency {
            let key = record::idempotency_key(path, &key);
            let holder = record::encode(&KeyHolder { id, request })?;
            txn = txn.if_absent(key.clone()).put(key, holder);
        }
        Ok(txn)
    }
}

/// What makes two requests with one idempotency key the same.
pub fn fingerprint(select: &Option<String>, request: &Request) -> Result<Digest, InvokerError> {
    let head = record::encode(&request.head)?;
    let select = select.as_deref().unwrap_or_default().as_bytes();
    Ok(Digest::of_parts([select, head.as_slice(), &request.body]))
}
