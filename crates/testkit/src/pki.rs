//! An authority of a test's own, and what it vouches for.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// Files in PEM.
#[derive(Debug)]
pub(crate) struct Pki {
    pub(crate) ca: PathBuf,
    /// Certificate and key of whoever serves at an address.
    pub(crate) server: (PathBuf, PathBuf),
    /// Certificate and key of whoever asks.
    pub(crate) client: (PathBuf, PathBuf),
}

impl Pki {
    /// Makes an authority, a server at `host` and a client, in `folder`.
    pub(crate) fn new(folder: &Path, host: &str) -> Self {
        let write = |name: &str, text: String| {
            let file = folder.join(name);
            std::fs::write(&file, text).expect("a folder of ours");
            file
        };
        let mut params = params("authority", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, key()).expect("a certificate");
        let issue = |name: &str, hosts: &[&str]| {
            let key = key();
            let cert = self::params(name, hosts).signed_by(&key, &ca);
            let cert = cert.expect("a certificate").pem();
            let file = |kind: &str, text| write(&format!("{name}-{kind}.pem"), text);
            (file("cert", cert), file("key", key.serialize_pem()))
        };
        Self {
            ca: write("ca.pem", ca.pem()),
            server: issue("server", &[host]),
            client: issue("client", &[]),
        }
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn params(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(hosts).expect("addresses");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
