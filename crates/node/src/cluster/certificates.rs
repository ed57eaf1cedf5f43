//! The folder of a cluster's certificates.
//!
//! ```text
//! DIR/ca.pem    the authority's certificate: every node needs it
//! DIR/ca.key    its key: only where certificates are issued
//! DIR/NODE.pem  a node's certificate and its key in one file, so that a newer one replaces both
//!               at once
//! ```

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::NodeId;
use tokio_util::sync::CancellationToken;
use transport::{Authority, AuthorityCertificate, Identity, IdentityError, NodeCertificate};

use super::metrics;

/// How long an authority lasts: it is replaced by making a new cluster.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Largest file that is read, in bytes.
const BYTES_MAX: u64 = 1 << 20;
/// Before the end, in a file of ours, stands the end in seconds since 1970.
const NOT_AFTER: &str = "not-after-unix-s: ";

/// What can be wrong with the folder of certificates.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read or written.
    #[error("{} could not be {doing}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// There is an authority already: another would make the nodes that it vouched for strangers.
    #[error("{} is there already: the cluster has its authority", .0.display())]
    IsThere(PathBuf),
    /// The authority's certificate is missing.
    #[error(
        "{} is missing: make the cluster's authority with `dunlin cluster init --dir DIR`, or copy \
         the file from where that was done", .0.display()
    )]
    NoAuthority(PathBuf),
    /// The authority's key is missing.
    #[error(
        "{} is missing: certificates are issued where `dunlin cluster init` was done, which is \
         the only place that has this key", .0.display()
    )]
    NoKey(PathBuf),
    /// The node's certificate is missing.
    #[error(
        "{} is missing: issue it with `dunlin cluster certificate {node} --dir DIR` where the \
         cluster's key is, and copy it here", path.display()
    )]
    NoCertificate {
        /// The file.
        path: PathBuf,
        /// The node.
        node: NodeId,
    },
    /// What a file holds cannot be used.
    #[error("{} cannot be used", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: IdentityError,
    },
}

use CertificateError as Error;

fn authority_file(folder: &Path) -> PathBuf {
    folder.join("ca.pem")
}

fn key_file(folder: &Path) -> PathBuf {
    folder.join("ca.key")
}

fn certificate_file(folder: &Path, node: &NodeId) -> PathBuf {
    folder.join(format!("{node}.pem"))
}

/// Makes the authority of a new cluster in `folder`, which is made when it is not there.
pub fn init_cluster(folder: &Path) -> Result<PathBuf, CertificateError> {
    let mut maker = std::fs::DirBuilder::new();
    let made = maker.recursive(true).mode(0o700).create(folder);
    made.map_err(failed("made", folder))?;
    let (certificate, key) = (authority_file(folder), key_file(folder));
    if certificate.exists() || key.exists() {
        return Err(Error::IsThere(certificate));
    }
    let made = Authority::new(SystemTime::now(), AUTHORITY_LIFETIME);
    let made = made.map_err(unusable(&certificate))?;
    // The key first: an authority without one would be of no use, and in the way.
    write(&key, 0o600, &made.key_pem())?;
    write(&certificate, 0o644, made.certificate_pem())?;
    Ok(certificate)
}

/// Issues a certificate for `node`, in place of an earlier one if there is one; says where it is
/// and when it ends.
pub fn issue_certificate(
    folder: &Path,
    node: &NodeId,
    lifetime: Duration,
) -> Result<(PathBuf, SystemTime), CertificateError> {
    let file = authority_file(folder);
    let certificate = read(&file)?.ok_or_else(|| Error::NoAuthority(file.clone()))?;
    let key = key_file(folder);
    let key = read(&key)?.ok_or(Error::NoKey(key))?;
    let authority = Authority::from_pem(&certificate, &key).map_err(unusable(&file))?;
    let issued = authority.issue(node, SystemTime::now(), lifetime);
    let file = certificate_file(folder, node);
    let issued = issued.map_err(unusable(&file))?;
    let end = issued.not_after().duration_since(UNIX_EPOCH);
    let end = end.unwrap_or_default().as_secs();
    let (chain, key) = (issued.chain_pem(), issued.key_pem());
    let text = format!("{NOT_AFTER}{end}\n{chain}{key}");
    write(&file, 0o600, &text)?;
    Ok((file, issued.not_after()))
}

/// A node's identity, out of its folder.
pub(super) fn identity(folder: &Path, node: &NodeId) -> Result<Identity, CertificateError> {
    let (certificate, trusted) = of(folder, node)?;
    let file = certificate_file(folder, node);
    let identity = Identity::new(node.clone(), &certificate, &trusted);
    let identity = identity.map_err(unusable(&file))?;
    tell_end(&certificate);
    Ok(identity)
}

/// Looks at the certificate's file again and again, and takes a newer one, until `stop`.
pub(super) async fn keep_fresh(
    identity: Arc<Identity>,
    folder: PathBuf,
    every: Duration,
    stop: CancellationToken,
) {
    let node = identity.node().clone();
    // What is in use, and what could not be used: neither is known of the files as they are now.
    let (mut used, mut refused) = (None, None);
    let mut ticks = tokio::time::interval(every);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        // Read before the files are: who changes them after this is seen by the next tick.
        let Some(now) = stamp(&folder, &node).await else {
            continue;
        };
        if used == Some(now) {
            continue;
        }
        let taking = (folder.clone(), node.clone(), identity.clone());
        let taken = tokio::task::spawn_blocking(move || take(&taking.0, &taking.1, &taking.2));
        match taken.await {
            Ok(Ok(())) => {
                used = Some(now);
                tracing::info!("the certificate in the node's folder is in use");
            }
            // It may have been half written, within one tick of the file system's clock: so it is
            // tried again, and told once.
            Ok(Err(error)) => {
                let error: &dyn std::error::Error = &error;
                if refused.replace(now) != Some(now) {
                    tracing::error!(error, "the node keeps its old certificate");
                }
            }
            Err(error) => tracing::error!(%error, "looking at the certificate broke off"),
        }
    }
}

fn take(folder: &Path, node: &NodeId, identity: &Identity) -> Result<(), CertificateError> {
    let (certificate, trusted) = of(folder, node)?;
    let replaced = identity.replace(&certificate, &trusted);
    replaced.map_err(unusable(&certificate_file(folder, node)))?;
    tell_end(&certificate);
    Ok(())
}

/// When the files were last changed; none while one is missing.
async fn stamp(folder: &Path, node: &NodeId) -> Option<(SystemTime, SystemTime)> {
    let changed = async |file: PathBuf| tokio::fs::metadata(file).await.ok()?.modified().ok();
    let node = changed(certificate_file(folder, node)).await?;
    Some((node, changed(authority_file(folder)).await?))
}

fn tell_end(certificate: &NodeCertificate) {
    let end = certificate.not_after().duration_since(UNIX_EPOCH);
    let end = end.unwrap_or_default().as_secs_f64();
    ::metrics::gauge!(metrics::CERTIFICATE_END_SECONDS).set(end);
}

/// The node's certificate, and the authorities that it trusts.
fn of(folder: &Path, node: &NodeId) -> Result<Of, CertificateError> {
    let authority = authority_file(folder);
    let pem = read(&authority)?.ok_or_else(|| Error::NoAuthority(authority.clone()))?;
    let trusted = transport::authorities(&pem).map_err(unusable(&authority))?;
    let path = certificate_file(folder, node);
    let missing = || Error::NoCertificate {
        path: path.clone(),
        node: node.clone(),
    };
    let text = read(&path)?.ok_or_else(missing)?;
    let end = text.lines().find_map(|line| line.strip_prefix(NOT_AFTER));
    // A certificate that others have made does not say it here; TLS looks into it in any case.
    let end = end.and_then(|end| end.trim().parse().ok()).unwrap_or(0);
    let end = UNIX_EPOCH + Duration::from_secs(end);
    let certificate = NodeCertificate::from_pem(&text, &text, end);
    Ok((certificate.map_err(unusable(&path))?, trusted))
}

type Of = (NodeCertificate, Vec<AuthorityCertificate>);

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CertificateError {
    let path = path.to_owned();
    move |source| Error::File {
        doing,
        path,
        source,
    }
}

fn unusable(path: &Path) -> impl FnOnce(IdentityError) -> CertificateError {
    let path = path.to_owned();
    move |source| Error::Unusable { path, source }
}

/// The file's text; none when it is not there.
fn read(path: &Path) -> Result<Option<String>, CertificateError> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Ok(meta) if meta.len() > BYTES_MAX => {
            let source = std::io::Error::other("it is too long");
            return Err(failed("read", path)(source));
        }
        _ => (),
    }
    std::fs::read_to_string(path)
        .map(Some)
        .map_err(failed("read", path))
}

/// Writes a file, whole or not at all, that has this mode from its first byte on.
fn write(path: &Path, mode: u32, text: &str) -> Result<(), CertificateError> {
    let new = path.with_extension("new");
    let written = || {
        let _left_over = std::fs::remove_file(&new);
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    written().map_err(failed("written", path))
}

#[cfg(test)]
#[path = "certificates_tests.rs"]
mod tests;
