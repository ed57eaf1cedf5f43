//! Hides mail addresses and card numbers: text in, the same text with them redacted out.
//!
//! `init` compiles the patterns once, at deploy, and every invocation starts with them compiled.
//! Error codes: 1 the body is not UTF-8, 2 the reply is over the output limit, 3 `init` did not
//! run.

use std::sync::OnceLock;

use dunlin::Level;
use regex_lite::{Captures, Regex};

const NOT_TEXT: i32 = 1;
const REPLY_TOO_LARGE: i32 = 2;
const NOT_READY: i32 = 3;

static PATTERN: OnceLock<Regex> = OnceLock::new();

dunlin::reactor!(handle = redact, init = compile);

fn compile() -> Result<(), i32> {
    let mail = r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}";
    let card = r"\b(?:[0-9]{4}[ -]?){3}[0-9]{4}\b";
    let pattern = Regex::new(&format!("(?<mail>{mail})|(?<card>{card})")).map_err(|_| NOT_READY)?;
    PATTERN.set(pattern).map_err(|_| NOT_READY)
}

fn redact() -> Result<(), i32> {
    let pattern = PATTERN.get().ok_or(NOT_READY)?;
    let text = String::from_utf8(dunlin::input()).map_err(|_| NOT_TEXT)?;
    let mut hidden = 0;
    let reply = pattern.replace_all(&text, |found: &Captures<'_>| {
        hidden += 1;
        if found.name("mail").is_some() {
            "[mail]"
        } else {
            "[card]"
        }
    });
    dunlin::log(Level::Info, &format!("hid {hidden}"));
    dunlin::output(reply.as_bytes()).map_err(|_| REPLY_TOO_LARGE)
}
