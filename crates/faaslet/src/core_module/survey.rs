//! What a core module is and asks for, read once before anything is compiled.

use model::Kind;
use sandbox::PrepareError;
use wasmparser::{
    DataKind, ExternalKind, FuncType, MemoryType, Operator, Parser, Payload, TypeRef, ValType,
    Validator, WasmFeatures,
};

/// Name under which the rewrite exports the guest's memory, globals and start function. Guests'
/// own exports cannot collide: the survey refuses the prefix.
pub(super) const EXPORT_PREFIX: &str = "dunlin:";

/// An imported function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Import {
    pub module: String,
    pub name: String,
}

/// What the rewrite and the program need to know of a module.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub imports: Vec<Import>,
    /// Imports that are no functions: none is offered.
    pub other_imports: Vec<Import>,
    pub exports: Vec<(String, ExternalKind, u32)>,
    pub memory: Option<MemoryType>,
    pub memories: u32,
    /// Elements that the largest table begins with.
    pub table_elements: u64,
    /// Indices of mutable globals.
    pub mutable_globals: Vec<u32>,
    pub start: Option<u32>,
    /// Offset in memory and place in the artifact of each active data segment's bytes.
    pub active_data: Vec<(u64, std::ops::Range<usize>)>,
    /// Whether code may leave what an image does not hold: table entries, dropped segments,
    /// references in globals.
    pub leaves_unfrozen: bool,
    /// Whether the module makes objects (exceptions, structures, arrays), which live in a heap of
    /// the store's.
    pub heap: bool,
    /// What each global begins with, where that is a number of 32 bits.
    numbers: Vec<Option<u32>>,
    types: Vec<Option<FuncType>>,
    functions: Vec<u32>,
}

/// The WebAssembly that core modules may use. Shared memories, 64-bit memories and further memories
/// are not among it.
pub(super) fn features() -> WasmFeatures {
    WasmFeatures::WASM2
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::EXCEPTIONS
        | WasmFeatures::RELAXED_SIMD
        | WasmFeatures::FUNCTION_REFERENCES
        | WasmFeatures::GC
        | WasmFeatures::THREADS
}

impl Survey {
    /// Reads and validates `wasm`.
    pub fn of(wasm: &[u8]) -> Result<Self, PrepareError> {
        Validator::new_with_features(features())
            .validate_all(wasm)
            .map_err(invalid)?;
        let mut survey = Self::default();
        for payload in Parser::new(0).parse_all(wasm) {
            survey.payload(payload.map_err(invalid)?)?;
        }
        Ok(survey)
    }

    fn payload(&mut self, payload: Payload<'_>) -> Result<(), PrepareError> {
        match payload {
            Payload::TypeSection(types) => self.read_types(types)?,
            Payload::ImportSection(imports) => self.read_imports(imports)?,
            Payload::FunctionSection(functions) => {
                for function in functions {
                    self.functions.push(function.map_err(invalid)?);
                }
            }
            Payload::TableSection(tables) => {
                for table in tables {
                    let elements = table.map_err(invalid)?.ty.initial;
                    self.table_elements = self.table_elements.max(elements);
                }
            }
            Payload::MemorySection(memories) => self.read_memories(memories)?,
            Payload::GlobalSection(globals) => self.read_globals(globals)?,
            Payload::TagSection(_) => self.heap = true,
            Payload::ExportSection(exports) => self.read_exports(exports)?,
            Payload::StartSection { func, .. } => self.start = Some(func),
            Payload::DataSection(data) => self.read_data(data)?,
            Payload::CodeSectionEntry(body) => {
                for operator in body.get_operators_reader().map_err(invalid)? {
                    self.leaves_unfrozen |= outlives_a_reset(&operator.map_err(invalid)?);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn read_types(&mut self, types: wasmparser::TypeSectionReader<'_>) -> Result<(), PrepareError> {
        for group in types {
            for ty in group.map_err(invalid)?.into_types() {
                self.types.push(match ty.composite_type.inner {
                    wasmparser::CompositeInnerType::Func(function) => Some(function),
                    _ => {
                        // Its objects may be reached, and changed, from anywhere.
                        self.heap = true;
                        self.leaves_unfrozen = true;
                        None
                    }
                });
            }
        }
        Ok(())
    }

    fn read_imports(
        &mut self,
        imports: wasmparser::ImportSectionReader<'_>,
    ) -> Result<(), PrepareError> {
        for import in imports.into_imports() {
            let import = import.map_err(invalid)?;
            let named = Import {
                module: import.module.into(),
                name: import.name.into(),
            };
            match import.ty {
                TypeRef::Func(ty) | TypeRef::FuncExact(ty) => {
                    self.functions.push(ty);
                    self.imports.push(named);
                }
                _ => self.other_imports.push(named),
            }
        }
        Ok(())
    }

    fn read_memories(
        &mut self,
        memories: wasmparser::MemorySectionReader<'_>,
    ) -> Result<(), PrepareError> {
        for memory in memories {
            let memory = memory.map_err(invalid)?;
            if memory.shared {
                return Err(PrepareError::Invalid {
                    reason: "it defines a shared memory: build it without threads".into(),
                });
            }
            self.memory = Some(memory);
            self.memories += 1;
        }
        Ok(())
    }

    fn read_globals(
        &mut self,
        globals: wasmparser::GlobalSectionReader<'_>,
    ) -> Result<(), PrepareError> {
        for (index, global) in (0..).zip(globals) {
            let global = global.map_err(invalid)?;
            let ty = global.ty;
            let number = constant(&global.init_expr, &self.numbers);
            self.numbers.push(number.ok());
            if ty.mutable {
                self.mutable_globals.push(index);
                self.leaves_unfrozen |= matches!(ty.content_type, ValType::Ref(_));
            }
        }
        Ok(())
    }

    fn read_exports(
        &mut self,
        exports: wasmparser::ExportSectionReader<'_>,
    ) -> Result<(), PrepareError> {
        for export in exports {
            let export = export.map_err(invalid)?;
            if export.name.starts_with(EXPORT_PREFIX) {
                return Err(PrepareError::Invalid {
                    reason: format!("the export name `{}` is reserved", export.name),
                });
            }
            self.exports
                .push((export.name.into(), export.kind, export.index));
        }
        Ok(())
    }

    fn read_data(
        &mut self,
        segments: wasmparser::DataSectionReader<'_>,
    ) -> Result<(), PrepareError> {
        for segment in segments {
            let segment = segment.map_err(invalid)?;
            if let DataKind::Active { offset_expr, .. } = segment.kind {
                let offset = constant(&offset_expr, &self.numbers)?.into();
                let end = segment.range.end;
                self.active_data
                    .push((offset, end - segment.data.len()..end));
            }
        }
        Ok(())
    }

    /// The type of the exported function `name`.
    pub fn exported_function(&self, name: &str) -> Option<&FuncType> {
        let is = |(export, kind, _): &&(String, ExternalKind, u32)| {
            export == name && *kind == ExternalKind::Func
        };
        let (_, _, index) = self.exports.iter().find(is)?;
        let ty = *self.functions.get(*index as usize)?;
        self.types.get(ty as usize)?.as_ref()
    }

    /// Whether the module imports anything of `module`.
    pub fn imports_of(&self, module: &str) -> bool {
        self.imports.iter().any(|import| import.module == module)
    }

    /// Whether the module imports `name` of `module`.
    pub fn imports_call(&self, module: &str, name: &str) -> bool {
        let mut imports = self.imports.iter();
        imports.any(|import| import.module == module && import.name == name)
    }

    /// Checks that the module is of `kind` and has one memory at most.
    pub fn check(&self, kind: Kind) -> Result<(), PrepareError> {
        if self.memories > 1 {
            let reason = format!(
                "it defines {} memories, and one is supported",
                self.memories
            );
            return Err(PrepareError::Invalid { reason });
        }
        let reason = match kind {
            Kind::Http => {
                "it is a core module, not a component: build it for wasi:http, or deploy \
                           it as a command or reactor"
            }
            Kind::Command if self.exported_function("_start").is_none() => {
                "it does not export `_start`: build it as a command, or deploy it as a reactor"
            }
            Kind::Reactor if self.exported_function("handle").is_none() => {
                "it does not export the function `handle`"
            }
            _ => return self.check_entries(kind),
        };
        Err(PrepareError::WrongKind {
            kind,
            reason: reason.into(),
        })
    }

    fn check_entries(&self, kind: Kind) -> Result<(), PrepareError> {
        let entries: &[&str] = match kind {
            Kind::Reactor => &["handle", "init", "_initialize"],
            _ => &["_start", "_initialize"],
        };
        for name in entries {
            let fits = |ty: &FuncType| {
                ty.params().is_empty() && matches!(ty.results(), [] | [ValType::I32])
            };
            if self.exported_function(name).is_some_and(|ty| !fits(ty)) {
                let reason = format!("`{name}` must take nothing and return nothing or an i32");
                return Err(PrepareError::WrongKind { kind, reason });
            }
        }
        Ok(())
    }
}

/// Whether an instruction changes what `Range::reset` and globals do not bring back.
fn outlives_a_reset(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::TableSet { .. }
            | Operator::TableGrow { .. }
            | Operator::TableFill { .. }
            | Operator::TableCopy { .. }
            | Operator::TableInit { .. }
            | Operator::DataDrop { .. }
            | Operator::ElemDrop { .. }
    )
}

/// The value of an active segment's offset. Compilers write one constant; sums and products of
/// constants, and globals before it, whose `numbers` are known, may stand there too.
fn constant(
    expression: &wasmparser::ConstExpr<'_>,
    numbers: &[Option<u32>],
) -> Result<u32, PrepareError> {
    let unsupported = || PrepareError::Invalid {
        reason: "a data segment's offset is not a constant: link the module statically".into(),
    };
    let mut stack: Vec<u32> = Vec::new();
    for operator in expression.get_operators_reader() {
        let value = match operator.map_err(invalid)? {
            Operator::I32Const { value } => value.cast_unsigned(),
            Operator::GlobalGet { global_index } => {
                let number = numbers.get(global_index as usize).copied().flatten();
                number.ok_or_else(unsupported)?
            }
            Operator::End => break,
            other => {
                let (right, left) = (stack.pop(), stack.pop());
                let (Some(left), Some(right)) = (left, right) else {
                    return Err(unsupported());
                };
                match other {
                    Operator::I32Add => left.wrapping_add(right),
                    Operator::I32Sub => left.wrapping_sub(right),
                    Operator::I32Mul => left.wrapping_mul(right),
                    _ => return Err(unsupported()),
                }
            }
        };
        stack.push(value);
    }
    stack.pop().ok_or_else(unsupported)
}

pub(super) fn invalid(error: wasmparser::BinaryReaderError) -> PrepareError {
    PrepareError::Invalid {
        reason: error.to_string(),
    }
}
