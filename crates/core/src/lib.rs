//! What Roadstead decides with: the [`model`], the [`manifest`]s that state what is wanted, and the pure [`plan`]ner,
//! with the controller's [`turn`] around it.

pub mod manifest;
pub mod model;
pub mod plan;
pub mod turn;
