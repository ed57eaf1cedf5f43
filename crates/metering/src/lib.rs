//! What functions printed, what they used, and which called which.
//!
//! ```text
//!  guest ─bytes─▶ FunctionLog ─lines─▶ ring of the function ─▶ tail
//!                                 └──▶ followers (bounded; who lags is told)
//!  outcome ─────▶ Ledger ─▶ totals by day, function, version ─▶ report × PriceList
//!                                 └─flush─▶ Store ─restore─▶ Ledger
//!  calls, outcome ─▶ GraphBook ─▶ trees in memory ─▶ graph of an invocation
//! ```
//!
//! Invariants:
//! - A guest that prints nothing costs its log nothing but one look at a counter.
//! - Rings, half lines, followers and graphs are bounded in count and in bytes.
//! - Totals only grow; a flush that fails is done again in full by the next.

mod day;
mod error;
mod follow;
mod graph;
mod graph_book;
mod ledger;
mod logbook;
mod price;
mod ring;

pub mod metrics;

pub use day::{Day, DayError};
pub use error::LedgerError;
pub use follow::{LogFilter, LogItem};
pub use graph::{Begun, Graph, GraphConfig, GraphNode, NodeEnd};
pub use graph_book::{GraphBook, Watch, unix_us};
pub use ledger::{Ledger, LedgerConfig, Totals};
pub use logbook::{FunctionLog, LogBook, LogConfig, LogRecord};
pub use price::{PriceList, Report, ReportLine};
