//! One key of one app on this node: its value, if there is one, its locks, and what it owes to the
//! global tier.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use memory::{Access, REGION_UNIT_BYTES, Region};
use parking_lot::RwLock;

use crate::app::AppCore;
use crate::body::WORD_BYTES;
use crate::chunks::covering;
use crate::clock::millis;
use crate::content::{Content, Durability};
use crate::durable::missing;
use crate::lock::Locks;
use crate::tier::Holding;
use crate::{Data, Key, Name, StateError};

/// A key that was opened. Its value may come and go while it is held; each operation looks anew.
///
/// Each operation is atomic against the others of the key, but not against guests that write
/// through a mapping. Of a durable value, `set`, `append`, `truncate`, `swap`, `delete` and
/// `expire` return after the change is on disk; when that fails, the change is still made on this
/// node, and the next push carries it.
pub struct Value {
    pub(crate) name: Name,
    pub(crate) core: Arc<AppCore>,
    pub(crate) content: RwLock<Content>,
    pub(crate) locks: Locks,
    /// Whether it was opened since room was last made.
    pub(crate) used: AtomicBool,
    /// One conversation with the global tier at a time, so that its versions come in order.
    pub(crate) gate: tokio::sync::Mutex<()>,
    /// By which this node owns the key; none where there are no other nodes.
    pub(crate) holding: Option<Arc<Holding>>,
}

/// A value, as of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its version; greater than that of every earlier value of the key.
    pub version: u64,
    /// Its bytes.
    pub size: u64,
    /// Where it is kept.
    pub durability: Durability,
    /// When it ends, in milliseconds since 1970; 0 for never.
    pub expires_ms: u64,
}

/// How to put a value in its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Put {
    /// The version that is replaced; 0 means that there must be none, and none any.
    pub expected: Option<u64>,
    /// The time to live from now on, zero for ever; the one that it has if there is none.
    pub ttl: Option<Duration>,
}

/// Part of a value's region, to be mapped.
#[derive(Clone, Debug)]
pub struct Span {
    /// The region.
    pub region: Arc<Region>,
    /// Where to map it from: a multiple of [`REGION_UNIT_BYTES`].
    pub offset: usize,
    /// How much to map: a multiple of [`REGION_UNIT_BYTES`].
    pub bytes: usize,
    /// Where in that the bytes asked for begin.
    pub within: usize,
}

impl Info {
    pub(crate) fn of(content: &Content) -> Self {
        Self {
            version: content.version,
            size: content.size as u64,
            durability: content.durability,
            expires_ms: content.expires_ms,
        }
    }
}

impl Value {
    pub(crate) fn new(
        name: Name,
        core: Arc<AppCore>,
        content: Content,
        holding: Option<Arc<Holding>>,
    ) -> Self {
        Self {
            name,
            core,
            content: RwLock::new(content),
            locks: Locks::default(),
            used: true.into(),
            gate: tokio::sync::Mutex::default(),
            holding,
        }
    }

    /// The key.
    pub fn key(&self) -> &Key {
        &self.name.key
    }

    /// What is known of the value; none when there is none.
    pub fn info(&self) -> Option<Info> {
        self.seen(Info::of)
    }

    /// Whether there is a value.
    pub fn exists(&self) -> bool {
        self.seen(|_| ()).is_some()
    }

    /// The value's bytes; 0 when there is none.
    pub fn size(&self) -> u64 {
        self.seen(|content| content.size as u64).unwrap_or(0)
    }

    /// The value's version; 0 when there is none.
    pub fn version(&self) -> u64 {
        self.seen(|content| content.version).unwrap_or(0)
    }

    /// Where the value is kept, or will be.
    pub fn durability(&self) -> Durability {
        self.content.read().durability
    }

    /// Copies bytes from `offset` on into `out`, and says how many there were.
    pub async fn read(&self, offset: u64, out: &mut [u8]) -> Result<usize, StateError> {
        loop {
            if let Some(read) = self.read_now(offset, out) {
                return read;
            }
            self.load(bytes_of(offset), out.len()).await?;
        }
    }

    /// The same, if all of that is here, and is known here for what it is.
    pub fn read_here(&self, offset: u64, out: &mut [u8]) -> Option<Result<usize, StateError>> {
        self.if_known(self.read_now(offset, out))
    }

    fn read_now(&self, offset: u64, out: &mut [u8]) -> Option<Result<usize, StateError>> {
        let offset = bytes_of(offset);
        self.of_what_is_here((offset, out.len()), |content| content.read(offset, out))
    }

    /// Copies the value's first bytes into `out`, all as of one moment, and says what it is.
    pub async fn get_into(&self, out: &mut [u8]) -> Result<Info, StateError> {
        loop {
            if let Some(got) = self.get_now(out) {
                return got;
            }
            self.load(0, out.len()).await?;
        }
    }

    /// The same, if all of that is here, and is known here for what it is.
    pub fn get_here(&self, out: &mut [u8]) -> Option<Result<Info, StateError>> {
        self.if_known(self.get_now(out))
    }

    fn get_now(&self, out: &mut [u8]) -> Option<Result<Info, StateError>> {
        self.of_what_is_here((0, out.len()), |content| {
            content.read(0, out)?;
            Ok(Info::of(content))
        })
    }

    pub(crate) fn of_what_is_here<T>(
        &self,
        (offset, length): (usize, usize),
        read: impl FnOnce(&Content) -> Result<T, StateError>,
    ) -> Option<Result<T, StateError>> {
        let content = self.content.read();
        if let Err(elsewhere) = self.check_held() {
            return Some(Err(elsewhere));
        }
        match missing(&content, offset, length) {
            Some(_) => None,
            None => Some(self.check_alive(&content).and_then(|()| read(&content))),
        }
    }

    /// All of the value, as of one moment, and its version; refused if it has more than
    /// `bytes_max`.
    pub async fn get(&self, bytes_max: usize) -> Result<(Vec<u8>, u64), StateError> {
        if self.size() <= bytes_max as u64 {
            self.load(0, bytes_max).await?;
        }
        let content = self.content.read();
        self.check_held()?;
        self.check_alive(&content)?;
        if content.size > bytes_max {
            let (asked, max) = (content.size as u64, bytes_max as u64);
            return Err(StateError::TooLarge { asked, max });
        }
        let mut bytes = vec![0; content.size];
        content.read(0, &mut bytes)?;
        Ok((bytes, content.version))
    }

    /// Makes `data` the value; returns its version.
    pub async fn set(&self, data: &[u8]) -> Result<u64, StateError> {
        let data = Data::from(data);
        let done = self.commit(|content| content.set(&data).map(|()| content.version));
        done.await
    }

    /// Makes `data` the value if its version is `expected`; 0 means that there must be none.
    pub async fn swap(&self, expected: u64, data: &[u8]) -> Result<u64, StateError> {
        let data = Data::from(data);
        let swap = |content: &mut Content| {
            content.swap(expected, &data)?;
            Ok(content.version)
        };
        self.commit(swap).await
    }

    /// Makes `data` the value on conditions, together with its time to live; returns what it is.
    pub async fn put(self: &Arc<Self>, data: &[u8], put: Put) -> Result<Info, StateError> {
        self.put_over(&data.into(), put).await.map(|(info, _)| info)
    }

    /// The same, and whether there was a value before.
    pub(crate) async fn put_over(
        self: &Arc<Self>,
        data: &Data<'_>,
        put: Put,
    ) -> Result<(Info, bool), StateError> {
        let expires_ms = match put.ttl {
            Some(Duration::ZERO) => Some(0),
            Some(ttl) => Some(self.expiry(ttl)?),
            None => None,
        };
        let done = self.commit(|content| {
            let existed = content.exists();
            match put.expected {
                Some(expected) => content.swap(expected, data)?,
                None => content.set(data)?,
            }
            if let Some(expires_ms) = expires_ms {
                content.expire(expires_ms)?;
            }
            Ok((Info::of(content), existed))
        });
        let done = done.await;
        if put.ttl.is_some() {
            self.schedule();
        }
        done
    }

    /// Adds `data` at the end; returns where it begins.
    pub async fn append(&self, data: &[u8]) -> Result<u64, StateError> {
        self.load_end().await?;
        let done = self.commit(|content| content.append(data));
        done.await.map(|offset| offset as u64)
    }

    /// Makes the value `size` bytes long; added bytes are zero. Returns its version.
    pub async fn truncate(&self, size: u64) -> Result<u64, StateError> {
        let size = bytes_of(size);
        match size > bytes_of(self.size()) {
            true => self.load_end().await?,
            false => self.load(size.saturating_sub(1), 1).await?,
        }
        let done = self.commit(|content| content.truncate(size).map(|()| content.version));
        done.await
    }

    /// Writes `data` at `offset`, after zeros if the value ends before; returns its version. Of a
    /// durable value, this is on disk after a push.
    pub async fn write(&self, offset: u64, data: &[u8]) -> Result<u64, StateError> {
        let offset = bytes_of(offset);
        self.load(offset, data.len()).await?;
        self.load_end().await?;
        self.change(|content| content.write(offset, data).map(|()| content.version))
    }

    /// Adds to the number of 8 bytes, little-endian, at `offset`, a multiple of 8, after zeros if
    /// the value ends before; returns the sum, which wraps, and the version. One step, also beside
    /// guests that change it atomically in a mapping. Of a durable value, this is on disk after a
    /// push.
    pub async fn add(&self, offset: u64, amount: u64) -> Result<(u64, u64), StateError> {
        if !offset.is_multiple_of(WORD_BYTES as u64) {
            return Err(StateError::Misaligned { offset });
        }
        let offset = bytes_of(offset);
        self.load(offset, WORD_BYTES).await?;
        self.load_end().await?;
        self.change(|content| {
            let sum = content.add_to_word(offset / WORD_BYTES, amount)?;
            Ok((sum, content.version))
        })
    }

    /// Removes the value; whether there was one. Who has it mapped keeps what is mapped.
    pub async fn delete(&self) -> Result<bool, StateError> {
        let _gate = self.gate.lock().await;
        let existed = self.change(|content| Ok(content.delete()))?;
        self.remove_base().await?;
        Ok(existed)
    }

    /// Removes the value if its version is `expected`.
    pub async fn delete_if(&self, expected: u64) -> Result<(), StateError> {
        let _gate = self.gate.lock().await;
        self.change(|content| {
            let version = content.version;
            if version != expected {
                return Err(StateError::Conflict { version });
            }
            content.delete();
            Ok(())
        })?;
        self.remove_base().await
    }

    /// Ends the value after `ttl` from now, or never.
    pub async fn expire(self: &Arc<Self>, ttl: Option<Duration>) -> Result<(), StateError> {
        let expires_ms = match ttl {
            Some(ttl) => self.expiry(ttl)?,
            None => 0,
        };
        let done = self.commit(|content| content.expire(expires_ms)).await;
        self.schedule();
        done
    }

    /// The value's region, made if there was none.
    pub async fn region(&self) -> Result<Arc<Region>, StateError> {
        let size = self.size();
        let span = self.map_span(0, size, Access::Write, false).await?;
        Ok(span.region)
    }

    /// The region's part that holds `length` bytes from `offset`, all of them here. To map it for
    /// writing counts as having written all of it. With `grow`, the value is made as long as that
    /// takes, and made at all if there is none; else all must lie within it.
    pub async fn map_span(
        &self,
        offset: u64,
        length: u64,
        access: Access,
        grow: bool,
    ) -> Result<Span, StateError> {
        let outside = |size: usize| StateError::Outside {
            offset,
            length,
            size: size as u64,
        };
        let (start, length) = (bytes_of(offset), bytes_of(length));
        let end = start.checked_add(length).ok_or_else(|| outside(0))?;
        let max = self.core.node.config.value_bytes_max;
        if end > max {
            let (asked, max) = (end as u64, max as u64);
            return Err(StateError::TooLarge { asked, max });
        }
        let first = start - start % REGION_UNIT_BYTES;
        let bytes = end.div_ceil(REGION_UNIT_BYTES) * REGION_UNIT_BYTES;
        self.load(first, bytes.saturating_sub(first)).await?;
        if grow {
            self.load_end().await?;
        }
        self.change(|content| {
            if !grow && !content.exists() {
                return Err(StateError::NotFound);
            }
            if !grow && end > content.size {
                return Err(outside(content.size));
            }
            if content.chunks.missing(covering(first..end), 1).is_some() {
                // Another value took the place of the one that was loaded.
                return Err(StateError::Conflict {
                    version: content.version,
                });
            }
            let region = content.region(end)?;
            if access == Access::Write {
                content.suspect(first..bytes);
            }
            Ok(Span {
                bytes: bytes.min(region.bytes()).saturating_sub(first),
                region,
                offset: first,
                within: start - first,
            })
        })
    }

    /// Looks at the value, if there is one.
    fn seen<T>(&self, look: impl FnOnce(&Content) -> T) -> Option<T> {
        let content = self.content.read();
        self.check_held().ok()?;
        self.check_alive(&content).ok()?;
        Some(look(&content))
    }

    pub(crate) fn check_alive(&self, content: &Content) -> Result<(), StateError> {
        let alive = content.exists()
            && (content.expires_ms == 0 || !content.is_expired(self.core.now_ms()));
        alive.then_some(()).ok_or(StateError::NotFound)
    }

    /// Changes the value in memory, and tells who watches.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut Content) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        let mut content = self.content.write();
        self.check_held()?;
        let before = content.version;
        if content.expires_ms != 0 && content.is_expired(self.core.now_ms()) {
            content.delete();
        }
        let done = change(&mut content);
        if content.version != before {
            let deleted = !content.exists();
            if deleted {
                self.core.idle.lock().insert(self.key().clone());
            }
            self.core
                .watchers
                .publish(self.key(), content.last, deleted);
        }
        done
    }

    /// Changes the value and, if it is durable, returns after that is on disk.
    pub(crate) async fn commit<T>(
        &self,
        change: impl FnOnce(&mut Content) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        if !self.is_to_be_backed(self.durability()) {
            let done = self.change(change);
            if !self.is_backed(&self.content.read()) {
                return done;
            }
            // It was made anew as a durable one in the meantime.
            let _gate = self.gate.lock().await;
            self.push_known().await?;
            return done;
        }
        let _gate = self.gate.lock().await;
        let done = self.change(change)?;
        self.push_known().await?;
        Ok(done)
    }

    fn expiry(&self, ttl: Duration) -> Result<u64, StateError> {
        let (ms, max_ms) = (millis(ttl), millis(self.core.node.config.ttl_max));
        if ms == 0 || ms > max_ms {
            return Err(StateError::Ttl { ms, max_ms });
        }
        Ok(self.core.now_ms() + ms)
    }
}

/// A guest's number as one of this machine's, which it only exceeds where nothing is.
fn bytes_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Value");
        shown.field("name", &self.name);
        shown.field("info", &self.info()).finish()
    }
}
