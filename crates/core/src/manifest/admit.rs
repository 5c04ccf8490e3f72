//! A tree of texts → what is wanted, and what is wrong.
//!
//! A file whose shape is wrong somewhere (syntax, unknown fields, wrong types) is broken: what it declared before stays as it was. An object
//! that is wrong by itself or together with others stays as it was, too, or is left out when it is new; the rest of its file takes effect.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

pub use super::check::CheckExpression;
use super::{
    certificate::{Given, given},
    check,
    compose::{compose, json_as_yaml},
    document::{Document, Spec, family_of, read},
    fields::Fields,
    node::{Node, Span, at},
    read::{Attachments, SourceFile, SourceTree},
    report::{FINDINGS_PER_FILE, Finding, Scope, about_file, bounded, place, quote},
    together::{Declared, Kept, Tables, as_written, settle},
};
use crate::model::{
    definition::Definition,
    desired::{Desired, Manifest},
    diagnostic::{Diagnostic, Severity},
    name::CertificateId,
    spec::{Kind, Metadata, ServiceSpec, TaskDefinitionSpec, service::TaskDefinitionRef},
    time::Timestamp,
};

/// What came of a tree.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// What is wanted from now on.
    pub desired: Desired,
    /// All findings, by file and line.
    pub diagnostics: Vec<Diagnostic>,
    /// The certificates in files that what is wanted names, as far as they are good.
    pub certificates: BTreeMap<CertificateId, Given>,
    /// What vouches for the directories of authorities: PEM, by the path that names it.
    pub authorities: BTreeMap<String, String>,
    /// Files and folders (these end in `/`) of which what they declared before stays as it was.
    pub broken_files: BTreeSet<String>,
}

impl Admission {
    /// Whether anything did not take effect.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// Judges a tree. `previous` is what was admitted last; `check_expression` is the planner's parser of placement expressions.
pub fn admit(tree: &SourceTree, previous: &Desired, check_expression: CheckExpression) -> Admission {
    let previous = &*as_written(previous);
    let mut clerk = Clerk {
        root: &tree.root,
        files: &tree.files,
        attachments: &tree.attachments,
        pems: tree.pems.as_ref(),
        now: tree.read_at,
        check_expression,
        tables: Tables::default(),
        findings: BTreeMap::new(),
        once: BTreeSet::new(),
        seen: BTreeMap::new(),
    };
    let declared_before: BTreeSet<&str> = Kept::files(previous);
    let mut broken = tree.unread.clone();
    let mut diagnostics = tree.diagnostics.clone();
    let mut documents = Vec::new();
    for file in tree.files.values() {
        if file.text.trim().is_empty() && declared_before.contains(file.path.as_str()) {
            broken.insert(file.path.clone());
            diagnostics.push(about_file(
                &file.path,
                "empty-file",
                "the file is empty; what it declared stays as it was",
                Some("delete the file if nothing of it is wanted any more"),
            ));
            continue;
        }
        match clerk.file(file, tree) {
            Ok(good) => documents.extend(good.into_iter().map(|document| (file, document))),
            Err(names) => {
                broken.insert(file.path.clone());
                clerk.tables.fail(names);
            }
        }
    }
    // Services last: task definitions written inside them must not take the name of one that stands by itself.
    let (services, others): (Vec<_>, Vec<_>) =
        documents.into_iter().partition(|(_, document)| matches!(document.spec, Spec::Service(_)));
    for (file, document) in others.into_iter().chain(services) {
        clerk.declare(file, document);
    }
    let Clerk { tables, mut findings, .. } = clerk;
    let vanished = perhaps_renamed(&declared_before, &broken, tree);
    let stays: BTreeSet<String> = broken.union(&vanished).cloned().collect();
    let kept = Kept { previous, broken: &stays };
    let desired = settle(tables, &kept, &tree.files, &mut findings);
    for file in Kept::files(&desired).into_iter().filter(|file| vanished.contains(*file)) {
        let message =
            "the file is gone; what it declared stays until every new file can be read: one may be this file, renamed";
        let mut diagnostic = about_file(file, "gone-or-renamed", message, None);
        diagnostic.severity = Severity::Warning;
        diagnostics.push(diagnostic);
    }
    for (path, mut found) in findings {
        if let Some(file) = tree.files.get(&path) {
            found.sort_by_key(|finding| finding.span);
            diagnostics.extend(bounded(found, file));
        }
    }
    diagnostics.sort();
    let certificates = given_files(&desired, tree);
    let authorities = authorities(&desired, tree);
    Admission { desired, diagnostics, certificates, authorities, broken_files: broken }
}

/// Of the files that load balancers name, also of those that stay as they were.
fn given_files(desired: &Desired, tree: &SourceTree) -> BTreeMap<CertificateId, Given> {
    let mut found = BTreeMap::new();
    let text = |path: &str| tree.pems.as_ref()?.get(path)?.as_ref().ok();
    for certificate in desired.load_balancers.values().flat_map(|manifest| manifest.spec.certificates()) {
        let (Some(file), Some(key)) = (&certificate.certificate_file, &certificate.private_key_file) else { continue };
        let (Some(file), Some(key)) = (text(file), text(key)) else { continue };
        let given = given(file, key).ok();
        let given = given.filter(|given| tree.read_at.is_none_or(|now| now < given.facts.not_after));
        found.extend(given.map(|given| (certificate.id(), given)));
    }
    found
}

fn authorities(desired: &Desired, tree: &SourceTree) -> BTreeMap<String, String> {
    let certificates = desired.load_balancers.values().flat_map(|manifest| manifest.spec.certificates());
    let files = certificates.filter_map(|certificate| certificate.acme.as_ref()?.ca_file.as_ref());
    files.filter_map(|file| Some((file.clone(), tree.pems.as_ref()?.get(file)?.as_ref().ok()?.clone()))).collect()
}

/// The files that are gone, while there is a broken one that nobody knew before: it may be one of them under a new name, and then nothing of
/// it was meant to go.
fn perhaps_renamed(declared_before: &BTreeSet<&str>, broken: &BTreeSet<String>, tree: &SourceTree) -> BTreeSet<String> {
    let known = |path: &String| {
        declared_before.iter().any(|file| file == path || (path.ends_with('/') && file.starts_with(path.as_str())))
    };
    if broken.iter().all(known) {
        return BTreeSet::new();
    }
    declared_before.iter().filter(|file| !tree.files.contains_key(**file)).map(|file| (*file).to_owned()).collect()
}

/// Findings by file.
pub type Findings = BTreeMap<String, Vec<Finding>>;

struct Clerk<'a> {
    root: &'a Path,
    files: &'a BTreeMap<String, SourceFile>,
    attachments: &'a Attachments,
    pems: Option<&'a Attachments>,
    now: Option<Timestamp>,
    check_expression: CheckExpression,
    tables: Tables,
    findings: Findings,
    /// What is said once for the whole tree.
    once: BTreeSet<String>,
    /// Where each object was first declared.
    seen: BTreeMap<(Kind, String), (String, Span)>,
}

impl Clerk<'_> {
    fn say(&mut self, file: &str, findings: impl IntoIterator<Item = Finding>) {
        let once = &mut self.once;
        let news =
            |finding: &Finding| finding.code != check::LOG_DRIVER_TAKEN_OVER || once.insert(finding.code.to_owned());
        self.findings.entry(file.to_owned()).or_default().extend(findings.into_iter().filter(news));
    }

    /// The documents of a file, or, when it is broken, the names that it can be seen to declare.
    fn file(&mut self, file: &SourceFile, tree: &SourceTree) -> Result<Vec<Document>, Vec<(Kind, String)>> {
        let json = Path::new(&file.path).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        let composed =
            if json { compose(&json_as_yaml(&file.text), &tree.limits) } else { compose(&file.text, &tree.limits) };
        let mut broken = composed.errors.iter().any(Finding::is_error);
        self.say(&file.path, composed.errors);
        let (mut documents, mut names) = (Vec::new(), Vec::new());
        for root in composed.documents {
            let outcome = read(root, &tree.images);
            broken |= outcome.findings.iter().any(Finding::is_error);
            self.say(&file.path, outcome.findings);
            self.not_acted_on(&file.path, outcome.fields);
            names.extend(outcome.header);
            documents.extend(outcome.document);
        }
        if !broken {
            return Ok(documents);
        }
        // Tell everything at once, although none of it takes effect.
        for mut document in documents {
            let found = self.check(file, &mut document);
            self.say(&file.path, found);
        }
        Err(names)
    }

    fn not_acted_on(&mut self, file: &str, fields: Fields) {
        for (name, spans) in fields.not_acted_on {
            let said_once = matches!(name.as_str(), "taskRoleArn" | "executionRoleArn");
            let Some(first) = spans.first().filter(|_| !said_once || self.once.insert(name.clone())) else { continue };
            let mut finding = Finding::warning(
                "not-acted-on",
                *first,
                format!("{} is known, kept, and not acted on by this version", quote(&name)),
            )
            .maybe_help(instead_of(&name).map(str::to_owned));
            finding = match spans.len() {
                _ if said_once => finding,
                1 => finding,
                2 => finding.label("and in one more place of this manifest"),
                places => finding.label(format!("and in {} more places of this manifest", places - 1)),
            };
            self.say(file, [finding]);
        }
    }

    /// What a file may name.
    fn beside<'f>(&'f self, file: &'f SourceFile) -> check::Beside<'f> {
        let folder = file.path.rsplit_once('/').map_or(0, |(folder, _)| folder.len() + 1);
        check::Beside {
            folder: file.path.get(..folder).unwrap_or_default(),
            attachments: self.attachments,
            pems: self.pems,
            now: self.now,
        }
    }

    /// Checks an object by itself; mends what is relative.
    fn check(&self, file: &SourceFile, document: &mut Document) -> Vec<Finding> {
        let mut scope = Scope::new(&document.node);
        match &mut document.spec {
            Spec::Cluster(spec) => check::cluster(spec, &mut scope),
            Spec::Host(spec) => check::host(spec, &mut scope, &folder_of(self.root, &file.path)),
            Spec::TaskDefinition(spec) => {
                check::task_definition(spec, &mut scope, self.check_expression, self.beside(file));
                let name = &document.metadata.name;
                if let Some(family) = spec.family.as_ref().filter(|family| *family != name) {
                    scope
                        .warning(
                            at!["family"],
                            "family",
                            format!("the manifest is named {} and the family {}", quote(name), quote(family)),
                        )
                        .label("services refer to it by its family");
                }
            }
            Spec::Service(spec) => check::service(spec, &mut scope, self.check_expression, self.beside(file)),
            Spec::ScheduledTask(spec) => check::scheduled_task(spec, &mut scope, self.check_expression),
            Spec::Subnet(spec) => check::subnet(spec, &mut scope),
            Spec::SecurityGroup(spec) => check::security_group(spec, &mut scope),
            Spec::TargetGroup(spec) => check::target_group(spec, &mut scope),
            Spec::LoadBalancer(spec) => check::load_balancer(spec, &mut scope, self.beside(file)),
        }
        scope.findings
    }

    fn declare(&mut self, file: &SourceFile, mut document: Document) {
        let found = self.check(file, &mut document);
        let good = !found.iter().any(Finding::is_error);
        self.say(&file.path, found);
        let Document { metadata, name_span, line, node, spec } = document;
        let name = metadata.name.clone();
        match spec {
            Spec::Cluster(spec) => {
                let good = self.first(Kind::Cluster, &name, file, name_span) && good;
                self.tables.clusters.put(name.into(), good, declared(file, metadata, line, node, spec));
            }
            Spec::Host(spec) => {
                let good = self.first(Kind::Host, &name, file, name_span) && good;
                self.tables.hosts.put(name.into(), good, declared(file, metadata, line, node, *spec));
            }
            Spec::TaskDefinition(spec) => {
                let family = family_of(&spec, &name);
                let span = if spec.family.is_some() { node.locate(at!["family"]) } else { name_span };
                let good = self.first(Kind::TaskDefinition, family.as_str(), file, span) && good;
                self.tables.task_definitions.put(
                    family,
                    good,
                    declared(file, metadata, line, node, Definition::new(*spec)),
                );
            }
            Spec::ScheduledTask(spec) => {
                let good = self.first(Kind::ScheduledTask, &name, file, name_span) && good;
                self.tables.scheduled_tasks.put(name.into(), good, declared(file, metadata, line, node, *spec));
            }
            Spec::Subnet(spec) => {
                let good = self.first(Kind::Subnet, &name, file, name_span) && good;
                self.tables.subnets.put(name.into(), good, declared(file, metadata, line, node, spec));
            }
            Spec::SecurityGroup(spec) => {
                let good = self.first(Kind::SecurityGroup, &name, file, name_span) && good;
                self.tables.security_groups.put(name.into(), good, declared(file, metadata, line, node, spec));
            }
            Spec::TargetGroup(spec) => {
                let good = self.first(Kind::TargetGroup, &name, file, name_span) && good;
                self.tables.target_groups.put(name.into(), good, declared(file, metadata, line, node, *spec));
            }
            Spec::LoadBalancer(spec) => {
                let good = self.first(Kind::LoadBalancer, &name, file, name_span) && good;
                self.tables.load_balancers.put(name.into(), good, declared(file, metadata, line, node, *spec));
            }
            Spec::Service(spec) => {
                let mut spec = *spec;
                let good = self.first(Kind::Service, &name, file, name_span)
                    && self.inline(file, &metadata, line, &node, &mut spec, name_span)
                    && good;
                self.tables.services.put(name.into(), good, declared(file, metadata, line, node, spec));
            }
        }
    }

    /// Whether a name is declared for the first time. The first of two is told, and both are as if wrong: nobody knows which is meant.
    fn first(&mut self, kind: Kind, name: &str, file: &SourceFile, span: Span) -> bool {
        let key = (kind, name.to_owned());
        let Some((first_file, first_span)) = self.seen.get(&key) else {
            self.seen.insert(key, (file.path.clone(), span));
            return true;
        };
        let mut finding = Finding::error("duplicate-name", span, format!("{kind:?} {} is declared twice", quote(name)))
            .label("again here");
        let crowded = self.findings.get(&file.path).is_some_and(|findings| findings.len() >= FINDINGS_PER_FILE);
        if let Some(first) = self.files.get(first_file).filter(|_| !crowded) {
            finding = finding.elsewhere(place(first, *first_span, "first here"));
        }
        self.say(&file.path, [finding.help("rename one, or delete it; until then both stay as they were")]);
        self.tables.fail([key]);
        false
    }

    /// Moves a task definition written in a service to the others, and leaves its name in the service.
    fn inline(
        &mut self,
        file: &SourceFile,
        metadata: &Metadata,
        line: u32,
        node: &Node,
        service: &mut ServiceSpec,
        name_span: Span,
    ) -> bool {
        let TaskDefinitionRef::Inline(inline) = &mut service.task_definition else { return true };
        let mut spec: TaskDefinitionSpec = std::mem::take(inline);
        let family = family_of(&spec, &metadata.name);
        service.task_definition = TaskDefinitionRef::Named(family.to_string());
        let node = node.get("taskDefinition").unwrap_or(node).clone();
        let mut scope = Scope::new(&node);
        check::task_definition(&mut spec, &mut scope, self.check_expression, self.beside(file));
        let mut good = !scope.failed();
        let findings = scope.findings;
        self.say(&file.path, findings);
        let span = if spec.family.is_some() { node.locate(at!["family"]) } else { name_span };
        let key = (Kind::TaskDefinition, family.to_string());
        match self.seen.get(&key) {
            Some((first_file, first_span)) => {
                let mut finding = Finding::error(
                    "duplicate-name",
                    span,
                    format!(
                        "the family {} of this service's own task definition is declared elsewhere",
                        quote(family.as_str())
                    ),
                );
                if let Some(first) = self.files.get(first_file) {
                    finding = finding.elsewhere(place(first, *first_span, "here"));
                }
                let help =
                    format!("write `taskDefinition: {family}` to use that one, or give this one another `family`");
                self.say(&file.path, [finding.help(help)]);
                good = false;
            }
            None => {
                self.seen.insert(key, (file.path.clone(), span));
                let manifest =
                    Metadata { name: family.to_string(), labels: BTreeMap::new(), annotations: BTreeMap::new() };
                self.tables.inline.insert(metadata.name.as_str().into(), family.clone());
                self.tables.task_definitions.put(family, good, declared(file, manifest, line, node, spec.into()));
            }
        }
        good
    }
}

fn declared<S>(file: &SourceFile, metadata: Metadata, line: u32, node: Node, spec: S) -> Declared<S> {
    Declared {
        manifest: Manifest {
            labels: metadata.labels,
            annotations: metadata.annotations,
            file: file.path.clone(),
            line,
            spec,
        },
        node,
    }
}

fn folder_of(root: &Path, file: &str) -> PathBuf {
    root.join(file).parent().map_or_else(|| root.to_owned(), Path::to_owned)
}

/// What to do in place of a field that is not acted on.
fn instead_of(field: &str) -> Option<&'static str> {
    Some(match field {
        "taskRoleArn" | "executionRoleArn" | "roleArn" => "said once: there are no roles here",
        "proxyConfiguration" => "there is no service mesh: containers reach each other directly",
        "ephemeralStorage" => "containers share the host's disk: what they write is not limited",
        "inferenceAccelerators" => "nobody but Amazon has them",
        "firelensConfiguration" => {
            "nothing is routed through this container: say `logDriver: fluentd` and its address instead"
        }
        "restartAttemptPeriod" => "Docker's own pause is used instead: 100 ms, doubled each time up to a minute",
        "credentialSpecs" => "credential specs are for Windows",
        "transitEncryption" | "transitEncryptionPort" => "NFS is spoken as it is: keep it inside a network you trust",
        "authorizationConfig" => "there are no access points: `rootDirectory` names the folder",
        _ => return None,
    })
}
