//! One document: its header first, then the concrete kind, so that every error keeps its place.

use std::collections::BTreeMap;

use super::{
    decode::decode,
    fields::{Fields, walk},
    node::{Entry, Node, Span, Style, Value},
    report::{Finding, quote, quote_all},
    schema,
    suggest::closest,
    variables,
};
use crate::model::{
    name::Family,
    spec::{
        API_VERSION, ClusterSpec, HostSpec, KINDS, Kind, LoadBalancerSpec, Metadata, ScheduledTaskSpec,
        SecurityGroupSpec, ServiceSpec, SubnetSpec, TargetGroupSpec, TaskDefinitionSpec,
    },
};

/// Kinds of the contract that this version knows by name only.
const LATER_KINDS: &[&str] = &["Secret"];

/// Of a host's label and of its value (ECS: attributes).
const MAX_LABEL_CHARS: usize = 128;

/// What ECS prints in a task definition and does not read.
const READ_ONLY: &[&str] = &[
    "taskDefinitionArn",
    "revision",
    "status",
    "registeredAt",
    "registeredBy",
    "deregisteredAt",
    "requiresAttributes",
    "compatibilities",
];

/// A manifest whose shape is right.
#[derive(Debug)]
pub struct Document {
    /// `metadata`.
    pub metadata: Metadata,
    /// Where the name stands.
    pub name_span: Span,
    /// First line.
    pub line: u32,
    /// The spec as written, without what was dropped: what findings point into.
    pub node: Node,
    /// The spec.
    pub spec: Spec,
}

/// A spec of any kind.
#[derive(Debug)]
pub enum Spec {
    /// See [`ClusterSpec`].
    Cluster(ClusterSpec),
    /// See [`HostSpec`].
    Host(Box<HostSpec>),
    /// See [`TaskDefinitionSpec`].
    TaskDefinition(Box<TaskDefinitionSpec>),
    /// See [`ServiceSpec`].
    Service(Box<ServiceSpec>),
    /// See [`ScheduledTaskSpec`].
    ScheduledTask(Box<ScheduledTaskSpec>),
    /// See [`SubnetSpec`].
    Subnet(SubnetSpec),
    /// See [`SecurityGroupSpec`].
    SecurityGroup(SecurityGroupSpec),
    /// See [`TargetGroupSpec`].
    TargetGroup(Box<TargetGroupSpec>),
    /// See [`LoadBalancerSpec`].
    LoadBalancer(Box<LoadBalancerSpec>),
}

/// What became of a document.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The manifest, when its shape is right and its kind is acted on.
    pub document: Option<Document>,
    /// Kind and name, when at least these can be read.
    pub header: Option<(Kind, String)>,
    /// What is wrong, or worth saying.
    pub findings: Vec<Finding>,
    /// Known fields that are not acted on.
    pub fields: Fields,
}

impl Outcome {
    fn broken(finding: Finding) -> Self {
        Self { findings: vec![finding], ..Self::default() }
    }
}

/// Reads one document: a manifest, or what the ECS API prints, with nothing around it. `images` stand for placeholders.
pub fn read(mut root: Node, images: &BTreeMap<String, String>) -> Outcome {
    let line = root.span.line;
    if is_bare_ecs(&root) {
        root = dress(root);
    }
    if root.entries().is_none() {
        return Outcome::broken(
            Finding::error(
                "not-a-manifest",
                root.span,
                format!("a manifest is a mapping, this is {}", root.describe()),
            )
            .help(SKELETON),
        );
    }
    let kind = match kind_of(&root) {
        Ok(Some(kind)) => kind,
        Ok(None) => return Outcome::default(),
        Err(finding) if finding.is_error() => return Outcome::broken(*finding),
        Err(finding) => return Outcome { findings: vec![*finding], ..Outcome::default() },
    };
    normalise(&mut root, kind);
    let mut findings = variables::fill(&mut root, kind, images);
    let header =
        root.find(super::node::at!["metadata", "name"]).and_then(Node::text).map(|name| (kind, name.to_owned()));
    let mut fields = walk(&mut root, schema::of(kind));
    findings.append(&mut fields.unknown);
    let document = match assemble(root, kind, line) {
        Ok(document) => {
            findings.extend(bad_name(kind, &document.metadata.name, document.name_span));
            Some(document)
        }
        Err(finding) => {
            findings.push(*finding);
            None
        }
    };
    let document = document.filter(|_| !findings.iter().any(Finding::is_error));
    Outcome { document, header, findings, fields }
}

const SKELETON: &str = "a manifest has `apiVersion: roadstead/v1`, `kind`, `metadata: { name: … }` and `spec`";

/// The kind; a finding otherwise, which is only a warning for a kind of a later version.
fn kind_of(root: &Node) -> Result<Option<Kind>, Box<Finding>> {
    let missing = |field: &str| {
        Box::new(
            Finding::error(
                "missing-field",
                root.word(),
                format!("{} is missing: this is not a manifest", quote(field)),
            )
            .help(SKELETON),
        )
    };
    let version = root.get("apiVersion").ok_or_else(|| missing("apiVersion"))?;
    if version.text() != Some(API_VERSION) {
        let finding = Finding::error(
            "api-version",
            version.word(),
            format!("{} is not an apiVersion of Roadstead", version.describe()),
        );
        return Err(Box::new(finding.label(format!("the only one is {}", quote(API_VERSION)))));
    }
    let kind = root.get("kind").ok_or_else(|| missing("kind"))?;
    let name = kind.text().unwrap_or_default();
    if let Some(info) = KINDS.iter().find(|info| info.name == name) {
        return Ok(Some(info.kind));
    }
    if LATER_KINDS.contains(&name) {
        let finding = Finding::warning(
            "kind-not-acted-on",
            kind.word(),
            format!("kind {} is known, and not acted on by this version", quote(name)),
        );
        return Err(Box::new(finding));
    }
    let known = || KINDS.iter().map(|info| info.name).chain(LATER_KINDS.iter().copied());
    let finding = Finding::error("unknown-kind", kind.word(), format!("there is no kind {}", kind.describe()));
    Err(Box::new(match closest(name, known()) {
        Some(meant) => finding.label(format!("did you mean {}?", quote(meant))),
        None => finding.help(format!("the kinds are {}", quote_all(known()))),
    }))
}

fn assemble(mut root: Node, kind: Kind, line: u32) -> Result<Document, Box<Finding>> {
    let whole = root.word();
    let metadata_node = take(&mut root, "metadata").ok_or_else(|| {
        Finding::error("missing-field", whole, "`metadata` is missing here").help("add `metadata: { name: … }`")
    })?;
    let metadata: Metadata = decode(&metadata_node.value)?;
    let name_span = metadata_node.value.locate(super::node::at!["name"]);
    if kind == Kind::Host
        && let Some(finding) = long_label(&metadata, &metadata_node.value)
    {
        return Err(finding.into());
    }
    let node = match take(&mut root, "spec") {
        Some(spec) if !spec.value.is_null() => spec.value,
        Some(_) | None if matches!(kind, Kind::Cluster | Kind::SecurityGroup) => Node::empty_map(whole),
        Some(spec) => return Err(Finding::error("missing-field", spec.key_span, "`spec` says nothing").into()),
        None => return Err(Finding::error("missing-field", whole, "`spec` is missing here").into()),
    };
    let spec = match kind {
        Kind::Cluster => Spec::Cluster(decode(&node)?),
        Kind::Host => Spec::Host(decode(&node)?),
        Kind::TaskDefinition => Spec::TaskDefinition(decode(&node)?),
        Kind::Service => Spec::Service(decode(&node)?),
        Kind::ScheduledTask => Spec::ScheduledTask(decode(&node)?),
        Kind::Subnet => Spec::Subnet(decode(&node)?),
        Kind::SecurityGroup => Spec::SecurityGroup(decode(&node)?),
        Kind::TargetGroup => Spec::TargetGroup(decode(&node)?),
        Kind::LoadBalancer => Spec::LoadBalancer(decode(&node)?),
    };
    Ok(Document { metadata, name_span, line, node, spec })
}

fn take(node: &mut Node, key: &str) -> Option<Entry> {
    let Value::Map(entries) = &mut node.value else { return None };
    let index = entries.iter().position(|entry| entry.key == key)?;
    Some(entries.swap_remove(index))
}

/// Task definitions have ECS's family names, everything else a name that fits into a DNS label.
fn bad_name(kind: Kind, name: &str, span: Span) -> Option<Finding> {
    let finding = Finding::error("bad-name", span, format!("{} is not a name", quote(name)));
    match kind {
        Kind::TaskDefinition if is_family(name) => None,
        Kind::TaskDefinition => Some(finding.help(FAMILY_RULE)),
        Kind::Cluster
        | Kind::Host
        | Kind::Service
        | Kind::ScheduledTask
        | Kind::Subnet
        | Kind::SecurityGroup
        | Kind::TargetGroup
        | Kind::LoadBalancer
            if is_label(name) =>
        {
            None
        }
        Kind::Cluster
        | Kind::Host
        | Kind::Service
        | Kind::ScheduledTask
        | Kind::Subnet
        | Kind::SecurityGroup
        | Kind::TargetGroup
        | Kind::LoadBalancer => {
            let fixed: String =
                name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
            let fixed = fixed.trim_matches('-');
            let rule =
                "a name has 1 to 63 lower-case letters, digits and hyphens, and neither begins nor ends with a hyphen";
            Some(if is_label(fixed) { finding.help(format!("{rule}: {}", quote(fixed))) } else { finding.help(rule) })
        }
    }
}

/// A host's label is an ECS attribute, and as long at most: patterns of placement are run over it.
fn long_label(metadata: &Metadata, node: &Node) -> Option<Finding> {
    let too_long = |text: &str| text.chars().count() > MAX_LABEL_CHARS;
    let (label, _) = metadata.labels.iter().find(|(label, value)| too_long(label) || too_long(value))?;
    let span = node.locate(super::node::at!["labels", label.as_str()]);
    Some(Finding::error("label-too-long", span, format!("the label {} is too long", quote(label))).help(format!(
        "a host's label and its value have {MAX_LABEL_CHARS} characters at most; `annotations` take any text"
    )))
}

/// The rule for families, in words.
pub const FAMILY_RULE: &str = "a family has 1 to 255 letters, digits, hyphens and underscores";

/// ECS's pattern of families and container names.
pub fn is_family(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// Whether a name is a label of the DNS, in lower case.
pub fn is_label(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// The family of a task definition: its own, else its manifest's name.
pub fn family_of(spec: &TaskDefinitionSpec, name: &str) -> Family {
    spec.family.as_deref().unwrap_or(name).into()
}

/// A document of the ECS API: `describe-task-definition` wraps it, `register-task-definition` does not.
fn is_bare_ecs(root: &Node) -> bool {
    root.get("apiVersion").is_none()
        && root.get("kind").is_none()
        && (root.get("containerDefinitions").is_some()
            || root.get("taskDefinition").is_some_and(|inner| inner.entries().is_some()))
}

/// Puts a manifest around a document of the ECS API.
fn dress(mut spec: Node) -> Node {
    let span = spec.word();
    let variables = take(&mut spec, variables::FIELD);
    let family = spec.get("taskDefinition").unwrap_or(&spec).get("family");
    let (name, name_span) =
        family.map_or((String::new(), span), |family| (family.text().unwrap_or_default().to_owned(), family.word()));
    let entry = |key: &str, value: Node| Entry { key: key.to_owned(), key_span: span, value };
    let word = |text: String, span: Span| Node { span, value: Value::Scalar { text, style: Style::Quoted } };
    let metadata = Node { span, value: Value::Map(vec![entry("name", word(name, name_span))]) };
    let mut root = vec![
        entry("apiVersion", word(API_VERSION.to_owned(), span)),
        entry("kind", word("TaskDefinition".to_owned(), span)),
        entry("metadata", metadata),
        entry("spec", spec),
    ];
    root.extend(variables);
    Node { span, value: Value::Map(root) }
}

/// Takes the ECS API's wrapper and read-only fields off a task definition, wherever it stands.
fn normalise(root: &mut Node, kind: Kind) {
    let Some(spec) = child(root, "spec") else { return };
    match kind {
        Kind::Cluster
        | Kind::Host
        | Kind::ScheduledTask
        | Kind::Subnet
        | Kind::SecurityGroup
        | Kind::TargetGroup
        | Kind::LoadBalancer => {}
        Kind::TaskDefinition => unwrap_ecs(spec),
        Kind::Service => {
            if let Some(inline) = child(spec, "taskDefinition") {
                unwrap_ecs(inline);
            }
        }
    }
}

fn child<'a>(node: &'a mut Node, key: &str) -> Option<&'a mut Node> {
    match &mut node.value {
        Value::Map(entries) => entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value),
        Value::Scalar { .. } | Value::List(_) => None,
    }
}

fn unwrap_ecs(spec: &mut Node) {
    if spec.get("containerDefinitions").is_none()
        && spec.get("taskDefinition").is_some_and(|inner| inner.entries().is_some())
    {
        let tags = take(spec, "tags");
        if let Some(mut inner) = take(spec, "taskDefinition") {
            if let (Value::Map(outer), Value::Map(fields)) = (&mut spec.value, &mut inner.value.value) {
                // Whatever else stands beside the wrapper is judged with the rest.
                fields.append(outer);
                fields.extend(tags);
            }
            *spec = inner.value;
        }
    }
    if let Value::Map(entries) = &mut spec.value {
        entries.retain(|entry| !READ_ONLY.contains(&entry.key.as_str()));
    }
}
