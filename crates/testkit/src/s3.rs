//! An S3 server on this machine: s3s-fs, which keeps objects as files and checks signatures.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::Host;
use crate::program::{Program, own_address};

const PORT: u16 = 30_000;

/// A server with one bucket. It is killed when it is dropped.
#[derive(Debug)]
pub struct S3Server {
    host: Option<Host>,
    arguments: Vec<String>,
    endpoint: String,
    running: Option<Program>,
    folder: TempDir,
}

impl S3Server {
    /// The one who may use the bucket.
    pub const ACCESS_KEY_ID: &str = "dunlin";
    /// What it proves itself with.
    pub const SECRET_ACCESS_KEY: &str = "not-a-secret";
    /// The bucket.
    pub const BUCKET: &str = "bucket";

    /// Starts the server on this machine and blocks until it serves.
    pub fn start() -> Self {
        let (address, number) = own_address();
        Self::start_at(None, address, PORT + number)
    }

    /// The same on a host of ours.
    pub fn start_on(host: &Host) -> Self {
        Self::start_at(Some(host.clone()), host.address(), PORT)
    }

    fn start_at(host: Option<Host>, address: Ipv4Addr, port: u16) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join(Self::BUCKET)).expect("a folder of ours");
        let arguments = [
            "--host",
            &address.to_string(),
            "--port",
            &port.to_string(),
            "--access-key",
            Self::ACCESS_KEY_ID,
            "--secret-key",
            Self::SECRET_ACCESS_KEY,
            &folder.path().display().to_string(),
        ];
        let mut server = Self {
            host,
            arguments: arguments.map(str::to_owned).into(),
            endpoint: format!("http://{address}:{port}"),
            running: None,
            folder,
        };
        server.restart();
        server
    }

    /// `s3://bucket/prefix?endpoint=…`.
    pub fn address(&self, prefix: &str) -> String {
        format!("s3://{}/{prefix}?endpoint={}", Self::BUCKET, self.endpoint)
    }

    /// `http://host:port`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The file in which the server keeps an object of the bucket.
    pub fn file(&self, object: &str) -> PathBuf {
        self.folder.path().join(Self::BUCKET).join(object)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// Starts it again over what it left, and blocks until it serves.
    pub fn restart(&mut self) {
        assert!(self.running.is_none(), "it runs");
        let program = Program::start(
            self.host.as_ref(),
            &program(),
            &self.arguments,
            "server is running at",
            "guests/setup.sh installs it",
        );
        program.wait_ready();
        self.running = Some(program);
    }
}

/// Where `guests/setup.sh` puts it, or else what PATH finds.
fn program() -> PathBuf {
    let toolchains = match std::env::var_os("DUNLIN_TOOLCHAINS") {
        Some(folder) => Some(PathBuf::from(folder)),
        None => std::env::home_dir().map(|home| home.join(".cache/dunlin/toolchains")),
    };
    let installed = toolchains.map(|folder| folder.join("bin/s3s-fs"));
    match installed.filter(|file| file.is_file()) {
        Some(file) => file,
        None => Path::new("s3s-fs").to_owned(),
    }
}
