//! The socket under a connection, with TLS or, where somebody insists, without.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use model::NodeId;
use rustls::pki_types::CertificateDer;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::authority::server_name;
use crate::config::Config;
use crate::driver::pace::AHEAD_BYTES_MAX;
use crate::identity::Identity;

/// Bytes read from the socket at a time: TLS by itself asks for 4 KiB.
const READ_BYTES: usize = 64 << 10;

/// Who decides how fast is sent: the first of these that the kernel has and lets us choose. BBR,
/// which some systems prefer, paces itself by a timer and a wake-up for nearly each packet: between
/// hosts that are near, that takes several times as long as sending.
const CONGESTION_CONTROLS: [&str; 2] = ["cubic", "reno"];

/// How peers know each other, and whether others can listen.
#[derive(Clone)]
pub enum Security {
    /// TLS 1.3, both sides with a certificate of the cluster.
    Mutual(Arc<Identity>),
    /// Nothing: whoever reaches the port is whoever he says. For measurements and tests.
    DangerousPlaintext(NodeId),
}

impl Security {
    /// The id of this node.
    pub(crate) fn node(&self) -> &NodeId {
        match self {
            Self::Mutual(identity) => identity.node(),
            Self::DangerousPlaintext(node) => node,
        }
    }

    pub(crate) async fn connect(&self, tcp: TcpStream, node: &NodeId) -> io::Result<Wire> {
        match self {
            Self::DangerousPlaintext(_) => Ok(Wire::Plain(tcp)),
            Self::Mutual(identity) => {
                let tcp = BufReader::with_capacity(READ_BYTES, tcp);
                let name = server_name(node).map_err(io::Error::other)?;
                let connector = TlsConnector::from(Arc::clone(&identity.handshakes().client));
                let stream = connector.connect(name, tcp).await?;
                agreed_on(stream.get_ref().1.alpn_protocol())?;
                Ok(Wire::Tls(Box::new(stream.into())))
            }
        }
    }

    pub(crate) async fn accept(&self, tcp: TcpStream) -> io::Result<Wire> {
        match self {
            Self::DangerousPlaintext(_) => Ok(Wire::Plain(tcp)),
            Self::Mutual(identity) => {
                let tcp = BufReader::with_capacity(READ_BYTES, tcp);
                let acceptor = TlsAcceptor::from(Arc::clone(&identity.handshakes().server));
                let stream = acceptor.accept(tcp).await?;
                agreed_on(stream.get_ref().1.alpn_protocol())?;
                Ok(Wire::Tls(Box::new(stream.into())))
            }
        }
    }
}

/// TLS lets a peer pass that names no protocol at all; we do not.
fn agreed_on(protocol: Option<&[u8]>) -> io::Result<()> {
    match protocol {
        Some(_) => Ok(()),
        None => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the peer did not ask for the protocol of nodes",
        )),
    }
}

/// Sets a socket up for small calls beside large streams.
pub(crate) fn prepare(tcp: &TcpStream, config: &Config) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    // What the kernel does by itself is as right, if none of them may be chosen.
    let mut controls = CONGESTION_CONTROLS.iter();
    let _chosen = controls.any(|name| socket.set_tcp_congestion(name.as_bytes()).is_ok());
    socket.set_tcp_notsent_lowat(AHEAD_BYTES_MAX as u32)?;
    socket.set_tcp_user_timeout(Some(config.dead_after))
}

/// A socket with or without TLS.
pub(crate) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<BufReader<TcpStream>>>),
}

impl Wire {
    /// Bounds what waits in the kernel to be sent, as what can no longer be overtaken.
    pub(crate) fn set_unsent_bytes(&self, bytes: usize) {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(stream) => stream.get_ref().0.get_ref(),
        };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        // The bound that there was is as safe.
        let _ = SockRef::from(tcp).set_tcp_notsent_lowat(bytes);
    }

    /// The certificates that the peer showed.
    pub(crate) fn peer_chain(&self) -> Option<Vec<CertificateDer<'static>>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => {
                let chain = stream.get_ref().1.peer_certificates()?;
                Some(chain.iter().map(|one| one.clone().into_owned()).collect())
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_is_not_paced_by_timers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await;
        let tcp = tcp.unwrap();
        prepare(&tcp, &Config::default()).unwrap();
        let control = SockRef::from(&tcp).tcp_congestion().unwrap();
        let control = String::from_utf8(control).unwrap();
        let name = control.trim_end_matches('\0');
        assert!(CONGESTION_CONTROLS.contains(&name), "it is {name}");
    }
}
