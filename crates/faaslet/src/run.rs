//! Runs one program in this process, as `wasmtime run` does: standard streams are the process's
//! own, directories are those given, and nothing limits its time. Modules of preview 1, or of the
//! `wasi_unstable` before it, and `wasi:cli` components run on an engine without epoch checks, at
//! full speed.
//!
//! No server is involved: a person runs a program that they trust with what they give it.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::path::PathBuf;
use std::thread;

use model::Digest;
use wasmparser::Parser;
use wasmtime::component::Component;
use wasmtime::{Engine, Linker, Module, Store, Trap, WasmBacktraceDetails};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtx, WasiCtxBuilder, p2, p3};

use crate::component::{Flavour, Guest, linker};
use sandbox::{Cache, EntryKind};

/// The exit code of a program that trapped: what a shell shows for one that was aborted.
const EXIT_TRAPPED: i32 = 134;
/// The exit code of a component whose `run` says that it failed.
const EXIT_FAILED: i32 = 1;
/// Bytes that the program may hand over in one call: what it does with memory of its own machine's
/// is its user's affair.
const HOST_CALL_BYTES_MAX: usize = usize::MAX;
/// The stack of the thread that the program runs on; the engine grants it a part of that.
const THREAD_STACK_BYTES: usize = 8 << 20;

/// What to run, and what it gets.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// The program: a module or a component, binary or text.
    pub file: PathBuf,
    /// Directories that it may read and write: where they are, and what it calls them.
    pub dirs: Vec<(PathBuf, String)>,
    /// Its environment, of which nothing is inherited.
    pub env: Vec<(String, String)>,
    /// Its arguments, after its name.
    pub args: Vec<String>,
    /// Where compiled code is kept; by default `dunlin` in the user's cache directory.
    pub cache_dir: Option<PathBuf>,
}

/// Why a program could not be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The program could not be read.
    #[error("could not read {path}")]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory could not be opened.
    #[error("could not open the directory {path}: {reason}")]
    Dir {
        /// Its path.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It is not WebAssembly, or not valid.
    #[error("{path} is not valid WebAssembly: {reason}")]
    Invalid {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It is valid, but no program.
    #[error("{path} cannot be run: {reason}")]
    NotAProgram {
        /// Its path.
        path: PathBuf,
        /// What it is.
        reason: String,
    },
    /// It asks for imports that are not offered.
    #[error("{path} imports what is not offered: {}", .names.join(", "))]
    UnknownImports {
        /// Its path.
        path: PathBuf,
        /// Each import.
        names: Vec<String>,
    },
    /// The engine failed it, not by a trap.
    #[error("{path} failed: {reason}")]
    Failed {
        /// Its path.
        path: PathBuf,
        /// The engine's words.
        reason: String,
    },
    /// A thread or a runtime for it could not be made.
    #[error("could not start the program's thread")]
    Thread(#[source] io::Error),
}

/// Runs the program to its end and gives its exit code. A trap is told on stderr, with the guest's
/// backtrace, and is code 134.
pub fn run(options: RunOptions) -> Result<i32, RunError> {
    // A thread of its own, so that it does not matter whether the caller is in an async context.
    let thread = thread::Builder::new()
        .name("program".into())
        .stack_size(THREAD_STACK_BYTES);
    let program = thread
        .spawn(move || Run { options }.run())
        .map_err(RunError::Thread)?;
    let ended = program.join().unwrap_or_else(|_| {
        let lost = io::Error::other("the program's thread panicked");
        Err(RunError::Thread(lost))
    });
    // What is left in the buffer has nowhere to go if the reader is gone.
    let _ = io::stdout().flush();
    ended
}

struct Run {
    options: RunOptions,
}

impl Run {
    fn run(&self) -> Result<i32, RunError> {
        let path = &self.options.file;
        let bytes = fs::read(path).map_err(|source| RunError::Read {
            path: path.clone(),
            source,
        })?;
        let wasm = wat::parse_bytes(&bytes).map_err(|error| self.invalid(&error))?;
        let mut config = wasmtime::Config::new();
        config.wasm_backtrace_details(WasmBacktraceDetails::Enable);
        let engine = Engine::new(&config).map_err(|error| self.failed(&error))?;
        let ended = if Parser::is_component(&wasm) {
            self.component(&engine, &wasm)?
        } else {
            self.module(&engine, &wasm)?
        };
        self.exit_code(ended)
    }

    fn exit_code(&self, ended: wasmtime::Result<i32>) -> Result<i32, RunError> {
        let error = match ended {
            Ok(code) => return Ok(code),
            Err(error) => error,
        };
        if let Some(I32Exit(code)) = error.downcast_ref::<I32Exit>() {
            return Ok(*code);
        }
        if error.is::<Trap>() {
            // The program's own output comes first; a closed stderr is no reason to fail.
            let _ = io::stdout().flush();
            let _ = writeln!(io::stderr(), "Error: {error:?}");
            return Ok(EXIT_TRAPPED);
        }
        Err(self.failed(&error))
    }

    fn context(&self) -> Result<WasiCtxBuilder, RunError> {
        let path = &self.options.file;
        let name = path.file_name().unwrap_or(path.as_os_str());
        let mut builder = WasiCtx::builder();
        builder
            .inherit_stdio()
            .allow_blocking_current_thread(true)
            .arg(name.to_string_lossy())
            .args(&self.options.args)
            .envs(&self.options.env);
        for (host, guest) in &self.options.dirs {
            let opened = builder.preopened_dir(host, guest, FsPerms::ReadWrite);
            opened.map_err(|error| RunError::Dir {
                path: host.clone(),
                reason: format!("{error:#}"),
            })?;
        }
        Ok(builder)
    }

    fn module(&self, engine: &Engine, wasm: &[u8]) -> Result<wasmtime::Result<i32>, RunError> {
        let mut store = Store::new(engine, self.context()?.build_p1());
        store.set_hostcall_fuel(HOST_CALL_BYTES_MAX);
        let code = self.code(engine, wasm, || engine.precompile_module(wasm))?;
        // SAFETY: see `Code`.
        let module = unsafe {
            match &code {
                Code::File(path) => Module::deserialize_file(engine, path),
                Code::Bytes(bytes) => Module::deserialize(engine, bytes),
            }
        };
        let module = module.map_err(|error| self.failed(&error))?;
        if module.get_export("_start").is_none() {
            return Err(self.not_a_program(&module));
        }
        let mut linker = Linker::<WasiP1Ctx>::new(engine);
        wasmtime_wasi::p1::add_to_linker_sync(&mut linker, |wasi| wasi)
            .and_then(|()| wasmtime_wasi::p0::add_to_linker_sync(&mut linker, |wasi| wasi))
            .map_err(|error| self.failed(&error))?;
        self.check_imports(&module, &linker, &mut store)?;
        let instance = match linker.instantiate(&mut store, &module) {
            Ok(instance) => instance,
            // Its start function ran, and ended it.
            Err(error) if error.is::<Trap>() || error.is::<I32Exit>() => return Ok(Err(error)),
            Err(error) => return Err(self.invalid(&error)),
        };
        if let Ok(start) = instance.get_typed_func::<(), i32>(&mut store, "_start") {
            return Ok(start.call(&mut store, ()));
        }
        let start = instance.get_typed_func::<(), ()>(&mut store, "_start");
        let start = start.map_err(|_| RunError::NotAProgram {
            path: self.options.file.clone(),
            reason: "`_start` must take nothing and return nothing or an i32".into(),
        })?;
        Ok(start.call(&mut store, ()).map(|()| 0))
    }

    fn check_imports(
        &self,
        module: &Module,
        linker: &Linker<WasiP1Ctx>,
        store: &mut Store<WasiP1Ctx>,
    ) -> Result<(), RunError> {
        let names: Vec<_> = module
            .imports()
            .filter(|import| linker.get_by_import(&mut *store, import).is_none())
            .map(|import| format!("{}.{}", import.module(), import.name()))
            .collect();
        if names.is_empty() {
            return Ok(());
        }
        Err(RunError::UnknownImports {
            path: self.options.file.clone(),
            names,
        })
    }

    fn component(&self, engine: &Engine, wasm: &[u8]) -> Result<wasmtime::Result<i32>, RunError> {
        let wasi = self.context()?.build();
        let code = self.code(engine, wasm, || engine.precompile_component(wasm))?;
        // SAFETY: see `Code`.
        let component = unsafe {
            match &code {
                Code::File(path) => Component::deserialize_file(engine, path),
                Code::Bytes(bytes) => Component::deserialize(engine, bytes),
            }
        };
        let component = component.map_err(|error| self.failed(&error))?;
        let linker = linker(engine, Flavour::Concurrent).map_err(|error| self.failed(&error))?;
        let exports = component.component_type();
        let exports = |prefix: &str| {
            let mut names = exports.exports(engine).map(|(name, _)| name);
            names.any(|name| name.starts_with(prefix))
        };
        let recent = exports("wasi:cli/run@0.3.");
        if !recent && !exports("wasi:cli/run@0.2.") {
            return Err(RunError::NotAProgram {
                path: self.options.file.clone(),
                reason: "it is a component that does not export `wasi:cli/run`".into(),
            });
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(RunError::Thread)?;
        let pre = linker
            .instantiate_pre(&component)
            .map_err(|error| self.invalid(&error))?;
        let mut store = Store::new(engine, Guest::new(wasi, u64::MAX, None));
        store.set_hostcall_fuel(HOST_CALL_BYTES_MAX);
        let ended = runtime.block_on(async {
            match recent {
                true => run_p3(store, p3::bindings::CommandPre::new(pre)?).await,
                false => run_p2(store, p2::bindings::CommandPre::new(pre)?).await,
            }
        });
        // A thread may still wait on stdin: it must not hold the exit up.
        runtime.shutdown_background();
        Ok(ended.map(|result| match result {
            Ok(()) => 0,
            Err(()) => EXIT_FAILED,
        }))
    }

    /// The program's code, from the cache if there is one and it can be used.
    fn code(
        &self,
        engine: &Engine,
        wasm: &[u8],
        compile: impl FnOnce() -> wasmtime::Result<Vec<u8>>,
    ) -> Result<Code, RunError> {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let hash = hasher.finish().to_le_bytes();
        let key = Digest::of_parts([b"run".as_slice(), wasm, &hash]);
        let cache = self.cache_dir().and_then(|dir| {
            Cache::new(dir)
                .inspect_err(|error| tracing::warn!(%error, "compiled code will not be cached"))
                .ok()
        });
        let found = cache
            .as_ref()
            .and_then(|cache| cache.load(&key, EntryKind::Code).ok().flatten());
        if let Some(path) = found {
            return Ok(Code::File(path));
        }
        let code = compile().map_err(|error| self.invalid(&error))?;
        if let Some(cache) = cache {
            match cache.store(&key, EntryKind::Code, &code) {
                Ok(path) => return Ok(Code::File(path)),
                Err(error) => tracing::warn!(%error, "compiled code was not cached"),
            }
        }
        Ok(Code::Bytes(code))
    }

    fn cache_dir(&self) -> Option<PathBuf> {
        if let Some(dir) = &self.options.cache_dir {
            return Some(dir.clone());
        }
        let absolute = |name| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let user = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
        Some(user.join("dunlin").join("run"))
    }

    fn not_a_program(&self, module: &Module) -> RunError {
        let reason = if module.get_export("_initialize").is_some() {
            "it is a reactor, which has no `_start`: deploy it with `--kind reactor`"
        } else {
            "it does not export `_start`"
        };
        RunError::NotAProgram {
            path: self.options.file.clone(),
            reason: reason.into(),
        }
    }

    fn invalid(&self, error: &impl std::fmt::Display) -> RunError {
        RunError::Invalid {
            path: self.options.file.clone(),
            reason: format!("{error:#}"),
        }
    }

    fn failed(&self, error: &wasmtime::Error) -> RunError {
        RunError::Failed {
            path: self.options.file.clone(),
            reason: format!("{error:#}"),
        }
    }
}

/// Compiled code, which an engine trusts: either it was made here and now, or the cache has
/// compared it with the digest of what was made, in a directory that only the user writes to.
enum Code {
    File(PathBuf),
    Bytes(Vec<u8>),
}

async fn run_p2(
    mut store: Store<Guest>,
    pre: p2::bindings::CommandPre<Guest>,
) -> wasmtime::Result<Result<(), ()>> {
    let command = pre.instantiate_async(&mut store).await?;
    command.wasi_cli_run().call_run(&mut store).await
}

async fn run_p3(
    mut store: Store<Guest>,
    pre: p3::bindings::CommandPre<Guest>,
) -> wasmtime::Result<Result<(), ()>> {
    let command = pre.instantiate_async(&mut store).await?;
    store
        .run_concurrent(async |program| {
            let result = command.wasi_cli_run().call_run(program).await?;
            std::future::poll_fn(|cx| program.poll_no_interesting_tasks(cx)).await;
            Ok(result)
        })
        .await?
}
