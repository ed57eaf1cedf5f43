//! Who this node is and whom it trusts, for handshakes in both directions.

use std::fmt;
use std::sync::Arc;

use model::NodeId;
use parking_lot::RwLock;
use rustls::client::verify_server_name;
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};

use crate::authority::{NodeCertificate, server_name};
use crate::error::IdentityError;

/// What TLS calls this protocol, so that no other server's port answers to it.
const ALPN: &[u8] = b"dunlin-node";

/// A node's certificate, what it trusts, and TLS set up with both.
///
/// Handshakes take what is there when they happen; connections that exist go on until the
/// certificate with which their peer came has ended or is no longer trusted.
pub struct Identity {
    node: NodeId,
    clock: Arc<dyn TimeProvider>,
    provider: Arc<CryptoProvider>,
    now: RwLock<Arc<Handshakes>>,
}

/// TLS with one certificate and one set of authorities.
pub(crate) struct Handshakes {
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Identity {
    /// The identity of `node`, which trusts whom the `authorities` vouch for.
    pub fn new(
        node: NodeId,
        certificate: &NodeCertificate,
        authorities: &[CertificateDer<'static>],
    ) -> Result<Self, IdentityError> {
        Self::with_clock(
            node,
            certificate,
            authorities,
            Arc::new(DefaultTimeProvider),
        )
    }

    /// The same with a clock of its own.
    pub fn with_clock(
        node: NodeId,
        certificate: &NodeCertificate,
        authorities: &[CertificateDer<'static>],
        clock: Arc<dyn TimeProvider>,
    ) -> Result<Self, IdentityError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let now = handshakes(&node, &provider, &clock, certificate, authorities)?;
        Ok(Self {
            node,
            clock,
            provider,
            now: RwLock::new(Arc::new(now)),
        })
    }

    /// The node.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// Uses another certificate and other authorities from the next handshake on.
    ///
    /// On an error, which says what is wrong with them, nothing changes.
    pub fn replace(
        &self,
        certificate: &NodeCertificate,
        authorities: &[CertificateDer<'static>],
    ) -> Result<(), IdentityError> {
        let (provider, clock) = (&self.provider, &self.clock);
        let next = handshakes(&self.node, provider, clock, certificate, authorities)?;
        *self.now.write() = Arc::new(next);
        Ok(())
    }

    pub(crate) fn handshakes(&self) -> Arc<Handshakes> {
        Arc::clone(&self.now.read())
    }

    /// Whether a peer's certificate is valid now, by what is trusted now.
    pub(crate) fn verify(&self, chain: &[CertificateDer<'static>]) -> Result<(), rustls::Error> {
        let now = self.clock.current_time();
        let now = now.ok_or(rustls::Error::FailedToGetCurrentTime)?;
        let (first, rest) = chain
            .split_first()
            .ok_or(rustls::Error::NoCertificatesPresented)?;
        let verifier = Arc::clone(&self.handshakes().verifier);
        verifier.verify_client_cert(first, rest, now).map(|_| ())
    }
}

/// Whether a certificate is that of `node`. Whether it is valid is checked elsewhere.
pub(crate) fn names(chain: &[CertificateDer<'static>], node: &NodeId) -> bool {
    let Some((first, Ok(name))) = chain.first().map(|first| (first, server_name(node))) else {
        return false;
    };
    match ParsedCertificate::try_from(first) {
        Ok(parsed) => verify_server_name(&parsed, &name).is_ok(),
        Err(_) => false,
    }
}

fn handshakes(
    node: &NodeId,
    provider: &Arc<CryptoProvider>,
    clock: &Arc<dyn TimeProvider>,
    certificate: &NodeCertificate,
    authorities: &[CertificateDer<'static>],
) -> Result<Handshakes, IdentityError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).map_err(IdentityError::Use)?;
    }
    if roots.is_empty() {
        return Err(IdentityError::NoAuthority);
    }
    let roots = Arc::new(roots);
    let (chain, key) = (certificate.chain.clone(), certificate.key.clone_key());
    let key = CertifiedKey::from_der(chain, key, provider).map_err(IdentityError::Use)?;
    let presented = Arc::new(Presented(Arc::new(key)));
    let refuse = |source: rustls::server::VerifierBuilderError| IdentityError::Read {
        what: "the trusted authorities",
        source: Box::new(source),
    };
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider.clone());
    let clients = clients.build().map_err(refuse)?;
    let servers = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
    let servers = servers.build().map_err(refuse)?;
    check(node, clock, clients.as_ref(), &certificate.chain)?;

    let builder = ClientConfig::builder_with_details(provider.clone(), Arc::clone(clock));
    let builder = builder.with_protocol_versions(&[&TLS13]);
    let mut client = builder
        .map_err(IdentityError::Use)?
        .with_webpki_verifier(servers)
        .with_client_cert_resolver(Arc::clone(&presented) as Arc<dyn ResolvesClientCert>);
    client.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would let a certificate live on after its end.
    client.resumption = Resumption::disabled();

    let builder = ServerConfig::builder_with_details(provider.clone(), Arc::clone(clock));
    let builder = builder.with_protocol_versions(&[&TLS13]);
    let mut server = builder
        .map_err(IdentityError::Use)?
        .with_client_cert_verifier(Arc::clone(&clients))
        .with_cert_resolver(presented);
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.send_tls13_tickets = 0;
    Ok(Handshakes {
        client: Arc::new(client),
        server: Arc::new(server),
        verifier: clients,
    })
}

/// A certificate that peers would refuse is refused here, where somebody reads the reason.
fn check(
    node: &NodeId,
    clock: &Arc<dyn TimeProvider>,
    verifier: &dyn ClientCertVerifier,
    chain: &[CertificateDer<'static>],
) -> Result<(), IdentityError> {
    let not_ours = |source| IdentityError::NotOurs {
        node: node.clone(),
        source,
    };
    let now = clock.current_time();
    let now = now.ok_or_else(|| not_ours(rustls::Error::FailedToGetCurrentTime))?;
    let (first, rest) = chain
        .split_first()
        .ok_or_else(|| not_ours(rustls::Error::NoCertificatesPresented))?;
    verifier
        .verify_client_cert(first, rest, now)
        .map_err(not_ours)?;
    match names(chain, node) {
        true => Ok(()),
        false => {
            let another = rustls::CertificateError::NotValidForName;
            Err(not_ours(rustls::Error::InvalidCertificate(another)))
        }
    }
}

/// The certificate that both kinds of handshakes show.
struct Presented(Arc<CertifiedKey>);

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Presented")
    }
}

impl ResolvesServerCert for Presented {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl ResolvesClientCert for Presented {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
