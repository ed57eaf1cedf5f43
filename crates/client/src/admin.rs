//! The admin API, one method a route.

use std::time::Duration;

use api::v1;
use bytes::Bytes;
use futures::Stream;
use http::Method;
use model::{AppName, Digest, FunctionPath, InvocationId, NodeId};

use crate::transport::{encode, with_query};
use crate::{Client, ClientError, LogStream};

/// Which log lines are wanted; all unless told.
#[derive(Clone, Debug, Default)]
pub struct LogFilter {
    /// Of this app.
    pub app: Option<AppName>,
    /// Of this function; with its app.
    pub function: Option<FunctionPath>,
    /// Of this invocation.
    pub invocation: Option<InvocationId>,
    /// How many of the last lines.
    pub tail: Option<u32>,
}

/// Which invocations are wanted; all unless told.
#[derive(Clone, Debug, Default)]
pub struct InvocationFilter {
    /// Of this function.
    pub function: Option<FunctionPath>,
    /// In this state, as the API spells it.
    pub state: Option<String>,
    /// Older than this one: the `next` of the page before.
    pub after: Option<String>,
    /// How many at most.
    pub limit: Option<u32>,
}

fn function_path(path: &FunctionPath) -> String {
    format!("/v1/apps/{}/functions/{}", path.app, path.function)
}

impl Client {
    /// What the node is.
    pub async fn node(&self) -> Result<v1::NodeInfo, ClientError> {
        self.json(self.empty(Method::GET, "/v1/node")?).await
    }

    /// The sandboxes of the node.
    pub async fn pools(&self) -> Result<v1::Pools, ClientError> {
        self.json(self.empty(Method::GET, "/v1/pools")?).await
    }

    /// Every app.
    pub async fn apps(&self) -> Result<v1::Apps, ClientError> {
        self.json(self.empty(Method::GET, "/v1/apps")?).await
    }

    /// The functions of one app, or of all.
    pub async fn functions(&self, app: Option<&AppName>) -> Result<v1::Functions, ClientError> {
        let path = match app {
            Some(app) => format!("/v1/apps/{app}/functions"),
            None => "/v1/functions".to_owned(),
        };
        self.json(self.empty(Method::GET, &path)?).await
    }

    /// One function.
    pub async fn function(&self, path: &FunctionPath) -> Result<v1::Function, ClientError> {
        self.json(self.empty(Method::GET, &function_path(path))?)
            .await
    }

    /// Deletes a function with all its versions.
    pub async fn delete_function(&self, path: &FunctionPath) -> Result<(), ClientError> {
        self.done(self.empty(Method::DELETE, &function_path(path))?)
            .await
    }

    /// An uploaded artifact.
    pub async fn artifact(&self, digest: &Digest) -> Result<v1::Artifact, ClientError> {
        let path = format!("/v1/artifacts/{digest}");
        self.json(self.empty(Method::GET, &path)?).await
    }

    /// Uploads an artifact of `bytes` bytes, which must have this digest.
    pub async fn upload(
        &self,
        digest: &Digest,
        bytes: u64,
        body: impl Stream<Item = std::io::Result<Bytes>> + Send + Sync + 'static,
    ) -> Result<v1::Artifact, ClientError> {
        let path = format!("/v1/artifacts/{digest}");
        self.json(self.with_stream(Method::PUT, &path, Some(bytes), body)?)
            .await
    }

    /// Which contents of files are not there.
    pub async fn missing_files(
        &self,
        asked: &v1::FilesAsked,
    ) -> Result<v1::FilesMissing, ClientError> {
        self.json(self.with_json(Method::POST, "/v1/files/missing", asked)?)
            .await
    }

    /// Uploads contents, or a list, of `bytes` bytes, which must have this digest.
    pub async fn upload_file(
        &self,
        digest: &Digest,
        bytes: u64,
        body: impl Stream<Item = std::io::Result<Bytes>> + Send + Sync + 'static,
    ) -> Result<v1::Artifact, ClientError> {
        let path = format!("/v1/files/{digest}");
        self.json(self.with_stream(Method::PUT, &path, Some(bytes), body)?)
            .await
    }

    /// Makes a version of an uploaded artifact, and moves an alias to it.
    pub async fn deploy(
        &self,
        path: &FunctionPath,
        deploy: &v1::Deploy,
    ) -> Result<v1::Deployed, ClientError> {
        let path = format!("{}/versions", function_path(path));
        self.json(self.with_json(Method::POST, &path, deploy)?)
            .await
    }

    /// The versions of a function, the latest first.
    pub async fn versions(&self, path: &FunctionPath) -> Result<v1::Versions, ClientError> {
        let path = format!("{}/versions", function_path(path));
        self.json(self.empty(Method::GET, &path)?).await
    }

    /// Points an alias.
    pub async fn set_alias(
        &self,
        path: &FunctionPath,
        alias: &str,
        to: &v1::AliasSet,
    ) -> Result<v1::Alias, ClientError> {
        let path = format!("{}/aliases/{}", function_path(path), encode(alias));
        self.json(self.with_json(Method::PUT, &path, to)?).await
    }

    /// Takes an alias away.
    pub async fn delete_alias(&self, path: &FunctionPath, alias: &str) -> Result<(), ClientError> {
        let path = format!("{}/aliases/{}", function_path(path), encode(alias));
        self.done(self.empty(Method::DELETE, &path)?).await
    }

    /// Points an alias back to where it pointed before.
    pub async fn rollback(
        &self,
        path: &FunctionPath,
        rollback: &v1::Rollback,
    ) -> Result<v1::Alias, ClientError> {
        let path = format!("{}/rollback", function_path(path));
        self.json(self.with_json(Method::POST, &path, rollback)?)
            .await
    }

    /// A page of asynchronous invocations, the latest first.
    pub async fn invocations(
        &self,
        filter: &InvocationFilter,
    ) -> Result<v1::Invocations, ClientError> {
        let function = filter.function.as_ref();
        let path = with_query(
            "/v1/invocations",
            &[
                ("app", function.map(|path| path.app.to_string())),
                ("function", function.map(|path| path.function.to_string())),
                ("state", filter.state.clone()),
                ("after", filter.after.clone()),
                ("limit", filter.limit.map(|limit| limit.to_string())),
            ],
        );
        self.json(self.empty(Method::GET, &path)?).await
    }

    /// An asynchronous invocation, after waiting up to `wait` for its end.
    pub async fn invocation(
        &self,
        id: InvocationId,
        wait: Option<Duration>,
    ) -> Result<v1::Invocation, ClientError> {
        let wait = wait.map(|wait| format!("{}s", wait.as_secs()));
        let path = with_query(&format!("/v1/invocations/{id}"), &[("wait", wait)]);
        self.json(self.empty(Method::GET, &path)?).await
    }

    /// The calls that an invocation is part of: its own, and those of the one that led to it.
    pub async fn graph(&self, id: InvocationId) -> Result<v1::Graph, ClientError> {
        let path = format!("/v1/invocations/{id}/graph");
        self.json(self.empty(Method::GET, &path)?).await
    }

    /// Dead letters of a function that were not sent again, the latest first.
    pub async fn dead_letters(
        &self,
        path: &FunctionPath,
        after: Option<String>,
        limit: Option<u32>,
    ) -> Result<v1::Invocations, ClientError> {
        let path = with_query(
            "/v1/dead-letters",
            &[
                ("app", Some(path.app.to_string())),
                ("function", Some(path.function.to_string())),
                ("after", after),
                ("limit", limit.map(|limit| limit.to_string())),
            ],
        );
        self.json(self.empty(Method::GET, &path)?).await
    }

    /// Sends dead letters again, each as a new invocation; gives the new ids, in order.
    pub async fn redrive(&self, redrive: &v1::Redrive) -> Result<v1::Redriven, ClientError> {
        let request = self.with_json(Method::POST, "/v1/dead-letters/redrive", redrive)?;
        self.json(request).await
    }

    /// The nodes of the cluster that the node is part of.
    pub async fn nodes(&self) -> Result<v1::ClusterNodes, ClientError> {
        self.json(self.empty(Method::GET, "/v1/nodes")?).await
    }

    /// Says what is wanted of a node.
    pub async fn set_node_standing(
        &self,
        node: &NodeId,
        standing: v1::NodeStanding,
    ) -> Result<(), ClientError> {
        let path = format!("/v1/nodes/{node}/standing");
        let wish = v1::NodeWish { standing };
        self.done(self.with_json(Method::PUT, &path, &wish)?).await
    }

    /// Why an invocation ran on another node than the one that took it.
    pub async fn decision(&self, id: InvocationId) -> Result<v1::Decision, ClientError> {
        let path = format!("/v1/invocations/{id}/decision");
        self.json(self.empty(Method::GET, &path)?).await
    }

    /// The last log lines.
    pub async fn logs(&self, filter: &LogFilter) -> Result<v1::Logs, ClientError> {
        let path = log_path(filter, false);
        self.json(self.empty(Method::GET, &path)?).await
    }

    /// The last log lines, and then every new one.
    pub async fn follow_logs(&self, filter: &LogFilter) -> Result<LogStream, ClientError> {
        let path = log_path(filter, true);
        let response = self.send(self.empty(Method::GET, &path)?).await?;
        Ok(LogStream::new(self.clone(), response.into_body()))
    }

    /// Usage per function from one day to another, `YYYY-MM-DD` in UTC, both included.
    pub async fn usage(
        &self,
        from: Option<String>,
        to: Option<String>,
    ) -> Result<v1::UsageReport, ClientError> {
        let path = with_query("/v1/usage", &[("from", from), ("to", to)]);
        self.json(self.empty(Method::GET, &path)?).await
    }

    /// Every token, without secrets.
    pub async fn tokens(&self) -> Result<v1::Tokens, ClientError> {
        self.json(self.empty(Method::GET, "/v1/tokens")?).await
    }

    /// Makes a token: the answer is the one time that its secret is told.
    pub async fn create_token(&self, name: &str) -> Result<v1::TokenCreated, ClientError> {
        let create = v1::TokenCreate {
            name: name.to_owned(),
        };
        self.json(self.with_json(Method::POST, "/v1/tokens", &create)?)
            .await
    }

    /// Takes a token away.
    pub async fn revoke_token(&self, id: &str) -> Result<(), ClientError> {
        let path = format!("/v1/tokens/{}", encode(id));
        self.done(self.empty(Method::DELETE, &path)?).await
    }
}

fn log_path(filter: &LogFilter, follow: bool) -> String {
    let function = filter.function.as_ref();
    let app = function.map(|path| &path.app).or(filter.app.as_ref());
    with_query(
        "/v1/logs",
        &[
            ("app", app.map(ToString::to_string)),
            ("function", function.map(|path| path.function.to_string())),
            ("invocation", filter.invocation.map(|id| id.to_string())),
            ("tail", filter.tail.map(|tail| tail.to_string())),
            ("follow", follow.then(|| "true".to_owned())),
        ],
    )
}
