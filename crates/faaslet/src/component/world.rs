//! What a component exports and imports, read before anything is compiled.

use model::Kind;
use sandbox::PrepareError;
use wasmparser::component_types::ComponentEntityType;
use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};

use super::engine::{Flavour, Machine};
use super::link;

/// How a component is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// `wasi:http/incoming-handler` 0.2.
    Http2,
    /// `wasi:http/handler` 0.3.
    Http3,
    /// `wasi:cli/run` 0.2.
    Command2,
    /// `wasi:cli/run` 0.3.
    Command3,
}

impl Entry {
    const ALL: [Entry; 4] = [Entry::Http2, Entry::Http3, Entry::Command2, Entry::Command3];

    const fn kind(self) -> Kind {
        match self {
            Entry::Http2 | Entry::Http3 => Kind::Http,
            Entry::Command2 | Entry::Command3 => Kind::Command,
        }
    }

    /// The export's name with the part of its version that decides compatibility.
    const fn export(self) -> &'static str {
        match self {
            Entry::Http2 => "wasi:http/incoming-handler@0.2.",
            Entry::Http3 => "wasi:http/handler@0.3.",
            Entry::Command2 => "wasi:cli/run@0.2.",
            Entry::Command3 => "wasi:cli/run@0.3.",
        }
    }

    const fn is_concurrent(self) -> bool {
        matches!(self, Entry::Http3 | Entry::Command3)
    }
}

/// The outside of a component.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct World {
    exports: Vec<String>,
    imports: Vec<Import>,
}

#[derive(Debug, PartialEq, Eq)]
struct Import {
    name: String,
    /// The functions of an interface; `None` if it is anything else.
    functions: Option<Vec<String>>,
}

/// Reads and validates a component.
pub(super) fn read(artifact: &[u8]) -> Result<World, PrepareError> {
    if !Parser::is_component(artifact) {
        return Err(PrepareError::NotWasm {
            reason: "it is not a component".into(),
        });
    }
    let invalid = |error: wasmparser::BinaryReaderError| PrepareError::Invalid {
        reason: error.to_string(),
    };
    let types = Validator::new_with_features(WasmFeatures::all())
        .validate_all(artifact)
        .map_err(invalid)?;
    let (exports, imports) = names(artifact).map_err(invalid)?;
    let functions = |name: &str| {
        let item = types.as_ref().component_item_for_import(name)?;
        let ComponentEntityType::Instance(interface) = item.ty else {
            return None;
        };
        let is_function = |ty: &ComponentEntityType| matches!(ty, ComponentEntityType::Func(_));
        let functions = types[interface].exports.iter();
        Some(
            functions
                .filter(|(_, item)| is_function(&item.ty))
                .map(|(name, _)| name.clone())
                .collect(),
        )
    };
    let imports = imports.into_iter().map(|name| Import {
        functions: functions(&name),
        name,
    });
    Ok(World {
        imports: imports.collect(),
        exports,
    })
}

/// The names of a component's own exports and imports, not of those nested in it.
fn names(artifact: &[u8]) -> wasmparser::Result<(Vec<String>, Vec<String>)> {
    let (mut exports, mut imports) = (Vec::new(), Vec::new());
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(artifact) {
        match payload? {
            Payload::Version { encoding, .. } => {
                debug_assert!(depth > 0 || encoding == Encoding::Component);
                depth += 1;
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    exports.push(export?.name.name.to_owned());
                }
            }
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    imports.push(import?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok((exports, imports))
}

impl World {
    /// A world of which only the exports are known.
    pub(super) fn of_exports(exports: Vec<String>) -> Self {
        Self {
            exports,
            imports: Vec::new(),
        }
    }

    /// How a function of `kind` is called in this component.
    pub(super) fn entry(&self, kind: Kind) -> Result<Entry, PrepareError> {
        let exports = |entry: &Entry| {
            let versioned = |name: &String| {
                name.starts_with(entry.export()) && !name[entry.export().len()..].contains('-')
            };
            entry.kind() == kind && self.exports.iter().any(versioned)
        };
        Entry::ALL
            .into_iter()
            .find(exports)
            .ok_or_else(|| PrepareError::WrongKind {
                kind,
                reason: self.wrong_kind(kind),
            })
    }

    fn wrong_kind(&self, kind: Kind) -> String {
        let wanted: Vec<_> = Entry::ALL
            .into_iter()
            .filter(|entry| entry.kind() == kind)
            .map(|entry| format!("`{}`", entry.export().trim_end_matches('.')))
            .collect();
        let exports = match self.exports.as_slice() {
            [] => "nothing".to_owned(),
            exports => exports.join(", "),
        };
        match wanted.as_slice() {
            [] => format!("it is a component; a {kind} is a core module. It exports {exports}"),
            _ => format!("it exports {exports}, and not {}", wanted.join(" or ")),
        }
    }

    /// The engine for this component when it is called so.
    pub(super) fn flavour(&self, entry: Entry) -> Flavour {
        let recent = |import: &Import| import.name.contains("@0.3.");
        if entry.is_concurrent() || self.imports.iter().any(recent) {
            Flavour::Concurrent
        } else {
            Flavour::Plain
        }
    }

    /// Refuses imports that `machine` does not offer, naming each.
    pub(super) fn check_imports(&self, machine: &Machine) -> Result<(), PrepareError> {
        let mut names = Vec::new();
        for import in &self.imports {
            let Some(functions) = &import.functions else {
                names.push(import.name.clone());
                continue;
            };
            let unknown = functions
                .iter()
                .filter(|function| !link::offers(&machine.linker, &import.name, function));
            names.extend(unknown.map(|function| format!("{}#{function}", import.name)));
        }
        if names.is_empty() {
            return Ok(());
        }
        Err(PrepareError::UnknownImports { names })
    }
}
