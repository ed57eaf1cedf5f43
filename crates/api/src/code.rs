//! The stable codes of problems: each has a status, a title and a page in `docs/errors/`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that is no code.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not the code of a problem")]
pub struct CodeError(String);

macro_rules! codes {
    ($($name:ident, $code:literal, $status:literal, $title:literal;)*) => {
        /// A stable code: what went wrong, in one word that scripts may rely on.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord,
            Serialize, Deserialize, utoipa::ToSchema,
        )]
        #[serde(rename_all = "kebab-case")]
        pub enum Code {
            $(
                #[doc = $title]
                $name,
            )*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Code] = &[$(Code::$name,)*];

            /// The code as it is written on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$name => $code,)* }
            }

            /// The HTTP status that goes with it.
            pub const fn status(self) -> u16 {
                match self { $(Code::$name => $status,)* }
            }

            /// The same sentence for every problem of this code.
            pub const fn title(self) -> &'static str {
                match self { $(Code::$name => $title,)* }
            }

            /// The address of its page on the admin listener: the problem's `type`.
            pub const fn page_path(self) -> &'static str {
                match self { $(Code::$name => concat!("/errors/", $code),)* }
            }

            /// Its page, in Markdown.
            pub const fn page(self) -> &'static str {
                match self {
                    $(Code::$name => include_str!(
                        concat!("../../../docs/errors/", $code, ".md")
                    ),)*
                }
            }
        }
    };
}

codes! {
    BadRequest, "bad-request", 400, "The request is malformed";
    InvalidName, "invalid-name", 400, "A name is malformed";
    InvalidSettings, "invalid-settings", 400, "The settings are out of range";
    InvalidAlias, "invalid-alias", 400, "The alias cannot point there";
    DigestMismatch, "digest-mismatch", 400, "The upload is not what was announced";
    Unauthorized, "unauthorized", 401, "A valid token is needed";
    ForeignPage, "foreign-page", 403, "The request may come from a web page of somebody else";
    RouteNotFound, "route-not-found", 404, "There is nothing at this address";
    AppNotFound, "app-not-found", 404, "There is no such app";
    FunctionNotFound, "function-not-found", 404, "There is no such function";
    VersionNotFound, "version-not-found", 404, "There is no such version";
    AliasNotFound, "alias-not-found", 404, "There is no such alias";
    ArtifactNotFound, "artifact-not-found", 404, "There is no such artifact";
    FilesNotFound, "files-not-found", 404, "There are no such files";
    NodeNotFound, "node-not-found", 404, "There is no such node";
    NoCluster, "no-cluster", 404, "The node is not part of a cluster";
    DecisionNotFound, "decision-not-found", 404, "No decision about the invocation is known";
    InvocationNotFound, "invocation-not-found", 404, "There is no such invocation";
    StateNotFound, "state-not-found", 404, "There is no value of this key";
    TokenNotFound, "token-not-found", 404, "There is no such token";
    MethodNotAllowed, "method-not-allowed", 405, "The address does not take this method";
    RequestTimeout, "request-timeout", 408, "The request came too slowly";
    Conflict, "conflict", 409, "Something else changed it at the same time";
    NotFinished, "not-finished", 409, "The invocation has not ended yet";
    NotADeadLetter, "not-a-dead-letter", 409, "The invocation is not a dead letter";
    Cancelled, "cancelled", 409, "The invocation was cancelled";
    StateLost, "state-lost", 410, "The value may have been lost with its node";
    PreconditionFailed, "precondition-failed", 412, "The value is not the one that was expected";
    BodyTooLarge, "body-too-large", 413, "The body passes its limit";
    UnsupportedMediaType, "unsupported-media-type", 415, "The body is of another media type";
    RangeNotSatisfiable, "range-not-satisfiable", 416, "The value has no such bytes";
    IdempotencyMismatch, "idempotency-mismatch", 422, "The key was used for another request";
    NotWasm, "not-wasm", 422, "The artifact is not WebAssembly";
    InvalidWasm, "invalid-wasm", 422, "The artifact is not valid WebAssembly";
    NotExecutable, "not-executable", 422, "The artifact is no executable for a micro-VM";
    NoMicroVms, "no-micro-vms", 422, "The node has no micro-VMs";
    WrongKind, "wrong-kind", 422, "The artifact is not of this kind";
    UnknownImports, "unknown-imports", 422, "The artifact imports what is not offered";
    InitFailed, "init-failed", 422, "The function's initialisation failed";
    ArtifactTooLarge, "artifact-too-large", 422, "The artifact asks for too much";
    QueueFull, "queue-full", 429, "Too many invocations wait already";
    FunctionTrapped, "function-trapped", 500, "The function trapped";
    FunctionExited, "function-exited", 500, "The function exited with an error";
    FunctionError, "function-error", 500, "The function reported an error";
    NoResponse, "no-response", 500, "The function gave no reply";
    OutOfMemory, "out-of-memory", 500, "The function ran out of memory";
    PlatformFailed, "platform-failed", 500, "The platform failed";
    OutputLimit, "output-limit", 502, "The reply passes its limit";
    NodeLost, "node-lost", 502, "The node that ran the call was lost";
    NoNode, "no-node", 503, "No node takes the call";
    Draining, "draining", 503, "The node is stopping";
    StoreUnavailable, "store-unavailable", 503, "What must be remembered cannot be";
    SandboxesFull, "sandboxes-full", 503, "No more sandboxes fit on the node";
    StateBusy, "state-busy", 503, "Too much is done with state at once";
    FunctionTimeout, "function-timeout", 504, "The function ran past its deadline";
    StateFull, "state-full", 507, "No more state fits";
    StorageFull, "storage-full", 507, "The node's disk is full";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Code {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        let found = Self::ALL.iter().copied().find(|c| c.as_str() == text);
        found.ok_or_else(|| CodeError(text.chars().take(40).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_page_belongs_to_a_code() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors");
        let pages: BTreeSet<String> = std::fs::read_dir(folder)
            .expect("docs/errors exists")
            .map(|entry| {
                entry
                    .expect("a page")
                    .file_name()
                    .into_string()
                    .expect("UTF-8")
            })
            .collect();
        let codes: BTreeSet<String> = Code::ALL.iter().map(|c| format!("{c}.md")).collect();
        assert_eq!(pages, codes);
    }

    #[test]
    fn every_page_names_its_code_title_and_status() {
        for code in Code::ALL {
            let head = format!("# {}\n\n`{code}` · HTTP {}\n", code.title(), code.status());
            assert!(code.page().starts_with(&head), "{code}");
            assert!(code.page().contains("\n## What to do\n"), "{code}");
        }
    }

    #[test]
    fn the_wire_form_is_the_code() {
        for code in Code::ALL {
            let json = serde_json::to_string(code).expect("a string");
            assert_eq!(json, format!("\"{code}\""));
            assert_eq!(code.as_str().parse(), Ok(*code));
        }
    }
}
