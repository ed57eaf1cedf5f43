//! Sockets of guests: they connect to what requests may be sent to, and take no connections.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::sockets::SocketAddrUse;

use super::dial::look_up;
use super::{Egress, Open};
use crate::metrics::{Way, count_egress};

/// Longest time in which a name is looked up.
const LOOK_UP_TIME_MAX: Duration = Duration::from_secs(10);

impl Egress {
    /// Opens `builder`'s network as far as this leads.
    pub(in crate::component) fn open(&self, builder: &mut WasiCtxBuilder) {
        let Some(open) = self.0.clone() else {
            builder.allow_tcp(false).allow_udp(false);
            return;
        };
        builder
            .allow_tcp(true)
            .allow_udp(true)
            .allow_ip_name_lookup(true)
            .socket_addr_check(move |address, usage| {
                let open = open.clone();
                Box::pin(async move { open.admits(address, usage).await })
            });
    }
}

impl Open {
    /// Whether a socket may use an address so.
    pub(super) async fn admits(&self, address: SocketAddr, usage: SocketAddrUse) -> bool {
        let to = SocketAddr::new(address.ip().to_canonical(), address.port());
        match usage {
            // The kernel's choice, which each connection begins with; nobody can connect to it, for
            // it never listens.
            SocketAddrUse::TcpBind | SocketAddrUse::UdpBind => {
                to.ip().is_unspecified() && to.port() == 0
            }
            SocketAddrUse::TcpListen | SocketAddrUse::TcpAccept => false,
            SocketAddrUse::UdpReceive => self.leads_to(to).await,
            SocketAddrUse::TcpConnect | SocketAddrUse::UdpSend => {
                let allowed = self.leads_to(to).await;
                count_egress(Way::Socket, allowed);
                if !allowed {
                    tracing::debug!(%to, ?usage, "a socket was denied");
                }
                allowed
            }
        }
    }

    /// Whether a grant covers an address: itself, or by a name that leads to it.
    async fn leads_to(&self, to: SocketAddr) -> bool {
        let grants = &self.rules.grants;
        if grants.may_connect(None, to) {
            return true;
        }
        for grant in &grants.egress {
            let Some(name) = grant.name_at(to.port()) else {
                continue;
            };
            // First what costs no look-up.
            if grants.may_connect(Some(name), to) && self.where_is(name).await.contains(&to.ip()) {
                return true;
            }
        }
        false
    }

    /// The addresses of a name, looked up once in a call; none if that failed.
    async fn where_is(&self, name: &str) -> Arc<[IpAddr]> {
        if let Some(known) = self.known.lock().get(name) {
            return known.clone();
        }
        // A task of its own, because what is awaited here must be shareable between threads.
        let until = self.until(LOOK_UP_TIME_MAX);
        let found = tokio::spawn(look_up(name.to_owned(), 0, until));
        let found = match AbortOnDropHandle::new(found).await {
            Ok(Ok(found)) => found.iter().map(SocketAddr::ip).collect(),
            Ok(Err(_)) | Err(_) => Vec::new(),
        };
        let found: Arc<[IpAddr]> = found.into();
        let mut known = self.known.lock();
        known.entry(name.to_owned()).or_insert(found).clone()
    }
}
