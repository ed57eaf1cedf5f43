//! The cluster's authority and the certificates that it issues.
//!
//! A node's certificate carries its id as a host name under [`DOMAIN`], so that TLS itself checks
//! that the peer is the node which was dialled. It lives for hours or days and is replaced while
//! connections go on; there are no revocation lists.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use time::OffsetDateTime;

use crate::error::IdentityError;

/// What node ids are host names under; `.internal` is reserved for such uses.
const DOMAIN: &str = "node.dunlin.internal";

/// The subject of every authority: a certificate's signature, and no name, says which one it is.
const AUTHORITY: &str = "Dunlin cluster";

/// How far the clocks of nodes may be apart.
const SKEW: Duration = Duration::from_secs(300);

/// The host name that a node's certificate is for.
pub(crate) fn server_name(node: &NodeId) -> Result<ServerName<'static>, IdentityError> {
    let name = format!("{node}.{DOMAIN}");
    ServerName::try_from(name).map_err(|source| IdentityError::Read {
        what: "a node's host name",
        source: Box::new(source),
    })
}

/// The certificate of an authority, which nodes trust.
pub type AuthorityCertificate = CertificateDer<'static>;

/// The authorities in a file of certificates: more than one while a cluster changes from one to
/// another.
pub fn authorities(pem: &str) -> Result<Vec<AuthorityCertificate>, IdentityError> {
    let read = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    read.map_err(|source| IdentityError::Read {
        what: "the authorities' certificates",
        source: Box::new(source),
    })
}

/// What signs the certificates of a cluster's nodes.
pub struct Authority {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority, valid from `now` for `lifetime`.
    pub fn new(now: SystemTime, lifetime: Duration) -> Result<Self, IdentityError> {
        let made = |source| IdentityError::Make {
            what: "an authority".into(),
            source,
        };
        let key = KeyPair::generate().map_err(made)?;
        let mut params = authority_params();
        (params.not_before, params.not_after) = validity(now, lifetime)?;
        let certificate = params.self_signed(&key).map_err(made)?;
        Ok(Self {
            certificate: certificate.der().clone(),
            certificate_pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        })
    }

    /// An authority from what `certificate_pem` and `key_pem` gave.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, IdentityError> {
        let read = CertificateDer::from_pem_slice(certificate.as_bytes());
        let der = read.map_err(|source| IdentityError::Read {
            what: "an authority's certificate",
            source: Box::new(source),
        })?;
        let key = KeyPair::from_pem(key).map_err(|source| IdentityError::Read {
            what: "an authority's key",
            source: Box::new(source),
        })?;
        // The names and identifiers in what it signs come from these and from the key.
        Ok(Self {
            certificate: der,
            certificate_pem: certificate.to_owned(),
            issuer: Issuer::new(authority_params(), key),
        })
    }

    /// The certificate, which every node trusts.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The key, which only those may have who admit nodes.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// What the nodes of the cluster trust.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A certificate for `node` with a new key, valid from `now` for `lifetime`.
    pub fn issue(
        &self,
        node: &NodeId,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<NodeCertificate, IdentityError> {
        let made = |source| IdentityError::Make {
            what: format!("node {node}"),
            source,
        };
        let key = KeyPair::generate().map_err(made)?;
        let name = format!("{node}.{DOMAIN}");
        let mut params = CertificateParams::new(vec![name]).map_err(made)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        (params.not_before, params.not_after) = validity(now, lifetime)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(made)?;
        Ok(NodeCertificate {
            chain: vec![certificate.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            chain_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            not_after: now + lifetime,
        })
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn validity(
    now: SystemTime,
    lifetime: Duration,
) -> Result<(OffsetDateTime, OffsetDateTime), IdentityError> {
    let at = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).ok()?;
        OffsetDateTime::from_unix_timestamp(i64::try_from(since.as_secs()).ok()?).ok()
    };
    let from = now.checked_sub(SKEW).and_then(at);
    let until = now.checked_add(lifetime).and_then(at);
    from.zip(until).ok_or(IdentityError::Time)
}

/// A node's certificate and its key.
pub struct NodeCertificate {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    chain_pem: String,
    key_pem: String,
    not_after: SystemTime,
}

impl NodeCertificate {
    /// The certificate, for a file.
    pub fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    /// The key, for a file that nobody else may read.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// When it is to have been replaced.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// A certificate from files; `not_after` is what `issue` said.
    pub fn from_pem(chain: &str, key: &str, not_after: SystemTime) -> Result<Self, IdentityError> {
        let read = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>();
        let certificates = read.map_err(|source| IdentityError::Read {
            what: "a node's certificate",
            source: Box::new(source),
        })?;
        let read = PrivateKeyDer::from_pem_slice(key.as_bytes());
        Ok(Self {
            chain: certificates,
            key: read.map_err(|source| IdentityError::Read {
                what: "a node's key",
                source: Box::new(source),
            })?,
            chain_pem: chain.to_owned(),
            key_pem: key.to_owned(),
            not_after,
        })
    }
}
