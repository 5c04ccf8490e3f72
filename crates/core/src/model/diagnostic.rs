//! What is wrong with a manifest, where, and what was meant.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// What it is about does not take effect.
    Error,
    /// It takes effect, and is probably not what was meant.
    Warning,
    /// Worth knowing.
    Notice,
}

/// A word in a file, with the line that it stands in.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// Relative to the manifests' folder.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// In characters, on this line; at least 1.
    pub length: u32,
    /// The line without control characters; of a very long line, the part around the word.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub snippet: String,
    /// How many characters of the line stand before `snippet`.
    #[serde(default)]
    pub snippet_offset: u32,
    /// What is said under the word; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
}

/// One finding. Sorts by file, then line and column.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// How bad.
    pub severity: Severity,
    /// Stable, for scripts: `unknown-field`.
    pub code: Cow<'static, str>,
    /// What is wrong.
    pub message: String,
    /// Other places that have to do with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Place>,
    /// The next step, or what was probably meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Diagnostic {
    /// Whether what it is about does not take effect.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}
