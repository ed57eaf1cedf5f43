//! The header for C and C++.

use sandbox::host::{Errno, HostCall, Type};

use super::{calls, doc, is_payload, is_silent, list, notice, wrap};

const TOP: &str = r#"#ifndef DUNLIN_CALLS_H
#define DUNLIN_CALLS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

"#;

/// WebAssembly names what it imports; a micro-VM calls by number.
const IMPORTS: &str = r#"#ifndef __wasm__
#include "dunlin_vm.h"
#else

#define DUNLIN_IMPORT(name) __attribute__((import_module("dunlin"), import_name(name)))

"#;

const BOTTOM: &str = "#endif\n\n#ifdef __cplusplus\n}\n#endif\n#endif\n";

/// `sdk/c/dunlin_calls.h`
pub fn header() -> String {
    let mut text = format!(
        "/* {} */\n{TOP}{}{}{IMPORTS}",
        notice(),
        errors(),
        strerror()
    );
    for call in calls() {
        text += &comment(&doc(call));
        text += &format!("DUNLIN_IMPORT(\"{}\")\n{}\n\n", call.name, signature(call));
    }
    text + BOTTOM
}

/// A call, as C declares it.
pub fn signature(call: &HostCall) -> String {
    let answer = match (is_payload(call), is_silent(call)) {
        (true, true) => "void",
        (true, false) => "int32_t",
        (false, _) => "int64_t",
    };
    let mut params: Vec<String> = call.params.iter().flat_map(|it| param(call, it)).collect();
    if params.is_empty() {
        params.push("void".into());
    }
    list(
        &format!("{answer} dunlin_{}(", call.name),
        &params,
        ");",
        "",
    )
}

fn param(call: &HostCall, param: &sandbox::host::Param) -> Vec<String> {
    let name = param.name;
    let (number, length) = match is_payload(call) {
        true => ("int32_t", "int32_t"),
        false => ("uint32_t", "size_t"),
    };
    let length = format!("{length} {name}_length");
    match param.ty {
        Type::U32 => vec![format!("{number} {name}")],
        Type::U64 => vec![format!("uint64_t {name}")],
        Type::Str => vec![format!("const char *{name}"), length],
        Type::Bytes => vec![format!("const void *{name}"), length],
        Type::Out => vec![format!("void *{name}"), length],
    }
}

fn constant(errno: Errno) -> String {
    format!(
        "DUNLIN_E_{}",
        errno.as_str().to_uppercase().replace('-', "_")
    )
}

fn errors() -> String {
    let mut text =
        comment("What a call answers that failed. Any other negative number is one too.");
    text += "enum dunlin_error {\n";
    for errno in Errno::ALL {
        text += &format!("  /* {} */\n", errno.doc());
        text += &format!("  {} = {},\n", constant(errno), errno.code());
    }
    text + "};\n\n"
}

fn strerror() -> String {
    let mut text = comment("What an error means, as a sentence.");
    text += "static inline const char *dunlin_strerror(int64_t error) {\n  switch (error) {\n";
    for errno in Errno::ALL {
        text += &format!(
            "    case {}:\n      return \"{}\";\n",
            constant(errno),
            errno.doc()
        );
    }
    let rest =
        "return error < 0 ? \"The platform refused, in a way unknown here.\" : \"No error.\"";
    text + &format!("    default:\n      {rest};\n  }}\n}}\n\n")
}

fn comment(text: &str) -> String {
    let lines = wrap(text, " * ");
    let body = lines.trim_start_matches(" * ").trim_end();
    format!("/* {body} */\n")
}
