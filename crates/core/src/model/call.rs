//! Questions that deployments put to servers of people's own over HTTP: lifecycle hooks and Prometheus queries.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{deployment::LifecycleStage, name::ServiceName, time::Timestamp};

/// Which question.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId {
    /// Of this service …
    pub service: ServiceName,
    /// … and this deployment of it.
    pub deployment: u64,
    /// What is asked.
    pub what: Asked,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// Whether a stage may end.
    Hook {
        /// This stage.
        stage: LifecycleStage,
        /// Which of the manifest's hooks, from 0.
        index: usize,
    },
    /// Whether an alarm fires: the query of this name.
    Query(String),
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, deployment, what } = self;
        match what {
            Asked::Hook { stage, index } => write!(f, "{service}/{deployment}/{}/{index}", stage.word()),
            Asked::Query(name) => write!(f, "{service}/{deployment}/{name}"),
        }
    }
}

/// When a question is asked again, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Turn {
    /// Not before.
    pub at: Timestamp,
    /// How often in a row nobody gave an answer that can be read.
    #[serde(default)]
    pub unanswered: u32,
    /// What was said last, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
}

impl Turn {
    /// To be asked for the first time.
    pub fn first(at: Timestamp) -> Self {
        Self { at, unanswered: 0, said: None }
    }
}

/// A question as it is put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which.
    pub id: CallId,
    /// Not before.
    pub at: Timestamp,
    /// Whom.
    pub url: String,
    /// What is sent (POST).
    pub body: Body,
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// Its media type.
    pub content_type: &'static str,
    /// Itself.
    pub text: String,
}

/// What came of a question: status and body, or why there is none, in words.
pub type Reply = Result<(u16, Vec<u8>), String>;
