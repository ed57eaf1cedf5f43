//! `dunlin nodes`, `dunlin node` and `dunlin explain`: the cluster, as a node of it knows it.

use api::v1::{ClusterNode, NodeStanding};
use clap::{Args, Subcommand};
use model::{InvocationId, NodeId};

use crate::args::{Node, NodeOnly};
use crate::connect;
use crate::exit::Outcome;
use crate::output::{Output, print};
use crate::table::{Table, bytes};

/// Arguments of `dunlin node`.
#[derive(Debug, Args)]
pub struct NodeCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Let a node take no new calls; what it owns and runs stays
    Cordon(Which),
    /// Let a node take calls again
    Uncordon(Which),
    /// Let a node take no new calls, and give up what it owns
    Drain(Which),
}

#[derive(Debug, Args)]
struct Which {
    /// The node's name, as in `dunlin nodes`
    name: NodeId,
    #[command(flatten)]
    node: Node,
}

/// Arguments of `dunlin explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// The invocation, as in its reply's `dunlin-invocation-id`
    id: InvocationId,
    #[command(flatten)]
    node: Node,
}

/// Shows the nodes, one a line.
pub fn list(args: &NodeOnly, out: Output) -> Outcome {
    connect::with(&args.node, async |client| {
        let nodes = client.nodes().await?;
        out.show(&nodes, || table(&nodes.nodes))
    })
}

fn table(nodes: &[ClusterNode]) -> Table {
    let mut table = Table::new(&[
        "NODE", "ADDRESS", "STANDING", ">RUNNING", ">QUEUED", ">MEMORY", ">WARM", "VERSION",
    ]);
    for node in nodes {
        table.row([
            match node.here {
                true => format!("{}*", node.name),
                false => node.name.clone(),
            },
            node.address.clone(),
            node.standing.as_str().to_owned(),
            format!("{}/{}", node.running, node.running_max),
            node.queued.to_string(),
            format!(
                "{}/{}",
                bytes(node.memory_used_bytes),
                bytes(node.memory_bytes)
            ),
            node.warm_versions.to_string(),
            node.version.clone(),
        ]);
    }
    table
}

impl NodeCommand {
    /// Says what is wanted of a node.
    pub fn run(self, out: Output) -> Outcome {
        let (which, standing) = match self.action {
            Action::Cordon(which) => (which, NodeStanding::Cordoned),
            Action::Uncordon(which) => (which, NodeStanding::Serving),
            Action::Drain(which) => (which, NodeStanding::Draining),
        };
        connect::with(&which.node, async |client| {
            client.set_node_standing(&which.name, standing).await?;
            let (name, standing) = (which.name.as_str(), standing.as_str());
            let said = serde_json::json!({ "node": name, "standing": standing });
            out.say(&said, || format!("{name} is to be {standing}"))
        })
    }
}

impl Explain {
    /// Says why an invocation ran where it did.
    pub fn run(self, out: Output) -> Outcome {
        connect::with(&self.node, async |client| {
            let decision = client.decision(self.id).await?;
            match out.is_for_people() {
                true => print(&decision.text),
                false => out.say(&decision, String::new),
            }
        })
    }
}
