//! A gateway over scripted guests, on ports of its own.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::Arc;

use bytes::Bytes;
use executor::Executor;
use gateway::{Config, Gateway, Services, Tokens};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use invoker::{Invoker, Registry};
use metering::{GraphBook, GraphConfig, Ledger, LedgerConfig, LogBook, LogConfig, PriceList};
use model::{Digest, Limits, VersionSpec};
use sandbox::{Artifacts, BodyError};
use state::{EmbeddedGlobal, State};
use storage::{Blobs, RedbStore, Store};
use testkit::{Guest, MockBackend};
use tokio::net::TcpListener;

pub struct World {
    pub backend: MockBackend,
    pub gateway: Gateway,
    pub tokens: Tokens,
    pub executor: Executor,
    pub graphs: GraphBook,
    pub state: State,
    client: Client<HttpConnector, Full<Bytes>>,
    _folder: tempfile::TempDir,
}

struct FromBlobs(Blobs);

#[async_trait::async_trait]
impl Artifacts for FromBlobs {
    async fn artifact(&self, digest: &Digest) -> Result<Bytes, BodyError> {
        Ok(self.0.get(digest).await?.ok_or("gone")?)
    }
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The code of the problem that this answer is.
    pub fn code(&self) -> String {
        assert_eq!(
            self.headers["content-type"],
            "application/problem+json",
            "{}",
            self.text()
        );
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16());
        problem["code"].as_str().expect("a code").to_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().expect("ASCII")
    }
}

pub async fn world(change: impl FnOnce(&mut Config)) -> World {
    world_with(change, state::Config::default()).await
}

/// The same, with bounds of state.
pub async fn world_with(change: impl FnOnce(&mut Config), bounds: state::Config) -> World {
    let folder = tempfile::tempdir().expect("a folder");
    let memory = RedbStore::in_memory(storage::Config::default()).expect("a store");
    let store: Arc<dyn Store> = Arc::new(memory);
    let blobs = Blobs::open(&folder.path().join("blobs")).expect("blobs");
    let payloads = Blobs::open(&folder.path().join("payloads")).expect("blobs");
    let backend = MockBackend::new();
    let executor = Executor::new(
        executor::Config::default(),
        Arc::new(backend.clone()),
        Arc::new(FromBlobs(blobs.clone())),
        tokio::runtime::Handle::current(),
    );
    let registry = Registry::open(store.clone()).await.expect("a registry");
    let (invoker, _service) = Invoker::open(
        store.clone(),
        payloads,
        registry.clone(),
        invoker::Config::default(),
    )
    .await
    .expect("an invoker");
    let global = EmbeddedGlobal::open(store.clone()).await.expect("a tier");
    let state = State::new(Arc::new(global), bounds);
    let tokens = Tokens::open(store).await.expect("tokens");
    let graphs = GraphBook::new(GraphConfig::default());
    let services = Services {
        executor: executor.clone(),
        registry,
        invoker,
        blobs,
        logs: LogBook::new(LogConfig::default()),
        ledger: Ledger::new(LedgerConfig::default()),
        graphs: graphs.clone(),
        state: state.clone(),
        prices: PriceList::default(),
        tokens: tokens.clone(),
        cluster: None,
        metrics: Arc::new(|| "# metrics\n".to_owned()),
    };
    let mut config = Config::default();
    change(&mut config);
    let gateway =
        Gateway::start(config, services, listener().await, listener().await).expect("a gateway");
    let client = Client::builder(TokioExecutor::new()).build_http();
    World {
        backend,
        gateway,
        tokens,
        executor,
        graphs,
        state,
        client,
        _folder: folder,
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a port")
}

impl World {
    pub fn data(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.data_addr())
    }

    pub fn admin(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.admin_addr())
    }

    pub async fn begin(&self, request: Request<Full<Bytes>>) -> Response<hyper::body::Incoming> {
        self.client.request(request).await.expect("an answer")
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let (parts, body) = self.begin(request).await.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    pub async fn get(&self, uri: String) -> Answer {
        self.send(Request::get(uri).body(Full::default()).expect("a request"))
            .await
    }

    pub async fn post(&self, uri: String, body: impl Into<Bytes>) -> Answer {
        self.send(
            Request::post(uri)
                .body(Full::new(body.into()))
                .expect("a request"),
        )
        .await
    }

    pub async fn put(&self, uri: String, body: impl Into<Bytes>) -> Answer {
        self.send(
            Request::put(uri)
                .body(Full::new(body.into()))
                .expect("a request"),
        )
        .await
    }

    pub async fn delete(&self, uri: String) -> Answer {
        self.send(
            Request::delete(uri)
                .body(Full::default())
                .expect("a request"),
        )
        .await
    }

    pub async fn send_json(&self, method: &str, uri: String, json: serde_json::Value) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(json.to_string())));
        self.send(request.expect("a request")).await
    }

    /// Uploads and deploys a scripted guest; its version.
    pub async fn deploy(&self, path: &str, guest: &Guest) -> String {
        self.deploy_with(path, guest, serde_json::json!({})).await
    }

    pub async fn deploy_with(
        &self,
        path: &str,
        guest: &Guest,
        limits: serde_json::Value,
    ) -> String {
        let VersionSpec { artifact, kind, .. } = guest.spec(Limits::default());
        let uploaded = self
            .put(
                self.admin(&format!("/v1/artifacts/{artifact}")),
                guest.artifact(),
            )
            .await;
        assert_eq!(uploaded.status, 201, "{}", uploaded.text());
        let (app, function) = path.split_once('/').expect("APP/FUNCTION");
        let deploy = serde_json::json!({
            "kind": kind.as_str(),
            "artifact": artifact.to_string(),
            "settings": { "limits": limits },
        });
        let uri = self.admin(&format!("/v1/apps/{app}/functions/{function}/versions"));
        let deployed = self.send_json("POST", uri, deploy).await;
        assert_eq!(deployed.status, 201, "{}", deployed.text());
        deployed.json()["version"]
            .as_str()
            .expect("a version")
            .to_owned()
    }
}
