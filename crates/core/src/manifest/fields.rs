//! A tree against its kind's schema: every field that nobody knows, and every one that is known and not acted on.

use std::collections::BTreeMap;

use serde_json::Value as Schema;

use super::{
    node::{Node, Span, Value},
    report::{FINDINGS_PER_FILE, Finding, quote, quote_all},
    schema::is_not_acted_on,
    suggest::closest_field,
};

/// What a walk found.
#[derive(Debug, Default)]
pub struct Fields {
    /// One error per unknown field.
    pub unknown: Vec<Finding>,
    /// Fields that say something and are not acted on, by name: where, in order.
    pub not_acted_on: BTreeMap<String, Vec<Span>>,
}

/// Walks a manifest's tree. Unknown fields are taken out of it, so that the rest can still be judged.
pub fn walk(node: &mut Node, schema: &'static Schema) -> Fields {
    let mut walk = Walk { root: schema, out: Fields::default() };
    walk.node(node, schema);
    walk.out
}

struct Walk {
    root: &'static Schema,
    out: Fields,
}

impl Walk {
    fn node(&mut self, node: &mut Node, schema: &'static Schema) {
        let Some(schema) = self.choose(node, schema) else { return };
        match &mut node.value {
            Value::Scalar { .. } => {}
            Value::List(items) => {
                if let Some(of) = schema.get("items") {
                    items.iter_mut().for_each(|item| self.node(item, of));
                }
            }
            Value::Map(entries) => {
                let fields = schema.get("properties").and_then(Schema::as_object);
                let others = schema.get("additionalProperties");
                let closed = others == Some(&Schema::Bool(false));
                entries.retain_mut(|entry| match fields.and_then(|fields| fields.get(&entry.key)) {
                    // One that says nothing is as if it was not there: `describe-task-definition` prints them all.
                    Some(field) if is_not_acted_on(field) => {
                        let says = !entry.value.says_nothing();
                        if says {
                            self.out.not_acted_on.entry(entry.key.clone()).or_default().push(entry.key_span);
                        }
                        says
                    }
                    Some(field) => {
                        self.node(&mut entry.value, field);
                        true
                    }
                    None if closed => {
                        let known: Vec<&str> =
                            fields.into_iter().flat_map(|fields| fields.keys().map(String::as_str)).collect();
                        self.unknown(&entry.key, entry.key_span, &known);
                        false
                    }
                    None => {
                        if let Some(of) = others.filter(|of| of.is_object()) {
                            self.node(&mut entry.value, of);
                        }
                        true
                    }
                });
            }
        }
    }

    fn unknown(&mut self, key: &str, span: Span, known: &[&str]) {
        let mut finding = Finding::error("unknown-field", span, format!("unknown field {}", quote(key)));
        if self.out.unknown.len() >= FINDINGS_PER_FILE {
            // Never shown: not worth a search.
            self.out.unknown.push(finding);
            return;
        }
        finding = match closest_field(key, known) {
            Some(meant) => finding.label(format!("did you mean {}?", quote(meant))),
            None => match self.home(key) {
                Some(home) => finding.help(format!("{} stands in {home}", quote(key))),
                None => finding.help(format!("known here: {}", quote_all(known.iter().copied()))),
            },
        };
        self.out.unknown.push(finding);
    }

    /// The structures elsewhere in this kind that know the field.
    fn home(&self, key: &str) -> Option<String> {
        let definitions = self.root.get("$defs")?.as_object()?;
        let paths: Vec<&str> = definitions
            .iter()
            .filter(|(_, schema)| schema.get("properties").is_some_and(|fields| fields.get(key).is_some()))
            .filter_map(|(name, _)| match name.as_str() {
                "ContainerDefinition" => Some("`containerDefinitions[]`"),
                "PortMapping" => Some("`portMappings[]`"),
                "HealthCheck" => Some("a container's `healthCheck`"),
                "HttpCheck" => Some("`healthCheck.http`"),
                "TcpCheck" => Some("`healthCheck.tcp`"),
                "DeploymentConfiguration" => Some("`deploymentConfiguration`"),
                "SshSpec" => Some("`ssh`"),
                "HostLoss" => Some("`hostLoss`"),
                "Metadata" => Some("`metadata`"),
                "TaskDefinitionSpec" => Some("the task definition"),
                "ServiceSpec" | "HostSpec" | "ClusterSpec" => Some("`spec`"),
                _ => None,
            })
            .collect();
        (!paths.is_empty()).then(|| paths.join(" or "))
    }

    /// Follows references, and of several choices takes the one that fits what is written.
    fn choose(&self, node: &Node, schema: &'static Schema) -> Option<&'static Schema> {
        let mut schema = schema;
        // Our schemas nest a few references deep; the bound is against a schema that refers to itself.
        for _ in 0..16 {
            if let Some(reference) = schema.get("$ref").and_then(Schema::as_str) {
                schema = self.root.pointer(reference.strip_prefix('#')?)?;
            } else if let Some(choices) = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Schema::as_array)
            {
                schema = choices.iter().find(|choice| self.fits(node, choice, 0))?;
            } else {
                return Some(schema);
            }
        }
        None
    }

    fn fits(&self, node: &Node, schema: &'static Schema, depth: usize) -> bool {
        let referred = schema.get("$ref").and_then(Schema::as_str);
        let schema = match referred.and_then(|to| self.root.pointer(to.strip_prefix('#')?)) {
            Some(target) => target,
            None => schema,
        };
        // What may be absent is a choice between a choice and null.
        if let Some(choices) = schema.get("anyOf").and_then(Schema::as_array) {
            return depth < 4 && choices.iter().any(|choice| self.fits(node, choice, depth + 1));
        }
        let wanted = match node.value {
            Value::Map(_) => "object",
            Value::List(_) => "array",
            Value::Scalar { .. } => return false,
        };
        schema.get("type").is_some_and(|kind| match kind {
            Schema::String(name) => name == wanted,
            Schema::Array(names) => names.iter().any(|name| name == wanted),
            Schema::Null | Schema::Bool(_) | Schema::Number(_) | Schema::Object(_) => false,
        })
    }
}
