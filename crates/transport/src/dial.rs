//! The handshake: TCP, TLS, and what each side says first.
//!
//! The dialler greets with its last TLS message; the acceptor answers with its own greeting, or
//! with the reason why not. So a new connection costs one round trip more than TLS itself, and
//! who has one knows that it was accepted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use bytes::BytesMut;
use model::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

use crate::code::GoAway;
use crate::config::Config;
use crate::driver::{Dialled, Parts, Role, Vouched, drive};
use crate::error::DialError;
use crate::frame::{Decoder, Frame};
use crate::handle::{Connection, Link};
use crate::hello::{Agreed, Hello, agree};
use crate::identity::names;
use crate::machine::{Machine, Side};
use crate::metrics;
use crate::wire::{Security, Wire, prepare};

/// Dials `node` at `address`, and makes sure that it is there.
pub async fn connect(
    address: SocketAddr,
    node: &NodeId,
    config: &Config,
    security: &Security,
) -> Result<Connection, DialError> {
    let attempt = tokio::time::timeout(config.handshake_max, dial(address, node, config, security));
    let result = match attempt.await {
        Ok(result) => result,
        Err(_) => Err(DialError::Timeout(config.handshake_max)),
    };
    if result.is_err() {
        ::metrics::counter!(metrics::HANDSHAKE_FAILURES_TOTAL, "side" => "dialler").increment(1);
    }
    result
}

async fn dial(
    address: SocketAddr,
    node: &NodeId,
    config: &Config,
    security: &Security,
) -> Result<Connection, DialError> {
    let tcp = TcpStream::connect(address)
        .await
        .map_err(DialError::Connect)?;
    prepare(&tcp, config).map_err(DialError::Connect)?;
    let wire = security.connect(tcp, node).await;
    let mut wire = wire.map_err(DialError::Connect)?;
    let ours = Hello::of(config, security.node().clone());
    let mut decoder = Decoder::new(config.body_bytes_max);
    let mut input = BytesMut::new();
    say(&mut wire, Frame::Hello(ours.clone())).await?;
    let theirs = hear(&mut wire, &mut decoder, &mut input).await?;
    let agreed = agree(&ours, &theirs).ok_or(DialError::Versions {
        ours: ours.versions,
        theirs: theirs.versions,
    })?;
    if theirs.node != *node {
        return Err(DialError::WrongNode(node.clone()));
    }
    Ok(start(wire, decoder, input, agreed, node, config, security))
}

/// Sets the task of a dialled connection going.
fn start(
    wire: Wire,
    decoder: Decoder,
    input: BytesMut,
    agreed: Agreed,
    node: &NodeId,
    config: &Config,
    security: &Security,
) -> Connection {
    let (closed_sender, closed) = watch::channel(None);
    let permits_max = agreed.requests_max as usize;
    let permits = Arc::new(Semaphore::new(permits_max.min(Semaphore::MAX_PERMITS)));
    let parts = Parts {
        vouched: vouched(&wire, security),
        wire,
        machine: Machine::new(Instant::now(), Side::Dialler, config, agreed),
        decoder,
        input,
        role: Role::Dialler(Dialled {
            permits: Arc::clone(&permits),
        }),
        closed: closed_sender,
    };
    let (commands, running) = drive(config, |_| parts);
    tokio::spawn(running.run());
    Connection(Arc::new(Link {
        peer: node.clone(),
        version: agreed.version,
        features: agreed.features,
        commands,
        permits,
        permits_max,
        waiting: AtomicUsize::new(0),
        closed,
        waiting_max: config.requests_waiting_max,
        request_timeout: config.request_timeout,
        reply_bytes_max: config.reply_bytes_max,
        send_buffer_bytes: config.send_buffer_bytes,
    }))
}

/// What an accepted connection's peer is, once it is known to be that.
pub(crate) struct Greeted {
    pub(crate) wire: Wire,
    pub(crate) decoder: Decoder,
    pub(crate) input: BytesMut,
    pub(crate) theirs: Hello,
    pub(crate) agreed: Agreed,
}

/// The acceptor's side, up to the peer's greeting; a peer that is refused is told why.
pub(crate) async fn greet(
    tcp: TcpStream,
    config: &Config,
    security: &Security,
) -> Result<Greeted, DialError> {
    prepare(&tcp, config).map_err(DialError::Connect)?;
    let mut wire = security.accept(tcp).await.map_err(DialError::Connect)?;
    let ours = Hello::of(config, security.node().clone());
    let mut decoder = Decoder::new(config.body_bytes_max);
    let mut input = BytesMut::new();
    let theirs = hear(&mut wire, &mut decoder, &mut input).await?;
    let named = wire
        .peer_chain()
        .is_none_or(|chain| names(&chain, &theirs.node));
    if !named {
        refuse(&mut wire, GoAway::Identity).await?;
        return Err(DialError::WrongNode(theirs.node));
    }
    let Some(agreed) = agree(&ours, &theirs) else {
        // With our greeting the peer can say what both speak.
        say(&mut wire, Frame::Hello(ours.clone())).await?;
        refuse(&mut wire, GoAway::Version).await?;
        return Err(DialError::Versions {
            ours: ours.versions,
            theirs: theirs.versions,
        });
    };
    Ok(Greeted {
        wire,
        decoder,
        input,
        theirs,
        agreed,
    })
}

/// Welcomes a peer for whom there is a place.
pub(crate) async fn welcome(
    greeted: &mut Greeted,
    config: &Config,
    security: &Security,
) -> Result<(), DialError> {
    let ours = Hello::of(config, security.node().clone());
    say(&mut greeted.wire, Frame::Hello(ours)).await
}

/// Ends a handshake with a reason.
pub(crate) async fn refuse(wire: &mut Wire, reason: GoAway) -> Result<(), DialError> {
    say(wire, Frame::GoAway { last: 0, reason }).await?;
    wire.shutdown().await.map_err(DialError::Connect)
}

/// What keeps a connection open: the certificate that its peer came with.
pub(crate) fn vouched(wire: &Wire, security: &Security) -> Option<Vouched> {
    let Security::Mutual(identity) = security else {
        return None;
    };
    Some(Vouched {
        identity: Arc::clone(identity),
        chain: wire.peer_chain().unwrap_or_default(),
    })
}

async fn say(wire: &mut Wire, frame: Frame) -> Result<(), DialError> {
    let mut bytes = BytesMut::new();
    frame.write(&mut bytes);
    wire.write_all(&bytes).await.map_err(DialError::Connect)?;
    wire.flush().await.map_err(DialError::Connect)
}

async fn hear(
    wire: &mut Wire,
    decoder: &mut Decoder,
    input: &mut BytesMut,
) -> Result<Hello, DialError> {
    loop {
        match decoder.decode(input)? {
            Some(Frame::Hello(hello)) => return Ok(hello),
            Some(Frame::GoAway { reason, .. }) => return Err(DialError::Refused(reason)),
            Some(_) => return Err(DialError::NotHello),
            None => {}
        }
        if wire.read_buf(input).await.map_err(DialError::Connect)? == 0 {
            return Err(DialError::Eof);
        }
    }
}
