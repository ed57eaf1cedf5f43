//! Writes what is made from the table; a module for each language.

mod assemblyscript;
mod c;
mod docs;
mod guests;
mod languages;
mod rust;
mod rust_vm;
mod vm;
mod wit;

use hostcalls::{PAYLOAD, TABLE};
use sandbox::host::{HostCall, Type};

/// How to write them all again.
pub const COMMAND: &str = "UPDATE_GENERATED=1 cargo nextest run -p hostcalls";

const COLUMNS_MAX: usize = 100;

/// A file that is made from the table.
pub struct File {
    /// Where it lies in the repository.
    pub path: String,
    /// What is in it.
    pub text: String,
}

impl File {
    fn new(path: impl Into<String>, text: String) -> Self {
        Self {
            path: path.into(),
            text,
        }
    }
}

/// Every generated file.
pub fn files() -> Vec<File> {
    let mut files = vec![
        File::new("sdk/c/dunlin_calls.h", c::header()),
        File::new("sdk/c/dunlin_vm_calls.h", vm::header()),
        File::new("sdk/rust/src/calls.rs", rust::module()),
        File::new("sdk/rust-vm/src/calls.rs", rust_vm::module()),
        File::new("sdk/assemblyscript/calls.ts", assemblyscript::module()),
        File::new("sdk/wit/dunlin-platform.wit", wit::package()),
    ];
    files.extend(docs::pages());
    files.push(File::new(
        "docs/hostcalls/languages.md",
        languages::page(&notice()),
    ));
    files.extend(guests::dispatchers());
    files
}

/// What the first line of a generated file says.
fn notice() -> String {
    format!("Generated from the table of host calls: `{COMMAND}`.")
}

/// Every call, those of the payload first.
fn calls() -> impl Iterator<Item = &'static HostCall> {
    PAYLOAD.iter().chain(TABLE)
}

/// Whether a call moves the payload: those answer with an `i32` of their own meaning.
fn is_payload(call: &HostCall) -> bool {
    call.interface == "payload"
}

/// Whether a call answers with nothing at all.
fn is_silent(call: &HostCall) -> bool {
    call.result == "nothing"
}

fn has_out(call: &HostCall) -> bool {
    call.params.iter().any(|param| param.ty == Type::Out)
}

/// `wait_any` as `wait-any`.
fn kebab(name: &str) -> String {
    name.replace('_', "-")
}

/// `wait_any` as `WaitAny`; also from kebab case.
fn pascal(name: &str) -> String {
    let words = name.split(['_', '-']).map(|word| {
        let (first, rest) = word.split_at(1);
        first.to_uppercase() + rest
    });
    words.collect()
}

/// `wait_any` as `waitAny`.
fn camel(name: &str) -> String {
    let pascal = pascal(name);
    let (first, rest) = pascal.split_at(1);
    first.to_lowercase() + rest
}

/// Breaks `text` into lines that begin with `prefix` and are not too long.
fn wrap(text: &str, prefix: &str) -> String {
    let mut lines = String::new();
    let mut line = prefix.to_owned();
    for word in text.split_whitespace() {
        let is_begun = line.len() > prefix.len();
        if is_begun && line.chars().count() + 1 + word.chars().count() > COLUMNS_MAX {
            lines += &line;
            lines.push('\n');
            line = prefix.to_owned();
        }
        if line.len() > prefix.len() {
            line.push(' ');
        }
        line += word;
    }
    lines + &line + "\n"
}

/// What a call does and answers, as text.
fn doc(call: &HostCall) -> String {
    match call.result {
        "nothing" => call.doc.to_owned(),
        result => format!("{} Gives {result}.", call.doc),
    }
}

/// `open` + the parts + `close`, each part on its own line where they do not fit into one.
fn list(open: &str, parts: &[String], close: &str, indent: &str) -> String {
    let line = format!("{indent}{open}{}{close}", parts.join(", "));
    if line.chars().count() <= COLUMNS_MAX {
        return line;
    }
    let parts = parts.join(&format!(",\n{indent}    "));
    format!("{indent}{open}\n{indent}    {parts}{close}")
}
