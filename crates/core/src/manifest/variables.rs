//! Images that are placeholders, `<IMAGE1_NAME>`, as CodePipeline has them: filled in before anything is checked.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    node::{Entry, Node, Span, Value},
    report::{Finding, quote},
};
use crate::model::spec::Kind;

/// The field beside `spec` that fills them in.
pub const FIELD: &str = "variables";

/// The name of a placeholder.
pub fn placeholder(image: &str) -> Option<&str> {
    image.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).filter(|name| !name.is_empty())
}

/// Takes `variables` off a manifest and fills its placeholders in; what is `given` wins over them.
pub fn fill(root: &mut Node, kind: Kind, given: &BTreeMap<String, String>) -> Vec<Finding> {
    let path: &[&str] = match kind {
        Kind::TaskDefinition => &["spec", "containerDefinitions"],
        Kind::Service => &["spec", "taskDefinition", "containerDefinitions"],
        Kind::Cluster
        | Kind::Host
        | Kind::ScheduledTask
        | Kind::Subnet
        | Kind::SecurityGroup
        | Kind::TargetGroup
        | Kind::LoadBalancer => return Vec::new(),
    };
    let mut findings = Vec::new();
    let own = take(root, FIELD).map(|entry| read(&entry.value, &mut findings)).unwrap_or_default();
    let mut used = BTreeSet::new();
    let containers = path.iter().try_fold(root, |node, key| child(node, key));
    if let Some(Node { value: Value::List(containers), .. }) = containers {
        for image in containers.iter_mut().filter_map(|container| child(container, "image")) {
            let Value::Scalar { text, .. } = &mut image.value else { continue };
            let Some(name) = placeholder(text).map(str::to_owned) else { continue };
            let value = given.get(&name).or_else(|| own.get(&name).map(|(value, _)| value));
            if let Some(value) = value {
                text.clone_from(value);
            }
            used.insert(name);
        }
    }
    findings.extend(own.iter().filter(|(name, _)| !used.contains(*name)).map(|(name, (_, span))| {
        Finding::warning("variable-unused", *span, format!("no image here is `<{name}>`"))
            .help("variables stand for images that are written `<NAME>`, and for nothing else")
    }));
    findings
}

fn read(node: &Node, findings: &mut Vec<Finding>) -> BTreeMap<String, (String, Span)> {
    let Some(entries) = node.entries() else {
        if !node.is_null() {
            let message = format!("{} is a mapping of names to images, this is {}", quote(FIELD), node.describe());
            findings.push(Finding::error("wrong-type", node.word(), message));
        }
        return BTreeMap::new();
    };
    let mut variables = BTreeMap::new();
    for entry in entries {
        match entry.value.text() {
            Some(text) => {
                variables.insert(entry.key.clone(), (text.to_owned(), entry.key_span));
            }
            None => {
                let message = format!("{} stands for an image, this is {}", quote(&entry.key), entry.value.describe());
                findings.push(Finding::error("wrong-type", entry.value.word(), message));
            }
        }
    }
    variables
}

fn take(node: &mut Node, key: &str) -> Option<Entry> {
    let Value::Map(entries) = &mut node.value else { return None };
    let index = entries.iter().position(|entry| entry.key == key)?;
    Some(entries.remove(index))
}

fn child<'a>(node: &'a mut Node, key: &str) -> Option<&'a mut Node> {
    match &mut node.value {
        Value::Map(entries) => entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value),
        Value::Scalar { .. } | Value::List(_) => None,
    }
}
