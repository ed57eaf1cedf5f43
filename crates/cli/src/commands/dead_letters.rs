//! `dunlin dead-letters`: asynchronous calls that used up their attempts.

use api::v1::Redrive;
use clap::{Args, Subcommand};
use client::InvocationFilter;
use model::{FunctionPath, InvocationId};

use super::invocations::show_page;
use crate::args::Node;
use crate::connect;
use crate::exit::Outcome;
use crate::output::Output;

/// Arguments of `dunlin dead-letters`.
#[derive(Debug, Args)]
pub struct DeadLetters {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List dead letters, the latest first
    List {
        /// Only those of this function, as APP/FUNCTION
        path: Option<FunctionPath>,
        /// At most this many
        #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 50)]
        limit: u32,
        /// The page after this one: what `list` said of the page before
        #[arg(long, value_name = "NEXT")]
        after: Option<String>,
        #[command(flatten)]
        node: Node,
    },
    /// Send dead letters again, each as a new invocation, whose id is printed
    Redrive {
        /// Ids of dead letters
        #[arg(required = true)]
        ids: Vec<InvocationId>,
        #[command(flatten)]
        node: Node,
    },
}

impl DeadLetters {
    /// Lists, or sends again.
    pub fn run(self, out: Output) -> Outcome {
        match self.action {
            Action::List {
                path,
                limit,
                after,
                node,
            } => connect::with(&node, async |client| {
                let page = match &path {
                    Some(path) => client.dead_letters(path, after, Some(limit)).await?,
                    None => {
                        let filter = InvocationFilter {
                            state: Some("dead-letter".to_owned()),
                            after,
                            limit: Some(limit),
                            ..InvocationFilter::default()
                        };
                        client.invocations(&filter).await?
                    }
                };
                show_page(&page, out)
            }),
            Action::Redrive { ids, node } => connect::with(&node, async |client| {
                let ids = ids.iter().map(ToString::to_string).collect();
                let redriven = client.redrive(&Redrive { ids }).await?;
                out.say(&redriven, || redriven.ids.join("\n"))
            }),
        }
    }
}
