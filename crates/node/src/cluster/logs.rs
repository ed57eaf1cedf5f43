//! What guests print on any node, told to the node that is asked.
//!
//! ```text
//!  request  JSON of what is wanted
//!  reply    a line of JSON each: the last records, that these were all, and what comes then
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use api::v1::LogLine;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream};
use gateway::{LogsElsewhere, LogsWanted, log_line, log_line_of};
use membership::Membership;
use metering::LogBook;
use model::NodeId;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use transport::{CallError, Handler, Incoming, Peers, Request, Sender, Status};

use super::out::TOGETHER_BYTES;
use super::router::Service;

/// The one method of the service: the last records, and each new one if that is wanted.
const READ: u8 = 1;

/// It was not understood what is wanted.
const MALFORMED: Status = Status(1);

/// Bytes of a request.
const WANTED_BYTES_MAX: usize = 16 << 10;

/// Bytes of a line of the reply.
const LINE_BYTES_MAX: usize = 4 << 20;

/// How long the last records of a node are waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was heard and not yet taken.
const HEARD_MAX: usize = 256;

/// A line of a reply.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Said {
    Line(LogLine),
    /// The last records were told; what follows is new.
    Live,
}

/// What a node said, or that it says nothing more.
enum Heard {
    Said(Said),
    Gone,
}

/// The service.
pub(super) struct Lines {
    pub logs: LogBook,
    /// Cancelled when this node is about to stop: a reader of new lines would keep it.
    pub closing: CancellationToken,
}

#[async_trait]
impl Handler for Lines {
    async fn handle(&self, call: Incoming) {
        let told = self.closing.run_until_cancelled(self.tell(call)).await;
        if let Some(Err(error)) = told {
            tracing::debug!(%error, "a reader of logs is gone");
        }
    }
}

impl Lines {
    async fn tell(&self, call: Incoming) -> Result<(), CallError> {
        let wanted = call.body.collect(WANTED_BYTES_MAX).await?;
        let wanted: LogsWanted = match serde_json::from_slice(&wanted) {
            Ok(wanted) => wanted,
            Err(error) => return call.responder.reply(MALFORMED, error.to_string()),
        };
        let mut sender = call.responder.stream(Status::OK)?;
        let (old, new) = self.logs.follow(wanted.filter, wanted.tail);
        let mut pending = BytesMut::new();
        for record in &old {
            put(&Said::Line(log_line(record)), &mut pending);
            if pending.len() > TOGETHER_BYTES {
                sender.send(pending.split().freeze()).await?;
            }
        }
        put(&Said::Live, &mut pending);
        sender.send(pending.split().freeze()).await?;
        if wanted.follow {
            send_new(new.map(log_line_of), &mut sender).await?;
        }
        sender.finish()
    }
}

async fn send_new(
    lines: impl futures::Stream<Item = LogLine>,
    sender: &mut Sender,
) -> Result<(), CallError> {
    let mut lines = std::pin::pin!(lines);
    let mut pending = BytesMut::new();
    while let Some(line) = lines.next().await {
        put(&Said::Line(line), &mut pending);
        sender.send(pending.split().freeze()).await?;
    }
    Ok(())
}

fn put(said: &Said, out: &mut BytesMut) {
    // Structs of strings and numbers, which serde_json cannot fail on; it escapes line ends.
    out.extend_from_slice(&serde_json::to_vec(said).unwrap_or_default());
    out.extend_from_slice(b"\n");
}

/// What guests printed on the other nodes; a node that says nothing within [`PATIENCE`] is silent.
pub(super) async fn elsewhere(
    membership: &Membership,
    peers: &Peers,
    wanted: &LogsWanted,
) -> LogsElsewhere {
    let (sender, mut heard) = mpsc::channel(HEARD_MAX);
    let mut waiting = others(membership);
    let readers = Readers {
        membership: membership.clone(),
        peers: peers.clone(),
        sender,
        reading: BTreeSet::new(),
        tasks: JoinSet::new(),
    };
    tokio::spawn(readers.run(wanted.clone()));
    let mut lines = Vec::new();
    let mut silent = Vec::new();
    let gather = async {
        while !waiting.is_empty() {
            match heard.recv().await {
                Some((_, Heard::Said(Said::Line(line)))) => lines.push(line),
                Some((node, Heard::Said(Said::Live))) => {
                    waiting.remove(&node);
                }
                Some((node, Heard::Gone)) => silent.extend(waiting.take(&node)),
                None => break,
            }
        }
    };
    // Those that have not spoken by then are named.
    let _in_time = tokio::time::timeout(PATIENCE, gather).await;
    silent.extend(waiting);
    let new = stream::unfold(heard, |mut heard| async {
        loop {
            if let (_, Heard::Said(Said::Line(line))) = heard.recv().await? {
                return Some((line, heard));
            }
        }
    });
    LogsElsewhere {
        here: Some(membership.id().clone()),
        lines,
        silent,
        new: new.boxed(),
    }
}

fn others(membership: &Membership) -> BTreeSet<NodeId> {
    let here = membership.id();
    membership.look(|roster| {
        let nodes = roster.peers().keys().filter(|node| *node != here);
        nodes.cloned().collect()
    })
}

/// Reads from every other node, those too that join meanwhile.
struct Readers {
    membership: Membership,
    peers: Peers,
    sender: mpsc::Sender<(NodeId, Heard)>,
    reading: BTreeSet<NodeId>,
    tasks: JoinSet<NodeId>,
}

impl Readers {
    /// Until nobody listens, or all that was wanted is told.
    async fn run(mut self, mut wanted: LogsWanted) {
        let mut changes = self.membership.changes();
        loop {
            changes.borrow_and_update();
            for node in others(&self.membership) {
                if self.reading.insert(node.clone()) {
                    let (peers, sender) = (self.peers.clone(), self.sender.clone());
                    self.tasks.spawn(read(peers, node, wanted.clone(), sender));
                }
            }
            if !wanted.follow {
                while self.tasks.join_next().await.is_some() {}
                return;
            }
            // What a node printed before it joined, or while it was not reached, is not new.
            wanted.tail = 0;
            // A node that was lost is asked again when the nodes next say something, not at once.
            loop {
                tokio::select! {
                    () = self.sender.closed() => return,
                    changed = changes.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    Some(Ok(node)) = self.tasks.join_next() => {
                        self.reading.remove(&node);
                    }
                }
            }
        }
    }
}

async fn read(
    peers: Peers,
    node: NodeId,
    wanted: LogsWanted,
    sender: mpsc::Sender<(NodeId, Heard)>,
) -> NodeId {
    if let Err(error) = ask(&peers, &node, &wanted, &sender).await {
        tracing::debug!(%node, %error, "its log is not read any more");
    }
    // Nobody is to be told if nobody listens.
    let _ = sender.send((node.clone(), Heard::Gone)).await;
    node
}

async fn ask(
    peers: &Peers,
    node: &NodeId,
    wanted: &LogsWanted,
    sender: &mpsc::Sender<(NodeId, Heard)>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let connection = peers.connection(node).await?;
    let request = Request::new(Service::Logs.method(READ), serde_json::to_vec(wanted)?);
    let answer = connection.ask(request.without_timeout()).await?;
    let mut reply = answer.reply().await?;
    if reply.status != Status::OK {
        return Err(format!("it answered {}", reply.status.0).into());
    }
    let mut rest = BytesMut::new();
    while let Some(chunk) = reply.body.chunk().await? {
        rest.extend_from_slice(&chunk);
        while let Some(line) = line_of(&mut rest) {
            let mut said: Said = serde_json::from_slice(&line)?;
            if let Said::Line(line) = &mut said {
                line.node = Some(node.to_string());
            }
            sender.send((node.clone(), Heard::Said(said))).await?;
        }
        if rest.len() > LINE_BYTES_MAX {
            return Err("a line of its log has no end".into());
        }
    }
    Ok(())
}

/// Takes the first whole line off.
fn line_of(bytes: &mut BytesMut) -> Option<Bytes> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some(bytes.split_to(end + 1).freeze())
}
