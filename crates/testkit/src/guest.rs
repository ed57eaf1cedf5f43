//! What a scripted guest does.

use bytes::Bytes;
use model::{Digest, Kind, Limits, Settings, VersionSpec};

/// The script of a guest. Its text form is its artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guest {
    /// Replies with its input.
    Echo,
    /// Replies how often this sandbox was called since it was fresh: 1, unless memory leaks.
    Counter,
    /// Replies `clean` if this sandbox was fresh, else `dirty`.
    Canary,
    /// Replies with the size of its memory, then grows it by 1 MiB.
    Grow,
    /// Comes to the gate of this name, and echoes once it is let through.
    Hold(String),
    /// Computes for so many milliseconds, without doing so: only its budget and deadline see it.
    Compute(u64),
    /// Computes without end.
    Loop,
    /// Holds its thread at the gate of this name, past its deadline if need be: a broken wall.
    Block(String),
    /// Waits for ever, past its deadline: a broken wall.
    Stuck,
    /// Traps.
    Trap,
    /// Recurses without end.
    Recurse,
    /// Grows memory to its cap, and fails.
    Hog,
    /// Exits with this code.
    Exit(i32),
    /// Replies with so many bytes; the wall reports what is over the limit.
    Flood(u64),
    /// Replies with so many bytes whatever the limit: a broken wall.
    Leak(u64),
    /// Prints so many bytes on its standard error.
    Print(u64),
    /// Writes to so many pages, and echoes.
    Dirty(u64),
    /// Panics within the wall.
    Panic,
    /// Echoes, and cannot be reset.
    Sticky,
    /// Makes the first call of its host's table with its input and a buffer of 64 KiB, and replies
    /// what that filled; exits with the error's number.
    Ask,
    /// Lambda: reports an error, with its input for a report.
    Report,
    /// Lambda: replies with its call's variables, as a JSON object.
    Told,
    /// Http: streams the request's body back.
    HttpEcho,
    /// Http: sets a head, and sends its body once it passes the gate of this name.
    HttpHold(String),
    /// Http: ends without a response.
    HttpSilent,
}

impl Guest {
    /// The kind of function that the guest is.
    pub fn kind(&self) -> Kind {
        match self {
            Guest::HttpEcho | Guest::HttpHold(_) | Guest::HttpSilent => Kind::Http,
            Guest::Exit(_) | Guest::Print(_) => Kind::Command,
            Guest::Report | Guest::Told => Kind::Lambda,
            _ => Kind::Reactor,
        }
    }

    /// The artifact that a mock back-end runs as this guest.
    pub fn artifact(&self) -> Bytes {
        let (name, argument) = match self {
            Guest::Echo => ("echo", String::new()),
            Guest::Counter => ("counter", String::new()),
            Guest::Canary => ("canary", String::new()),
            Guest::Grow => ("grow", String::new()),
            Guest::Hold(gate) => ("hold", gate.clone()),
            Guest::Compute(ms) => ("compute", ms.to_string()),
            Guest::Loop => ("loop", String::new()),
            Guest::Block(gate) => ("block", gate.clone()),
            Guest::Stuck => ("stuck", String::new()),
            Guest::Trap => ("trap", String::new()),
            Guest::Recurse => ("recurse", String::new()),
            Guest::Hog => ("hog", String::new()),
            Guest::Exit(code) => ("exit", code.to_string()),
            Guest::Flood(bytes) => ("flood", bytes.to_string()),
            Guest::Leak(bytes) => ("leak", bytes.to_string()),
            Guest::Print(bytes) => ("print", bytes.to_string()),
            Guest::Dirty(pages) => ("dirty", pages.to_string()),
            Guest::Panic => ("panic", String::new()),
            Guest::Sticky => ("sticky", String::new()),
            Guest::Ask => ("ask", String::new()),
            Guest::Report => ("report", String::new()),
            Guest::Told => ("told", String::new()),
            Guest::HttpEcho => ("http-echo", String::new()),
            Guest::HttpHold(gate) => ("http-hold", gate.clone()),
            Guest::HttpSilent => ("http-silent", String::new()),
        };
        format!("mock {name} {argument}").into()
    }

    /// The guest of an artifact.
    pub fn parse(artifact: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(artifact).ok()?;
        let (name, argument) = text.strip_prefix("mock ")?.split_once(' ')?;
        let number = || argument.parse().ok();
        Some(match name {
            "echo" => Guest::Echo,
            "counter" => Guest::Counter,
            "canary" => Guest::Canary,
            "grow" => Guest::Grow,
            "hold" => Guest::Hold(argument.to_owned()),
            "compute" => Guest::Compute(number()?),
            "loop" => Guest::Loop,
            "block" => Guest::Block(argument.to_owned()),
            "stuck" => Guest::Stuck,
            "trap" => Guest::Trap,
            "recurse" => Guest::Recurse,
            "hog" => Guest::Hog,
            "exit" => Guest::Exit(argument.parse().ok()?),
            "flood" => Guest::Flood(number()?),
            "leak" => Guest::Leak(number()?),
            "print" => Guest::Print(number()?),
            "dirty" => Guest::Dirty(number()?),
            "panic" => Guest::Panic,
            "sticky" => Guest::Sticky,
            "ask" => Guest::Ask,
            "report" => Guest::Report,
            "told" => Guest::Told,
            "http-echo" => Guest::HttpEcho,
            "http-hold" => Guest::HttpHold(argument.to_owned()),
            "http-silent" => Guest::HttpSilent,
            _ => return None,
        })
    }

    /// A version of the guest with these limits.
    pub fn spec(&self, limits: Limits) -> VersionSpec {
        VersionSpec {
            kind: self.kind(),
            artifact: Digest::of(&self.artifact()),
            settings: Settings {
                limits,
                ..Settings::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_reads_back_from_its_artifact() {
        let guests = [
            Guest::Echo,
            Guest::Hold("a gate".into()),
            Guest::Exit(-3),
            Guest::Flood(1 << 40),
            Guest::HttpSilent,
            Guest::Report,
        ];
        for guest in guests {
            assert_eq!(Guest::parse(&guest.artifact()), Some(guest));
        }
        assert_eq!(Guest::parse(b"\0asm"), None);
    }
}
