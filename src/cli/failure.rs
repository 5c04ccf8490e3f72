//! Why a command did not succeed, and the exit status that says so.

use std::{fmt, io};

use crate::api::error::{ApiError, ErrorCode};

/// The end of a command that did not succeed.
#[derive(Debug)]
pub(super) enum Failure {
    /// What was asked for did not succeed: 1.
    Failed(Message),
    /// It could not be tried: 2.
    NotTried(Message),
    /// Everything was said already.
    Status(u8),
    /// Nobody reads our output any more.
    OutputClosed,
}

/// What to tell.
#[derive(Debug)]
pub(super) struct Message {
    pub text: String,
    pub hint: Option<String>,
}

impl Failure {
    pub fn failed(text: impl fmt::Display) -> Self {
        Self::Failed(Message { text: text.to_string(), hint: None })
    }

    pub fn not_tried(text: impl fmt::Display) -> Self {
        Self::NotTried(Message { text: text.to_string(), hint: None })
    }

    /// The same with a next step.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        match &mut self {
            Self::Failed(message) | Self::NotTried(message) => message.hint = Some(hint.into()),
            Self::Status(_) | Self::OutputClosed => {}
        }
        self
    }

    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::NotTried(_) => 2,
            Self::Status(status) => *status,
            Self::OutputClosed => 0,
        }
    }
}

/// An error of writing results.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::failed(format!("cannot write: {error}")),
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let message = Message { text: error.message, hint: error.hint };
        match error.code {
            ErrorCode::NotFound | ErrorCode::Refused | ErrorCode::Invalid | ErrorCode::Internal => {
                Self::Failed(message)
            }
            ErrorCode::BadRequest | ErrorCode::Unauthorised | ErrorCode::Unavailable => Self::NotTried(message),
        }
    }
}
