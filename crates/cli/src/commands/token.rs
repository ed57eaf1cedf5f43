//! `dunlin token`: the tokens of a node, through the node or, before its first start, on its data.

use std::path::PathBuf;

use api::v1;
use clap::{Args, Subcommand};
use node::offline;

use super::moment;
use crate::args::Node;
use crate::connect;
use crate::exit::{Failure, Outcome};
use crate::output::{Output, note};
use crate::table::Table;

/// Arguments of `dunlin token`.
#[derive(Debug, Args)]
pub struct Token {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a token; it is shown once
    Create {
        /// What it is for
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// List the tokens, without their secrets
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Take a token away
    Revoke {
        /// The id that `list` shows
        id: String,
        #[command(flatten)]
        place: Place,
    },
}

/// Where the tokens are.
#[derive(Debug, Args)]
struct Place {
    #[command(flatten)]
    node: Node,
    /// Data folder of a node that does not run, instead of asking a node
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl Token {
    /// Makes, lists or revokes.
    pub fn run(self, out: Output) -> Outcome {
        match self.action {
            Action::Create { name, place } => create(&place, &name, out),
            Action::List { place } => list(&place, out),
            Action::Revoke { id, place } => revoke(&place, &id, out),
        }
    }
}

fn create(place: &Place, name: &str, out: Output) -> Outcome {
    let show = |created: &v1::TokenCreated| {
        if out.is_for_people() {
            note("keep it now: the node stores only a digest of it");
        }
        out.say(created, || created.token.clone())
    };
    match &place.data {
        Some(data) => {
            let (info, token) = offline::create_token(data, name)?;
            let (id, name) = (info.id, info.name);
            show(&v1::TokenCreated { id, name, token })
        }
        None => connect::with(&place.node, async |client| {
            show(&client.create_token(name).await?)
        }),
    }
}

fn list(place: &Place, out: Output) -> Outcome {
    let show = |found: &v1::Tokens| {
        out.show(found, || {
            let mut table = Table::new(&["ID", "NAME", "CREATED (UTC)"]);
            for token in &found.tokens {
                let created = moment(token.created_unix_ms);
                table.row([&token.id, &token.name, &created]);
            }
            table
        })
    };
    match &place.data {
        Some(data) => {
            let tokens = offline::list_tokens(data)?.into_iter();
            let tokens = tokens.map(|info| v1::Token {
                id: info.id,
                name: info.name,
                created_unix_ms: info.created_unix_ms,
            });
            show(&v1::Tokens {
                tokens: tokens.collect(),
            })
        }
        None => connect::with(&place.node, async |client| show(&client.tokens().await?)),
    }
}

fn revoke(place: &Place, id: &str, out: Output) -> Outcome {
    let say = || {
        out.say(&serde_json::json!({ "revoked": id }), || {
            format!("revoked {id}")
        })
    };
    match &place.data {
        Some(data) => offline::revoke_token(data, id)
            .map_err(Failure::from)
            .and_then(|()| say()),
        None => connect::with(&place.node, async |client| {
            client.revoke_token(id).await?;
            say()
        }),
    }
}
