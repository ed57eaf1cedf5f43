//! Counts of what guests asked of the network.

use std::sync::LazyLock;

use metrics::{Counter, counter, describe_counter};

/// Outgoing connections of guests, by the way that they were asked for (`http` or `socket`) and by
/// the result (`allowed` or `denied`).
pub const EGRESS: &str = "dunlin_egress_connections_total";

/// How a guest asks for a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Http,
    Socket,
}

/// Counts one answer to a guest that asked.
pub(crate) fn count_egress(way: Way, allowed: bool) {
    /// Taken when the first guest asks: the node has installed its recorder by then.
    static COUNTERS: LazyLock<[[Counter; 2]; 2]> = LazyLock::new(|| {
        describe_counter!(EGRESS, "Outgoing connections of guests.");
        let of = |way: &'static str, result: &'static str| counter!(EGRESS, "way" => way, "result" => result);
        ["http", "socket"].map(|way| ["denied", "allowed"].map(|result| of(way, result)))
    });
    let [http, socket] = &*COUNTERS;
    let [denied, granted] = match way {
        Way::Http => http,
        Way::Socket => socket,
    };
    let counter = if allowed { granted } else { denied };
    counter.increment(1);
}
