//! The dispatchers of the test guests: by the name of a call, to the call.
//!
//! What they read and write is told in `guests/hostcalls/README.md`.

use hostcalls::TABLE;
use sandbox::host::{HostCall, Type};

use super::{
    File, assemblyscript as script, calls, camel, has_out, is_payload, is_silent, notice, wit,
};

/// One dispatcher for each language.
pub fn dispatchers() -> Vec<File> {
    let folder = "guests/hostcalls";
    vec![
        File::new(format!("{folder}/c/dispatch.h"), c()),
        File::new(format!("{folder}/rust/src/dispatch.rs"), rust()),
        File::new(
            format!("{folder}/assemblyscript/dispatch.ts"),
            assemblyscript(),
        ),
        File::new(format!("{folder}/python/dispatch.py"), python()),
        File::new(format!("{folder}/javascript/dispatch.js"), javascript()),
    ]
}

/// What takes an argument of this type from a line.
fn take(ty: Type) -> &'static str {
    match ty {
        Type::U32 | Type::U64 => "number",
        Type::Str => "text",
        Type::Bytes => "bytes",
        Type::Out => "out",
    }
}

fn c() -> String {
    let mut text = format!("/* {} */\n", notice());
    text += "#ifndef DISPATCH_H\n#define DISPATCH_H\n\n#include \"script.h\"\n\n\
             /* Makes the call of this name; false if there is none. */\n\
             static bool dispatch(struct line *line, const char *name) {\n";
    for call in calls() {
        text += &format!("  if (strcmp(name, \"{}\") == 0) {{\n", call.name);
        let mut args = Vec::new();
        for param in call.params {
            let (name, take) = (param.name, take(param.ty));
            let (ty, pointer) = match param.ty {
                Type::U32 | Type::U64 => ("uint64_t", None),
                Type::Str => ("struct bytes", Some("(const char *)")),
                Type::Bytes | Type::Out => ("struct bytes", Some("")),
            };
            text += &format!("    {ty} {name} = take_{take}(line);\n");
            match pointer {
                None => args.push(format!(
                    "({}){name}",
                    if param.ty == Type::U32 {
                        "uint32_t"
                    } else {
                        "uint64_t"
                    }
                )),
                Some(cast) => args.push(format!("{cast}{name}.at, {name}.length")),
            }
        }
        let made = format!("dunlin_{}({})", call.name, args.join(", "));
        text += "    if (!taken(line)) return true;\n";
        text += &match (is_silent(call), has_out(call)) {
            (true, _) => format!("    {made};\n    answer(line, 0);\n"),
            (_, true) => format!("    answer_filled(line, {made}, out);\n"),
            (_, false) => format!("    answer(line, {made});\n"),
        };
        text += "    return true;\n  }\n";
    }
    text + "  return false;\n}\n\n#endif\n"
}

fn rust() -> String {
    let mut text = format!("//! {}\n", notice());
    text += "#![cfg_attr(rustfmt, rustfmt_skip)]\n\nuse dunlin::calls;\n\n\
             use crate::script::{Answer, Line, Malformed};\n\n\
             type Run = fn(&mut Line<'_>) -> Result<Answer, Malformed>;\n\n\
             const CALLS: &[(&str, Run)] = &[\n";
    for call in calls().filter(|call| !is_payload(call)) {
        text += &format!("    (\"{0}\", {0}),\n", call.name);
    }
    text += "];\n\n/// Makes the call of this name; none if there is none.\n\
             pub fn dispatch(line: &mut Line<'_>, name: &str) -> Result<Option<Answer>, Malformed> {\n    \
             let found = CALLS.iter().find(|(call, _)| *call == name);\n    \
             found.map(|(_, run)| run(line)).transpose()\n}\n";
    for call in calls().filter(|call| !is_payload(call)) {
        text += &rust_call(call);
    }
    text
}

fn rust_call(call: &HostCall) -> String {
    let name = call.name;
    let mut text = format!("\nfn {name}(line: &mut Line<'_>) -> Result<Answer, Malformed> {{\n");
    let mut args = Vec::new();
    for param in call.params {
        let (name, take) = (param.name, take(param.ty));
        let is_mut = if param.ty == Type::Out { "mut " } else { "" };
        text += &format!("    let {is_mut}{name} = line.{take}()?;\n");
        args.push(match param.ty {
            Type::U32 => format!("{name} as u32"),
            Type::U64 => name.to_owned(),
            Type::Str | Type::Bytes => format!("&{name}"),
            Type::Out => format!("&mut {name}"),
        });
    }
    let made = format!("calls::{name}({})", args.join(", "));
    text += "    if !line.is_over() {\n        return Err(Malformed);\n    }\n";
    text += &match has_out(call) {
        true => format!("    let result = {made};\n    Ok(Answer::filled(result, out))\n}}\n"),
        false => format!("    Ok(Answer::number({made}))\n}}\n"),
    };
    text
}

fn assemblyscript() -> String {
    let mut text = format!("// {}\n", notice());
    text += "import * as calls from \"../../../sdk/assemblyscript/calls\";\n\
             import { Line } from \"./script\";\n\n\
             /** Makes the call of this name; false if there is none. */\n\
             export function dispatch(line: Line, name: string): bool {\n";
    for call in calls().filter(|call| !is_payload(call)) {
        text += &format!("  if (name == \"{}\") {{\n", call.name);
        let mut args = Vec::new();
        for param in call.params {
            let (name, take) = (script::word(param.name), take(param.ty));
            text += &format!("    const {name} = line.{take}();\n");
            args.push(match param.ty {
                Type::U32 => format!("<u32>{name}"),
                _ => name,
            });
        }
        let made = format!("calls.{}({})", camel(call.name), args.join(", "));
        text += "    if (!line.isTaken) return true;\n";
        text += &match has_out(call) {
            true => format!("    line.answerFilled({made}, out);\n"),
            false => format!("    line.answer({made});\n"),
        };
        text += "    return true;\n  }\n";
    }
    text + "  return false;\n}\n"
}

/// The types of a call's parameters, a letter each.
fn letters(call: &HostCall) -> String {
    let letter = |ty| match ty {
        Type::U32 => 'u',
        Type::U64 => 'U',
        Type::Str => 't',
        Type::Bytes => 'b',
        Type::Out => 'o',
    };
    call.params.iter().map(|param| letter(param.ty)).collect()
}

fn python() -> String {
    let mut text = format!("# {}\n", notice());
    text += "from wit_world.imports import chain, state\n\n\
             # A letter a parameter: u, U a number, t text, b bytes, o how much is wanted.\n\
             CALLS = {\n";
    for call in TABLE.iter().filter(|call| wit::is_offered(call)) {
        let made = format!("{}.{}", call.interface, wit::function(call));
        text += &format!("    \"{}\": ({made}, \"{}\"),\n", call.name, letters(call));
    }
    text + "}\n"
}

fn javascript() -> String {
    let mut text = format!("// {}\n", notice());
    text += "import * as chain from 'dunlin:platform/chain@0.1.0';\n\
             import * as state from 'dunlin:platform/state@0.1.0';\n\n\
             // A letter a parameter: u, U a number, t text, b bytes, o how much is wanted.\n\
             export const calls = {\n";
    for call in TABLE.iter().filter(|call| wit::is_offered(call)) {
        let made = format!("{}.{}", call.interface, camel(wit::function(call)));
        text += &format!("  {}: [{made}, '{}'],\n", call.name, letters(call));
    }
    text + "};\n"
}
