//! `dunlin invoke`: calls a function, and prints what it replied, byte for byte.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use client::{Client, Invoke as Call, Reply};
use model::FunctionPath;

use crate::args::Node;
use crate::connect;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{Output, note, print_bytes};

/// Arguments of `dunlin invoke`.
#[derive(Debug, Args)]
pub struct Invoke {
    /// The function, as APP/FUNCTION
    path: FunctionPath,
    /// The request's body: text, @FILE for a file's content, or - for stdin
    #[arg(long, short, value_name = "STR|@FILE|-", allow_hyphen_values = true)]
    data: Option<String>,
    /// Return an id at once; the call is made later, and tried again if it fails
    #[arg(long = "async")]
    later: bool,
    /// An argument for this call; may be repeated
    #[arg(long = "arg", value_name = "ARG", allow_hyphen_values = true)]
    args: Vec<String>,
    /// Media type of the body
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Call this alias, or version by its whole digest, instead of `live`
    #[arg(long, value_name = "ALIAS|DIGEST")]
    alias: Option<String>,
    /// Method that an http function sees [default: POST]
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// Path and query that the function sees [default: /]
    #[arg(long = "path", value_name = "PATH")]
    guest_path: Option<String>,
    /// With --async: a key that has the call accepted only once
    #[arg(long, value_name = "KEY", requires = "later")]
    idempotency_key: Option<String>,
    #[command(flatten)]
    node: Node,
}

impl Invoke {
    /// Calls the function, now or later.
    pub fn run(self, out: Output) -> Outcome {
        let call = Call {
            body: self.data.as_deref().map_or(Ok(Bytes::new()), body)?,
            path: self.path,
            content_type: self.content_type,
            args: self.args,
            target: self.alias,
            method: self.method,
            guest_path: self.guest_path,
            idempotency_key: self.idempotency_key,
        };
        connect::with(&self.node, async |client: Client| {
            if self.later {
                let accepted = client.invoke_async(&call).await?;
                return out.say(&accepted, || accepted.id.clone());
            }
            print_reply(client.invoke(&call).await?).await
        })
    }
}

/// Prints a reply as it comes. A function that itself answers with an error has failed.
pub async fn print_reply(mut reply: Reply) -> Outcome {
    while let Some(bytes) = reply.chunk().await? {
        print_bytes(&bytes)?;
    }
    let status = reply.status();
    if status.is_client_error() || status.is_server_error() {
        note(&format!("dunlin: the function replied with {status}"));
        return Ok(Exit::FunctionFailed);
    }
    Ok(Exit::Ok)
}

fn body(data: &str) -> Result<Bytes, Failure> {
    if data == "-" {
        let mut bytes = Vec::new();
        let read = std::io::stdin().lock().read_to_end(&mut bytes);
        read.context("reading the body from stdin")?;
        return Ok(bytes.into());
    }
    match data.strip_prefix('@') {
        Some(file) => {
            let bytes = std::fs::read(Path::new(file));
            Ok(bytes
                .with_context(|| format!("reading the body from {file}"))?
                .into())
        }
        None => Ok(data.to_owned().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_a_text_or_a_file() {
        assert_eq!(body("hello").ok(), Some(Bytes::from("hello")));
        assert_eq!(body("").ok(), Some(Bytes::new()));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"\0\xff").unwrap();
        let named = format!("@{}", file.path().display());
        assert_eq!(body(&named).ok(), Some(Bytes::from_static(b"\0\xff")));
        let missing = body("@/nonexistent/file").expect_err("it is missing");
        assert_eq!(missing.exit, Exit::NotFound);
    }
}
