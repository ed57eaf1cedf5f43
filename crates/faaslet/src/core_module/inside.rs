//! Core modules compiled for the runtime inside of micro-VMs, which has no compiler of its own.
//!
//! Nothing of such a module is rewritten but that its memory has a name: the machine's image holds
//! globals and tables, and a timer of the machine's ends what runs too long. The engine is
//! configured as the runtime's is, and the runtime refuses code that was compiled otherwise.

use std::collections::HashSet;
use std::convert::Infallible;

use model::{Kind, VersionSpec};
use sandbox::PrepareError;
use sandbox::host::HostCall;
use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{ExportKind, ExportSection, Module};
use wasmparser::Parser;
use wasmtime::{Config, Engine, OptLevel};

use super::host::DUNLIN;
use super::rewrite::memory_export;
use super::survey::Survey;

/// The calls of a reactor's bytes, which the runtime has beside the table's.
const CALLS: [&str; 4] = ["input_size", "input_read", "output_write", "log_write"];

/// What compiled code counts on: addresses of its memory, those behind it that stay empty, and
/// those of the memory that exceptions live in.
#[derive(Clone, Copy, Debug)]
pub struct Reservations {
    /// Of the linear memory.
    pub memory_bytes: u64,
    /// Behind each.
    pub guard_bytes: u64,
    /// Of the other.
    pub engine_bytes: u64,
}

/// The compiler.
pub struct InsideCompiler {
    engine: Engine,
    /// Names that the runtime offers as imports of `dunlin`.
    offered: HashSet<&'static str>,
}

impl InsideCompiler {
    /// A compiler for modules that may make the calls of `table`.
    pub fn new(
        reservations: Reservations,
        table: &'static [HostCall],
    ) -> Result<Self, crate::FaasletsError> {
        let engine = Engine::new(&config(reservations)).map_err(crate::FaasletsError::Engine)?;
        let names = table.iter().map(|call| call.name);
        Ok(Self {
            engine,
            offered: names.chain(CALLS).collect(),
        })
    }

    /// The code of `wasm`, or why it cannot be a function of `spec`.
    pub fn compile(&self, spec: &VersionSpec, wasm: &[u8]) -> Result<Vec<u8>, PrepareError> {
        crate::backend::check_magic(wasm)?;
        check_kind(spec.kind, wasm)?;
        let survey = Survey::of(wasm)?;
        survey.check(spec.kind)?;
        self.check_imports(&survey)?;
        let named = name_memory(wasm, &survey)?;
        let compiled = self.engine.precompile_module(&named);
        compiled.map_err(|error| PrepareError::Invalid {
            reason: format!("it does not compile: {error:#}"),
        })
    }

    fn check_imports(&self, survey: &Survey) -> Result<(), PrepareError> {
        let functions = survey.imports.iter();
        let unknown = functions
            .filter(|import| {
                import.module != DUNLIN || !self.offered.contains(import.name.as_str())
            })
            .chain(&survey.other_imports);
        let names = unknown.map(|import| format!("{}.{}", import.module, import.name));
        let names: Vec<_> = std::collections::BTreeSet::from_iter(names)
            .into_iter()
            .collect();
        if names.is_empty() {
            return Ok(());
        }
        Err(PrepareError::UnknownImports { names })
    }
}

fn check_kind(kind: Kind, wasm: &[u8]) -> Result<(), PrepareError> {
    let what = match kind {
        _ if crate::backend::is_component(wasm) => "components",
        Kind::Http => "http functions",
        Kind::Command => "commands of WebAssembly",
        Kind::Lambda => "Lambda functions, which are Linux programs,",
        Kind::Reactor => return Ok(()),
    };
    Err(PrepareError::Unsupported {
        reason: format!(
            "{what} do not run inside of a micro-VM: `isolation = \"wasm+vm\"` takes core modules \
             that are reactors"
        ),
    })
}

fn config(reservations: Reservations) -> Config {
    let mut config = Config::new();
    config
        .cranelift_opt_level(OptLevel::Speed)
        .wasm_component_model(false)
        .wasm_component_model_async(false)
        .wasm_threads(true)
        .wasm_exceptions(true)
        .memory_reservation(reservations.memory_bytes)
        .memory_guard_size(reservations.guard_bytes)
        .memory_may_move(false)
        .gc_heap_reservation(reservations.engine_bytes)
        .gc_heap_guard_size(reservations.guard_bytes)
        .gc_heap_may_move(false)
        .guard_before_linear_memory(false)
        .memory_init_cow(false)
        .signals_based_traps(true)
        .concurrency_support(false)
        .generate_address_map(false);
    config
}

/// The module with its memory exported under a name that no module has.
fn name_memory(wasm: &[u8], survey: &Survey) -> Result<Vec<u8>, PrepareError> {
    if survey.memory.is_none() {
        return Ok(wasm.to_vec());
    }
    let mut module = Module::new();
    NameMemory
        .parse_core_module(&mut module, Parser::new(0), wasm)
        .map_err(|error| PrepareError::Invalid {
            reason: format!("it could not be rewritten: {error}"),
        })?;
    Ok(module.finish())
}

struct NameMemory;

impl Reencode for NameMemory {
    type Error = Infallible;

    /// A reactor exports its entry, so there is such a section.
    fn parse_export_section(
        &mut self,
        exports: &mut ExportSection,
        section: wasmparser::ExportSectionReader<'_>,
    ) -> Result<(), Error> {
        utils::parse_export_section(self, exports, section)?;
        exports.export(&memory_export(), ExportKind::Memory, 0);
        Ok(())
    }
}
