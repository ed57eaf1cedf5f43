//! Which language makes which call: the page, and what the test of a node holds guests to.
//!
//! The node's test includes this file, so that the page says what is tested.
#![allow(
    dead_code,
    reason = "one test writes the page, another looks for holes"
)]

use hostcalls::{PAYLOAD, TABLE};
use sandbox::host::HostCall;

/// A language that has a guest that makes every call.
pub struct Language {
    /// As people write it.
    pub title: &'static str,
    /// The guest: `guests/out/hostcalls/NAME.wasm`.
    pub guest: &'static str,
    /// Whether it is a core module; else it is a component.
    pub is_reactor: bool,
}

const fn reactor(title: &'static str, guest: &'static str) -> Language {
    Language {
        title,
        guest,
        is_reactor: true,
    }
}

const fn component(title: &'static str, guest: &'static str) -> Language {
    Language {
        title,
        guest,
        is_reactor: false,
    }
}

/// All of them.
pub const LANGUAGES: [Language; 6] = [
    reactor("C", "c"),
    reactor("C++", "cpp"),
    reactor("Rust", "rust"),
    reactor("AssemblyScript", "assemblyscript"),
    component("Python", "python"),
    component("JavaScript", "javascript"),
];

/// Calls that components do not make, each with its cause.
pub const HOLES: [(&str, &str); 5] = [
    (
        "state_map",
        "The interfaces of components pass copies, and know no address that a host could map to",
    ),
    ("input_size", PAYLOAD_IS_WASI),
    ("input_read", PAYLOAD_IS_WASI),
    ("output_write", PAYLOAD_IS_WASI),
    ("log_write", PAYLOAD_IS_WASI),
];

const PAYLOAD_IS_WASI: &str =
    "Components get the request, and give the reply and the log, by WASI's own interfaces";

/// Why guests in this language do not make this call; none if they do.
pub fn hole(language: &Language, call: &str) -> Option<&'static str> {
    let (_, cause) = HOLES.iter().find(|(name, _)| *name == call)?;
    (!language.is_reactor).then_some(*cause)
}

/// The page.
pub fn page(notice: &str) -> String {
    let titles = LANGUAGES.map(|language| language.title).join(" | ");
    let mut text = format!(
        "<!-- {notice} -->\n# Host calls by language\n\nEvery call is made from every language on \
         a node in `crates/node/tests/hostcall_matrix.rs`, by the\nguests in \
         [`guests/hostcalls`](../../guests/hostcalls/README.md). A number leads to why a \
         language\nlacks a call; the test makes sure that it does.\n\n| call | {titles} |\n|---|{}\n",
        "---|".repeat(LANGUAGES.len()),
    );
    let mut causes: Vec<&str> = Vec::new();
    for call in PAYLOAD.iter().chain(TABLE) {
        text += &row(call, &mut causes);
    }
    text += "\n## What is lacking, and why\n\n";
    for (at, cause) in causes.iter().enumerate() {
        text += &format!("{}. {cause}.\n", at + 1);
    }
    text
}

fn row(call: &HostCall, causes: &mut Vec<&str>) -> String {
    let mut line = format!("| [`{0}`]({0}.md) |", call.name);
    for language in &LANGUAGES {
        let Some(cause) = hole(language, call.name) else {
            line += " yes |";
            continue;
        };
        let at = causes.iter().position(|known| *known == cause);
        let at = at.unwrap_or_else(|| {
            causes.push(cause);
            causes.len() - 1
        });
        line += &format!(" no ({}) |", at + 1);
    }
    line + "\n"
}
