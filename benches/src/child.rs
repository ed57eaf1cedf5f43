//! A server in a process of its own, stopped when it is dropped.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a server may take until it accepts connections.
const READY_WAIT_MAX: Duration = Duration::from_secs(30);

/// How often a wait looks again.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A running server.
pub struct Server {
    child: Child,
    /// `host:port`.
    pub address: String,
}

impl Server {
    /// Starts `command`, which listens at `address`, and waits until it does.
    pub fn start(mut command: Command, address: &str) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        let mut server = Self {
            child,
            address: address.to_owned(),
        };
        let end = Instant::now() + READY_WAIT_MAX;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("{command:?} ended with {status}");
            }
            if Instant::now() > end {
                bail!("{command:?} does not listen after {READY_WAIT_MAX:?}");
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(server)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail on a server that is gone already, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
