//! An echo by bare TLS 1.3 over blocking sockets, its two ends in processes of their own: the least
//! that a question to another host costs, and that very many bytes from there cost.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};
use xtask::cluster::Site;

use crate::child::Server;

/// The argument that makes the bench program the other end.
pub const VERB: &str = "serve-echo";

/// Bytes of an echo: about what the head of a call has.
const BYTES: usize = 256;

/// Bytes that the other end writes at a time.
const WRITE_BYTES: usize = 1 << 20;

/// Names of the server's files, in the folder that it is given.
const CERTIFICATE: &str = "certificate.der";
const KEY: &str = "key.der";
/// Whom the certificate names.
const NAME: &str = "localhost";

/// This end.
pub struct Echo {
    stream: StreamOwned<ClientConnection, TcpStream>,
    _server: Server,
}

impl Echo {
    /// Starts the other end at `site`, and connects. The folder holds its key.
    pub fn start(site: &Site, folder: &Path) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        std::fs::write(folder.join(CERTIFICATE), made.cert.der())?;
        std::fs::write(folder.join(KEY), made.signing_key.serialize_der())?;
        let address = site.free_address()?;
        let program = std::env::current_exe().context("finding this program")?;
        let mut command: Command = (site.launch)(&program);
        command.args([VERB, &address]).arg(folder);
        let server = Server::start(command, &address)?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone())?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let socket = TcpStream::connect(&address)?;
        socket.set_nodelay(true)?;
        let client = ClientConnection::new(Arc::new(config), ServerName::try_from(NAME)?)?;
        Ok(Self {
            stream: StreamOwned::new(client, socket),
            _server: server,
        })
    }

    /// There and back.
    pub fn once(&mut self) -> Result<()> {
        self.get(&mut [0; BYTES])
    }

    /// Asks for as many bytes as there is room for.
    pub fn get(&mut self, room: &mut [u8]) -> Result<()> {
        let mut message = [7; BYTES];
        message[..8].copy_from_slice(&(room.len() as u64).to_le_bytes());
        self.stream.write_all(&message)?;
        self.stream.read_exact(room)?;
        Ok(())
    }
}

/// Is the other end, until the process ends.
pub fn serve(address: &str, folder: &str) -> Result<()> {
    let folder = Path::new(folder);
    let certificate = CertificateDer::from(std::fs::read(folder.join(CERTIFICATE))?);
    let key = PrivateKeyDer::Pkcs8(std::fs::read(folder.join(KEY))?.into());
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    let config = Arc::new(config);
    let listener = TcpListener::bind(address)?;
    loop {
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        let server = ServerConnection::new(config.clone())?;
        let mut stream = StreamOwned::new(server, socket);
        // Until this client is gone: the first one only looks whether somebody listens.
        while answer(&mut stream).is_ok() {}
    }
}

/// As many bytes as a message asks for.
fn answer(stream: &mut StreamOwned<ServerConnection, TcpStream>) -> std::io::Result<()> {
    static BYTES_TO_GIVE: [u8; WRITE_BYTES] = [7; WRITE_BYTES];
    let mut message = [0; BYTES];
    stream.read_exact(&mut message)?;
    let (length, _) = message.split_first_chunk().unwrap_or((&[0; 8], &[]));
    let mut left = u64::from_le_bytes(*length);
    while left > 0 {
        let some = left.min(WRITE_BYTES as u64);
        stream.write_all(&BYTES_TO_GIVE[..some as usize])?;
        left -= some;
    }
    Ok(())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
