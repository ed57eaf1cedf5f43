//! `dunlin cluster`: the authority of a cluster, and the certificates of its nodes.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use model::NodeId;
use node::{CertificateError, init_cluster, issue_certificate};

use super::moment;
use crate::cluster_config::CLUSTER_DIR;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{Output, note};

/// Arguments of `dunlin cluster`.
#[derive(Debug, Args)]
pub struct Cluster {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make the authority of a new cluster
    Init {
        #[command(flatten)]
        place: Place,
    },
    /// Issue a node's certificate, or a newer one; a node that runs takes it by itself
    Certificate {
        /// The node's name, as in `dunlin up --node NAME`
        node: NodeId,
        /// Days until it ends
        #[arg(long, value_name = "DAYS", default_value_t = DAYS,
            value_parser = clap::value_parser!(u64).range(1..=3650))]
        days: u64,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
struct Place {
    /// Folder of the cluster's certificates
    #[arg(long, env = "DUNLIN_CLUSTER_DIR", value_name = "DIR", default_value = CLUSTER_DIR)]
    dir: PathBuf,
}

/// Days that a certificate lasts unless told.
const DAYS: u64 = 30;

impl Cluster {
    /// Makes or issues.
    pub fn run(self, out: Output) -> Outcome {
        match self.action {
            Action::Init { place } => {
                let file = init_cluster(&place.dir)?;
                let file = file.display().to_string();
                if out.is_for_people() {
                    note("keep ca.key where certificates are issued, and nowhere else");
                }
                out.say(&serde_json::json!({ "authority": file }), || {
                    format!("made {file}")
                })
            }
            Action::Certificate { node, days, place } => {
                let lifetime = Duration::from_secs(days * 86_400);
                let (file, end) = issue_certificate(&place.dir, &node, lifetime)?;
                let end = end.duration_since(std::time::UNIX_EPOCH);
                let end_unix_s = end.unwrap_or_default().as_secs();
                let file = file.display().to_string();
                let issued = serde_json::json!({
                    "node": node.as_str(),
                    "file": file,
                    "not_after_unix_s": end_unix_s,
                });
                if out.is_for_people() {
                    note(&format!(
                        "the node needs {file} and ca.pem, in the folder of its --cluster-dir"
                    ));
                }
                out.say(&issued, || {
                    format!("issued {file}, until {} UTC", moment(end_unix_s * 1000))
                })
            }
        }
    }
}

impl From<CertificateError> for Failure {
    fn from(error: CertificateError) -> Self {
        let next = match &error {
            CertificateError::IsThere(_) => "issue certificates with `dunlin cluster certificate`",
            CertificateError::Unusable { .. } => "issue the node's certificate anew",
            _ => "docs/cluster.md shows which file belongs where",
        };
        Self::caused(Exit::Refused, error).next(next)
    }
}
