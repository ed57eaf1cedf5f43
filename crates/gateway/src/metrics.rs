//! Metrics of the gateway.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

/// Requests by listener and class of status (`2xx`, `4xx`, …).
pub const REQUESTS: &str = "dunlin_gateway_requests_total";
/// Connections that are open, by listener.
pub const CONNECTIONS: &str = "dunlin_gateway_connections";
/// Invocations whose client went away before the reply, so that they were cancelled.
pub const DISCONNECTS: &str = "dunlin_gateway_disconnects_total";

/// Says what each metric is; call it once a recorder is installed.
pub fn describe() {
    describe_counter!(
        REQUESTS,
        "Requests answered, by listener and class of status."
    );
    describe_gauge!(CONNECTIONS, "Open connections, by listener.");
    describe_counter!(
        DISCONNECTS,
        "Invocations cancelled because their client went away."
    );
}

/// Counters of one listener, looked up once.
#[derive(Clone)]
pub(crate) struct Requests {
    by_class: [Counter; 5],
    pub(crate) disconnects: Counter,
}

impl Requests {
    pub(crate) fn of(listener: &'static str) -> Self {
        let class =
            |class: &'static str| counter!(REQUESTS, "listener" => listener, "status" => class);
        Self {
            by_class: ["1xx", "2xx", "3xx", "4xx", "5xx"].map(class),
            disconnects: counter!(DISCONNECTS, "listener" => listener),
        }
    }

    pub(crate) fn answered(&self, status: http::StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5);
        self.by_class[class - 1].increment(1);
    }
}

/// The open connections of one listener.
#[derive(Clone)]
pub(crate) struct Connections(Gauge);

impl Connections {
    pub(crate) fn of(listener: &'static str) -> Self {
        Self(gauge!(CONNECTIONS, "listener" => listener))
    }

    pub(crate) fn opened(&self) -> Open {
        self.0.increment(1.0);
        Open(self.0.clone())
    }
}

/// One open connection.
pub(crate) struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
