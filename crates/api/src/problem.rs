//! RFC 9457 problem details: how every error is told.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Code;

/// Media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// What went wrong, for programs (`code`) and for people (`detail`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Where this code is explained, relative to the admin listener.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same sentence for every problem of this code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time, and what to do.
    pub detail: String,
    /// The path that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The stable code.
    pub code: Code,
    /// The invocation that it happened to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation: Option<String>,
    /// The guest's exit code, if it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Imports that are not offered, if that is the problem.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub imports: Vec<String>,
}

impl Problem {
    /// A problem of this code.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: code.page_path().to_owned(),
            title: code.title().to_owned(),
            status: code.status(),
            detail: detail.into(),
            instance: None,
            code,
            invocation: None,
            exit_code: None,
            imports: Vec::new(),
        }
    }

    /// The same, said of this path.
    pub fn at(mut self, path: impl Into<String>) -> Self {
        self.instance = Some(path.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_keeps_its_wire_form() {
        let problem = Problem::new(Code::QueueFull, "wait a little").at("/a/f");
        let json = serde_json::to_string(&problem).expect("it serialises");
        let golden = r#"{"type":"/errors/queue-full","title":"Too many invocations wait already","status":429,"detail":"wait a little","instance":"/a/f","code":"queue-full"}"#;
        assert_eq!(json, golden);
        assert_eq!(
            serde_json::from_str::<Problem>(golden).expect("it reads back"),
            problem
        );
    }
}
