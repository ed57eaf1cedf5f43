//! The package of interfaces for components.

use hostcalls::TABLE;
use sandbox::host::{Errno, HostCall, Type, Walls};

use super::{doc, has_out, kebab, notice, wrap};

/// Words of WIT, which stand for a name only behind a `%`.
const KEYWORDS: [&str; 32] = [
    "as",
    "async",
    "bool",
    "borrow",
    "char",
    "constructor",
    "enum",
    "export",
    "flags",
    "from",
    "func",
    "future",
    "import",
    "include",
    "interface",
    "list",
    "option",
    "own",
    "package",
    "record",
    "resource",
    "result",
    "static",
    "stream",
    "string",
    "tuple",
    "type",
    "use",
    "variant",
    "with",
    "world",
    "u64",
];

/// The interfaces, in the order of the table.
const INTERFACES: [(&str, &str); 2] = [
    (
        "state",
        "Bytes under keys, which the functions of an app share.",
    ),
    ("chain", "Calls of other functions."),
];

/// `sdk/wit/dunlin-platform.wit`
pub fn package() -> String {
    let mut text = format!("// {}\n", notice());
    text += "/// What a function may ask of its platform.\npackage dunlin:platform@0.1.0;\n\n";
    text += &types();
    for (interface, about) in INTERFACES {
        text += &format!("/// {about}\ninterface {interface} {{\n  use types.{{errno}};\n");
        for call in TABLE.iter().filter(|call| call.interface == interface) {
            if is_offered(call) {
                text += &format!("\n{}  {}\n", wrap(&doc(call), "  /// "), signature(call));
            }
        }
        text += "}\n\n";
    }
    text += "/// All that the platform offers.\nworld imports {\n";
    for (interface, _) in INTERFACES {
        text += &format!("  import {interface};\n");
    }
    text + "}\n"
}

/// Whether components have the call.
pub fn is_offered(call: &HostCall) -> bool {
    call.walls == Walls::All
}

/// A call, as WIT declares it.
pub fn signature(call: &HostCall) -> String {
    let params = call.params.iter().map(|param| match param.ty {
        Type::U32 => format!("{}: u32", escaped(param.name)),
        Type::U64 => format!("{}: u64", escaped(param.name)),
        Type::Str => format!("{}: string", escaped(param.name)),
        Type::Bytes => format!("{}: list<u8>", escaped(param.name)),
        Type::Out => "max: u32".to_owned(),
    });
    let params: Vec<String> = params.collect();
    let result = if has_out(call) { "list<u8>" } else { "u64" };
    let name = function(call);
    format!(
        "{}: func({}) -> result<{result}, errno>;",
        escaped(name),
        params.join(", ")
    )
}

/// The name of a call in its interface, in snake case.
pub fn function(call: &HostCall) -> &'static str {
    let rest = call.name.strip_prefix(call.interface);
    rest.and_then(|rest| rest.strip_prefix('_'))
        .unwrap_or(call.name)
}

fn escaped(name: &str) -> String {
    match KEYWORDS.contains(&name) {
        true => format!("%{name}"),
        false => kebab(name),
    }
}

fn types() -> String {
    let mut text = String::from("/// What the interfaces share.\ninterface types {\n");
    text += "  /// Why a call failed.\n  enum errno {\n";
    for errno in Errno::ALL {
        text += &format!("    /// {}\n    {},\n", errno.doc(), errno.as_str());
    }
    text + "  }\n}\n\n"
}
