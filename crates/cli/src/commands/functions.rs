//! `dunlin functions` and `dunlin versions`: what is deployed.

use clap::{Args, Subcommand};
use model::{AppName, FunctionPath};

use super::{moment, short};
use crate::args::Node;
use crate::connect;
use crate::exit::Outcome;
use crate::output::Output;
use crate::table::Table;

/// Arguments of `dunlin functions`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Functions {
    #[command(subcommand)]
    action: Option<Action>,
    /// Only the functions of this app
    app: Option<AppName>,
    #[command(flatten)]
    node: Node,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Delete a function with all its versions
    Delete {
        /// The function, as APP/FUNCTION
        path: FunctionPath,
        #[command(flatten)]
        node: Node,
    },
}

impl Functions {
    /// Lists, or deletes.
    pub fn run(self, out: Output) -> Outcome {
        match self.action {
            Some(Action::Delete { path, node }) => delete(&node, &path, out),
            None => list(&self.node, self.app.as_ref(), out),
        }
    }
}

fn list(node: &Node, app: Option<&AppName>, out: Output) -> Outcome {
    connect::with(node, async |client| {
        let found = client.functions(app).await?;
        out.show(&found, || {
            let mut table = Table::new(&[
                "FUNCTION",
                "KIND",
                "LIVE",
                ">VERSIONS",
                "ALIASES",
                "DEPLOYED (UTC)",
            ]);
            for function in &found.functions {
                let aliases = function.aliases.iter().map(|alias| alias.name.as_str());
                table.row([
                    format!("{}/{}", function.app, function.name),
                    model::Kind::from(function.kind).to_string(),
                    short(&function.live),
                    function.versions.to_string(),
                    aliases.collect::<Vec<_>>().join(" "),
                    moment(function.deployed_unix_ms),
                ]);
            }
            table
        })
    })
}

fn delete(node: &Node, path: &FunctionPath, out: Output) -> Outcome {
    connect::with(node, async |client| {
        client.delete_function(path).await?;
        out.say(&serde_json::json!({ "deleted": path.to_string() }), || {
            format!("deleted {path}")
        })
    })
}

/// Arguments of `dunlin versions`.
#[derive(Debug, Args)]
pub struct Versions {
    /// The function, as APP/FUNCTION
    path: FunctionPath,
    #[command(flatten)]
    node: Node,
}

impl Versions {
    /// Lists the versions, the latest first.
    pub fn run(self, out: Output) -> Outcome {
        connect::with(&self.node, async |client| {
            let found = client.versions(&self.path).await?;
            out.show(&found, || {
                let mut table =
                    Table::new(&["VERSION", "KIND", "ALIASES", "ARTIFACT", "DEPLOYED (UTC)"]);
                for version in &found.versions {
                    table.row([
                        short(&version.digest),
                        model::Kind::from(version.kind).to_string(),
                        version.aliases.join(" "),
                        short(&version.artifact),
                        moment(version.deployed_unix_ms),
                    ]);
                }
                table
            })
        })
    }
}
