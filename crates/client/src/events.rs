//! Server-sent events, and the log lines that they carry.
//!
//! The reader follows the event stream format of the HTML standard (section 9.2) as far as nodes
//! use it: `event`, `data` and `id` fields, comments, and LF or CRLF line ends.

use std::collections::VecDeque;

use api::v1::LogLine;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use crate::{Client, ClientError};

/// Longest line of a stream, in bytes.
const LINE_BYTES_MAX: usize = 4 << 20;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub name: String,
    pub data: String,
}

/// Cuts a stream of bytes into events.
#[derive(Debug, Default)]
pub(crate) struct Events {
    rest: Vec<u8>,
    event: Event,
    ready: VecDeque<Event>,
}

/// A line is longer than is accepted.
#[derive(Debug)]
pub(crate) struct TooLong;

impl Events {
    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(part);
            if self.rest.len() + self.event.data.len() > LINE_BYTES_MAX {
                return Err(TooLong);
            }
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.rest);
                self.line(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
            }
        }
        Ok(())
    }

    /// The next whole event.
    pub fn next(&mut self) -> Option<Event> {
        self.ready.pop_front()
    }

    fn line(&mut self, line: &str) {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if event != Event::default() {
                self.ready.push_back(event);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "data" => {
                if !self.event.data.is_empty() {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            _ => {}
        }
    }
}

/// The events of an answer, as they come.
#[derive(Debug)]
pub(crate) struct EventStream {
    client: Client,
    body: Incoming,
    events: Events,
}

impl EventStream {
    pub fn new(client: Client, body: Incoming) -> Self {
        Self {
            client,
            body,
            events: Events::default(),
        }
    }

    /// The next event that says something; `None` once the node has ended the stream.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            while let Some(event) = self.events.next() {
                if !event.data.is_empty() {
                    return Ok(Some(event));
                }
            }
            let Some(bytes) = self.chunk().await? else {
                return Ok(None);
            };
            self.events
                .push(&bytes)
                .map_err(|TooLong| self.client.protocol("an event is too long".into()))?;
        }
    }

    /// What an event says.
    pub fn read<T: DeserializeOwned>(&self, event: &Event) -> Result<T, ClientError> {
        let said = serde_json::from_str(&event.data);
        said.map_err(|error| self.client.protocol(error.to_string()))
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| self.client.broken(error))?;
            if let Ok(bytes) = frame.into_data() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

/// Log lines as they are printed, until the node or the caller ends it.
#[derive(Debug)]
pub struct LogStream(EventStream);

impl LogStream {
    pub(crate) fn new(client: Client, body: Incoming) -> Self {
        Self(EventStream::new(client, body))
    }

    /// The next line; `None` once the node has ended the stream.
    pub async fn next(&mut self) -> Result<Option<LogLine>, ClientError> {
        match self.0.next().await? {
            Some(event) => self.0.read(&event).map(Some),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, step: usize) -> Vec<(String, String)> {
        let mut events = Events::default();
        let mut found = Vec::new();
        for part in text.as_bytes().chunks(step) {
            events.push(part).expect("lines are short");
            while let Some(event) = events.next() {
                found.push((event.name, event.data));
            }
        }
        found
    }

    #[test]
    fn events_are_the_same_however_they_are_cut() {
        let text = concat!(
            ": hello\n\nevent: log\nid: 4\ndata: {\"a\":1}\n\n",
            "data: x\r\ndata:y é\r\n\r\ndata: lost",
        );
        let expected = vec![
            ("log".to_owned(), "{\"a\":1}".to_owned()),
            (String::new(), "x\ny é".to_owned()),
        ];
        for step in 1..text.len() {
            assert_eq!(read(text, step), expected, "in steps of {step}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut events = Events::default();
        let part = vec![b'x'; LINE_BYTES_MAX / 2];
        assert!(events.push(&part).is_ok());
        assert!(events.push(&part).is_ok());
        assert!(events.push(b"x").is_err());
    }
}
