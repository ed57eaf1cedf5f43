//! What can go wrong between a client and a node.

use std::time::Duration;

use api::Problem;

/// Why a call to a node failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address of the node is not one.
    #[error("`{address}` is not the address of a node: {reason}")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A text cannot be sent as it is, such as a token with a newline.
    #[error("{what} cannot be sent")]
    Unsendable {
        /// Which text.
        what: String,
    },
    /// Nobody listens, or the connection broke before the answer.
    #[error("no node answered at {admin}")]
    Unreachable {
        /// The address that was tried.
        admin: String,
        /// Why.
        #[source]
        source: hyper_util::client::legacy::Error,
    },
    /// The answer did not come in time.
    #[error("{admin} gave no answer within {} s", .waited.as_secs())]
    Silent {
        /// The address that was asked.
        admin: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The node answered that it cannot, and why.
    #[error("{}", .0.detail)]
    Problem(Box<Problem>),
    /// The answer is not what a node of this version says.
    #[error("{admin} gave an answer that is not understood: {reason}")]
    Protocol {
        /// The address that answered.
        admin: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The connection broke in the middle of the answer.
    #[error("the connection to {admin} broke")]
    Broken {
        /// The address that answered.
        admin: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
}

impl ClientError {
    /// The problem that the node told, if it told one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            _ => None,
        }
    }
}
