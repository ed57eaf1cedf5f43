//! `state_…`: what a guest does with the keys of its app.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use memory::{Access as MapAccess, Out};
use model::{Access, StateGrant};
use sandbox::host::{Errno, Guest, Mapper};
use state::{
    AppState, Done, Durability, Info, Key, Mirror, Mode, Op, Open, Put, Span, State, StateError,
    Value,
};

use crate::host::Services;

/// Modes of `state_lock`.
const SHARED: u32 = 0;
const EXCLUSIVE: u32 = 1;
/// Modes of `state_map`.
const TO_READ: u32 = 0;
const TO_WRITE: u32 = 1;
/// Longest wait that is passed on; the node's own limit is shorter.
const WAIT_MOST: Duration = Duration::from_secs(24 * 3600);
/// Keys that are looked up at a time for a listing.
const LIST_PAGE: usize = 256;

/// The keys that one guest may use.
pub(crate) struct Keys {
    state: State,
    app: AppState,
    guest: Arc<Guest>,
    /// Whether it ever took a lock.
    locks: bool,
    /// The value that was last looked at: guests tend to ask for one again and again.
    last: Option<Arc<Value>>,
    /// What the guest has mapped.
    mapped: HashMap<String, Mapped>,
}

/// Where the memory is that a guest has mapped.
#[derive(Clone)]
enum Mapped {
    /// It is the value's own.
    Own(Arc<Value>),
    /// It is a copy on this node, of a value that another node owns.
    Copy(Arc<Mirror>),
}

impl Keys {
    pub fn new(services: &Services, guest: Arc<Guest>) -> Self {
        Self {
            app: services.state.app(&guest.path.app),
            state: services.state.clone(),
            guest,
            locks: false,
            last: None,
            mapped: HashMap::new(),
        }
    }

    pub async fn size(&self, key: &str) -> Result<u64, Errno> {
        Ok(self.info(key).await?.size)
    }

    pub async fn version(&self, key: &str) -> Result<u64, Errno> {
        Ok(self.info(key).await?.version)
    }

    pub async fn get(&self, key: &str, out: &mut Out<'_>) -> Result<u64, Errno> {
        let key = self.to_read(key)?;
        whole(self.app.get(&key, out).await, out.len())
    }

    pub async fn read(&self, key: &str, offset: u64, out: &mut Out<'_>) -> Result<u64, Errno> {
        let key = self.to_read(key)?;
        let read = self.app.read(&key, offset, out, 0).await;
        let (_info, count) = read.map_err(errno_of)?;
        Ok(count as u64)
    }

    // The same without waiting, if the value is here; none if it is not.

    pub fn size_here(&mut self, key: &str) -> Option<Result<u64, Errno>> {
        self.look(key, |value| Some(Ok(value.info()?.size)))
    }

    pub fn version_here(&mut self, key: &str) -> Option<Result<u64, Errno>> {
        self.look(key, |value| Some(Ok(value.info()?.version)))
    }

    pub fn get_here(&mut self, key: &str, out: &mut [u8]) -> Option<Result<u64, Errno>> {
        self.look(key, |value| match value.size() > out.len() as u64 {
            true => Some(Err(Errno::TooLarge)),
            false => Some(whole(value.get_here(out)?, out.len())),
        })
    }

    pub fn read_here(
        &mut self,
        key: &str,
        offset: u64,
        out: &mut [u8],
    ) -> Option<Result<u64, Errno>> {
        self.look(key, |value| {
            let count = value.read_here(offset, out)?.map_err(errno_of);
            Some(count.map(|count| count as u64))
        })
    }

    fn look(
        &mut self,
        key: &str,
        look: impl FnOnce(&Value) -> Option<Result<u64, Errno>>,
    ) -> Option<Result<u64, Errno>> {
        if let Err(denied) = self.granted(key, Access::Read) {
            return Some(Err(denied));
        }
        let is_it = |last: &Arc<Value>| last.key().as_str() == key;
        if !self.last.as_ref().is_some_and(is_it) {
            self.last = Some(self.app.here(key)?);
        }
        look(self.last.as_deref()?)
    }

    pub async fn set(&self, key: &str, data: &[u8]) -> Result<u64, Errno> {
        let (key, create) = self.to_make(key)?;
        let (create, put, data) = (Some(create), Put::default(), data.into());
        version(self.run(&key, Op::Put { create, put, data }).await?)
    }

    pub async fn write(&self, key: &str, offset: u64, data: &[u8]) -> Result<u64, Errno> {
        let (key, create) = self.to_make(key)?;
        let op = Op::Write {
            create,
            offset,
            data,
        };
        version(self.run(&key, op).await?)
    }

    pub async fn add(
        &self,
        key: &str,
        offset: u64,
        amount: u64,
        out: &mut [u8],
    ) -> Result<u64, Errno> {
        let Some((out, _)) = out.split_first_chunk_mut() else {
            return Err(Errno::TooLarge);
        };
        let (key, create) = self.to_make(key)?;
        let op = Op::Add {
            create,
            offset,
            amount,
        };
        let sum = number(self.run(&key, op).await?)?;
        *out = sum.to_le_bytes();
        Ok(out.len() as u64)
    }

    pub async fn append(&self, key: &str, data: &[u8]) -> Result<u64, Errno> {
        let (key, create) = self.to_make(key)?;
        number(self.run(&key, Op::Append { create, data }).await?)
    }

    pub async fn truncate(&self, key: &str, size: u64) -> Result<u64, Errno> {
        let (key, create) = self.to_make(key)?;
        version(self.run(&key, Op::Truncate { create, size }).await?)
    }

    pub async fn swap(&self, key: &str, expected: u64, data: &[u8]) -> Result<u64, Errno> {
        let (key, create) = self.to_make(key)?;
        let put = Put {
            expected: Some(expected),
            ttl: None,
        };
        let (create, data) = (Some(create), data.into());
        version(self.run(&key, Op::Put { create, put, data }).await?)
    }

    pub async fn delete(&self, key: &str) -> Result<u64, Errno> {
        let key = self.to_change(key)?;
        match self.run(&key, Op::Delete { expected: None }).await? {
            Done::Was(true) => Ok(0),
            _ => Err(Errno::NotFound),
        }
    }

    pub async fn expire(&self, key: &str, ttl_ms: u64) -> Result<u64, Errno> {
        let ttl = (ttl_ms > 0).then(|| Duration::from_millis(ttl_ms));
        let key = self.to_change(key)?;
        self.run(&key, Op::Expire { ttl }).await.map(|_| 0)
    }

    pub async fn list(&self, prefix: &str, after: &str, out: &mut [u8]) -> Result<u64, Errno> {
        // A listing shows names of keys, all of which must be covered by one grant.
        let state = &self.guest.spec.settings.allow.state;
        if !state.iter().any(|grant| prefix.starts_with(&grant.prefix)) {
            return Err(Errno::Denied);
        }
        let (mut written, mut after) = (0, after.to_owned());
        loop {
            let from = (!after.is_empty()).then_some(after.as_str());
            let page = self.app.list(prefix, from, LIST_PAGE).await;
            let page = page.map_err(errno_of)?;
            for listed in &page {
                let name = listed.key.as_str().as_bytes();
                let Some(room) = out.get_mut(written..written + name.len() + 1) else {
                    return Ok(written as u64);
                };
                room[..name.len()].copy_from_slice(name);
                room[name.len()] = b'\n';
                written += room.len();
            }
            match page.last() {
                Some(last) if page.len() == LIST_PAGE => after = last.key.as_str().to_owned(),
                _ => return Ok(written as u64),
            }
        }
    }

    pub async fn lock(
        &mut self,
        key: &str,
        mode: u32,
        wait_ms: u64,
        hold_ms: u64,
    ) -> Result<u64, Errno> {
        let mode = match mode {
            SHARED => Mode::Shared,
            EXCLUSIVE => Mode::Exclusive,
            _ => return Err(Errno::Invalid),
        };
        let (key, _) = self.to_make(key)?;
        self.locks = true;
        // The node's own limit bounds it.
        let hold = match hold_ms {
            0 => Duration::MAX,
            hold_ms => Duration::from_millis(hold_ms),
        };
        let op = Op::Lock {
            mode,
            owner: self.owner(),
            wait: Duration::from_millis(wait_ms).min(WAIT_MOST),
            hold,
        };
        self.run(&key, op).await.map(|_| 0)
    }

    pub async fn unlock(&self, key: &str) -> Result<u64, Errno> {
        let (key, _) = self.to_make(key)?;
        let owner = self.owner();
        self.run(&key, Op::Unlock { owner }).await.map(|_| 0)
    }

    pub async fn map(
        &mut self,
        key: &str,
        (offset, len): (u64, u64),
        mode: u32,
        mapper: &mut dyn Mapper,
    ) -> Result<u64, Errno> {
        let access = match mode {
            TO_READ => MapAccess::Read,
            TO_WRITE => MapAccess::Write,
            _ => return Err(Errno::Invalid),
        };
        let mapped = self.to_map(key, access).await?;
        let len = match len {
            0 => mapped
                .size()
                .await
                .map_err(errno_of)?
                .saturating_sub(offset),
            len => len,
        };
        if len == 0 {
            return Err(Errno::Invalid);
        }
        let span = mapped.span(offset, len, access).await.map_err(errno_of)?;
        let at = mapper.map(&span.region, span.offset, span.bytes, access)?;
        if !self.mapped.contains_key(key) {
            self.mapped.insert(key.to_owned(), mapped);
        }
        Ok(at + span.within as u64)
    }

    /// What a key's mappings are of: what they were of before, while the guest has any.
    async fn to_map(&self, key: &str, access: MapAccess) -> Result<Mapped, Errno> {
        let (name, create) = match access {
            MapAccess::Read => (self.to_read(key)?, None),
            MapAccess::Write => {
                let (name, create) = self.to_make(key)?;
                (name, Some(create))
            }
        };
        if let Some(mapped) = self.mapped.get(key) {
            return Ok(mapped.clone());
        }
        match self.app.value(&name, Open { create }).await {
            Ok(value) => Ok(Mapped::Own(value)),
            Err(StateError::Elsewhere) => Ok(Mapped::Copy(self.app.mirror(&name))),
            Err(error) => Err(errno_of(error)),
        }
    }

    pub async fn push(&self, key: &str, offset: u64, len: u64) -> Result<u64, Errno> {
        let ((name, durability), length) = (self.to_make(key)?, to_end(len));
        match self.mapped.get(key) {
            // Of what was mapped here, only this node knows what was written.
            Some(Mapped::Own(value)) => value.push(offset, length).await,
            Some(Mapped::Copy(mirror)) => mirror.push(offset, length, durability).await,
            None => return version(self.run(&name, Op::Push { offset, length }).await?),
        }
        .map_err(errno_of)
    }

    pub async fn pull(&self, key: &str, offset: u64, len: u64) -> Result<u64, Errno> {
        let (name, length) = (self.to_read(key)?, to_end(len));
        if let Some(Mapped::Copy(mirror)) = self.mapped.get(key) {
            return mirror.pull(offset, length).await.map_err(errno_of);
        }
        match self.app.value(&name, Open::default()).await {
            Ok(value) => {
                value.pull(offset, length).await.map_err(errno_of)?;
                Ok(value.version())
            }
            // What is another node's is read there whenever it is read.
            Err(StateError::Elsewhere) => self.version(key).await,
            Err(error) => Err(errno_of(error)),
        }
    }

    async fn info(&self, key: &str) -> Result<Info, Errno> {
        let key = self.to_read(key)?;
        self.app.info(&key).await.map_err(errno_of)
    }

    async fn run(&self, key: &Key, op: Op<'_>) -> Result<Done, Errno> {
        self.app.run(key, &op).await.map_err(errno_of)
    }

    fn to_read(&self, key: &str) -> Result<Key, Errno> {
        self.granted(key, Access::Read)?;
        key.parse().map_err(|_| Errno::Invalid)
    }

    fn to_change(&self, key: &str) -> Result<Key, Errno> {
        self.granted(key, Access::Write)?;
        key.parse().map_err(|_| Errno::Invalid)
    }

    /// The key, and where a value of it is kept that is made.
    fn to_make(&self, key: &str) -> Result<(Key, Durability), Errno> {
        let durability = self.granted(key, Access::Write)?.durability;
        Ok((key.parse().map_err(|_| Errno::Invalid)?, durability))
    }

    fn granted(&self, key: &str, access: Access) -> Result<&StateGrant, Errno> {
        let grant = self.guest.spec.settings.allow.state_of(key);
        grant
            .filter(|grant| grant.access >= access)
            .ok_or(Errno::Denied)
    }

    fn owner(&self) -> u128 {
        self.guest.id.as_u128()
    }
}

impl Mapped {
    async fn size(&self) -> Result<u64, StateError> {
        match self {
            Mapped::Own(value) => Ok(value.size()),
            Mapped::Copy(mirror) => mirror.size().await,
        }
    }

    async fn span(&self, offset: u64, len: u64, access: MapAccess) -> Result<Span, StateError> {
        match self {
            Mapped::Own(value) => {
                let grow = access == MapAccess::Write;
                value.map_span(offset, len, access, grow).await
            }
            Mapped::Copy(mirror) => mirror.map_span(offset, len, access).await,
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if self.locks {
            self.state.release_all(self.owner());
        }
    }
}

/// What is known of a value that was read into a buffer of `room` bytes: its size, if that is all
/// of it.
fn whole(read: Result<Info, StateError>, room: usize) -> Result<u64, Errno> {
    let size = read.map_err(errno_of)?.size;
    match size > room as u64 {
        true => Err(Errno::TooLarge),
        false => Ok(size),
    }
}

/// The version that something came to.
fn version(done: Done) -> Result<u64, Errno> {
    match done {
        Done::Info(info) | Done::Made(info, _) => Ok(info.version),
        Done::Number(_, version) => Ok(version),
        _ => Err(Errno::Unavailable),
    }
}

/// The place or sum that something came to.
fn number(done: Done) -> Result<u64, Errno> {
    match done {
        Done::Number(number, _) => Ok(number),
        _ => Err(Errno::Unavailable),
    }
}

/// A length, of which 0 means all that there is.
const fn to_end(len: u64) -> u64 {
    match len {
        0 => u64::MAX,
        len => len,
    }
}

fn errno_of(error: StateError) -> Errno {
    match error {
        StateError::NotFound | StateError::NotLocked => Errno::NotFound,
        StateError::Conflict { .. } | StateError::LockUpgrade => Errno::Conflict,
        StateError::TooLarge { .. } => Errno::TooLarge,
        StateError::Full { .. } => Errno::Exhausted,
        StateError::Outside { .. } | StateError::Misaligned { .. } | StateError::Ttl { .. } => {
            Errno::Invalid
        }
        StateError::LockTimedOut => Errno::TimedOut,
        StateError::Lost => Errno::Failed,
        error => {
            tracing::warn!(%error, "state is not available");
            Errno::Unavailable
        }
    }
}
