//! Takes a component apart: what it *does* (its skeleton) from what it *holds* (the bytes of its
//! memory, the values of its globals).
//!
//! ```text
//!   component ──▶ skeleton: the same code; its memory has no data, its globals' values are read,
//!            │              when a module starts, from the annex of the memory's image
//!            └──▶ holding:  memory as data segments leave it, and those values
//! ```
//!
//! Functions that were made of one language's runtime have one skeleton, so their code is compiled
//! once and mapped once, and what they hold can be told apart page by page.
//!
//! The skeleton exports two kinds of functions besides: those that save the globals of a module
//! into the annex, and those by which guests' libraries forget handles. With them a running guest
//! is frozen again, once it has loaded more.
//!
//! Only components with one memory of their own are taken apart; [`Refused`] says that one is not
//! of that kind, and nothing else.

mod module;

use memory::ANNEX_BYTES;
use wasm_encoder::{
    Alias, CanonicalFunctionSection, Component, ComponentAliasSection, ComponentExportKind,
    ComponentExportSection, ComponentTypeSection, ExportKind, RawSection,
};
use wasmparser::{
    BinaryReader, CanonicalFunction, ComponentAlias, ComponentExternalKind, ExternalKind, Instance,
    SectionLimited,
};

use module::{Plan, RESETS, SAVE, Survey};

/// Changes whenever skeletons do, so that cached code is made again.
pub(super) const APART_VERSION: &str = "1";
/// Export names of the functions that save globals.
pub(super) const SAVE_PREFIX: &str = "dunlin-save-m";
/// Export names of the functions that forget handles.
pub(super) const RESET_PREFIX: &str = "dunlin-reset-m";

const WASM_PAGE_BYTES: u64 = 1 << 16;
/// The annex is the last page of a memory of 4 GiB; no memory that is taken apart has that page.
const PAGES_MAX: u64 = (1 << 16) - 1;
const ANNEX_AT: u32 = u32::MAX - (ANNEX_BYTES as u32 - 1);
const PREAMBLE_BYTES: usize = 8;

/// A component that is not taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused;

impl From<wasmparser::BinaryReaderError> for Refused {
    fn from(_: wasmparser::BinaryReaderError) -> Self {
        Self
    }
}

/// A component that was taken apart.
pub(super) struct Apart {
    /// The component without what it holds.
    pub(super) skeleton: Vec<u8>,
    /// Bytes of memory that the skeleton declares.
    pub(super) declared_bytes: usize,
    /// Its memory.
    pub(super) memory: Vec<u8>,
    /// The values of its globals.
    pub(super) annex: Vec<u8>,
    /// Whether its code may change tables: then it cannot be frozen after it ran.
    pub(super) changes_tables: bool,
}

/// One section of a module or component.
#[derive(Clone, Copy)]
struct Section<'a> {
    id: u8,
    bytes: &'a [u8],
}

fn sections(wasm: &[u8]) -> Result<Vec<Section<'_>>, Refused> {
    let mut reader = BinaryReader::new(wasm.get(PREAMBLE_BYTES..).ok_or(Refused)?, 0);
    let mut sections = Vec::new();
    while !reader.eof() {
        let id = reader.read_u8()?;
        let length = reader.read_var_u32()?;
        let bytes = reader.read_bytes(length as usize)?;
        sections.push(Section { id, bytes });
    }
    Ok(sections)
}

const MODULE: u8 = 1;
const CORE_INSTANCE: u8 = 2;
const COMPONENT: u8 = 4;
const ALIAS: u8 = 6;
const TYPE: u8 = 7;
const CANON: u8 = 8;
const IMPORT: u8 = 10;
const EXPORT: u8 = 11;

/// Takes a valid component apart.
pub(super) fn take(component: &[u8]) -> Result<Apart, Refused> {
    let sections = sections(component)?;
    let modules: Vec<_> = sections
        .iter()
        .filter(|section| section.id == MODULE)
        .collect();
    let surveys: Vec<_> = modules
        .iter()
        .map(|module| Survey::of(module.bytes))
        .collect::<Result<_, _>>()?;
    let owner = only_memory(&surveys)?;
    let counts = Counts::of(&sections)?;
    let instances = counts.instances_of(modules.len())?;
    let asked = surveys.iter().filter_map(|survey| survey.imported_memory);
    let pages = asked.map(|memory| memory.initial).max().unwrap_or(0);
    let (mut annex, mut skeletons) = (Vec::new(), Vec::new());
    let mut added = Added::new(&counts);
    for (number, (module, survey)) in modules.iter().zip(&surveys).enumerate() {
        let kept = survey.kept_globals()?;
        let plan = Plan {
            survey,
            pages,
            kept: &kept,
            values_at: ANNEX_AT + u32::try_from(annex.len()).map_err(|_| Refused)?,
        };
        annex.extend(first_values(module.bytes, survey)?);
        skeletons.push(plan.skeleton(module.bytes)?);
        let resets = survey
            .actions
            .iter()
            .filter(|name| RESETS.contains(&name.as_str()));
        for name in resets {
            let word = name.trim_start_matches('_').replace('_', "-");
            added.export(
                instances[number],
                name,
                &format!("{RESET_PREFIX}{number}-{word}"),
            );
        }
        if !kept.is_empty() {
            added.export(instances[number], SAVE, &format!("{SAVE_PREFIX}{number}"));
        }
    }
    if annex.len() > ANNEX_BYTES {
        return Err(Refused);
    }
    // An annex of nothing would not be mapped, and then nothing could be saved to it.
    annex.resize(annex.len().max(8), 0);
    Ok(Apart {
        skeleton: assemble(&sections, skeletons, added),
        declared_bytes: usize::try_from(pages * WASM_PAGE_BYTES).map_err(|_| Refused)?,
        memory: contents(modules[owner].bytes, &surveys[owner])?,
        annex,
        changes_tables: surveys.iter().any(|survey| survey.changes_tables),
    })
}

/// The number of the module that has the component's only memory.
fn only_memory(surveys: &[Survey]) -> Result<usize, Refused> {
    let mut owners = surveys
        .iter()
        .enumerate()
        .filter(|(_, s)| s.memory.is_some());
    let (Some((owner, survey)), None) = (owners.next(), owners.next()) else {
        return Err(Refused);
    };
    let fits = survey
        .memory
        .is_some_and(|memory| memory.initial <= PAGES_MAX);
    if fits && surveys.iter().all(Survey::frees_memory) {
        Ok(owner)
    } else {
        Err(Refused)
    }
}

fn first_values(module: &[u8], survey: &Survey) -> Result<Vec<u8>, Refused> {
    match sections(module)?.iter().find(|section| section.id == 6) {
        Some(globals) => survey.first_values(globals.bytes),
        None => Ok(Vec::new()),
    }
}

/// The memory of a module as its data segments leave it.
fn contents(module: &[u8], survey: &Survey) -> Result<Vec<u8>, Refused> {
    let pages = survey.memory.map_or(0, |memory| memory.initial);
    let bytes = usize::try_from(pages * WASM_PAGE_BYTES).map_err(|_| Refused)?;
    let mut memory = vec![0; bytes];
    let Some(data) = sections(module)?
        .into_iter()
        .find(|section| section.id == 11)
    else {
        return Ok(memory);
    };
    for (offset, place) in &survey.data {
        let data = data.bytes.get(place.clone()).ok_or(Refused)?;
        let at = *offset as usize;
        let end = at.checked_add(data.len()).ok_or(Refused)?;
        memory
            .get_mut(at..end)
            .ok_or(Refused)?
            .copy_from_slice(data);
    }
    Ok(memory)
}

/// What is in a component, counted as its index spaces count it.
#[derive(Default)]
struct Counts {
    types: u32,
    core_functions: u32,
    functions: u32,
    core_instances: u32,
    /// The module and the index of each core instance that is made of one.
    instances: Vec<(u32, u32)>,
}

impl Counts {
    fn of(sections: &[Section<'_>]) -> Result<Self, Refused> {
        let mut counts = Self::default();
        for section in sections {
            counts.section(*section)?;
        }
        Ok(counts)
    }

    fn section(&mut self, section: Section<'_>) -> Result<(), Refused> {
        let reader = BinaryReader::new(section.bytes, 0);
        match section.id {
            CORE_INSTANCE => {
                for instance in wasmparser::InstanceSectionReader::new(reader)? {
                    if let Instance::Instantiate { module_index, .. } = instance? {
                        self.instances.push((module_index, self.core_instances));
                    }
                    self.core_instances += 1;
                }
            }
            COMPONENT if nests_modules(section.bytes)? => return Err(Refused),
            ALIAS => {
                for alias in wasmparser::ComponentAliasSectionReader::new(reader)? {
                    self.alias(&alias?)?;
                }
            }
            TYPE => {
                self.types += SectionLimited::<wasmparser::ComponentType<'_>>::new(reader)?.count()
            }
            CANON => {
                for function in wasmparser::ComponentCanonicalSectionReader::new(reader)? {
                    match function? {
                        CanonicalFunction::Lift { .. } => self.functions += 1,
                        _ => self.core_functions += 1,
                    }
                }
            }
            IMPORT => {
                for import in wasmparser::ComponentImportSectionReader::new(reader)? {
                    self.item(import?.ty.kind())?;
                }
            }
            EXPORT => {
                for export in wasmparser::ComponentExportSectionReader::new(reader)? {
                    self.item(export?.kind)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn alias(&mut self, alias: &ComponentAlias<'_>) -> Result<(), Refused> {
        match alias {
            ComponentAlias::InstanceExport { kind, .. } => self.item(*kind)?,
            ComponentAlias::CoreInstanceExport {
                kind: ExternalKind::Func,
                ..
            } => self.core_functions += 1,
            ComponentAlias::CoreInstanceExport { .. } => {}
            ComponentAlias::Outer {
                kind: wasmparser::ComponentOuterAliasKind::Type,
                ..
            } => self.types += 1,
            ComponentAlias::Outer { .. } => return Err(Refused),
        }
        Ok(())
    }

    fn item(&mut self, kind: ComponentExternalKind) -> Result<(), Refused> {
        match kind {
            ComponentExternalKind::Func => self.functions += 1,
            ComponentExternalKind::Type => self.types += 1,
            ComponentExternalKind::Module => return Err(Refused),
            _ => {}
        }
        Ok(())
    }

    /// The instance of each of `modules` modules; refused unless each has exactly one.
    fn instances_of(&self, modules: usize) -> Result<Vec<u32>, Refused> {
        let mut instances = vec![None; modules];
        for (module, instance) in &self.instances {
            let place = instances.get_mut(*module as usize).ok_or(Refused)?;
            if place.replace(*instance).is_some() {
                return Err(Refused);
            }
        }
        instances.into_iter().collect::<Option<_>>().ok_or(Refused)
    }
}

fn nests_modules(component: &[u8]) -> Result<bool, Refused> {
    for section in sections(component)? {
        let nests =
            section.id == MODULE || section.id == COMPONENT && nests_modules(section.bytes)?;
        if nests {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What a skeleton exports besides.
struct Added {
    ty: u32,
    core_functions: u32,
    functions: u32,
    aliases: ComponentAliasSection,
    lifts: CanonicalFunctionSection,
    exports: ComponentExportSection,
    count: u32,
}

impl Added {
    fn new(counts: &Counts) -> Self {
        Self {
            ty: counts.types,
            core_functions: counts.core_functions,
            functions: counts.functions,
            aliases: ComponentAliasSection::new(),
            lifts: CanonicalFunctionSection::new(),
            exports: ComponentExportSection::new(),
            count: 0,
        }
    }

    fn export(&mut self, instance: u32, name: &str, exported: &str) {
        self.aliases.alias(Alias::CoreInstanceExport {
            instance,
            kind: ExportKind::Func,
            name,
        });
        self.lifts
            .lift(self.core_functions + self.count, self.ty, []);
        let lifted = self.functions + self.count;
        self.exports
            .export(exported, ComponentExportKind::Func, lifted, None);
        self.count += 1;
    }
}

fn assemble(sections: &[Section<'_>], skeletons: Vec<Vec<u8>>, added: Added) -> Vec<u8> {
    let mut component = Component::new();
    let mut skeletons = skeletons.into_iter();
    for section in sections {
        let skeleton = match section.id {
            MODULE => skeletons.next(),
            // Names, and who made it: of no use to the engine, and different for no reason.
            0 => continue,
            _ => None,
        };
        component.section(&RawSection {
            id: section.id,
            data: skeleton.as_deref().unwrap_or(section.bytes),
        });
    }
    if added.count > 0 {
        let mut types = ComponentTypeSection::new();
        types
            .function()
            .params([] as [(&str, wasm_encoder::ComponentValType); 0])
            .result(None);
        component
            .section(&types)
            .section(&added.aliases)
            .section(&added.lifts)
            .section(&added.exports);
    }
    component.finish()
}
