//! Execution graphs.

use api::v1::{Graph, GraphEnd, GraphNode};
use api::{Code, Problem};
use axum::extract::State;
use metering::{NodeEnd, PriceList, Totals};

use super::AdminState;
use super::extract::{Json, Path};
use super::invocations::id;
use crate::failure::Failure;

/// The graph of the calls that an invocation is part of: found by the id of its root, or of any
/// other invocation in it. Graphs are kept in memory, and the first to end make room for others.
#[utoipa::path(get, path = "/v1/invocations/{id}/graph", operation_id = "getGraph",
    tag = "invocations", params(("id" = String, Path, description = "Id")),
    responses((status = 200, body = Graph), (status = 400, body = Problem),
        (status = 404, body = Problem,
            description = "It called nobody and nobody's call led to it, or its graph is not kept")))]
pub(super) async fn graph(
    State(shared): AdminState,
    Path(text): Path<String>,
) -> Result<Json<Graph>, Failure> {
    let id = id(&text)?;
    let here = shared.graphs.find(id);
    let here = here.map(|found| graph_view(found, &shared.prices));
    let found = match &shared.caller.cluster {
        Some(cluster) => cluster.graph(id, here).await,
        None => here,
    };
    let found = found.ok_or_else(|| {
        let detail = "no graph is kept of it: it made no calls, or was too long ago";
        Failure::new(Code::InvocationNotFound, detail)
    })?;
    Ok(Json(found))
}

/// A graph as the API tells of it.
pub fn graph_view(found: metering::Graph, prices: &PriceList) -> Graph {
    let node = found.node;
    let nodes: Vec<GraphNode> = found
        .nodes
        .into_iter()
        .map(|found| GraphNode {
            id: found.id.to_string(),
            parent: found.parent.map(|parent| parent.to_string()),
            app: found.path.app.to_string(),
            function: found.path.function.to_string(),
            version: found.version.to_string(),
            node: found
                .node
                .map_or_else(|| node.to_string(), |node| node.to_string()),
            detached: found.detached,
            begun_unix_us: found.begun_unix_us,
            end: found.end.as_ref().map(|end| end_view(end, prices)),
        })
        .collect();
    let ends = nodes.iter().filter_map(|node| node.end.as_ref());
    Graph {
        root: found.root.to_string(),
        cost: ends.map(|end| end.cost).sum(),
        nodes,
        left_out: found.left_out,
        currency: prices.currency.clone(),
    }
}

fn end_view(end: &NodeEnd, prices: &PriceList) -> GraphEnd {
    // What was not run is no invocation that is paid for.
    let ran = end.start.is_some();
    let totals = Totals {
        invocations: ran.into(),
        usage: end.usage,
        ..Totals::default()
    };
    GraphEnd {
        status: end.status.to_owned(),
        detail: end.detail.to_string(),
        start: end.start.map(Into::into),
        wall_us: end.wall_us,
        usage: (&end.usage).into(),
        cost: prices.cost(&totals),
    }
}
