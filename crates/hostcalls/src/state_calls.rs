//! `state_…`: what a guest does with the keys of its app.

use std::sync::Arc;
use std::time::Duration;

use memory::Access as MapAccess;
use model::{Access, StateGrant};
use sandbox::host::{Errno, Guest, Mapper};
use state::{AppState, Durability, Info, Key, Mode, Open, State, StateError, Value};

use crate::host::Services;

/// Modes of `state_lock`.
const SHARED: u32 = 0;
const EXCLUSIVE: u32 = 1;
/// Modes of `state_map`.
const TO_READ: u32 = 0;
const TO_WRITE: u32 = 1;
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
}

impl Keys {
    pub fn new(services: &Services, guest: Arc<Guest>) -> Self {
        Self {
            app: services.state.app(&guest.path.app),
            state: services.state.clone(),
            guest,
            locks: false,
            last: None,
        }
    }

    pub async fn size(&self, key: &str) -> Result<u64, Errno> {
        Ok(self.existing(key).await?.size())
    }

    pub async fn version(&self, key: &str) -> Result<u64, Errno> {
        Ok(self.existing(key).await?.version())
    }

    pub async fn get(&self, key: &str, out: &mut [u8]) -> Result<u64, Errno> {
        let value = self.existing(key).await?;
        if value.size() > out.len() as u64 {
            return Err(Errno::TooLarge);
        }
        whole(value.get_into(out).await, out.len())
    }

    pub async fn read(&self, key: &str, offset: u64, out: &mut [u8]) -> Result<u64, Errno> {
        let value = self.existing(key).await?;
        let count = value.read(offset, out).await.map_err(errno_of)?;
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
        self.made(key).await?.set(data).await.map_err(errno_of)
    }

    pub async fn write(&self, key: &str, offset: u64, data: &[u8]) -> Result<u64, Errno> {
        let value = self.made(key).await?;
        value.write(offset, data).await.map_err(errno_of)
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
        let value = self.made(key).await?;
        let (sum, _version) = value.add(offset, amount).await.map_err(errno_of)?;
        *out = sum.to_le_bytes();
        Ok(out.len() as u64)
    }

    pub async fn append(&self, key: &str, data: &[u8]) -> Result<u64, Errno> {
        self.made(key).await?.append(data).await.map_err(errno_of)
    }

    pub async fn truncate(&self, key: &str, size: u64) -> Result<u64, Errno> {
        self.made(key).await?.truncate(size).await.map_err(errno_of)
    }

    pub async fn swap(&self, key: &str, expected: u64, data: &[u8]) -> Result<u64, Errno> {
        let value = self.made(key).await?;
        value.swap(expected, data).await.map_err(errno_of)
    }

    pub async fn delete(&self, key: &str) -> Result<u64, Errno> {
        let existed = self.kept(key).await?.delete().await.map_err(errno_of)?;
        existed.then_some(0).ok_or(Errno::NotFound)
    }

    pub async fn expire(&self, key: &str, ttl_ms: u64) -> Result<u64, Errno> {
        let ttl = (ttl_ms > 0).then(|| Duration::from_millis(ttl_ms));
        let value = self.kept(key).await?;
        value.expire(ttl).await.map(|()| 0).map_err(errno_of)
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
        let value = self.made(key).await?;
        self.locks = true;
        // The node's own limit bounds it.
        let hold = match hold_ms {
            0 => Duration::MAX,
            hold_ms => Duration::from_millis(hold_ms),
        };
        let wait = Duration::from_millis(wait_ms);
        let taken = value.lock(mode, self.owner(), wait, hold).await;
        taken.map(|()| 0).map_err(errno_of)
    }

    pub async fn unlock(&self, key: &str) -> Result<u64, Errno> {
        let value = self.made(key).await?;
        value.unlock(self.owner()).map(|()| 0).map_err(errno_of)
    }

    pub async fn map(
        &self,
        key: &str,
        (offset, len): (u64, u64),
        mode: u32,
        mapper: &mut dyn Mapper,
    ) -> Result<u64, Errno> {
        let (value, access) = match mode {
            TO_READ => (self.existing(key).await?, MapAccess::Read),
            TO_WRITE => (self.made(key).await?, MapAccess::Write),
            _ => return Err(Errno::Invalid),
        };
        let len = match len {
            0 => value.size().saturating_sub(offset),
            len => len,
        };
        if len == 0 {
            return Err(Errno::Invalid);
        }
        let grow = access == MapAccess::Write;
        let span = value.map_span(offset, len, access, grow).await;
        let span = span.map_err(errno_of)?;
        let at = mapper.map(&span.region, span.offset, span.bytes, access)?;
        Ok(at + span.within as u64)
    }

    pub async fn push(&self, key: &str, offset: u64, len: u64) -> Result<u64, Errno> {
        let value = self.kept(key).await?;
        value.push(offset, to_end(len)).await.map_err(errno_of)
    }

    pub async fn pull(&self, key: &str, offset: u64, len: u64) -> Result<u64, Errno> {
        let value = self.existing(key).await?;
        value.pull(offset, to_end(len)).await.map_err(errno_of)?;
        Ok(value.version())
    }

    /// A value that is there, to read.
    async fn existing(&self, key: &str) -> Result<Arc<Value>, Errno> {
        self.granted(key, Access::Read)?;
        self.open(key, None).await
    }

    /// A value that is there, to write.
    async fn kept(&self, key: &str) -> Result<Arc<Value>, Errno> {
        self.granted(key, Access::Write)?;
        self.open(key, None).await
    }

    /// A value to write, made if it is not there.
    async fn made(&self, key: &str) -> Result<Arc<Value>, Errno> {
        let grant = self.granted(key, Access::Write)?;
        self.open(key, Some(grant.durability)).await
    }

    fn granted(&self, key: &str, access: Access) -> Result<&StateGrant, Errno> {
        let grant = self.guest.spec.settings.allow.state_of(key);
        grant
            .filter(|grant| grant.access >= access)
            .ok_or(Errno::Denied)
    }

    async fn open(&self, key: &str, create: Option<Durability>) -> Result<Arc<Value>, Errno> {
        let key: Key = key.parse().map_err(|_| Errno::Invalid)?;
        let opened = self.app.value(&key, Open { create }).await;
        opened.map_err(errno_of)
    }

    fn owner(&self) -> u128 {
        self.guest.id.as_u128()
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
        error => {
            tracing::warn!(%error, "state is not available");
            Errno::Unavailable
        }
    }
}
