//! Answers of HTTP/1.1.

use bytes::Bytes;

/// The head of an answer.
pub(super) struct Head(String);

impl Head {
    /// Of this status, before JSON.
    pub fn new(status: u16, reason: &str) -> Self {
        let head = format!("HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\n");
        Self(head)
    }

    /// Sets a header. What would end its line is left out.
    pub fn set(&mut self, name: &str, value: &str) {
        let plain = value.chars().filter(|char| !char.is_control());
        self.0.push_str(name);
        self.0.push_str(": ");
        self.0.extend(plain);
        self.0.push_str("\r\n");
    }

    /// Its bytes, before a body of so many.
    pub fn end(mut self, body_bytes: usize, closes: bool) -> Bytes {
        self.set("Content-Length", &body_bytes.to_string());
        if closes {
            self.set("Connection", "close");
        }
        self.0.push_str("\r\n");
        Bytes::from(self.0)
    }
}
