//! Other programs that a test starts: their output is kept, and they end with the test.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::Host;

/// Lines that are kept, to be shown when something goes wrong.
const KEPT_LINES_MAX: usize = 200;

/// A running program. Dropping it kills it; so does the end of the thread that started it.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    output: Arc<Output>,
}

#[derive(Debug, Default)]
struct Output {
    seen: Mutex<Seen>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Seen {
    last: VecDeque<String>,
    ready: bool,
    ended: bool,
}

impl Program {
    /// Starts `program`, which says by a line with `ready` in it that it serves; on this machine,
    /// or on a host of ours.
    ///
    /// Panics when it cannot be started: its name and `hint` say what is missing.
    pub(crate) fn start(
        host: Option<&Host>,
        program: &std::path::Path,
        arguments: &[String],
        ready: &'static str,
        hint: &str,
    ) -> Self {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        // A test that is killed takes no leave; the kernel tells its children.
        let mut command = match host {
            None => Command::new("setpriv"),
            Some(host) => host.command("setpriv"),
        };
        command.args(["--pdeathsig", "KILL", "--"]);
        command.arg(program).args(arguments).env("RUST_LOG", "info");
        let errors = writer.try_clone().expect("a second end of the pipe");
        command.stdin(Stdio::null()).stdout(writer).stderr(errors);
        let child = command.spawn();
        let child = child.unwrap_or_else(|e| panic!("{}: {e}: {hint}", program.display()));
        drop(command);
        let output = Arc::new(Output::default());
        let (kept, hint) = (output.clone(), format!("{}: {hint}", program.display()));
        std::thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                kept.add(line, ready);
            }
            kept.add(hint, ready);
            kept.seen.lock().ended = true;
            kept.more.notify_all();
        });
        Self { child, output }
    }

    /// Blocks until the program has said that it serves; panics with its output if it ends first.
    pub(crate) fn wait_ready(&self) {
        let mut seen = self.output.seen.lock();
        while !seen.ready {
            let last = || seen.last.iter().map(String::as_str).collect::<Vec<_>>();
            assert!(!seen.ended, "a program ended:\n{}", last().join("\n"));
            self.output.more.wait(&mut seen);
        }
    }

    /// Sends it a signal, by name.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -s {name}");
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }
}

impl Output {
    fn add(&self, line: String, ready: &str) {
        let mut seen = self.seen.lock();
        seen.ready |= line.contains(ready);
        if seen.last.len() == KEPT_LINES_MAX {
            seen.last.pop_front();
        }
        seen.last.push_back(line);
        self.more.notify_all();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A loopback address that only this process uses, and a number that it has not used before: so
/// nobody else takes a port between its choice and its use, and a restart finds it free.
pub(crate) fn own_address() -> (std::net::Ipv4Addr, u16) {
    use std::sync::atomic::{AtomicU16, Ordering};
    static USED: AtomicU16 = AtomicU16::new(0);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    // Process ids have at most 22 bits; 127.0 is left to everybody else.
    let address = std::net::Ipv4Addr::new(127, 64 | high, middle, low);
    (address, USED.fetch_add(1, Ordering::Relaxed))
}
