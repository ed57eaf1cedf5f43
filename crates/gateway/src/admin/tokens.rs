//! Tokens.

use api::v1::{Token, TokenCreate, TokenCreated, Tokens};
use api::{Code, Problem};
use axum::extract::State;
use http::StatusCode;

use super::AdminState;
use super::extract::{Json, Path};
use crate::failure::Failure;
use crate::span::unix_ms;
use crate::tokens::{TokenError, TokenInfo};

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        let detail = error.to_string();
        match &error {
            TokenError::Name => Self::new(Code::InvalidName, detail),
            TokenError::TooMany => Self::new(Code::Conflict, detail),
            TokenError::NotFound(_) => Self::new(Code::TokenNotFound, detail),
            TokenError::Damaged(_) => Self::platform(&error),
            TokenError::Storage(error) => Self::of_storage(error),
        }
    }
}

/// Every token, without secrets.
#[utoipa::path(get, path = "/v1/tokens", operation_id = "listTokens", tag = "tokens",
    responses((status = 200, body = Tokens)))]
pub(super) async fn list(State(shared): AdminState) -> Json<Tokens> {
    let view = |TokenInfo {
                    id,
                    name,
                    created_unix_ms,
                }| Token {
        id,
        name,
        created_unix_ms,
    };
    Json(Tokens {
        tokens: shared.tokens.list().into_iter().map(view).collect(),
    })
}

/// Makes a token: the answer is the one time that it is shown.
#[utoipa::path(post, path = "/v1/tokens", operation_id = "createToken", tag = "tokens",
    request_body = TokenCreate,
    responses((status = 201, body = TokenCreated), (status = 400, body = Problem),
        (status = 507, body = Problem)))]
pub(super) async fn create(
    State(shared): AdminState,
    Json(create): Json<TokenCreate>,
) -> Result<(StatusCode, Json<TokenCreated>), Failure> {
    let (TokenInfo { id, name, .. }, token) = shared.tokens.create(&create.name, unix_ms()).await?;
    Ok((StatusCode::CREATED, Json(TokenCreated { id, name, token })))
}

/// Ends a token at once.
#[utoipa::path(delete, path = "/v1/tokens/{id}", operation_id = "revokeToken", tag = "tokens",
    params(("id" = String, Path, description = "Id of the token")),
    responses((status = 204, description = "It is admitted no more"),
        (status = 404, body = Problem)))]
pub(super) async fn revoke(
    State(shared): AdminState,
    Path(id): Path<String>,
) -> Result<StatusCode, Failure> {
    shared.tokens.revoke(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}
