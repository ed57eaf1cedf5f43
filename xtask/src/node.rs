//! A node of our own for a while: on free ports, with a data folder that is removed after it.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ureq::Agent;

/// How long a node may take until it is ready.
const READY_WAIT_MAX: Duration = Duration::from_secs(30);

/// How long a node may take to drain.
const STOP_WAIT_MAX: Duration = Duration::from_secs(30);

/// How often a wait looks again.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Makes the command that runs a program where it is to run.
pub type Launch = Arc<dyn Fn(&Path) -> Command + Send + Sync>;

/// What a node is told beside its folder and its listeners; nothing for a node alone.
#[derive(Clone, Default)]
pub struct Joining {
    /// Where it runs, if not here.
    pub launch: Option<Launch>,
    /// Arguments of `dunlin up`.
    pub arguments: Vec<String>,
    /// Variables.
    pub variables: Vec<(String, String)>,
}

/// A node; dropped, it is stopped and its data is removed.
pub struct Node {
    binary: PathBuf,
    child: Child,
    folder: PathBuf,
    joining: Joining,
    /// `host:port` of the data listener.
    pub data: String,
    /// `host:port` of the admin listener.
    pub admin: String,
}

impl Node {
    /// Starts `binary` on an empty data folder and waits until it is ready.
    pub fn start(binary: &Path, agent: &Agent) -> Result<Self> {
        let mut node = Self::begin(binary, Joining::default())?;
        node.wait_until_ready(agent)?;
        Ok(node)
    }

    /// Starts `binary` on an empty data folder; does not wait until it is ready.
    pub fn begin(binary: &Path, joining: Joining) -> Result<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("dunlin-node-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).context("making the node's folder")?;
        let (data, admin) = (free_address()?, free_address()?);
        let child = spawn(binary, &folder, &data, &admin, &joining)?;
        Ok(Self {
            binary: binary.to_owned(),
            child,
            folder,
            joining,
            data,
            admin,
        })
    }

    /// Starts the stopped node again on its data; does not wait until it is ready.
    pub fn start_again(&mut self) -> Result<()> {
        let (data, admin) = (&self.data, &self.admin);
        self.child = spawn(&self.binary, &self.folder, data, admin, &self.joining)?;
        Ok(())
    }

    /// Stops the node, starts it again on its data, and waits until it is ready.
    pub fn restart(&mut self, agent: &Agent) -> Result<()> {
        self.stop();
        self.start_again()?;
        self.wait_until_ready(agent)
    }

    /// The node's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the node says that it is ready.
    pub fn wait_until_ready(&mut self, agent: &Agent) -> Result<()> {
        let url = format!("http://{}/readyz", self.admin);
        let end = Instant::now() + READY_WAIT_MAX;
        while !agent
            .get(&url)
            .call()
            .is_ok_and(|reply| reply.status() == 200)
        {
            if let Some(status) = self.child.try_wait()? {
                bail!("the node ended with {status}:\n{}", self.log());
            }
            if Instant::now() > end {
                bail!(
                    "the node is not ready after {READY_WAIT_MAX:?}:\n{}",
                    self.log()
                );
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Where its data is.
    pub fn data_folder(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// What the node printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("node.log")).unwrap_or_default()
    }

    /// Runs `dunlin ARGUMENTS` against this node; its standard output.
    pub fn cli(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        let output = Command::new(&self.binary)
            .args(arguments)
            .env("DUNLIN_ADMIN", format!("http://{}", self.admin))
            .env_remove("DUNLIN_TOKEN")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("starting {}", self.binary.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("dunlin {}: {}", arguments.join(" "), said.trim());
        }
        Ok(output.stdout)
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("killing a node")?;
        self.child.wait().context("waiting for a killed node")?;
        Ok(())
    }

    /// Asks the node to drain and waits until it is gone; by force after [`STOP_WAIT_MAX`].
    pub fn stop(&mut self) {
        // Once it is gone its number may be another's.
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let asked = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status();
        let end = Instant::now() + STOP_WAIT_MAX;
        while asked.is_ok() && matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(LOOK_EVERY);
        }
        // Both fail if it has gone meanwhile, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            eprintln!("{} is left: {error}", self.folder.display());
        }
    }
}

fn spawn(
    binary: &Path,
    folder: &Path,
    data: &str,
    admin: &str,
    joining: &Joining,
) -> Result<Child> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join("node.log"));
    let log = log.context("making the node's log")?;
    let mut command = match &joining.launch {
        Some(launch) => launch(binary),
        None => Command::new(binary),
    };
    command
        .arg("up")
        .arg("--data")
        .arg(folder.join("data"))
        .args(["--listen", data, "--admin", admin])
        .args(&joining.arguments)
        .envs(joining.variables.iter().cloned())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting {}", binary.display()))
}

/// A loopback address that nothing listens on right now.
pub fn free_address() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    Ok(listener.local_addr()?.to_string())
}
