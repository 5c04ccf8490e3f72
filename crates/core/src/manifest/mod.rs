//! Manifests: text → [`Desired`](crate::model::desired::Desired) and diagnostics.
//!
//! `read` (the only I/O) → `compose` (trees with places, within limits) → `document` (header, then kind; `fields` holds it against
//! `schema`, `decode` makes the type) → `check` (one object by itself) → `admit` (objects together, and what stays as it was) → `render`.
//!
//! A new kind: a row in `model::spec::KINDS`, an arm in `document` and `schema`, a file in `check`, a map in `Desired`.

mod admit;
pub mod certificate;
mod check;
mod compose;
mod decode;
mod document;
mod fields;
mod node;
mod read;
mod render;
mod report;
mod schema;
mod suggest;
mod together;
mod variables;

pub use admit::{Admission, CheckExpression, admit};
pub use read::{Attachments, Limits, ReadError, SourceFile, SourceTree, read_tree};
pub use render::{render, summary};
pub use schema::{NOT_ACTED_ON, schema};
pub use together::as_written;
