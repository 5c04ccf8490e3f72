//! What Roadstead decides with: the [`model`], the [`manifest`]s that state what is wanted, and the pure [`plan`]ner.

pub mod manifest;
pub mod model;
pub mod plan;
