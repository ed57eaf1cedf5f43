//! What is asked of a connection: done at once by whoever asks, where nobody else is at it.
//!
//! A call's first frame, its reply and its credit so leave on the thread that has them, which need
//! not wake another one first. What is sent of a longer body is left to the connection's task: its
//! sender goes on with the next part meanwhile.

use std::sync::Weak;

use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedSender;

use super::Driver;
use crate::call::Command;

/// The way to a connection; clones are to the same.
#[derive(Clone)]
pub(crate) struct Commands {
    queue: UnboundedSender<Command>,
    driver: Weak<Mutex<Driver>>,
}

/// The connection has ended.
pub(crate) struct Ended;

impl Commands {
    pub(super) fn new(queue: UnboundedSender<Command>, driver: Weak<Mutex<Driver>>) -> Self {
        Self { queue, driver }
    }

    /// Asks for something. What one sender asks for is done in the order in which it was asked.
    pub(crate) fn send(&self, command: Command) -> Result<(), Ended> {
        let command = match command {
            Command::Send { .. } => command,
            other => match self.at_once(other) {
                None => return Ok(()),
                Some(command) => command,
            },
        };
        self.queue.send(command).map_err(|_| Ended)
    }

    /// Gives the command back if it cannot be done now.
    fn at_once(&self, command: Command) -> Option<Command> {
        let Some(driver) = self.driver.upgrade() else {
            return Some(command);
        };
        // Its task is at it, or another sender, or this very thread.
        let Some(mut driver) = driver.try_lock() else {
            return Some(command);
        };
        driver.at_once(command)
    }
}
