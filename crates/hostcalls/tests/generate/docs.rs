//! A page for each call, and one that lists them.

use sandbox::host::{Errno, HostCall, Type, Walls};

use super::{File, assemblyscript, c, calls, is_payload, notice, rust, wit, wrap};

const INTRODUCTION: &str = "\
A function asks its platform by these calls, each defined once in `crates/hostcalls/src/table.rs`.
Core modules import them from `dunlin`; components import the package `dunlin:platform`
([`sdk/wit/dunlin-platform.wit`](../../sdk/wit/dunlin-platform.wit)). The SDKs in `sdk/` turn them
into what each language is used to; [data objects](../data-objects.md) are made of them.
[Which language makes which call](languages.md) is tested on a node.

In core modules a call gives an `i64`: a number of its own, or a negative error. Text and bytes are
a pointer and a length. In components it gives `result<u64, errno>`, or `result<list<u8>, errno>`
where the core module passes a buffer. What was not granted in `dunlin.toml` is refused with
`denied`.
";

/// All pages.
pub fn pages() -> Vec<File> {
    let mut pages = vec![File::new("docs/hostcalls/README.md", index())];
    let each =
        calls().map(|call| File::new(format!("docs/hostcalls/{}.md", call.name), page(call)));
    pages.extend(each);
    pages
}

fn index() -> String {
    let mut text = format!("<!-- {} -->\n# Host calls\n\n{INTRODUCTION}", notice());
    let mut interface = "";
    for call in calls() {
        if call.interface != interface {
            interface = call.interface;
            text += &format!("\n## {interface}\n\n| call | what it does |\n|---|---|\n");
        }
        let first = call.doc.split(". ").next().unwrap_or(call.doc);
        let first = first.trim_end_matches('.');
        text += &format!("| [`{0}`]({0}.md) | {first} |\n", call.name);
    }
    text += "\n## Errors\n\n| number | name | meaning |\n|---|---|---|\n";
    for errno in Errno::ALL {
        text += &format!(
            "| {} | `{}` | {} |\n",
            errno.code(),
            errno.as_str(),
            errno.doc()
        );
    }
    text
}

fn page(call: &HostCall) -> String {
    let mut text = format!(
        "<!-- {} -->\n# {}\n\n{}",
        notice(),
        call.name,
        wrap(call.doc, "")
    );
    text += &params(call);
    text += &wrap(&format!("Gives {}.", call.result), "");
    text += &signatures(call);
    text += &errors(call);
    text + &offered(call)
}

fn params(call: &HostCall) -> String {
    if call.params.is_empty() {
        return "\n".into();
    }
    let mut text = String::from("\n| parameter | type | meaning |\n|---|---|---|\n");
    for param in call.params {
        let ty = match param.ty {
            Type::U32 => "`u32`",
            Type::U64 => "`u64`",
            Type::Str => "text",
            Type::Bytes => "bytes",
            Type::Out => "buffer; for components the most bytes that are wanted",
        };
        text += &format!("| `{}` | {ty} | {} |\n", param.name, param.doc);
    }
    text + "\n"
}

fn signatures(call: &HostCall) -> String {
    let mut text = String::from("\n## Signatures\n");
    let mut add = |language: &str, fence: &str, code: String| {
        text += &format!("\n{language}:\n```{fence}\n{code}\n```\n");
    };
    add("C, C++", "c", c::signature(call));
    match is_payload(call) {
        true => add(
            "Rust, in `dunlin::calls::raw`",
            "rust",
            rust::raw_signature(call),
        ),
        false => add("Rust, in `dunlin::calls`", "rust", rust::signature(call)),
    }
    let module = "AssemblyScript, in `sdk/assemblyscript/calls.ts`";
    add(
        module,
        "ts",
        format!("export function {}", assemblyscript::signature(call)),
    );
    if !is_payload(call) && wit::is_offered(call) {
        let interface = format!("WIT, in `dunlin:platform/{}`", call.interface);
        add(&interface, "wit", wit::signature(call));
    }
    text
}

fn errors(call: &HostCall) -> String {
    if is_payload(call) {
        return String::new();
    }
    let mut text = String::from("\n## Errors\n\n| number | name | meaning |\n|---|---|---|\n");
    for errno in call.errors {
        text += &format!(
            "| {} | `{}` | {} |\n",
            errno.code(),
            errno.as_str(),
            errno.doc()
        );
    }
    text += "\nEvery call may also answer `invalid`, where a pointer leads out of memory or text is \
             not\nUTF-8, and `unavailable`.\n";
    text
}

fn offered(call: &HostCall) -> String {
    let grant = match call.grant {
        "" => "nothing",
        grant => grant,
    };
    let walls = match (is_payload(call), call.walls) {
        (true, _) => "reactors (core modules); components get the request from WASI",
        (false, Walls::All) => "core modules and components",
        (false, Walls::Mapped) => "core modules; not components, whose memory no host may map into",
    };
    format!("\n## Grant\n\nNeeds {grant}.\n\n## Where\n\nOffered to {walls}.\n")
}
