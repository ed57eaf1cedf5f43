//! One core module of a component: what it holds, and its skeleton.

use std::ops::Range;

use wasm_encoder::{
    CodeSection, ConstExpr, ExportKind, ExportSection, Function, FunctionSection, GlobalSection,
    GlobalType, Instruction, MemArg, MemorySection, Module, RawSection, SectionId, StartSection,
    TypeSection, ValType,
};
use wasmparser::{
    BinaryReader, CompositeInnerType, DataKind, ExternalKind, FromReader, FunctionBody, Operator,
    SectionLimited, TypeRef,
};

use super::{Refused, sections};

/// Name of the function that saves a module's globals.
pub(super) const SAVE: &str = "dunlin:save";
/// Functions by which guests' libraries forget what a frozen memory must not remember: handles.
pub(super) const RESETS: [&str; 2] = ["__wasilibc_reset_preopens", "reset_adapter_state"];

/// What is in a module, as far as taking it apart needs to know.
#[derive(Default)]
pub(super) struct Survey {
    /// The module's own memory: its size in pages of WebAssembly.
    pub memory: Option<wasmparser::MemoryType>,
    /// The memory that it imports.
    pub imported_memory: Option<wasmparser::MemoryType>,
    memories: u32,
    /// All globals of its own.
    globals: Vec<(wasmparser::GlobalType, Range<usize>)>,
    imported_globals: u32,
    /// Index of the first function that could be added.
    functions: u32,
    /// Types by index: whether each is a function that takes and returns nothing.
    types: Vec<bool>,
    function_types: Vec<u32>,
    start: Option<u32>,
    /// Exported functions that take and return nothing.
    pub actions: Vec<String>,
    data_count: bool,
    /// Whether data are only what memory begins with.
    plain_data: bool,
    /// Offset and bytes of each data segment.
    pub data: Vec<(u32, Range<usize>)>,
    /// Whether code uses data segments later.
    uses_data: bool,
    /// Whether code may change tables, which no image holds.
    pub changes_tables: bool,
}

type Section<'a, T> = SectionLimited<'a, T>;

fn read<'a, T: FromReader<'a>>(bytes: &'a [u8]) -> Result<Section<'a, T>, Refused> {
    Ok(SectionLimited::new(BinaryReader::new(bytes, 0))?)
}

impl Survey {
    pub(super) fn of(wasm: &[u8]) -> Result<Self, Refused> {
        let mut survey = Self {
            plain_data: true,
            ..Self::default()
        };
        for section in sections(wasm)? {
            survey.section(section.id, section.bytes)?;
        }
        survey.actions.sort();
        Ok(survey)
    }

    fn section(&mut self, id: u8, bytes: &[u8]) -> Result<(), Refused> {
        match id {
            1 => self.read_types(bytes),
            2 => self.read_imports(bytes),
            3 => self.read_functions(bytes),
            5 => self.read_memories(bytes),
            6 => self.read_globals(bytes),
            7 => self.read_exports(bytes),
            8 => self.read_start(bytes),
            10 => self.read_code(bytes),
            11 => self.read_data(bytes),
            12 => {
                self.data_count = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn read_types(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        for group in read::<wasmparser::RecGroup>(bytes)? {
            for ty in group?.into_types() {
                self.types.push(match ty.composite_type.inner {
                    CompositeInnerType::Func(ty) => {
                        ty.params().is_empty() && ty.results().is_empty()
                    }
                    _ => false,
                });
            }
        }
        Ok(())
    }

    fn read_imports(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let imports = wasmparser::ImportSectionReader::new(BinaryReader::new(bytes, 0))?;
        for import in imports.into_imports() {
            match import?.ty {
                TypeRef::Func(ty) | TypeRef::FuncExact(ty) => {
                    self.functions += 1;
                    self.function_types.push(ty);
                }
                TypeRef::Global(_) => self.imported_globals += 1,
                TypeRef::Memory(ty) => {
                    self.memories += 1;
                    self.imported_memory = Some(ty);
                }
                TypeRef::Table(_) | TypeRef::Tag(_) => {}
            }
        }
        Ok(())
    }

    fn read_functions(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        for ty in read::<u32>(bytes)? {
            self.functions += 1;
            self.function_types.push(ty?);
        }
        Ok(())
    }

    fn read_memories(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        for ty in read::<wasmparser::MemoryType>(bytes)? {
            self.memories += 1;
            self.memory = Some(ty?);
        }
        Ok(())
    }

    fn read_globals(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        for global in read::<wasmparser::Global<'_>>(bytes)? {
            let global = global?;
            let reader = global.init_expr.get_binary_reader();
            let start = reader.original_position();
            self.globals
                .push((global.ty, start..start + reader.bytes_remaining()));
        }
        Ok(())
    }

    fn read_exports(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        for export in read::<wasmparser::Export<'_>>(bytes)? {
            let export = export?;
            if export.name == SAVE {
                return Err(Refused);
            }
            let ty = self.function_types.get(export.index as usize);
            let plain = ty.and_then(|ty| self.types.get(*ty as usize));
            if export.kind == ExternalKind::Func && plain == Some(&true) {
                self.actions.push(export.name.to_owned());
            }
        }
        Ok(())
    }

    fn read_start(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        self.start = Some(BinaryReader::new(bytes, 0).read_var_u32()?);
        Ok(())
    }

    fn read_code(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        for body in read::<FunctionBody<'_>>(bytes)? {
            let mut operators = body?.get_operators_reader()?;
            while !operators.eof() {
                match operators.read()? {
                    Operator::MemoryInit { .. } | Operator::DataDrop { .. } => {
                        self.uses_data = true;
                    }
                    Operator::TableSet { .. }
                    | Operator::TableGrow { .. }
                    | Operator::TableFill { .. }
                    | Operator::TableCopy { .. }
                    | Operator::TableInit { .. }
                    | Operator::ElemDrop { .. } => self.changes_tables = true,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn read_data(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        for segment in read::<wasmparser::Data<'_>>(bytes)? {
            let segment = segment?;
            let offset = match &segment.kind {
                DataKind::Active {
                    memory_index: 0,
                    offset_expr,
                } => constant(offset_expr),
                _ => None,
            };
            let Some(offset) = offset else {
                self.plain_data = false;
                continue;
            };
            let end = segment.range.end;
            self.data.push((offset, end - segment.data.len()..end));
        }
        Ok(())
    }

    /// Whether its own memory can be made of an image.
    pub(super) fn frees_memory(&self) -> bool {
        let plain =
            |ty: wasmparser::MemoryType| !ty.memory64 && !ty.shared && ty.page_size_log2.is_none();
        self.memory.is_none_or(plain)
            && self.memories <= 1
            && (self.memory.is_none() || (self.plain_data && !self.uses_data))
    }

    /// Its globals that code may change, if it has a memory to keep them in.
    pub(super) fn kept_globals(&self) -> Result<Vec<Kept>, Refused> {
        let mut kept = Vec::new();
        for ((ty, _), index) in self.globals.iter().zip(self.imported_globals..) {
            if !ty.mutable {
                continue;
            }
            let ty = match ty.content_type {
                wasmparser::ValType::I32 => ValType::I32,
                wasmparser::ValType::I64 => ValType::I64,
                wasmparser::ValType::F32 => ValType::F32,
                wasmparser::ValType::F64 => ValType::F64,
                _ => return Err(Refused),
            };
            kept.push(Kept { index, ty });
        }
        if self.memories == 0 && !kept.is_empty() {
            return Err(Refused);
        }
        Ok(kept)
    }

    /// What the globals begin with, each in eight bytes; refused where that is no constant.
    pub(super) fn first_values(&self, globals: &[u8]) -> Result<Vec<u8>, Refused> {
        let mut values = Vec::new();
        for (ty, place) in self.globals.iter().filter(|(ty, _)| ty.mutable) {
            let expression = globals.get(place.clone()).ok_or(Refused)?;
            let mut operators = wasmparser::OperatorsReader::new(BinaryReader::new(expression, 0));
            let value = match operators.read()? {
                Operator::I32Const { value } => u64::from(value.cast_unsigned()),
                Operator::I64Const { value } => value.cast_unsigned(),
                Operator::F32Const { value } => u64::from(value.bits()),
                Operator::F64Const { value } => value.bits(),
                _ => return Err(Refused),
            };
            if !matches!(operators.read()?, Operator::End) {
                return Err(Refused);
            }
            debug_assert!(ty.mutable);
            values.extend_from_slice(&value.to_le_bytes());
        }
        Ok(values)
    }
}

/// A global that the annex keeps.
#[derive(Clone, Copy)]
pub(super) struct Kept {
    index: u32,
    ty: ValType,
}

impl Kept {
    fn zero(self) -> ConstExpr {
        match self.ty {
            ValType::I64 => ConstExpr::i64_const(0),
            ValType::F32 => ConstExpr::f32_const(0.0_f32.into()),
            ValType::F64 => ConstExpr::f64_const(0.0_f64.into()),
            _ => ConstExpr::i32_const(0),
        }
    }

    fn load(self, argument: MemArg) -> Instruction<'static> {
        match self.ty {
            ValType::I64 => Instruction::I64Load(argument),
            ValType::F32 => Instruction::F32Load(argument),
            ValType::F64 => Instruction::F64Load(argument),
            _ => Instruction::I32Load(argument),
        }
    }

    fn store(self, argument: MemArg) -> Instruction<'static> {
        match self.ty {
            ValType::I64 => Instruction::I64Store(argument),
            ValType::F32 => Instruction::F32Store(argument),
            ValType::F64 => Instruction::F64Store(argument),
            _ => Instruction::I32Store(argument),
        }
    }
}

fn constant(expression: &wasmparser::ConstExpr<'_>) -> Option<u32> {
    let mut operators = expression.get_operators_reader();
    match (operators.read().ok()?, operators.read().ok()?) {
        (Operator::I32Const { value }, Operator::End) => Some(value.cast_unsigned()),
        _ => None,
    }
}

/// How a module becomes its skeleton.
pub(super) struct Plan<'a> {
    pub survey: &'a Survey,
    /// Pages that its own memory is declared with.
    pub pages: u64,
    /// Its kept globals, and the address of the first one's value.
    pub kept: &'a [Kept],
    pub values_at: u32,
}

impl Plan<'_> {
    /// The module without data, with what it kept in globals read from memory when it starts.
    pub(super) fn skeleton(&self, wasm: &[u8]) -> Result<Vec<u8>, Refused> {
        let mut module = Module::new();
        let frees = self.survey.memory.is_some();
        let adds = !self.kept.is_empty();
        let mut done = 0;
        for section in sections(wasm)? {
            let order = place(section.id);
            if adds {
                self.add_missing(&mut module, &mut done, order);
            }
            match section.id {
                1 if adds => self.types(&mut module, section.bytes)?,
                3 if adds => self.functions(&mut module, section.bytes)?,
                5 if frees => self.memory(&mut module),
                6 if adds => self.globals(&mut module, section.bytes)?,
                7 if adds => self.exports(&mut module, section.bytes)?,
                8 if adds => self.start(&mut module),
                10 if adds => self.code(&mut module, section.bytes)?,
                11 | 12 if frees => {}
                id => {
                    module.section(&RawSection {
                        id,
                        data: section.bytes,
                    });
                }
            }
            if section.id != 0 {
                done = done.max(order);
            }
        }
        if adds {
            self.add_missing(&mut module, &mut done, u8::MAX);
        }
        Ok(module.finish())
    }

    /// Adds the sections before `order` that the module lacks.
    fn add_missing(&self, module: &mut Module, done: &mut u8, order: u8) {
        if order == 0 {
            return;
        }
        let empty = [0];
        for id in [1, 3, 7, 8, 10] {
            if place(id) <= *done || place(id) >= order {
                continue;
            }
            // Nothing is read from a section that is empty, so nothing can fail.
            let _ = match id {
                1 => self.types(module, &empty),
                3 => self.functions(module, &empty),
                7 => self.exports(module, &empty),
                10 => self.code(module, &empty),
                _ => {
                    self.start(module);
                    Ok(())
                }
            };
            *done = place(id);
        }
    }

    fn types(&self, module: &mut Module, bytes: &[u8]) -> Result<(), Refused> {
        let mut section = TypeSection::new();
        for group in read::<wasmparser::RecGroup>(bytes)? {
            let group = group?;
            if group.is_explicit_rec_group() {
                return Err(Refused);
            }
            for ty in group.into_types() {
                let ty = wasm_encoder::SubType::try_from(ty).map_err(|_| Refused)?;
                section.ty().subtype(&ty);
            }
        }
        section.ty().function([], []);
        module.section(&section);
        Ok(())
    }

    fn functions(&self, module: &mut Module, bytes: &[u8]) -> Result<(), Refused> {
        let mut section = FunctionSection::new();
        for ty in read::<u32>(bytes)? {
            section.function(ty?);
        }
        let ty = u32::try_from(self.survey.types.len()).map_err(|_| Refused)?;
        section.function(ty).function(ty);
        module.section(&section);
        Ok(())
    }

    fn memory(&self, module: &mut Module) {
        let maximum = self.survey.memory.and_then(|memory| memory.maximum);
        let mut section = MemorySection::new();
        section.memory(wasm_encoder::MemoryType {
            minimum: self.pages,
            maximum,
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        module.section(&section);
    }

    fn globals(&self, module: &mut Module, bytes: &[u8]) -> Result<(), Refused> {
        let mut section = GlobalSection::new();
        let mut kept = self.kept.iter();
        for global in read::<wasmparser::Global<'_>>(bytes)? {
            let global = global?;
            if global.ty.mutable
                && let Some(kept) = kept.next()
            {
                let ty = GlobalType {
                    val_type: kept.ty,
                    mutable: true,
                    shared: global.ty.shared,
                };
                section.global(ty, &kept.zero());
                continue;
            }
            let ty = GlobalType::try_from(global.ty).map_err(|_| Refused)?;
            let init = ConstExpr::try_from(global.init_expr).map_err(|_| Refused)?;
            section.global(ty, &init);
        }
        module.section(&section);
        Ok(())
    }

    fn exports(&self, module: &mut Module, bytes: &[u8]) -> Result<(), Refused> {
        let mut section = ExportSection::new();
        for export in read::<wasmparser::Export<'_>>(bytes)? {
            let export = export?;
            section.export(export.name, ExportKind::from(export.kind), export.index);
        }
        section.export(SAVE, ExportKind::Func, self.survey.functions + 1);
        module.section(&section);
        Ok(())
    }

    fn start(&self, module: &mut Module) {
        module.section(&StartSection {
            function_index: self.survey.functions,
        });
    }

    fn code(&self, module: &mut Module, bytes: &[u8]) -> Result<(), Refused> {
        let mut section = CodeSection::new();
        for body in read::<FunctionBody<'_>>(bytes)? {
            let range = body?.range();
            section.raw(bytes.get(range).ok_or(Refused)?);
        }
        let (mut load, mut save) = (Function::new([]), Function::new([]));
        let argument = |number: usize| MemArg {
            offset: 8 * number as u64,
            align: 2,
            memory_index: 0,
        };
        let base = Instruction::I32Const(self.values_at.cast_signed());
        for (number, global) in self.kept.iter().enumerate() {
            load.instruction(&base)
                .instruction(&global.load(argument(number)))
                .instruction(&Instruction::GlobalSet(global.index));
            save.instruction(&base)
                .instruction(&Instruction::GlobalGet(global.index))
                .instruction(&global.store(argument(number)));
        }
        if let Some(start) = self.survey.start {
            load.instruction(&Instruction::Call(start));
        }
        section.function(load.instruction(&Instruction::End));
        section.function(save.instruction(&Instruction::End));
        module.section(&section);
        Ok(())
    }
}

/// Where a section stands in a module; 0 for custom ones, which stand anywhere.
fn place(id: u8) -> u8 {
    match id {
        id if id == SectionId::Custom as u8 => 0,
        // A tag section stands between memories and globals, a data count before the code.
        13 => 6,
        id @ 1..=5 => id,
        id @ 6..=9 => id + 1,
        12 => 11,
        id => id + 2,
    }
}
