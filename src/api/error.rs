//! Errors as the API answers them: `{"error": {"code", "message", "hint"}}`.

use axum::{
    Json,
    extract::rejection::{JsonRejection, QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use roadstead_control::{engine::EngineError, store::StoreError};
use roadstead_core::model::diagnostic::Diagnostic;
use roadstead_core::turn::CommandError;

/// The body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ApiError,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// For scripts.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// The next step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Of manifests that were sent along.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    pub diagnostics: Vec<Diagnostic>,
}

/// Errors by what the caller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum ErrorCode {
    /// Correct the question.
    BadRequest,
    /// Send the token.
    Unauthorised,
    /// Ask for something that exists.
    NotFound,
    /// Not now, or not so.
    Refused,
    /// Correct the manifests.
    Invalid,
    /// Try again later.
    Unavailable,
    /// Look at the controller's log.
    Internal,
}

impl ErrorCode {
    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorised => StatusCode::UNAUTHORIZED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Refused => StatusCode::CONFLICT,
            Self::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl ApiError {
    /// An error without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, diagnostics: Vec::new() }
    }

    /// The same with a next step.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Nothing has this name.
    pub fn not_found(kind: &str, name: &str) -> Self {
        Self::new(ErrorCode::NotFound, format!("there is no {kind} {name:?}"))
            .hint(format!("`roadstead get {kind}s` lists them"))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.code.status(), Json(ErrorBody { error: self })).into_response()
    }
}

impl From<CommandError> for ApiError {
    fn from(error: CommandError) -> Self {
        let code = match &error {
            CommandError::NotFound(_) => ErrorCode::NotFound,
            CommandError::Refused(_) => ErrorCode::Refused,
            CommandError::Unavailable(_) => ErrorCode::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, "the store did not answer the API");
        Self::new(ErrorCode::Internal, error.to_string())
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let code = match &error {
            EngineError::NotFound { .. } => ErrorCode::NotFound,
            EngineError::NameTaken { .. }
            | EngineError::Conflict { .. }
            | EngineError::PortTaken { .. }
            | EngineError::ImageMissing { .. }
            | EngineError::Unauthorised { .. }
            | EngineError::OutOfSpace { .. }
            | EngineError::Refused { .. } => ErrorCode::Refused,
            EngineError::Unreachable(_)
            | EngineError::OutcomeUnknown { .. }
            | EngineError::RegistryUnavailable { .. }
            | EngineError::RateLimited { .. }
            | EngineError::ServerError { .. }
            | EngineError::Malformed { .. }
            | EngineError::UnsupportedVersion { .. } => ErrorCode::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(ErrorCode::BadRequest, rejection.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(ErrorCode::BadRequest, rejection.body_text())
    }
}
