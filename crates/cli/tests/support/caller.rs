//! One HTTP/1.1 connection, as a user has it: kept open, one call after the other.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// A connection; after a failure it is of no use any more.
pub struct Caller {
    connection: BufReader<TcpStream>,
    host: String,
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    /// By names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The code of a problem; empty for what is none.
    pub fn code(&self) -> String {
        let problem: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        problem["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Caller {
    pub fn new(address: &str) -> io::Result<Self> {
        Ok(Self {
            connection: BufReader::new(TcpStream::connect(address)?),
            host: address.to_owned(),
        })
    }

    /// One that gives up when it hears nothing for so long.
    pub fn with_patience(address: &str, patience: Duration) -> io::Result<Self> {
        let socket = address.parse().map_err(io::Error::other)?;
        let stream = TcpStream::connect_timeout(&socket, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            connection: BufReader::new(stream),
            host: address.to_owned(),
        })
    }

    /// Sends a request, whose head has no length yet and no end, and reads the answer.
    pub fn send(&mut self, head: &str, body: &str) -> io::Result<Reply> {
        let length = body.len();
        let host = &self.host;
        let request = format!("{head}\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n{body}");
        self.connection.get_mut().write_all(request.as_bytes())?;
        let status = self.line()?;
        let status = status.split(' ').nth(1).map(str::parse);
        let Some(Ok(status)) = status else {
            return Err(io::Error::other("no status"));
        };
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").map_or("0", String::as_str);
        let mut body = vec![0; length.parse().map_err(io::Error::other)?];
        self.connection.read_exact(&mut body)?;
        Ok(Reply {
            status,
            headers,
            body: String::from_utf8(body).map_err(io::Error::other)?,
        })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.connection.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}
