//! `examples/catalogue.json`: every example, a request for it and what it must reply.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

const PATH: &str = "examples/catalogue.json";

/// One example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The function's name.
    pub name: String,
    /// What it is written in.
    pub language: String,
    /// `http`, `command`, `reactor` or `lambda`.
    pub kind: String,
    /// The Wasm file, from the repository's root.
    pub artifact: String,
    /// What it is granted, as flags of `dunlin deploy`.
    pub grants: Vec<String>,
    /// What is loaded into it, if it is a runtime: files, from the repository's root.
    pub layers: Vec<String>,
    /// What is put in its app's state first.
    pub state: Vec<Stored>,
    /// What its sandboxes are made of: `wasm` unless told.
    pub isolation: String,
    /// The request's method.
    pub method: String,
    /// The request's path below the function's, with its query.
    pub path: String,
    /// The request's body.
    pub body: Body,
    /// Arguments of the call.
    pub args: Vec<String>,
    /// The status that it must reply.
    pub status: u16,
    /// What the reply must hold.
    pub reply: Reply,
}

/// A value of an app's state that a function needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its key.
    pub key: String,
    /// The file whose content it is, from the repository's root.
    pub file: String,
}

/// A request's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// This text; empty for none.
    Text(String),
    /// A file, from the repository's root.
    File(String),
}

/// What a reply must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Anything.
    Any,
    /// These bytes somewhere.
    Contains(Vec<u8>),
    /// These bytes at its start: the magic of a file format.
    Magic(Vec<u8>),
}

impl Reply {
    /// Why `body` is not this reply; none if it is.
    pub fn fault(&self, body: &[u8]) -> Option<String> {
        let (holds, wanted) = match self {
            Reply::Any => return None,
            Reply::Contains(wanted) => (
                body.windows(wanted.len().max(1)).any(|part| part == wanted),
                wanted,
            ),
            Reply::Magic(wanted) => (body.starts_with(wanted), wanted),
        };
        let show = |bytes: &[u8]| {
            String::from_utf8_lossy(&bytes[..bytes.len().min(200)])
                .escape_debug()
                .to_string()
        };
        (!holds).then(|| format!("replied \"{}\", not \"{}\"", show(body), show(wanted)))
    }
}

/// Reads the catalogue. Where there is no KVM, what needs it is left out, and said to be; with
/// `REQUIRE_KVM` set that is an error.
pub fn read(root: &Path) -> Result<Vec<Entry>> {
    let text =
        std::fs::read_to_string(root.join(PATH)).with_context(|| format!("reading {PATH}"))?;
    let mut entries = parse(&text).with_context(|| PATH.to_owned())?;
    let device = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm");
    let Err(error) = device else {
        return Ok(entries);
    };
    if std::env::var_os("REQUIRE_KVM").is_some() {
        bail!("micro-VMs are required, and /dev/kvm cannot be opened: {error}");
    }
    entries.retain(|entry| {
        let runs = entry.isolation == "wasm";
        if !runs {
            eprintln!("left out: {}, since /dev/kvm: {error}", entry.name);
        }
        runs
    });
    Ok(entries)
}

fn parse(text: &str) -> Result<Vec<Entry>> {
    let value: Value = serde_json::from_str(text)?;
    let list = value.as_array().context("is not a list")?;
    list.iter().map(entry).collect()
}

fn entry(value: &Value) -> Result<Entry> {
    let text = |name: &str| -> Result<String> {
        let field = value[name].as_str();
        Ok(field
            .with_context(|| format!("an entry has no `{name}`: {value}"))?
            .to_owned())
    };
    let (request, expect) = (&value["request"], &value["expect"]);
    let or = |field: &Value, default: &str| field.as_str().unwrap_or(default).to_owned();
    let args = request["args"].as_array().into_iter().flatten();
    let granted = |kind: &str| {
        let grants = value["allow"][kind].as_array().into_iter().flatten();
        let flag = format!("--allow-{kind}=");
        grants
            .filter_map(|grant| grant.as_str())
            .map(move |grant| format!("{flag}{grant}"))
            .collect::<Vec<_>>()
    };
    Ok(Entry {
        name: text("name")?,
        language: text("language")?,
        kind: text("kind")?,
        artifact: text("artifact")?,
        layers: {
            let layers = value["layers"].as_array().into_iter().flatten();
            let layers = layers.filter_map(|layer| layer.as_str());
            layers.map(str::to_owned).collect()
        },
        grants: ["state", "call"].into_iter().flat_map(granted).collect(),
        state: value["state"]
            .as_array()
            .into_iter()
            .flatten()
            .map(stored)
            .collect::<Result<_>>()?,
        isolation: or(&value["isolation"], "wasm"),
        method: or(&request["method"], "POST"),
        path: or(&request["path"], "/"),
        body: match request["body_file"].as_str() {
            Some(file) => Body::File(file.to_owned()),
            None => Body::Text(or(&request["body"], "")),
        },
        args: args
            .filter_map(|arg| arg.as_str().map(str::to_owned))
            .collect(),
        status: match expect["status"].as_u64() {
            Some(status) => u16::try_from(status)?,
            None => 200,
        },
        reply: reply(expect)?,
    })
}

fn stored(value: &Value) -> Result<Stored> {
    let text = |name: &str| {
        let text = value[name].as_str();
        let text = text.with_context(|| format!("a value of state has no `{name}`: {value}"));
        text.map(str::to_owned)
    };
    Ok(Stored {
        key: text("key")?,
        file: text("file")?,
    })
}

fn reply(expect: &Value) -> Result<Reply> {
    let bytes = |field: &Value| field.as_str().map(|text| text.as_bytes().to_vec());
    match (bytes(&expect["contains"]), bytes(&expect["magic"])) {
        (Some(_), Some(_)) => bail!("an entry expects both `contains` and `magic`: {expect}"),
        (Some(wanted), None) => Ok(Reply::Contains(wanted)),
        (None, Some(wanted)) => Ok(Reply::Magic(wanted)),
        (None, None) => Ok(Reply::Any),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_without_its_optional_parts_has_their_defaults() {
        let text = r#"[{"name": "a", "language": "C", "kind": "command", "artifact": "a.wasm"}]"#;
        let entries = parse(text).unwrap();
        assert_eq!(entries[0].method, "POST");
        assert_eq!(entries[0].status, 200);
        assert!(entries[0].grants.is_empty());
        assert!(entries[0].state.is_empty());
        assert_eq!(entries[0].reply, Reply::Any);
    }

    #[test]
    fn grants_are_flags_of_a_deploy() {
        let text = r#"[{"name": "a", "language": "C", "kind": "reactor", "artifact": "a.wasm",
            "allow": {"state": ["a/=write"], "call": ["a"]}}]"#;
        let grants = parse(text).unwrap().remove(0).grants;
        assert_eq!(grants, ["--allow-state=a/=write", "--allow-call=a"]);
    }

    #[test]
    fn state_is_a_key_and_a_file() {
        let read = |state: &str| {
            parse(&format!(
                r#"[{{"name": "a", "language": "C", "kind": "reactor", "artifact": "a.wasm",
                "state": [{state}]}}]"#
            ))
        };
        let entries = read(r#"{"key": "k", "file": "f"}"#).unwrap();
        let wanted = Stored {
            key: "k".into(),
            file: "f".into(),
        };
        assert_eq!(entries[0].state, [wanted]);
        assert!(read(r#"{"key": "k"}"#).is_err());
    }

    #[test]
    fn replies_are_held_against_what_is_expected() {
        let contains = Reply::Contains(b"ell".to_vec());
        assert_eq!(contains.fault(b"hello"), None);
        assert!(contains.fault(b"help").is_some());
        let magic = Reply::Magic(b"RIFF".to_vec());
        assert_eq!(magic.fault(b"RIFF...."), None);
        assert!(magic.fault(b"xRIFF").is_some());
        assert!(Reply::Contains(b"long".to_vec()).fault(b"").is_some());
    }
}
