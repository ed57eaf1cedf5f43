//! The clustered store: etcd (3.4 or newer), for many nodes that work as one.

mod fault;
mod member;
mod members;
mod range;
mod txn;
mod watch;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use self::fault::{Fault, Told};
use self::members::{Members, Repeat};
use crate::address::EtcdAddress;
use crate::store::LEASE_TTL_MAX;
use crate::{LeaseId, Page, Range, Revision, StorageError, Store, Txn, TxnOutcome};
use crate::{Versioned, Watch};

/// Bounds of an [`EtcdStore`].
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// What a request may take in all, whichever members it asks.
    pub request_timeout: Duration,
    /// What one member may take before another one is asked; for requests that may be repeated.
    pub try_timeout: Duration,
    /// What connecting to a member may take.
    pub connect_timeout: Duration,
    /// Events that wait for a watcher; then the cluster waits with sending more.
    pub watch_buffer_events: usize,
}

use EtcdConfig as Config;

impl Default for EtcdConfig {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(10),
            try_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(2),
            watch_buffer_events: 1024,
        }
    }
}

/// How often a page is begun anew because the cluster forgot its revision meanwhile.
const PAGE_TRIES_MAX: usize = 5;

/// A [`Store`] in an etcd cluster, under a prefix of its own; cheap to clone.
///
/// While a majority of the members lives, requests are answered: one that fails on a member goes
/// to the next. The exception is a transaction that was sent to a member which then died, and
/// which might count twice: that is [`StorageError::Unanswered`]. Without a majority every request
/// fails within [`EtcdConfig::request_timeout`], and the next one works once there is one again.
/// Watches go on over all that, and end with the last clone of the store.
#[derive(Clone)]
pub struct EtcdStore {
    members: Arc<Members>,
    prefix: Arc<[u8]>,
    watch_buffer_events: usize,
    /// Watches see it close.
    open: tokio::sync::watch::Sender<()>,
}

impl EtcdStore {
    /// Opens the store at `etcd://[user:password@]host[:port][,host[:port]…][/prefix]`; with TLS
    /// `etcds://…[?ca=FILE][&cert=FILE&key=FILE]`. A cluster that does not answer is an error.
    pub async fn open(address: &str, config: EtcdConfig) -> Result<Self, StorageError> {
        let address = EtcdAddress::parse(address)?;
        let store = Self {
            members: Arc::new(Members::new(&address, &config)?),
            prefix: address.prefix.into(),
            watch_buffer_events: config.watch_buffer_events,
            open: tokio::sync::watch::Sender::new(()),
        };
        let asked = store.page(&Range::prefix("").limit(1)).await;
        asked.map_err(|fault| fault.told("opening the store"))?;
        Ok(store)
    }

    fn key(&self, key: &[u8]) -> Bytes {
        [&*self.prefix, key].concat().into()
    }

    async fn page(&self, range: &Range) -> Result<Page, Fault> {
        let reader = range::Reader {
            members: &self.members,
            prefix: &self.prefix,
            range,
        };
        reader.page().await
    }

    /// Which of the transaction's leases is gone.
    async fn gone(&self, txn: &Txn, doing: &'static str) -> StorageError {
        let mut leases = txn::leases(txn).into_iter().peekable();
        while let Some(lease) = leases.next() {
            if leases.peek().is_none() {
                return StorageError::LeaseNotFound(lease);
            }
            let path = wire::LEASE_TIME_TO_LIVE;
            match self.ask_lease(path, lease, doing).await {
                Ok(found) if found.ttl_secs > 0 => (),
                Ok(_) => return StorageError::LeaseNotFound(lease),
                Err(error) => return error,
            }
        }
        Fault::LeaseNotFound.told(doing)
    }

    async fn ask_lease(
        &self,
        path: &'static str,
        lease: LeaseId,
        doing: &'static str,
    ) -> Result<wire::LeaseResponse, StorageError> {
        let id = txn::lease_id(lease);
        let asked = self.members.ask(Repeat::Free, |member| {
            member.ask(path, wire::LeaseRequest { id })
        });
        match asked.await {
            Ok(answer) => Ok(answer.reply),
            Err(Fault::LeaseNotFound) => Err(StorageError::LeaseNotFound(lease)),
            Err(fault) => Err(fault.told(doing)),
        }
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, StorageError> {
        let request = wire::RangeRequest {
            key: self.key(key),
            ..wire::RangeRequest::default()
        };
        let asked = self.members.ask(Repeat::Free, |member| {
            member.ask(wire::RANGE, request.clone())
        });
        let answer = asked.await.map_err(|fault| fault.told("reading a key"))?;
        let found: wire::RangeResponse = answer.reply;
        Ok(found.kvs.into_iter().next().map(|kv| Versioned {
            value: kv.value,
            revision: Revision(kv.mod_revision.cast_unsigned()),
        }))
    }

    async fn range(&self, range: Range) -> Result<Page, StorageError> {
        const DOING: &str = "reading a range";
        for _ in 0..PAGE_TRIES_MAX {
            match self.page(&range).await {
                Err(Fault::Compacted) => (),
                other => return other.map_err(|fault| fault.told(DOING)),
            }
        }
        let why = "its revision was compacted each time before it was read";
        Err(Fault::NotTaken(Arc::new(Told(why.into()))).told(DOING))
    }

    async fn transact(&self, txn: Txn) -> Result<TxnOutcome, StorageError> {
        const DOING: &str = "making a transaction";
        txn.check()?;
        let request = txn::request(&txn, |key| self.key(key));
        let asked = self.members.ask(txn::repeat(&txn), |member| {
            member.ask(wire::TXN, request.clone())
        });
        let answer = match asked.await {
            Ok(answer) => answer,
            Err(Fault::LeaseNotFound) => return Err(self.gone(&txn, DOING).await),
            Err(fault) => return Err(fault.told(DOING)),
        };
        let reply: wire::TxnResponse = answer.reply;
        match reply.succeeded {
            true => Ok(TxnOutcome::Committed {
                revision: range::revision(reply.header),
            }),
            // It may conflict with itself.
            false if answer.repeated && !txn.ops.is_empty() => {
                let why = "a member died while it had the transaction";
                Err(Fault::Unanswered(Arc::new(Told(why.into()))).told(DOING))
            }
            false => Ok(TxnOutcome::Conflict),
        }
    }

    async fn watch(&self, prefix: &[u8], from: Option<Revision>) -> Result<Watch, StorageError> {
        let started = watch::Follower::start(
            self.members.clone(),
            &self.prefix,
            prefix,
            from,
            self.watch_buffer_events,
            self.open.subscribe(),
        );
        started.await.map_err(|fault| fault.told("watching"))
    }

    /// The cluster counts in seconds and may live longer than asked: two at the least, and anew
    /// when another member becomes its leader.
    async fn lease(&self, ttl: Duration) -> Result<LeaseId, StorageError> {
        const DOING: &str = "granting a lease";
        if ttl.as_millis() == 0 || ttl > LEASE_TTL_MAX {
            let (ms, max_ms) = (ttl.as_millis(), LEASE_TTL_MAX.as_millis());
            return Err(StorageError::LeaseTtl { ms, max_ms });
        }
        let ttl_secs = ttl.as_millis().div_ceil(1000) as i64;
        // One that nobody hears of ends by itself, so that asking twice does no harm.
        let asked = self.members.ask(Repeat::Free, |member| {
            member.ask(wire::LEASE_GRANT, wire::LeaseGrantRequest { ttl_secs })
        });
        let answer = asked.await.map_err(|fault| fault.told(DOING))?;
        let granted: wire::LeaseGrantResponse = answer.reply;
        match granted.error.is_empty() {
            true => Ok(LeaseId(granted.id.cast_unsigned())),
            false => Err(Fault::Refused(Arc::new(Told(granted.error))).told(DOING)),
        }
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StorageError> {
        let id = txn::lease_id(lease);
        let asked = self.members.ask(Repeat::Free, |member| async move {
            let question = wire::LeaseRequest { id };
            let mut answers = member.follow(wire::LEASE_KEEP_ALIVE, question).await?;
            member::next::<wire::LeaseResponse>(&mut answers).await
        });
        match asked.await {
            Ok(answer) if answer.reply.ttl_secs > 0 => Ok(()),
            Ok(_) | Err(Fault::LeaseNotFound) => Err(StorageError::LeaseNotFound(lease)),
            Err(fault) => Err(fault.told("keeping a lease alive")),
        }
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StorageError> {
        let id = txn::lease_id(lease);
        let asked = self.members.ask(Repeat::Free, |member| {
            member.ask(wire::LEASE_REVOKE, wire::LeaseRequest { id })
        });
        let asked: Result<members::Answer<wire::LeaseResponse>, _> = asked.await;
        match asked {
            Ok(_) => Ok(()),
            Err(Fault::LeaseNotFound) => Err(StorageError::LeaseNotFound(lease)),
            Err(fault) => Err(fault.told("revoking a lease")),
        }
    }
}

impl fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdStore")
            .field("prefix", &self.prefix.escape_ascii().to_string())
            .finish_non_exhaustive()
    }
}
