//! A loaded core program: code, image and globals, ready to make sandboxes of.

use std::sync::Arc;

use files::{Layer, Quota};
use memory::{Image, MemoryError, Range};
use model::{Kind, Settings};
use sandbox::{Presence, Program, Sandbox, SandboxError};
use serde::{Deserialize, Serialize};
use wasmtime::{Global, Instance, InstancePre, Memory, Store, TypedFunc, Val};

use super::CoreEngine;
use super::creator;
use super::faaslet::Faaslet;
use super::host::Host;
use super::pages::KeptPages;
use super::rewrite::{global_export, memory_export};
use crate::lost;

/// What is frozen beside memory and code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Frozen {
    /// Values of the mutable globals, by index.
    pub globals: Vec<(u32, FrozenValue)>,
    /// Whether there is a memory.
    pub has_memory: bool,
    /// Whether the guest imports calls that may wait.
    pub waits: bool,
    /// Whether it imports preview 1.
    pub wasi: bool,
    /// Whether it imports calls that ask the platform.
    pub asks: bool,
    /// Whether only a new instance undoes a call.
    pub new_instance: bool,
    /// Exports that run in each instance before its first call, in order: what they change is not
    /// all in the image.
    #[serde(default)]
    pub first: Vec<String>,
    /// Where the memory is, if it is a large one; else it is an entry by the key of this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pages: Option<KeptPages>,
}

/// A number in a global.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FrozenValue {
    I32(i32),
    I64(i64),
    F32(u32),
    F64(u64),
    V128([u8; 16]),
}

impl FrozenValue {
    /// The value in `val`; None for references.
    pub fn of(val: &Val) -> Option<Self> {
        Some(match val {
            Val::I32(value) => Self::I32(*value),
            Val::I64(value) => Self::I64(*value),
            Val::F32(bits) => Self::F32(*bits),
            Val::F64(bits) => Self::F64(*bits),
            Val::V128(value) => Self::V128(value.as_u128().to_le_bytes()),
            _ => return None,
        })
    }

    fn thaw(self) -> Val {
        match self {
            Self::I32(value) => Val::I32(value),
            Self::I64(value) => Val::I64(value),
            Self::F32(bits) => Val::F32(bits),
            Self::F64(bits) => Val::F64(bits),
            Self::V128(bytes) => Val::V128(u128::from_le_bytes(bytes).into()),
        }
    }
}

/// The function that a call enters.
pub(super) enum Entry {
    Unit(TypedFunc<(), ()>),
    Code(TypedFunc<(), i32>),
}

impl Entry {
    fn find(store: &mut Store<Host>, instance: &Instance, name: &str) -> wasmtime::Result<Self> {
        Ok(
            match instance.get_typed_func::<(), i32>(&mut *store, name) {
                Ok(entry) => Self::Code(entry),
                Err(_) => Self::Unit(instance.get_typed_func(&mut *store, name)?),
            },
        )
    }

    fn call(&self, store: &mut Store<Host>) -> wasmtime::Result<i32> {
        match self {
            Self::Unit(entry) => entry.call(store, ()).map(|()| 0),
            Self::Code(entry) => entry.call(store, ()),
        }
    }

    async fn call_async(&self, store: &mut Store<Host>) -> wasmtime::Result<i32> {
        match self {
            Self::Unit(entry) => entry.call_async(store, ()).await.map(|()| 0),
            Self::Code(entry) => entry.call_async(store, ()).await,
        }
    }
}

/// An instance and what a reset needs of it.
pub(super) struct Live {
    pub instance: Instance,
    pub store: Store<Host>,
    pub memory: Option<Memory>,
    pub globals: Vec<(Global, Val)>,
    /// What is still to run before the first call.
    first: Vec<Entry>,
    entry: Entry,
}

impl Live {
    /// Enters the guest, which never waits; what it returns.
    pub fn enter(&mut self) -> wasmtime::Result<i32> {
        for entry in &self.first {
            match entry.call(&mut self.store)? {
                0 => {}
                failed => return Ok(failed),
            }
        }
        self.first.clear();
        self.entry.call(&mut self.store)
    }

    /// Enters the guest, which may wait; what it returns.
    pub async fn enter_async(&mut self) -> wasmtime::Result<i32> {
        for entry in &self.first {
            match entry.call_async(&mut self.store).await? {
                0 => {}
                failed => return Ok(failed),
            }
        }
        self.first.clear();
        self.entry.call_async(&mut self.store).await
    }
}

/// Code, image and globals.
pub(crate) struct CoreParts {
    pub core: Arc<CoreEngine>,
    pub pre: InstancePre<Host>,
    pub image: Arc<Image>,
    pub frozen: Frozen,
    pub settings: Settings,
    /// The files that every sandbox begins with.
    pub layer: Arc<Layer>,
    /// The export that a call enters.
    pub entry: &'static str,
}

/// A loaded core program.
pub(crate) struct CoreProgram(pub(super) Arc<CoreParts>);

/// The export that a call of `kind` enters.
pub(super) const fn entry_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Reactor => "handle",
        _ => "_start",
    }
}

impl Program for CoreProgram {
    fn sandbox(&self) -> Result<Box<dyn Sandbox>, SandboxError> {
        lost::check("made", &self.0.image)?;
        Ok(Box::new(Faaslet::new(self.0.clone())?))
    }

    fn cooperative(&self) -> bool {
        false
    }

    fn presence(&self) -> Presence {
        self.0.image.presence()
    }

    fn asks(&self) -> bool {
        self.0.frozen.asks
    }
}

impl CoreParts {
    /// A range that equals the image.
    pub fn range(&self) -> Result<Arc<Range>, SandboxError> {
        self.core
            .slab
            .take(&self.image)
            .map(Arc::new)
            .map_err(|error| match error {
                MemoryError::Full { live, max } => SandboxError::Full { live, max },
                other => failed("made")(&other),
            })
    }

    /// A new instance over `range`, which equals the image.
    pub fn instantiate(&self, range: &Arc<Range>) -> Result<Live, SandboxError> {
        self.try_instantiate(range)
            .map_err(|error| failed("made")(&error))
    }

    fn try_instantiate(&self, range: &Arc<Range>) -> wasmtime::Result<Live> {
        let mut host = Host::default();
        let most = range.image().bytes().max(self.memory_bytes_max());
        // The poll page's memory is the platform's.
        host.limiter.memory_bytes_max = most.saturating_add(creator::WASM_PAGE_BYTES);
        let mut store = Store::new(&self.core.engine, host);
        store.limiter(|host| &mut host.limiter);
        lost::guard(&mut store, &range.image());
        let instance = creator::over(range, self.frozen.has_memory, || {
            if self.frozen.waits {
                // Nothing of the module runs at instantiation, so nothing can wait.
                use futures::FutureExt;
                let made = self.pre.instantiate_async(&mut store).now_or_never();
                made.unwrap_or_else(|| Err(wasmtime::Error::msg("instantiation waited")))
            } else {
                self.pre.instantiate(&mut store)
            }
        })?;
        let memory = self
            .frozen
            .has_memory
            .then(|| instance.get_memory(&mut store, &memory_export()))
            .flatten();
        store.data_mut().memory = memory;
        store.data_mut().range = self.frozen.asks.then(|| range.clone());
        let entry = Entry::find(&mut store, &instance, self.entry)?;
        let mut first = Vec::with_capacity(self.frozen.first.len());
        for name in &self.frozen.first {
            first.push(Entry::find(&mut store, &instance, name)?);
        }
        let mut globals = Vec::with_capacity(self.frozen.globals.len());
        for (index, value) in &self.frozen.globals {
            let global = instance
                .get_global(&mut store, &global_export(*index))
                .ok_or_else(|| wasmtime::Error::msg("a global is missing"))?;
            global.set(&mut store, value.thaw())?;
            globals.push((global, value.thaw()));
        }
        Ok(Live {
            instance,
            store,
            memory,
            globals,
            first,
            entry,
        })
    }

    /// What an invocation may write to files.
    pub fn files_quota(&self) -> Quota {
        Quota {
            bytes_max: self.settings.limits.files_bytes_max,
            inodes_max: self.settings.limits.files_max.into(),
        }
    }

    /// The guest's memory cap.
    pub fn memory_bytes_max(&self) -> usize {
        usize::try_from(self.settings.limits.memory_bytes_max).unwrap_or(usize::MAX)
    }
}

/// For `map_err`: a sandbox could not be `doing`.
pub(super) fn failed<E: std::fmt::Display>(doing: &'static str) -> impl Fn(&E) -> SandboxError {
    move |error| SandboxError::Failed {
        doing,
        reason: format!("{error:#}"),
    }
}
