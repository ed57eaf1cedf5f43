//! The nodes of the cluster.

use std::sync::Arc;

use api::v1::{ClusterNodes, Decision, NodeStanding, NodeWish};
use api::{Code, Problem};
use axum::extract::State;
use http::StatusCode;

use super::AdminState;
use super::extract::{Json, Path};
use super::invocations::id;
use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::shared::Shared;

fn cluster(shared: &Shared) -> Result<&Arc<dyn Cluster>, Failure> {
    let detail = "it was started without `--cluster`";
    let none = || Failure::new(Code::NoCluster, detail);
    shared.caller.cluster.as_ref().ok_or_else(none)
}

/// Every node of the cluster that is alive, as this one knows them.
#[utoipa::path(get, path = "/v1/nodes", operation_id = "listNodes", tag = "node",
    responses((status = 200, body = ClusterNodes), (status = 404, body = Problem)))]
pub(super) async fn list(State(shared): AdminState) -> Result<Json<ClusterNodes>, Failure> {
    let nodes = cluster(&shared)?.nodes();
    Ok(Json(ClusterNodes { nodes }))
}

/// Says what is wanted of a node: it holds until something else is wanted, also while the node is
/// away.
#[utoipa::path(put, path = "/v1/nodes/{node}/standing", operation_id = "setNodeStanding",
    tag = "node", params(("node" = String, Path, description = "Name of the node")),
    request_body = NodeWish,
    responses((status = 204, description = "It is written down"), (status = 400, body = Problem),
        (status = 404, body = Problem)))]
pub(super) async fn want(
    State(shared): AdminState,
    Path(node): Path<String>,
    Json(wish): Json<NodeWish>,
) -> Result<StatusCode, Failure> {
    if wish.standing == NodeStanding::Lost {
        let detail = "a node is lost by itself: ask for serving, cordoned or draining";
        return Err(Failure::new(Code::BadRequest, detail));
    }
    cluster(&shared)?.want(&node, wish.standing).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Why an invocation ran on another node than the one that took the call.
#[utoipa::path(get, path = "/v1/invocations/{id}/decision", operation_id = "getDecision",
    tag = "invocations", params(("id" = String, Path, description = "Id")),
    responses((status = 200, body = Decision), (status = 400, body = Problem),
        (status = 404, body = Problem)))]
pub(super) async fn decision(
    State(shared): AdminState,
    Path(text): Path<String>,
) -> Result<Json<Decision>, Failure> {
    let id = id(&text)?;
    let explained = cluster(&shared)?.explain(id).await;
    let text = explained.ok_or_else(|| {
        let detail = "no node sent it elsewhere, or that was too long ago";
        Failure::new(Code::DecisionNotFound, detail)
    })?;
    let invocation = id.to_string();
    Ok(Json(Decision { invocation, text }))
}
