//! A task definition with the hash of its content, worked out once.

use std::{ops::Deref, sync::Arc};

use aws_lc_rs::digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{hex::hex, spec::TaskDefinitionSpec};

/// A task definition's spec and its content's hash; in JSON the spec alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    hash: Arc<str>,
    spec: Arc<TaskDefinitionSpec>,
}

impl Definition {
    /// Works the hash out.
    pub fn new(spec: TaskDefinitionSpec) -> Self {
        Self { hash: content_hash(&spec).into(), spec: Arc::new(spec) }
    }

    /// SHA-256 over the canonical content, hex.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The content, shared.
    pub fn spec(&self) -> &Arc<TaskDefinitionSpec> {
        &self.spec
    }

    /// Changes the content, and the hash with it.
    pub fn edit(&mut self, change: impl FnOnce(&mut TaskDefinitionSpec)) {
        change(Arc::make_mut(&mut self.spec));
        self.hash = content_hash(&self.spec).into();
    }
}

impl From<TaskDefinitionSpec> for Definition {
    fn from(spec: TaskDefinitionSpec) -> Self {
        Self::new(spec)
    }
}

impl Deref for Definition {
    type Target = TaskDefinitionSpec;

    fn deref(&self) -> &TaskDefinitionSpec {
        &self.spec
    }
}

impl Serialize for Definition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.spec.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Definition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        TaskDefinitionSpec::deserialize(deserializer).map(Self::new)
    }
}

fn content_hash(spec: &TaskDefinitionSpec) -> String {
    // The canonical form is the struct's own JSON: field order is fixed, maps are ordered.
    let text = serde_json::to_vec(spec).unwrap_or_default();
    hex(digest::digest(&digest::SHA256, &text).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_of_the_content() {
        let mut definition = Definition::new(TaskDefinitionSpec::default());
        let before = definition.clone();
        definition.edit(|spec| spec.cpu = Some(crate::model::quantity::CpuUnits(256)));
        assert_ne!(definition.hash(), before.hash());
        let json = serde_json::to_string(&definition).unwrap();
        assert_eq!(serde_json::from_str::<Definition>(&json).unwrap(), definition);
    }
}
