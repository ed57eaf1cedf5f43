//! The deploy-time rewrite of a core module.
//!
//! - A *poll* is put at the head of each loop and of each function that calls: a load from a second
//!   memory of one page. A run without end passes polls without end, since it loops or calls.
//!   The load is atomic so that the compiler neither merges nor hoists it.
//! - Active data segments are emptied and made passive: their bytes are in the image.
//! - The start function is exported instead: it runs once, before the image is frozen.
//! - The memory and every mutable global are exported, so that the host can freeze and restore
//!   them.
//!
//! Nothing else changes: same functions, indices, names and traps.

use std::convert::Infallible;

use sandbox::PrepareError;
use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{
    CodeSection, DataSection, ExportKind, ExportSection, Function, Instruction, MemArg,
    MemorySection, MemoryType, Module, SectionId,
};
use wasmparser::{FunctionBody, Operator, Parser};

use super::survey::{EXPORT_PREFIX, Survey};

/// Changes whenever the rewrite's output does, so that cached code is made again.
pub(super) const REWRITE_VERSION: &str = "1";

/// Export name of the guest's memory.
pub(super) fn memory_export() -> String {
    format!("{EXPORT_PREFIX}memory")
}

/// Export name of the start function.
pub(super) fn start_export() -> String {
    format!("{EXPORT_PREFIX}start")
}

/// Export name of the mutable global `index`.
pub(super) fn global_export(index: u32) -> String {
    format!("{EXPORT_PREFIX}global-{index}")
}

/// Rewrites the module that `survey` describes.
pub(super) fn rewrite(wasm: &[u8], survey: &Survey) -> Result<Vec<u8>, PrepareError> {
    let without_start = strip_start(wasm);
    let mut module = Module::new();
    let mut rewrite = Rewrite {
        survey,
        memories_done: false,
        exports_done: false,
    };
    rewrite
        .parse_core_module(&mut module, Parser::new(0), &without_start)
        .map_err(|error| PrepareError::Invalid {
            reason: format!("it could not be rewritten: {error}"),
        })?;
    Ok(module.finish())
}

/// The module without its start section, which the re-encoder has no way to leave out. The module
/// is valid, so each section's length is a number that fits.
fn strip_start(wasm: &[u8]) -> Vec<u8> {
    const PREAMBLE_BYTES: usize = 8;
    let (preamble, mut rest) = wasm.split_at(PREAMBLE_BYTES.min(wasm.len()));
    let mut kept = preamble.to_vec();
    while let Some((&id, after_id)) = rest.split_first() {
        let mut reader = wasmparser::BinaryReader::new(after_id, 0);
        let Ok(length) = reader.read_var_u32() else {
            break;
        };
        let header = 1 + reader.current_position();
        let (section, later) = rest.split_at((header + length as usize).min(rest.len()));
        if id != SectionId::Start as u8 {
            kept.extend_from_slice(section);
        }
        rest = later;
    }
    kept
}

struct Rewrite<'a> {
    survey: &'a Survey,
    memories_done: bool,
    exports_done: bool,
}

impl Rewrite<'_> {
    fn add_poll_memory(&mut self, memories: &mut MemorySection) {
        memories.memory(MemoryType {
            minimum: 1,
            maximum: Some(1),
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        self.memories_done = true;
    }

    fn add_exports(&mut self, exports: &mut ExportSection) {
        if self.survey.memory.is_some() {
            exports.export(&memory_export(), ExportKind::Memory, 0);
        }
        if let Some(start) = self.survey.start {
            exports.export(&start_export(), ExportKind::Func, start);
        }
        for index in &self.survey.mutable_globals {
            exports.export(&global_export(*index), ExportKind::Global, *index);
        }
        self.exports_done = true;
    }

    fn poll(&self, function: &mut Function) {
        let memory_index = self.survey.memories;
        function
            .instruction(&Instruction::I32Const(0))
            .instruction(&Instruction::I32AtomicLoad8U(MemArg {
                offset: 0,
                align: 0,
                memory_index,
            }))
            .instruction(&Instruction::Drop);
    }
}

impl Reencode for Rewrite<'_> {
    type Error = Infallible;

    fn parse_memory_section(
        &mut self,
        memories: &mut MemorySection,
        section: wasmparser::MemorySectionReader<'_>,
    ) -> Result<(), Error> {
        utils::parse_memory_section(self, memories, section)?;
        self.add_poll_memory(memories);
        Ok(())
    }

    fn parse_export_section(
        &mut self,
        exports: &mut ExportSection,
        section: wasmparser::ExportSectionReader<'_>,
    ) -> Result<(), Error> {
        utils::parse_export_section(self, exports, section)?;
        self.add_exports(exports);
        Ok(())
    }

    /// Adds the sections that the module lacks where they belong.
    fn intersperse_section_hook(
        &mut self,
        module: &mut Module,
        _: Option<SectionId>,
        before: Option<SectionId>,
    ) -> Result<(), Error> {
        let place = order(before);
        if !self.memories_done && place > order(Some(SectionId::Memory)) {
            let mut memories = MemorySection::new();
            self.add_poll_memory(&mut memories);
            module.section(&memories);
        }
        if !self.exports_done && place > order(Some(SectionId::Export)) {
            let mut exports = ExportSection::new();
            self.add_exports(&mut exports);
            module.section(&exports);
        }
        Ok(())
    }

    fn parse_data(
        &mut self,
        data: &mut DataSection,
        datum: wasmparser::Data<'_>,
    ) -> Result<(), Error> {
        match datum.kind {
            wasmparser::DataKind::Active { .. } => data.passive([]),
            wasmparser::DataKind::Passive => data.passive(datum.data.iter().copied()),
        };
        Ok(())
    }

    fn parse_function_body(
        &mut self,
        code: &mut CodeSection,
        body: FunctionBody<'_>,
    ) -> Result<(), Error> {
        let mut function = self.new_function_with_parsed_locals(&body)?;
        if calls(&body)? {
            self.poll(&mut function);
        }
        for operator in body.get_operators_reader()? {
            let operator = operator?;
            let head = matches!(operator, Operator::Loop { .. });
            function.instruction(&self.instruction(operator)?);
            if head {
                self.poll(&mut function);
            }
        }
        code.function(&function);
        Ok(())
    }
}

fn calls(body: &FunctionBody<'_>) -> Result<bool, Error> {
    for operator in body.get_operators_reader()? {
        if matches!(
            operator?,
            Operator::Call { .. }
                | Operator::CallIndirect { .. }
                | Operator::CallRef { .. }
                | Operator::ReturnCall { .. }
                | Operator::ReturnCallIndirect { .. }
                | Operator::ReturnCallRef { .. }
        ) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where a section stands in a module; the end comes last.
fn order(section: Option<SectionId>) -> u8 {
    const ORDER: [SectionId; 13] = [
        SectionId::Type,
        SectionId::Import,
        SectionId::Function,
        SectionId::Table,
        SectionId::Memory,
        SectionId::Tag,
        SectionId::Global,
        SectionId::Export,
        SectionId::Start,
        SectionId::Element,
        SectionId::DataCount,
        SectionId::Code,
        SectionId::Data,
    ];
    let place = section.and_then(|id| ORDER.iter().position(|known| *known as u8 == id as u8));
    place.map_or(u8::MAX, |place| place as u8)
}
