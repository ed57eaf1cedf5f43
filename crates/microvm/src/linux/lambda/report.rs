//! What a program says of an error: its report, and what of it is told in short.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::http::Request;

/// Longest name of an error that is kept, in bytes.
const KIND_BYTES_MAX: usize = 256;
/// Longest words of an error that are kept; its report is kept whole beside them.
const MESSAGE_BYTES_MAX: usize = 4096;

/// The header, or trailer, that names an error.
pub(super) const ERROR_TYPE: &str = "lambda-runtime-function-error-type";
const ERROR_BODY: &str = "lambda-runtime-function-error-body";

/// What a program says of an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its name for such errors.
    pub kind: String,
    /// Its words.
    pub message: String,
    /// All that it posted.
    pub body: Vec<u8>,
}

impl Report {
    /// In one line.
    pub fn words(&self) -> String {
        match self.kind.as_str() {
            "" => self.message.clone(),
            kind => format!("{kind}: {}", self.message),
        }
    }

    fn new(kind: Option<&str>, body: Vec<u8>) -> Self {
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        let message = text("errorMessage");
        let message = message.unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
        let kind = kind.map(str::to_owned).or_else(|| text("errorType"));
        Self {
            kind: cut(kind.unwrap_or_default(), KIND_BYTES_MAX),
            message: cut(message, MESSAGE_BYTES_MAX),
            body,
        }
    }

    /// Of a request that is one.
    pub(super) fn of(request: &Request) -> Self {
        Self::new(request.headers.find(ERROR_TYPE), request.body.clone())
    }

    /// Of a reply that broke off: the report follows it, in base64.
    pub(super) fn of_trailers(request: &Request) -> Self {
        let kind = request.trailers.find(ERROR_TYPE);
        let body = request.trailers.find(ERROR_BODY).unwrap_or_default();
        let body = BASE64.decode(body).unwrap_or_else(|_| body.into());
        Self::new(kind, body)
    }
}

fn cut(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}
