//! The real binary, alone and against a node of its own.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{BufRead as _, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use tempfile::TempDir;

pub mod caller;
pub mod guests;

/// What a command gave.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ran {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.code, 0, "{}", self.stderr);
        serde_json::from_slice(&self.stdout).unwrap()
    }

    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self
    }
}

/// The binary, with nothing of this process's environment that it would listen to.
pub fn command(words: &[&str]) -> Command {
    as_ours(Command::new(env!("CARGO_BIN_EXE_dunlin")), words)
}

/// The same for what starts the binary: on another host, say.
pub fn as_ours(mut command: Command, words: &[&str]) -> Command {
    command.args(words);
    for (name, _) in std::env::vars_os() {
        let ours = name.to_str().is_some_and(|name| {
            name.starts_with("DUNLIN_") || name.starts_with("OTEL_") || name == "NO_COLOR"
        });
        if ours {
            command.env_remove(name);
        }
    }
    command
}

pub fn finish(command: &mut Command, input: &[u8]) -> Ran {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin: ChildStdin = child.stdin.take().unwrap();
    // A command that does not read its input closes it early.
    let _ = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs the binary without a node.
pub fn dunlin(words: &[&str]) -> Ran {
    finish(&mut command(words), b"")
}

/// A node that was started and has not yet said that it answers.
pub struct Starting(Child);

impl Starting {
    /// Starts `dunlin up …`.
    pub fn new(mut command: Command) -> Self {
        let command = command.stdin(Stdio::null());
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    /// Waits for the node's word that it answers; what it logs from then on goes to `log`.
    pub fn ready(self, data: &Path, mut log: impl Write + Send + 'static) -> Node {
        let Self(mut child) = self;
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let mut stderr = child.stderr.take().unwrap();
        if line.is_empty() {
            let log = std::io::read_to_string(stderr).unwrap();
            panic!("the node did not start: {log}");
        }
        // Its log must go somewhere, or it would wait for a reader.
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut log));
        let card: serde_json::Value = serde_json::from_str(&line).unwrap();
        let field = |name: &str| card[name].as_str().unwrap().to_owned();
        assert_eq!(card["pid"], child.id());
        Node {
            child,
            data: data.to_owned(),
            admin: field("admin_addr"),
            address: field("data_addr"),
            token: None,
            folder: None,
        }
    }
}

/// A node on free ports; dropped, it is killed.
pub struct Node {
    child: Child,
    pub data: PathBuf,
    pub admin: String,
    pub address: String,
    pub token: Option<String>,
    folder: Option<TempDir>,
}

impl Node {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let mut node = Self::start_on(&data, &[]);
        node.folder = Some(folder);
        node
    }

    /// Starts a node on `data` and waits for its word that it answers.
    pub fn start_on(data: &Path, flags: &[&str]) -> Self {
        Self::start_with(data, flags, &[])
    }

    /// The same, with variables.
    pub fn start_with(data: &Path, flags: &[&str], env: &[(&str, &str)]) -> Self {
        let data_flag = data.to_str().unwrap();
        let words = [
            &[
                "up",
                "--data",
                data_flag,
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
            ],
            flags,
        ]
        .concat();
        let mut command = command(&words);
        command.envs(env.iter().copied());
        Starting::new(command).ready(data, std::io::sink())
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = command(words);
        command.env("DUNLIN_ADMIN", &self.admin);
        if let Some(token) = &self.token {
            command.env("DUNLIN_TOKEN", token);
        }
        command
    }

    /// Runs the binary against this node.
    pub fn dunlin(&self, words: &[&str]) -> Ran {
        finish(&mut self.command(words), b"")
    }

    /// Deploys a module written in the text format.
    pub fn deploy(&self, name: &str, wat: &str, flags: &[&str]) -> Ran {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(format!("{name}.wasm"));
        std::fs::write(&file, wat::parse_str(wat).unwrap()).unwrap();
        let words = [&["deploy", "--app", "e2e", file.to_str().unwrap()], flags].concat();
        self.dunlin(&words)
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks the node to stop, and waits for that.
    pub fn stop(&mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail where the node is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
