//! From a URI to a connection: which host it names, where that is, and whether to go there.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, LazyLock};

use http::Uri;
use http::uri::Scheme;
use model::Grants;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use wasmtime_wasi_http::Error;

use super::denied;

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) tls: bool,
}

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// In lower case, without a dot at its end.
    Name(String),
    Address(IpAddr),
}

impl Target {
    pub(super) fn of(uri: &Uri) -> Result<Self, Error> {
        let tls = uri.scheme() == Some(&Scheme::HTTPS);
        let authority = uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
        let host = authority.host();
        // What is left holds the port, and nothing that names a user comes before the host.
        let port = match authority.as_str().strip_prefix(host) {
            Some("") => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(port) => port
                .strip_prefix(':')
                .and_then(|port| port.parse().ok())
                .filter(|port| *port > 0)
                .ok_or(Error::HttpRequestUriInvalid)?,
            None => return Err(Error::HttpRequestUriInvalid),
        };
        let host = host_of(host).ok_or(Error::HttpRequestUriInvalid)?;
        Ok(Self { host, port, tls })
    }

    fn server_name(&self) -> Result<ServerName<'static>, Error> {
        match &self.host {
            Host::Address(ip) => Ok(ServerName::from(*ip)),
            Host::Name(name) => {
                ServerName::try_from(name.clone()).map_err(|_| Error::HttpRequestUriInvalid)
            }
        }
    }
}

fn host_of(text: &str) -> Option<Host> {
    if let Some(inner) = text.strip_prefix('[') {
        let ip: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        return Some(Host::Address(IpAddr::V6(ip).to_canonical()));
    }
    if let Ok(ip) = text.parse() {
        return Some(Host::Address(IpAddr::V4(ip)));
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    (!name.is_empty()).then_some(Host::Name(name))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Address(ip) => SocketAddr::new(*ip, self.port).fmt(f),
        }
    }
}

/// The addresses that a request to `target` may be sent to; at least one.
pub(super) async fn addresses(
    grants: &Grants,
    target: &Target,
    until: Instant,
) -> Result<Vec<SocketAddr>, Error> {
    let name = match &target.host {
        Host::Name(name) => name,
        Host::Address(ip) => {
            let to = SocketAddr::new(*ip, target.port);
            return match grants.may_connect(None, to) {
                true => Ok(vec![to]),
                false => Err(denied(target, "the address is not granted")),
            };
        }
    };
    if !grants.may_look_up(name, target.port) {
        return Err(denied(target, "the name is not granted"));
    }
    let mut found = look_up(name.clone(), target.port, until).await?;
    found.retain(|to| grants.may_connect(Some(name), *to));
    match found.is_empty() {
        true => Err(denied(target, "the name leads to addresses of no grant")),
        false => Ok(found),
    }
}

/// Where a name leads, as the machine's resolver says; at least one address.
pub(super) async fn look_up(
    name: String,
    port: u16,
    until: Instant,
) -> Result<Vec<SocketAddr>, Error> {
    let found = match timeout_at(until, tokio::net::lookup_host((name, port))).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a name was not found");
            return Err(not_found());
        }
        Err(_) => return Err(Error::DnsTimeout),
    };
    let mut addresses: Vec<_> = found
        .map(|to| SocketAddr::new(to.ip().to_canonical(), to.port()))
        .collect();
    addresses.dedup();
    match addresses.is_empty() {
        true => Err(not_found()),
        false => Ok(addresses),
    }
}

fn not_found() -> Error {
    Error::DnsError {
        rcode: Some("address not available".to_owned()),
        info_code: None,
    }
}

/// What HTTP is spoken over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Connects to the first of `addresses` that takes it, and shakes hands if the target wants TLS.
pub(super) async fn connect(
    target: &Target,
    addresses: &[SocketAddr],
    tls: &Tls,
    until: Instant,
) -> Result<Box<dyn Stream>, Error> {
    let mut failed = Error::DestinationUnavailable;
    for to in addresses.iter().take(ADDRESSES_MAX) {
        match timeout_at(until, TcpStream::connect(*to)).await {
            Ok(Ok(stream)) => return secure(target, stream, tls, until).await,
            Ok(Err(error)) => failed = not_connected(&error),
            Err(_) => return Err(Error::ConnectionTimeout),
        }
    }
    Err(failed)
}

fn not_connected(error: &io::Error) -> Error {
    match error.kind() {
        ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => Error::ConnectionTerminated,
        ErrorKind::TimedOut => Error::ConnectionTimeout,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            Error::DestinationIpUnroutable
        }
        _ => Error::DestinationUnavailable,
    }
}

async fn secure(
    target: &Target,
    stream: TcpStream,
    tls: &Tls,
    until: Instant,
) -> Result<Box<dyn Stream>, Error> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection stays slow");
    }
    if !target.tls {
        return Ok(Box::new(stream));
    }
    let connector = tls.0.as_ref().ok_or(Error::ConfigurationError)?;
    let shaken = connector.connect(target.server_name()?, stream);
    match timeout_at(until, shaken).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => Err(not_secured(&error)),
        Err(_) => Err(Error::ConnectionTimeout),
    }
}

/// How guests use TLS: whom they trust.
#[derive(Clone)]
pub(super) struct Tls(Option<TlsConnector>);

impl Tls {
    /// Trusts the authorities that Mozilla does.
    pub(super) fn public() -> Self {
        static PUBLIC: LazyLock<Tls> = LazyLock::new(|| {
            let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned();
            Tls::trusting(RootCertStore::from_iter(roots))
        });
        PUBLIC.clone()
    }

    /// Trusts these authorities.
    pub(super) fn trusting(roots: RootCertStore) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let connector = config.map(|config| {
            let mut config = config.with_root_certificates(roots).with_no_client_auth();
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            TlsConnector::from(Arc::new(config))
        });
        Self(
            connector
                .inspect_err(|error| tracing::error!(%error, "guests cannot use TLS"))
                .ok(),
        )
    }
}

fn not_secured(error: &io::Error) -> Error {
    tracing::debug!(%error, "a TLS handshake failed");
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    match cause {
        Some(rustls::Error::InvalidCertificate(_)) => Error::TlsCertificateError,
        Some(rustls::Error::AlertReceived(alert)) => Error::TlsAlertReceived {
            alert_id: Some(u8::from(*alert)),
            alert_message: Some(format!("{alert:?}")),
        },
        Some(_) => Error::TlsProtocolError,
        None => not_connected(error),
    }
}
