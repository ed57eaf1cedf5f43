//! The module for AssemblyScript.

use sandbox::host::{Errno, HostCall, Type};

use super::{calls, camel, doc, is_payload, is_silent, list, notice, pascal, wrap};

/// `sdk/assemblyscript/calls.ts`
pub fn module() -> String {
    let mut text = format!("// {}\n", notice());
    text += "//\n// The calls as they are. Those that ask the platform give a number that is negative \
             where they\n// failed: `errorText` says what it means. `state`, `chain` and `objects` \
             are made of them.\n\n";
    text += &errors();
    for call in calls() {
        text += &wrap_doc(&doc(call));
        text += &raw(call);
        if is_payload(call) {
            continue;
        }
        text += &wrapper(call);
    }
    text
}

/// A call, as AssemblyScript declares it.
pub fn signature(call: &HostCall) -> String {
    if is_payload(call) {
        return list(
            &format!("{}(", call.name),
            &raw_params(call),
            &raw_close(call),
            "",
        );
    }
    let params: Vec<String> = call
        .params
        .iter()
        .map(|param| {
            let ty = match param.ty {
                Type::U32 => "u32",
                Type::U64 => "u64",
                Type::Str => "string",
                Type::Bytes | Type::Out => "Uint8Array",
            };
            format!("{}: {ty}", word(param.name))
        })
        .collect();
    list(&format!("{}(", camel(call.name)), &params, "): i64", "")
}

/// A parameter's name, in camel case, where it is a word that AssemblyScript keeps for itself.
pub fn word(name: &str) -> String {
    match name {
        "function" => "functionName".to_owned(),
        name => camel(name),
    }
}

fn wrap_doc(text: &str) -> String {
    let lines = wrap(text, " * ");
    if lines.lines().count() == 1 {
        return format!("/** {} */\n", lines.trim_start_matches(" * ").trim_end());
    }
    format!("/**\n{lines} */\n")
}

fn raw_params(call: &HostCall) -> Vec<String> {
    let number = if is_payload(call) { "i32" } else { "u32" };
    let parts = call.params.iter().flat_map(|param| {
        let name = word(param.name);
        match param.ty {
            Type::U32 => vec![format!("{name}: {number}")],
            Type::U64 => vec![format!("{name}: u64")],
            _ => vec![format!("{name}: usize"), format!("{name}Length: i32")],
        }
    });
    parts.collect()
}

fn raw_close(call: &HostCall) -> String {
    let answer = match (is_payload(call), is_silent(call)) {
        (true, true) => "void",
        (true, false) => "i32",
        (false, _) => "i64",
    };
    format!("): {answer}")
}

/// The import; that of a payload call is offered as it is.
fn raw(call: &HostCall) -> String {
    let open = match is_payload(call) {
        true => format!("export declare function {}(", call.name),
        false => format!("declare function {}(", call.name),
    };
    let line = list(&open, &raw_params(call), &(raw_close(call) + ";"), "");
    format!("@external(\"dunlin\", \"{}\")\n{line}\n\n", call.name)
}

fn wrapper(call: &HostCall) -> String {
    let mut body = String::new();
    let mut args = Vec::new();
    for param in call.params {
        let name = word(param.name);
        match param.ty {
            Type::U32 | Type::U64 => args.push(name),
            Type::Str => {
                body += &format!("  const {name}Bytes = String.UTF8.encode({name});\n");
                args.push(format!("changetype<usize>({name}Bytes)"));
                args.push(format!("{name}Bytes.byteLength"));
            }
            Type::Bytes | Type::Out => {
                args.push(format!("{name}.dataStart"));
                args.push(format!("{name}.byteLength"));
            }
        }
    }
    body += &list(&format!("return {}(", call.name), &args, ");", "  ");
    format!(
        "{}export function {} {{\n{body}\n}}\n\n",
        wrap_doc(&doc(call)),
        signature(call)
    )
}

fn errors() -> String {
    let mut text = String::from("/** What a call answers that failed. */\nexport enum Errno {\n");
    for errno in Errno::ALL {
        let name = pascal(errno.as_str());
        text += &format!("  /** {} */\n  {name} = {},\n", errno.doc(), errno.code());
    }
    text += "}\n\n/** What an error means, as a sentence. */\n\
             export function errorText(error: i64): string {\n  switch (<i32>error) {\n";
    for errno in Errno::ALL {
        text += &format!("    case {}: return {:?};\n", errno.code(), errno.doc());
    }
    text + "    default: return error < 0 ? \"The platform refused, in a way unknown here.\" : \
            \"No error.\";\n  }\n}\n\n"
}
