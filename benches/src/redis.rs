//! Debian's Redis, started for a bench, and the little of its protocol that benches speak.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use anyhow::{Context, Result, bail};
use xtask::cluster::Site;

use crate::child::Server;

/// Starts `redis-server` on a free port of the loopback; it keeps nothing on disk.
pub fn start() -> Result<Server> {
    start_at(&Site::here())
}

/// The same on a host, for who reaches it.
pub fn start_at(site: &Site) -> Result<Server> {
    let address = site.free_address()?;
    let (host, port) = address.rsplit_once(':').context("an address has a port")?;
    let mut command = (site.launch)(Path::new("redis-server"));
    command.args([
        "--bind",
        host,
        "--port",
        port,
        "--protected-mode",
        "no",
        "--save",
        "",
        "--appendonly",
        "no",
    ]);
    Server::start(command, &address).context("redis-server (apt-get install redis-server)")
}

/// A connection.
pub struct Redis(BufReader<TcpStream>);

impl Redis {
    /// Connects to a server.
    pub fn connect(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).context("connecting to Redis")?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a command and reads a reply that is a status or a bulk string.
    pub fn command(&mut self, words: &[&[u8]]) -> Result<Vec<u8>> {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend(format!("${}\r\n", word.len()).bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.0.get_mut().write_all(&request)?;
        self.reply()
    }

    fn reply(&mut self) -> Result<Vec<u8>> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let line = line.trim_end();
        match line.split_at_checked(1) {
            Some(("+" | ":", text)) => Ok(text.into()),
            Some(("$", length)) => {
                let length: usize = length.parse().context("a length of Redis")?;
                let mut bytes = vec![0; length + 2];
                self.0.read_exact(&mut bytes)?;
                bytes.truncate(length);
                Ok(bytes)
            }
            _ => bail!("Redis said `{line}`"),
        }
    }
}
