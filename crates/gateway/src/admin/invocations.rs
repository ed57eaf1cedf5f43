//! Asynchronous invocations: how they stand, what they replied, dead letters.

use std::convert::Infallible;
use std::time::Duration;

use api::v1::{Invocation, InvocationState, Invocations, OutcomeView, Redrive, Redriven};
use api::{Code, Problem};
use axum::body::Body;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::{Stream, StreamExt as _};
use http::{HeaderName, HeaderValue, StatusCode};
use invoker::{Listing, ReplyHead};
use model::{FunctionPath, InvocationId};

use super::AdminState;
use super::extract::{Json, Path, Query, function_path};
use crate::failure::Failure;

/// Invocations that are looked at for one page of a filtered list.
const SCAN_MAX: usize = 10_000;
/// Invocations of one page unless asked otherwise.
const LIMIT: usize = 100;
/// Most dead letters of one redrive.
const REDRIVE_MAX: usize = 1000;

/// Which invocations.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
pub(super) struct Filter {
    /// Of this app.
    app: Option<String>,
    /// Of this function; with its app.
    function: Option<String>,
    /// In this state.
    state: Option<InvocationState>,
    /// Accepted before this one: the `next` of the page before.
    after: Option<String>,
    /// At most so many; 100 unless set.
    limit: Option<usize>,
}

/// Asynchronous invocations, the latest first.
#[utoipa::path(get, path = "/v1/invocations", operation_id = "listInvocations",
    tag = "invocations", params(Filter),
    responses((status = 200, body = Invocations), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(shared): AdminState,
    Query(filter): Query<Filter>,
) -> Result<Json<Invocations>, Failure> {
    let app = filter
        .app
        .as_deref()
        .map(str::parse::<model::AppName>)
        .transpose()?;
    let function = filter
        .function
        .as_deref()
        .map(str::parse::<model::FunctionName>)
        .transpose()?;
    let mut before = filter.after.as_deref().map(id).transpose()?;
    let limit = filter
        .limit
        .unwrap_or(LIMIT)
        .clamp(1, shared.config.page_max);
    let wanted = |found: &invoker::Invocation| {
        app.as_ref().is_none_or(|app| found.path.app == *app)
            && function
                .as_ref()
                .is_none_or(|function| found.path.function == *function)
            && filter
                .state
                .is_none_or(|state| state_of(found.state) == state)
    };
    let (mut found, mut scanned) = (Vec::new(), 0);
    let more = loop {
        let page = Listing {
            before,
            limit: shared.config.page_max,
            ..Listing::default()
        };
        let page = shared.invoker.list(&page).await?;
        let Some(last) = page.last() else { break false };
        (before, scanned) = (Some(last.id), scanned + page.len());
        found.extend(page.into_iter().filter(|one| wanted(one)));
        if found.len() > limit {
            found.truncate(limit);
            before = found.last().map(|last| last.id);
            break true;
        }
        if scanned >= SCAN_MAX {
            break true;
        }
    };
    let next = before.filter(|_| more).map(|id| id.to_string());
    Ok(Json(Invocations {
        invocations: found.into_iter().map(view).collect(),
        next,
    }))
}

/// How long to wait.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
pub(super) struct Wait {
    /// Wait up to this long for the end, as in `30s` or `500ms`.
    wait: Option<String>,
}

/// One invocation; with `wait`, once it has ended or the time is over.
#[utoipa::path(get, path = "/v1/invocations/{id}", operation_id = "getInvocation",
    tag = "invocations", params(("id" = String, Path, description = "Id"), Wait),
    responses((status = 200, body = Invocation), (status = 404, body = Problem)))]
pub(super) async fn invocation(
    State(shared): AdminState,
    Path(text): Path<String>,
    Query(wait): Query<Wait>,
) -> Result<Json<Invocation>, Failure> {
    let id = id(&text)?;
    let wait = wait.wait.as_deref().map(|text| duration("wait", text));
    let found = match wait.transpose()? {
        None => shared.invoker.invocation(id).await?,
        Some(wait) => {
            let ended = shared.invoker.wait(id, wait.min(shared.config.wait_max));
            match shared.stop.run_until_cancelled(ended).await {
                Some(found) => found?,
                None => shared.invoker.invocation(id).await?,
            }
        }
    };
    Ok(Json(view(found)))
}

/// Each change of an invocation, as server-sent events named `invocation`, to its end.
#[utoipa::path(get, path = "/v1/invocations/{id}/events", operation_id = "followInvocation",
    tag = "invocations", params(("id" = String, Path, description = "Id")),
    responses((status = 200, body = Invocation, content_type = "text/event-stream"),
        (status = 404, body = Problem)))]
pub(super) async fn events(
    State(shared): AdminState,
    Path(text): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failure> {
    let changes = shared.invoker.changes(id(&text)?).await?;
    let events = changes.map(|change| {
        let event = Event::default()
            .event("invocation")
            .id(change.seq.to_string());
        let json = serde_json::to_string(&view(change)).unwrap_or_default();
        Ok(event.data(json))
    });
    let stop = shared.stop.clone();
    Ok(Sse::new(events.take_until(stop.cancelled_owned())).keep_alive(KeepAlive::default()))
}

/// What an invocation replied.
#[utoipa::path(get, path = "/v1/invocations/{id}/result", operation_id = "getResult",
    tag = "invocations", params(("id" = String, Path, description = "Id")),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>,
            description = "The reply; of an http component with its own status and headers"),
        (status = 404, body = Problem),
        (status = 409, body = Problem, description = "It has not ended yet"),
        (status = 500, body = Problem, description = "It ended without a reply")))]
pub(super) async fn result(
    State(shared): AdminState,
    Path(text): Path<String>,
) -> Result<Response, Failure> {
    let id = id(&text)?;
    let found = shared.invoker.invocation(id).await?;
    if !found.state.is_final() {
        let detail = format!("the invocation is {}", found.state);
        return Err(Failure::new(Code::NotFinished, detail));
    }
    let replied = found
        .outcome
        .as_ref()
        .is_some_and(|outcome| outcome.status.is_ok());
    if !replied {
        let mut failure = match &found.outcome {
            Some(outcome) => Failure::of_status(&outcome.status),
            None => Failure::new(Code::PlatformFailed, found.error.unwrap_or_default()),
        };
        failure.problem.invocation = Some(id.to_string());
        return Err(failure);
    }
    let gone = || Failure::new(Code::InvocationNotFound, "its reply is past its retention");
    let reply = shared.invoker.reply(id).await?.ok_or_else(gone)?;
    let mut response = match reply.head {
        ReplyHead::Plain => plain(reply.body),
        ReplyHead::Http { status, headers } => {
            let mut response = Response::new(Body::from(reply.body));
            *response.status_mut() =
                StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            for (name, value) in headers {
                let name = HeaderName::from_bytes(name.as_bytes());
                if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&value)) {
                    response.headers_mut().append(name, value);
                }
            }
            response
        }
    };
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        headers.insert("dunlin-invocation-id", id);
    }
    Ok(response)
}

fn plain(body: bytes::Bytes) -> Response {
    let kind = crate::call::content_type_of(&body);
    ([(http::header::CONTENT_TYPE, kind)], body).into_response()
}

/// Which dead letters.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
pub(super) struct Dead {
    /// App.
    app: String,
    /// Function.
    function: String,
    /// Accepted before this one: the `next` of the page before.
    after: Option<String>,
    /// At most so many; 100 unless set.
    limit: Option<usize>,
}

/// Dead letters of a function that were not sent again, the latest first.
#[utoipa::path(get, path = "/v1/dead-letters", operation_id = "listDeadLetters",
    tag = "invocations", params(Dead),
    responses((status = 200, body = Invocations), (status = 400, body = Problem)))]
pub(super) async fn dead_letters(
    State(shared): AdminState,
    Query(dead): Query<Dead>,
) -> Result<Json<Invocations>, Failure> {
    let path: FunctionPath = function_path((dead.app, dead.function))?;
    let limit = dead.limit.unwrap_or(LIMIT).clamp(1, shared.config.page_max);
    let before = dead.after.as_deref().map(id).transpose()?;
    let listing = Listing {
        dead_of: Some(path),
        before,
        limit,
    };
    let found = shared.invoker.list(&listing).await?;
    let last = found.last().map(|last| last.id.to_string());
    let next = last.filter(|_| found.len() >= limit);
    Ok(Json(Invocations {
        invocations: found.into_iter().map(view).collect(),
        next,
    }))
}

/// Sends dead letters again, each as a new invocation; the answer has the new ids, in order.
#[utoipa::path(post, path = "/v1/dead-letters/redrive", operation_id = "redrive",
    tag = "invocations", request_body = Redrive,
    responses((status = 200, body = Redriven), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 507, body = Problem)))]
pub(super) async fn redrive(
    State(shared): AdminState,
    Json(redrive): Json<Redrive>,
) -> Result<Json<Redriven>, Failure> {
    if redrive.ids.len() > REDRIVE_MAX {
        let detail = format!("at most {REDRIVE_MAX} dead letters at once");
        return Err(Failure::new(Code::BadRequest, detail));
    }
    let dead = redrive
        .ids
        .iter()
        .map(|text| id(text))
        .collect::<Result<Vec<_>, _>>()?;
    let mut ids = Vec::with_capacity(dead.len());
    for id in dead {
        ids.push(shared.invoker.redrive(id).await?.id.to_string());
    }
    Ok(Json(Redriven { ids }))
}

pub(super) fn id(text: &str) -> Result<InvocationId, Failure> {
    text.parse()
        .map_err(|error: model::IdError| Failure::new(Code::BadRequest, error.to_string()))
}

/// The time that the parameter `name` gives.
pub(super) fn duration(name: &str, text: &str) -> Result<Duration, Failure> {
    let (number, unit) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 1000),
        (None, None) => (text, 1000),
    };
    let malformed = || {
        let detail = format!("`{name}` is a time such as `30s` or `500ms`");
        Failure::new(Code::BadRequest, detail)
    };
    let number: u64 = number.parse().map_err(|_| malformed())?;
    Ok(Duration::from_millis(number.saturating_mul(unit)))
}

fn state_of(state: invoker::InvocationState) -> InvocationState {
    match state {
        invoker::InvocationState::Queued => InvocationState::Waiting,
        invoker::InvocationState::Running => InvocationState::Running,
        invoker::InvocationState::Succeeded => InvocationState::Succeeded,
        invoker::InvocationState::Failed => InvocationState::Failed,
        invoker::InvocationState::Dead => InvocationState::DeadLetter,
    }
}

fn view(found: invoker::Invocation) -> Invocation {
    Invocation {
        id: found.id.to_string(),
        app: found.path.app.to_string(),
        function: found.path.function.to_string(),
        version: found.version.to_string(),
        state: state_of(found.state),
        accepted_unix_ms: found.accepted_ms,
        attempts: found.attempts,
        next_attempt_unix_ms: found.next_attempt_ms,
        ended_unix_ms: found.state.is_final().then_some(found.changed_ms),
        outcome: found.outcome.as_ref().map(OutcomeView::from),
        error: found.error,
        redriven_as: found.redriven_as.map(|id| id.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_have_units() {
        let check = |text: &str, expected: Option<u64>| {
            let found = duration("wait", text)
                .ok()
                .map(|wait| wait.as_millis() as u64);
            assert_eq!(found, expected, "{text}");
        };
        check("30s", Some(30_000));
        check("500ms", Some(500));
        check("2", Some(2000));
        check("18446744073709551615s", Some(u64::MAX));
        for text in ["", "s", "-1s", "1h", "1.5s"] {
            check(text, None);
        }
    }
}
