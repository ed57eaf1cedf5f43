//! An echo by bare TLS 1.3 over blocking sockets, its two ends in processes of their own: the least
//! that a question to another host costs.

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
        let mut message = [7; BYTES];
        self.stream.write_all(&message)?;
        self.stream.read_exact(&mut message)?;
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
        let mut message = [0; BYTES];
        // Until this client is gone: the first one only looks whether somebody listens.
        while stream.read_exact(&mut message).is_ok() && stream.write_all(&message).is_ok() {}
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
