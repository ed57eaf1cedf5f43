//! One member of the cluster: its connection, and who we are to it.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;
use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Streaming};

use super::Config;
use super::fault::{Fault, Told};
use super::wire;
use crate::StorageError;
use crate::address::{EtcdAddress, TlsFiles, User};

/// The longest answer that is read. The first piece of a page, with entries of the most bytes,
/// and a member's largest part of a watch's answer are well below it.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Pings tell a dead connection; members take offence at more than one in five seconds.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// A member; it connects when it is first asked, and again whenever it has to.
#[derive(Debug)]
pub struct Member {
    channel: Channel,
    user: Option<User>,
    token: Mutex<Option<MetadataValue<Ascii>>>,
}

impl Member {
    /// All members of an address.
    pub fn all(address: &EtcdAddress, config: &Config) -> Result<Vec<Self>, StorageError> {
        let tls = address.tls.as_ref().map(tls).transpose()?;
        let of = |uri: &String| {
            let failed = |error| StorageError::of_disk("reading the store's TLS files", error);
            let mut endpoint = Endpoint::from_shared(uri.clone()).map_err(failed)?;
            if let Some(tls) = &tls {
                endpoint = endpoint.tls_config(tls.clone()).map_err(failed)?;
            }
            let endpoint = endpoint
                .connect_timeout(config.connect_timeout)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(PING_EVERY)
                .keep_alive_timeout(PING_TIMEOUT)
                .keep_alive_while_idle(true);
            Ok(Self {
                channel: endpoint.connect_lazy(),
                user: address.user.clone(),
                token: Mutex::default(),
            })
        };
        address.members.iter().map(of).collect()
    }

    /// Asks and waits for the answer.
    pub async fn ask<Q, A>(&self, path: &'static str, question: Q) -> Result<A, Fault>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut request = Request::new(question);
        self.sign(request.metadata_mut()).await?;
        let mut grpc = self.grpc().await?;
        let path = PathAndQuery::from_static(path);
        let answer = grpc
            .unary(request, path, tonic_prost::ProstCodec::default())
            .await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| self.fault(status))
    }

    /// Asks and gives the stream of answers. The question's side stays open as long.
    pub async fn follow<Q, A>(&self, path: &'static str, question: Q) -> Result<Streaming<A>, Fault>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let questions = futures::stream::iter([question]).chain(futures::stream::pending());
        let mut request = Request::new(questions);
        self.sign(request.metadata_mut()).await?;
        let mut grpc = self.grpc().await?;
        let path = PathAndQuery::from_static(path);
        let answers = grpc
            .streaming(request, path, tonic_prost::ProstCodec::default())
            .await;
        answers
            .map(tonic::Response::into_inner)
            .map_err(|status| self.fault(status))
    }

    async fn grpc(&self) -> Result<Grpc<Channel>, Fault> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        let ready = grpc.ready().await;
        ready.map_err(|error| Fault::NotTaken(Arc::new(error)))?;
        Ok(grpc)
    }

    /// Says who we are, and that a member without a leader shall refuse.
    async fn sign(&self, metadata: &mut tonic::metadata::MetadataMap) -> Result<(), Fault> {
        metadata.insert("hasleader", MetadataValue::from_static("true"));
        if let Some(user) = &self.user {
            let known = self.token.lock().clone();
            let token = match known {
                Some(token) => token,
                None => self.log_in(user).await?,
            };
            metadata.insert("token", token);
        }
        Ok(())
    }

    async fn log_in(&self, user: &User) -> Result<MetadataValue<Ascii>, Fault> {
        let question = wire::AuthenticateRequest {
            name: user.name.clone(),
            password: user.password.clone(),
        };
        let path = PathAndQuery::from_static(wire::AUTHENTICATE);
        let codec = tonic_prost::ProstCodec::default();
        let mut grpc = self.grpc().await?;
        let answer = grpc.unary(Request::new(question), path, codec).await;
        let answer = answer.map_err(Fault::of);
        // Nothing but a token was asked for, so nothing can have been done.
        let answer: tonic::Response<wire::AuthenticateResponse> = answer.map_err(not_taken)?;
        let token: MetadataValue<Ascii> =
            (answer.into_inner().token.parse()).map_err(|error| Fault::Refused(Arc::new(error)))?;
        *self.token.lock() = Some(token.clone());
        Ok(token)
    }

    fn fault(&self, status: tonic::Status) -> Fault {
        let fault = Fault::of(status);
        if matches!(fault, Fault::TokenStale(_)) {
            *self.token.lock() = None;
        }
        match fault {
            // Without a user there is no token to renew.
            Fault::TokenStale(cause) if self.user.is_none() => Fault::Refused(cause),
            fault => fault,
        }
    }
}

/// The next answer of a stream; its end is a failure too.
pub async fn next<A>(answers: &mut Streaming<A>) -> Result<A, Fault> {
    let ended = || Fault::Unanswered(Arc::new(Told("the member ended the stream".into())));
    let next = answers.message().await.map_err(Fault::of)?;
    next.ok_or_else(ended)
}

fn not_taken(fault: Fault) -> Fault {
    match fault {
        Fault::Unanswered(cause) => Fault::NotTaken(cause),
        fault => fault,
    }
}

fn tls(files: &TlsFiles) -> Result<ClientTlsConfig, StorageError> {
    let read = |path: &std::path::PathBuf| {
        std::fs::read(path)
            .map_err(|error| StorageError::of_disk("reading the store's TLS files", error))
    };
    let mut tls = ClientTlsConfig::new();
    tls = match &files.ca {
        Some(ca) => tls.ca_certificate(Certificate::from_pem(read(ca)?)),
        None => tls.with_native_roots(),
    };
    if let Some((cert, key)) = &files.identity {
        tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
    }
    Ok(tls)
}
