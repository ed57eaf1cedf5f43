//! What can go wrong between nodes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use model::NodeId;

use crate::code::GoAway;
use crate::frame::FrameError;
use crate::hello::Versions;
use crate::machine::Breach;

/// Why a call has no reply, or a stream no more bytes.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Too many calls wait for this connection already; nothing was sent.
    #[error("{waiting} calls wait for the connection to {peer} already")]
    Busy {
        /// The node.
        peer: NodeId,
        /// Those that wait.
        waiting: usize,
    },
    /// The connection takes no more calls; this one was not begun and may be sent on another.
    #[error("the connection takes no more calls")]
    Draining,
    /// The peer has too many calls; this one was not begun.
    #[error("the peer has too many calls")]
    Refused,
    /// The call's time is over.
    #[error("the call's time is over")]
    Deadline,
    /// The other side no longer waits for it.
    #[error("the call was cancelled")]
    Cancelled,
    /// The handler ended without a reply.
    #[error("the peer's handler ended without a reply")]
    Failed,
    /// The reply is over, so that nobody reads what is sent.
    #[error("the call is over")]
    Over,
    /// A body that is larger than its reader accepts.
    #[error("a body of more than {max} bytes")]
    TooLarge {
        /// The most.
        max: usize,
    },
    /// A body that is smaller than the buffer it was to fill.
    #[error("the body ended {missing} bytes early")]
    Short {
        /// What the buffer lacks.
        missing: usize,
    },
    /// The connection broke; whether the call was carried out is not known.
    #[error("the connection broke")]
    Lost(#[source] Arc<Close>),
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Close {
    /// It was drained, or idle: every call had its end.
    #[error("the connection was drained")]
    Drained,
    /// Calls took longer than a drain may.
    #[error("calls were cut: they took longer than a drain may")]
    DrainTimeout,
    /// Nothing came from the peer for too long.
    #[error("the peer was silent for {0:?}")]
    Dead(Duration),
    /// The peer closed without saying so.
    #[error("the peer closed the connection")]
    Eof,
    /// The peer gave a reason.
    #[error("the peer closed the connection: {0:?}")]
    ByPeer(GoAway),
    /// The peer sent what is no frame.
    #[error("the peer sent what is no frame")]
    Frame(#[from] FrameError),
    /// The peer sent what it may not.
    #[error("the peer broke the protocol")]
    Protocol(#[from] Breach),
    /// The socket, or TLS over it, failed.
    #[error("input or output failed")]
    Io(#[from] io::Error),
    /// The task of the connection was stopped from outside.
    #[error("the connection was stopped")]
    Stopped,
}

/// Why there is no connection to a node.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// Nobody knows where the node is.
    #[error("looking up where {node} is")]
    Resolve {
        /// The node.
        node: NodeId,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// TCP or TLS failed: there is no such listener, or it is not that node.
    #[error("connecting")]
    Connect(#[source] io::Error),
    /// It took too long.
    #[error("connecting took more than {0:?}")]
    Timeout(Duration),
    /// The peer's first bytes are no frame.
    #[error("reading the peer's first frame")]
    Frame(#[from] FrameError),
    /// The peer's first frame is another.
    #[error("the peer did not greet")]
    NotHello,
    /// The peer closed during the handshake.
    #[error("the peer closed during the handshake")]
    Eof,
    /// The peer gave a reason.
    #[error("the peer refused the connection: {0:?}")]
    Refused(GoAway),
    /// There is no version that both speak.
    #[error("the peer speaks versions {theirs}, this node {ours}")]
    Versions {
        /// This node's.
        ours: Versions,
        /// The peer's.
        theirs: Versions,
    },
    /// The peer is another node than the one that was dialled, or than its certificate says.
    #[error("the peer is not {0}")]
    WrongNode(NodeId),
    /// The node failed a moment ago, and is not asked again before its time.
    #[error("{node} was not reached; next attempt in {retry_in:?}")]
    BackingOff {
        /// The node.
        node: NodeId,
        /// Time until then.
        retry_in: Duration,
        /// The last failure.
        source: Arc<DialError>,
    },
    /// The pool takes no more calls.
    #[error("the pool is closed")]
    Closed,
}

/// Why a certificate cannot be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// It cannot be made.
    #[error("making a certificate for {what}")]
    Make {
        /// For what.
        what: String,
        /// The cause.
        source: rcgen::Error,
    },
    /// It cannot be read.
    #[error("reading {what}")]
    Read {
        /// What.
        what: &'static str,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The key belongs to another certificate, or is of a kind that is not supported.
    #[error("using a certificate")]
    Use(#[source] rustls::Error),
    /// The certificate is not signed by the cluster, not yet or no longer valid, or another's.
    #[error("the certificate is not one of {node}")]
    NotOurs {
        /// The node.
        node: NodeId,
        /// The cause.
        source: rustls::Error,
    },
    /// A time beyond what certificates can say.
    #[error("a time that a certificate cannot say")]
    Time,
    /// No authority is trusted.
    #[error("no authority to trust")]
    NoAuthority,
}
