//! `dunlin invocations`: asynchronous calls, how they stand and how they ended.

use std::time::Duration;

use api::v1::{Invocation, InvocationState, Invocations as Page};
use clap::{Args, Subcommand};
use client::{Client, InvocationFilter};
use model::{FunctionPath, InvocationId};

use super::invoke::print_reply;
use super::moment;
use crate::args::Node;
use crate::connect;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{Output, note};
use crate::table::{Table, micros};

/// Longest wait that is asked for at once; a longer one is made of several.
const WAIT_STEP: Duration = Duration::from_secs(25);

/// States, as the API spells them.
const STATES: [&str; 5] = ["waiting", "running", "succeeded", "failed", "dead-letter"];

/// Arguments of `dunlin invocations`.
#[derive(Debug, Args)]
pub struct Invocations {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List invocations, the latest first
    List(List),
    /// Show one invocation
    Show {
        /// The id that `dunlin invoke --async` printed
        id: InvocationId,
        #[command(flatten)]
        node: Node,
    },
    /// Wait for the end of an invocation, and print its reply
    Wait {
        /// The id that `dunlin invoke --async` printed
        id: InvocationId,
        /// Wait at most this many seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 300)]
        timeout: u64,
        #[command(flatten)]
        node: Node,
    },
    /// Print the reply of an invocation that has ended
    Result {
        /// The id that `dunlin invoke --async` printed
        id: InvocationId,
        #[command(flatten)]
        node: Node,
    },
}

#[derive(Debug, Args)]
struct List {
    /// Only those of this function, as APP/FUNCTION
    path: Option<FunctionPath>,
    /// Only those in this state
    #[arg(long, value_parser = STATES)]
    state: Option<String>,
    /// At most this many
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 50)]
    limit: u32,
    /// The page after this one: what `list` said of the page before
    #[arg(long, value_name = "NEXT")]
    after: Option<String>,
    #[command(flatten)]
    node: Node,
}

impl Invocations {
    /// Lists, shows, waits or prints.
    pub fn run(self, out: Output) -> Outcome {
        match self.action {
            Action::List(list) => list.run(out),
            Action::Show { id, node } => connect::with(&node, async |client| {
                let invocation = client.invocation(id, None).await?;
                out.show(&invocation, || table(std::slice::from_ref(&invocation)))
            }),
            Action::Wait { id, timeout, node } => connect::with(&node, async |client| {
                wait(&client, id, Duration::from_secs(timeout)).await
            }),
            Action::Result { id, node } => connect::with(&node, async |client: Client| {
                print_reply(client.result(id).await?).await
            }),
        }
    }
}

impl List {
    fn run(self, out: Output) -> Outcome {
        let filter = InvocationFilter {
            function: self.path,
            state: self.state,
            after: self.after,
            limit: Some(self.limit),
        };
        connect::with(&self.node, async |client| {
            show_page(&client.invocations(&filter).await?, out)
        })
    }
}

/// Shows a page of invocations, and how to get the next one.
pub fn show_page(page: &Page, out: Output) -> Outcome {
    let exit = out.show(page, || table(&page.invocations))?;
    if let Some(next) = page.next.as_ref().filter(|_| out.is_for_people()) {
        note(&format!("there are more: --after {next}"));
    }
    Ok(exit)
}

async fn wait(client: &Client, id: InvocationId, most: Duration) -> Outcome {
    let end = tokio::time::Instant::now() + most;
    loop {
        let left = end.saturating_duration_since(tokio::time::Instant::now());
        let step = left.min(WAIT_STEP);
        let invocation = client.invocation(id, Some(step)).await?;
        if invocation.state.is_final() {
            return print_reply(client.result(id).await?).await;
        }
        if left <= step {
            let message = format!("{id} has not ended within {} s", most.as_secs());
            return Err(Failure::new(Exit::TimedOut, message)
                .next("wait again: nothing is lost; or see `dunlin invocations show`"));
        }
    }
}

fn table(invocations: &[Invocation]) -> Table {
    let mut table = Table::new(&[
        "ID",
        "FUNCTION",
        "STATE",
        ">ATTEMPTS",
        "ACCEPTED (UTC)",
        ">CPU",
        "DETAIL",
    ]);
    for invocation in invocations {
        let outcome = invocation.outcome.as_ref();
        table.row([
            invocation.id.clone(),
            format!("{}/{}", invocation.app, invocation.function),
            state(invocation.state).to_owned(),
            invocation.attempts.to_string(),
            moment(invocation.accepted_unix_ms),
            outcome.map_or_else(String::new, |outcome| micros(outcome.usage.cpu_us)),
            outcome
                .map(|outcome| outcome.detail.clone())
                .or_else(|| invocation.error.clone())
                .unwrap_or_default(),
        ]);
    }
    table
}

fn state(state: InvocationState) -> &'static str {
    match state {
        InvocationState::Waiting => "waiting",
        InvocationState::Running => "running",
        InvocationState::Succeeded => "succeeded",
        InvocationState::Failed => "failed",
        InvocationState::DeadLetter => "dead-letter",
    }
}
