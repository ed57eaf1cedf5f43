//! The command line: what may be asked, as types.

use clap::{Args, Parser, Subcommand};
use model::{AppName, FunctionPath};

use crate::commands::{
    alias, build, cluster, completions, dead_letters, deploy, functions, graph, invocations,
    invoke, logs, new, nodes, run, state, token, up, usage,
};
use crate::exit::HELP;
use crate::output::Format;

/// Runs WebAssembly functions: a node, and the tool that talks to it.
#[derive(Debug, Parser)]
#[command(name = "dunlin", version, after_help = HELP, arg_required_else_help = true)]
#[command(propagate_version = true, infer_subcommands = false)]
pub struct Cli {
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What may be asked.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a new function from a template
    New(new::New),
    /// Run the build commands of a manifest
    Build(build::Build),
    /// Run a WASI program here, without a node
    Run(run::Run),
    /// Start a node
    Up(Box<up::Up>),
    /// Deploy a Wasm file, or all functions of a manifest
    Deploy(Box<deploy::Deploy>),
    /// Call a function
    Invoke(invoke::Invoke),
    /// Show what functions print
    Logs(logs::Logs),
    /// Show the sandboxes of a node
    Ps(NodeOnly),
    /// Make the certificates of a cluster
    Cluster(cluster::Cluster),
    /// Show the nodes of a cluster
    Nodes(NodeOnly),
    /// Cordon, uncordon or drain a node of a cluster
    Node(nodes::NodeCommand),
    /// Show why a call ran on another node than the one that took it
    Explain(nodes::Explain),
    /// List functions, or delete one
    Functions(functions::Functions),
    /// List the versions of a function
    Versions(functions::Versions),
    /// Show, point or delete the aliases of a function
    Alias(alias::Alias),
    /// Point `live` back to the version before
    Rollback(alias::Rollback),
    /// Show what functions used, and what it costs
    Usage(usage::Usage),
    /// Make, list or revoke the tokens of a node
    Token(token::Token),
    /// Look at asynchronous invocations
    Invocations(invocations::Invocations),
    /// Show the calls that an invocation led to
    Graph(graph::Graph),
    /// Look at the values that functions share, and change them
    State(state::State),
    /// List dead letters, or send them again
    DeadLetters(dead_letters::DeadLetters),
    /// Check this machine, and the node if one runs
    Doctor(crate::commands::doctor::Doctor),
    /// Print a completion script for a shell
    Completions(completions::Completions),
    /// Print the JSON Schema of dunlin.toml
    Schema,
}

/// Which node is meant.
#[derive(Clone, Debug, Args)]
pub struct Node {
    /// Admin address of the node
    #[arg(long, env = "DUNLIN_ADMIN", value_name = "ADDR", default_value = DEFAULT_ADMIN)]
    pub admin: String,
    /// Token to show to the node
    #[arg(
        long,
        env = "DUNLIN_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub token: Option<String>,
}

/// Where a node's admin listener is unless told.
pub const DEFAULT_ADMIN: &str = "127.0.0.1:8081";

/// A command that needs nothing but a node.
#[derive(Debug, Args)]
pub struct NodeOnly {
    #[command(flatten)]
    pub node: Node,
}

/// An app, or a function of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every function of an app.
    App(AppName),
    /// One function.
    Function(FunctionPath),
}

impl std::str::FromStr for Scope {
    type Err = model::NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains('/') {
            text.parse().map(Self::Function)
        } else {
            text.parse().map(Self::App)
        }
    }
}

/// A variable of the environment: `KEY=VALUE`, or `KEY` for the value that it has here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl std::str::FromStr for Variable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, value.to_owned()),
            None => {
                let value = std::env::var(text)
                    .map_err(|_| format!("`{text}` is not set here: write {text}=VALUE"))?;
                (text, value)
            }
        };
        if key.is_empty() {
            return Err("a variable has a name: write KEY=VALUE".into());
        }
        Ok(Self {
            key: key.to_owned(),
            value,
        })
    }
}
