//! Workloads: the same work by functions that share their state, and by native processes that keep
//! it in Redis, or each their own.

pub mod held;
pub mod inference;
pub mod matmul;
pub mod sgd;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use xtask::node::Node;
use xtask::visit;

use crate::Setting;
use crate::child::Server;
use crate::redis;
use held::Watch;

const FOLDER: &str = "guests/out/workloads";

/// What one run took.
struct Run {
    seconds: f64,
    /// Most bytes that its processes held at once.
    peak_bytes: f64,
}

/// A node with the workload's function, and Redis with its native workers.
struct Pair {
    node: Node,
    redis: Server,
    /// The workload: the app's function, and the native program.
    name: &'static str,
    program: String,
}

impl Pair {
    fn start(setting: &Setting, name: &'static str) -> Result<Self> {
        let node = Node::start(&setting.binary(), &visit::agent())?;
        let program = setting.root.join(FOLDER).join(name);
        let program = program
            .to_str()
            .context("the repository's path is not UTF-8")?
            .to_owned();
        let (state, call) = (
            format!("--allow-state={name}/=write"),
            format!("--allow-call={name}"),
        );
        let artifact = format!("{program}.wasm");
        node.cli(&[
            "deploy", "--app", "bench", "--name", name, &state, &call, &artifact,
        ])?;
        Ok(Self {
            node,
            redis: redis::start()?,
            name,
            program,
        })
    }

    /// Has both do `what`, one after the other; what each said.
    fn both(&self, what: &str) -> Result<[String; 2]> {
        Ok([self.function(what)?, self.native(what)?])
    }

    /// Calls the function; its reply.
    fn function(&self, what: &str) -> Result<String> {
        let url = format!("http://{}/bench/{}", self.node.data, self.name);
        let mut reply = visit::agent().post(&url).send(what)?;
        let text = reply.body_mut().read_to_string()?;
        ensure!(reply.status() == 200, "{} {what}: {text}", self.name);
        Ok(text)
    }

    /// Calls the function and watches the node meanwhile.
    fn function_timed(&self, what: &str) -> Result<Run> {
        let pid = self.node.pid();
        let watch = Watch::start(move || held::bytes(pid));
        let begun = Instant::now();
        self.function(what)?;
        let seconds = begun.elapsed().as_secs_f64();
        Ok(Run {
            seconds,
            peak_bytes: watch.peak_bytes(),
        })
    }

    fn command(&self, what: &str) -> Result<Command> {
        let (host, port) = self
            .redis
            .address
            .rsplit_once(':')
            .context("an address has a port")?;
        let mut command = Command::new(&self.program);
        command.args([host, port]).args(what.split(' '));
        Ok(command)
    }

    /// Runs the native program; what it printed.
    fn native(&self, what: &str) -> Result<String> {
        let output = self.command(what)?.stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("starting {}", self.program))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} {what}: {said}", self.program);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Starts the native workers and times them from when all are ready until all are done, and
    /// watches them and Redis meanwhile.
    fn native_timed(&self, tasks: &[String]) -> Result<Run> {
        let mut workers = Vec::new();
        for what in tasks {
            workers.push(Worker::start(self.command(what)?)?);
        }
        let pids = workers.iter().map(|worker| worker.child.id());
        let pids: Vec<u32> = pids.chain([self.redis.pid()]).collect();
        let watch = Watch::start(move || pids.iter().map(|pid| held::bytes(*pid)).sum());
        let begun = Instant::now();
        for worker in &mut workers {
            worker.go()?;
        }
        for worker in &mut workers {
            worker.expect("done")?;
        }
        let seconds = begun.elapsed().as_secs_f64();
        Ok(Run {
            seconds,
            peak_bytes: watch.peak_bytes(),
        })
    }
}

/// A native worker; dropped, it is ended.
struct Worker {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts it and waits until it is ready.
    fn start(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        let said = child.stdout.take().context("a worker has an output")?;
        let mut worker = Self {
            child,
            said: BufReader::new(said),
        };
        worker.expect("ready")?;
        Ok(worker)
    }

    fn go(&mut self) -> Result<()> {
        let input = self.child.stdin.as_mut().context("a worker has an input")?;
        Ok(input.write_all(b"\n")?)
    }

    fn expect(&mut self, word: &str) -> Result<()> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        match line.trim_end() == word {
            true => Ok(()),
            false => bail!("a worker said {line:?} instead of {word}"),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail on a worker that is gone already, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
