//! JSON Schemas of the kinds, made from the types: for editors, and for admission's walk.

use std::{collections::BTreeMap, sync::LazyLock};

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::variables;
use crate::model::spec::{
    API_VERSION, ClusterSpec, HostSpec, KINDS, Kind, KindInfo, LoadBalancerSpec, Metadata, ScheduledTaskSpec,
    SecurityGroupSpec, ServiceSpec, SubnetSpec, TargetGroupSpec, TaskDefinitionSpec,
};

/// Marks a field that is known, kept and not acted on.
pub const NOT_ACTED_ON: &str = "x-not-acted-on";

static SCHEMAS: LazyLock<BTreeMap<Kind, Value>> =
    LazyLock::new(|| KINDS.iter().map(|info| (info.kind, manifest_schema(info))).collect());

/// The JSON Schema of a manifest of one kind, or of any kind.
pub fn schema(kind: Option<Kind>) -> Value {
    match kind {
        Some(kind) => of(kind).clone(),
        None => union(),
    }
}

/// The same without a copy.
pub(super) fn of(kind: Kind) -> &'static Value {
    static NOTHING: Value = Value::Null;
    SCHEMAS.get(&kind).unwrap_or(&NOTHING)
}

fn manifest_schema(info: &KindInfo) -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let metadata = generator.subschema_for::<Metadata>();
    let spec = match info.kind {
        Kind::Cluster => generator.subschema_for::<ClusterSpec>(),
        Kind::Host => generator.subschema_for::<HostSpec>(),
        Kind::TaskDefinition => generator.subschema_for::<TaskDefinitionSpec>(),
        Kind::Service => generator.subschema_for::<ServiceSpec>(),
        Kind::ScheduledTask => generator.subschema_for::<ScheduledTaskSpec>(),
        Kind::Subnet => generator.subschema_for::<SubnetSpec>(),
        Kind::SecurityGroup => generator.subschema_for::<SecurityGroupSpec>(),
        Kind::TargetGroup => generator.subschema_for::<TargetGroupSpec>(),
        Kind::LoadBalancer => generator.subschema_for::<LoadBalancerSpec>(),
    };
    // A cluster has nothing that it must say, nor has a group that nobody may reach.
    let required = match info.kind {
        Kind::Cluster | Kind::SecurityGroup => json!(["apiVersion", "kind", "metadata"]),
        Kind::Host
        | Kind::TaskDefinition
        | Kind::Service
        | Kind::ScheduledTask
        | Kind::Subnet
        | Kind::TargetGroup
        | Kind::LoadBalancer => {
            json!(["apiVersion", "kind", "metadata", "spec"])
        }
    };
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("Roadstead {}", info.name),
        "type": "object",
        "properties": {
            "apiVersion": { "const": API_VERSION },
            "kind": { "const": info.name },
            "metadata": metadata,
            "spec": spec,
        },
        "required": required,
        "additionalProperties": false,
        "$defs": generator.take_definitions(true),
    });
    let has_images = matches!(info.kind, Kind::TaskDefinition | Kind::Service);
    if let Some(properties) = schema["properties"].as_object_mut().filter(|_| has_images) {
        properties.insert(
            variables::FIELD.to_owned(),
            json!({
                "type": "object",
                "additionalProperties": { "type": "string" },
                "description": "Images by the name of the placeholder `<NAME>` that they stand for.",
            }),
        );
    }
    tell_not_acted_on(&mut schema);
    schema
}

/// One schema for a file of any kind: the kind chooses the branch, so that an editor complains about the right one.
fn union() -> Value {
    let mut definitions = serde_json::Map::new();
    let mut branches = Vec::new();
    for info in KINDS {
        let mut kind = of(info.kind).clone();
        if let Some(object) = kind.as_object_mut() {
            object.remove("$schema");
            if let Some(Value::Object(own)) = object.remove("$defs") {
                definitions.extend(own);
            }
        }
        definitions.insert(format!("{}Manifest", info.name), kind);
        branches.push(json!({
            "if": { "properties": { "kind": { "const": info.name } } },
            "then": { "$ref": format!("#/$defs/{}Manifest", info.name) },
        }));
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Roadstead manifest",
        "type": "object",
        "required": ["apiVersion", "kind", "metadata"],
        "properties": { "kind": { "enum": KINDS.iter().map(|info| info.name).collect::<Vec<_>>() } },
        "allOf": branches,
        "$defs": definitions,
    })
}

/// An optional field's schema is `anyOf [field, null]`; of these, only the mark and a plain sentence matter to an editor.
fn tell_not_acted_on(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if is_not_acted_on(&Value::Object(object.clone())) {
                *schema =
                    json!({ NOT_ACTED_ON: true, "description": "Known, kept, and not acted on by this version." });
                return;
            }
            object.values_mut().for_each(tell_not_acted_on);
        }
        Value::Array(items) => items.iter_mut().for_each(tell_not_acted_on),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Whether a schema carries the mark, itself or as one of its choices.
pub(super) fn is_not_acted_on(schema: &Value) -> bool {
    let marked = |schema: &Value| schema.get(NOT_ACTED_ON) == Some(&Value::Bool(true));
    marked(schema) || schema.get("anyOf").and_then(Value::as_array).is_some_and(|choices| choices.iter().any(marked))
}
