//! Manifests. Input: a file's text, or several behind lines `== name`; after `~~~`, what the files became later. An input that
//! begins with the byte 0xff is the bytes of one file, read from a disk.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
};

use roadstead_control::control::ingest::check_expression;
use roadstead_core::{
    manifest::{Admission, Limits, SourceTree, admit, as_written, read_tree, render},
    model::{
        desired::{Desired, Manifest},
        diagnostic::{Diagnostic, Place},
        spec::{API_VERSION, service::TaskDefinitionRef},
    },
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Reached, assert_readable, parts};

/// Small enough for small inputs to reach them.
fn limits() -> Limits {
    Limits { file_bytes: 4096, depth: 16, nodes: 1000, aliases: 8, text_bytes: 8192, ..Limits::default() }
}

/// Findings of one file, and the line that counts the others.
const FINDINGS_MAX: usize = 201;

/// Whatever the bytes: an end, the same answer twice, findings inside their files, and nothing admitted that would not be again.
pub fn admission(input: &[u8]) -> Reached {
    let mut reached = Reached::new();
    if let [0xff, bytes @ ..] = input {
        let tree = from_disk(bytes);
        reached.insert(if tree.unread.is_empty() { "read" } else { "not read" });
        holds(&tree, &Desired::default(), &mut reached);
        return reached;
    }
    let (before, after) = parts(input);
    let first = holds(&tree(before), &Desired::default(), &mut reached);
    renders(&first.desired, &mut reached);
    if !after.is_empty() {
        let then = holds(&tree(after), &first.desired, &mut reached);
        stays(&first.desired, &then, &mut reached);
    }
    reached
}

fn tree(input: &[u8]) -> SourceTree {
    let text = String::from_utf8_lossy(input);
    let mut files: BTreeMap<&str, String> = BTreeMap::new();
    let mut current = "fleet.yaml";
    for line in text.split_inclusive('\n') {
        match line.strip_prefix("== ").map(str::trim_end).filter(|name| is_file_name(name) && files.len() < 8) {
            Some(name) => {
                files.entry(name).or_default();
                current = name;
            }
            None => files.entry(current).or_default().push_str(line),
        }
    }
    let files = files.into_iter().map(|(name, text)| (name, text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned()));
    let mut tree = SourceTree::from_texts("/srv/manifests", files);
    tree.limits = limits();
    tree
}

fn is_file_name(name: &str) -> bool {
    let sane = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'/' | b'-');
    let stem = [".yaml", ".json"].iter().find_map(|end| name.strip_suffix(end));
    stem.is_some_and(|stem| (1..=32).contains(&stem.len()) && stem.bytes().all(sane))
}

fn from_disk(bytes: &[u8]) -> SourceTree {
    thread_local!(static FOLDER: OnceCell<tempfile::TempDir> = const { OnceCell::new() });
    FOLDER.with(|folder| {
        let folder = folder.get_or_init(|| tempfile::tempdir().expect("a folder"));
        std::fs::write(folder.path().join("fleet.yaml"), bytes).expect("a file");
        let tree = read_tree(folder.path(), &limits()).expect("a folder with one file");
        let fits = bytes.len() as u64 <= limits().file_bytes && std::str::from_utf8(bytes).is_ok();
        assert_eq!(tree.files.len(), usize::from(fits), "read, and not to be");
        assert_eq!(tree.unread.len(), usize::from(!fits), "neither read nor refused");
        tree
    })
}

/// What holds of every tree, whatever was there before.
pub fn holds(tree: &SourceTree, previous: &Desired, reached: &mut Reached) -> Admission {
    let admission = admit(tree, previous, check_expression);
    let again = admit(tree, previous, check_expression);
    assert_eq!(again.desired, admission.desired, "judged twice");
    assert_eq!(again.diagnostics, admission.diagnostics, "judged twice");
    assert_eq!(again.broken_files, admission.broken_files, "judged twice");

    let mut findings: BTreeMap<&str, usize> = BTreeMap::new();
    for diagnostic in &admission.diagnostics {
        told(diagnostic, tree, previous);
        *findings.entry(&diagnostic.place.file).or_default() += 1;
    }
    assert!(findings.values().all(|number| *number <= FINDINGS_MAX), "{findings:?}");
    let drawn = render(&admission.diagnostics, false);
    assert!(!drawn.contains(|c: char| c.is_control() && c != '\n'), "{drawn:?}");

    for file in &admission.broken_files {
        assert!(tree.files.contains_key(file) || tree.unread.contains(file), "{file} is broken and not there");
        reached.insert("a broken file");
    }
    assert_eq!(admission.has_errors(), admission.diagnostics.iter().any(Diagnostic::is_error));
    if !admission.broken_files.is_empty() {
        assert!(admission.has_errors(), "a file is broken for no reason");
    }
    refers_to_what_is_there(&admission.desired);
    is_bounded(&admission.desired, tree, previous);
    let stored = serde_json::to_string(&admission.desired).expect("JSON");
    assert_eq!(serde_json::from_str::<Desired>(&stored).expect("what was stored"), admission.desired);
    let on_top = admit(tree, &admission.desired, check_expression).desired;
    assert_eq!(on_top, admission.desired, "admitted again on top of itself");
    reached
        .extend(admission.diagnostics.iter().map(|diagnostic| if diagnostic.is_error() { "error" } else { "warning" }));
    admission
}

fn told(diagnostic: &Diagnostic, tree: &SourceTree, previous: &Desired) {
    assert_readable(&diagnostic.message, 8192);
    diagnostic.help.iter().flat_map(|help| help.lines()).for_each(|line| assert_readable(line, 8192));
    assert!(!diagnostic.code.is_empty() && !diagnostic.message.is_empty());
    std::iter::once(&diagnostic.place).chain(&diagnostic.also).for_each(|place| inside(place, tree, previous));
    let json = serde_json::to_string(diagnostic).expect("JSON");
    assert_eq!(&serde_json::from_str::<Diagnostic>(&json).expect("what was printed"), diagnostic);
}

/// A place lies in its file, or is about a file that is gone or could not be read.
fn inside(place: &Place, tree: &SourceTree, previous: &Desired) {
    let Some(file) = tree.files.get(&place.file) else {
        let known = tree.unread.contains(&place.file) || files(previous).contains(&place.file);
        assert!(known, "nobody knows the file of {place:?}");
        return;
    };
    assert!((1..=file.line_count()).contains(&place.line), "{place:?} of {} lines", file.line_count());
    let chars = u32::try_from(file.line(place.line).chars().count()).expect("a short line");
    assert!(place.column >= 1 && place.column <= chars + 1, "{place:?} of {chars} characters");
    assert!(place.length >= 1 && place.column + place.length <= chars + 2, "{place:?} of {chars} characters");
    assert_readable(&place.snippet, 1024);
    assert_readable(&place.label, 8192);
}

fn files(desired: &Desired) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    files.extend(desired.clusters.values().map(|manifest| manifest.file.clone()));
    files.extend(desired.hosts.values().map(|manifest| manifest.file.clone()));
    files.extend(desired.task_definitions.values().map(|manifest| manifest.file.clone()));
    files.extend(desired.services.values().map(|manifest| manifest.file.clone()));
    files
}

fn refers_to_what_is_there(desired: &Desired) {
    for (name, host) in &desired.hosts {
        assert!(desired.has_cluster(&host.spec.cluster), "host {name} in {}", host.spec.cluster);
    }
    for (name, service) in &desired.services {
        assert!(desired.has_cluster(&service.spec.cluster), "service {name} in {}", service.spec.cluster);
        let TaskDefinitionRef::Named(reference) = &service.spec.task_definition else {
            panic!("the task definition of service {name} stands in it")
        };
        let family = reference.split(':').next().unwrap_or_default();
        assert!(desired.task_definitions.contains_key(family), "service {name} of {reference}");
    }
    for (name, subnet) in &desired.subnets {
        assert!(desired.has_cluster(&subnet.spec.cluster), "subnet {name} in {}", subnet.spec.cluster);
    }
    for (name, balancer) in &desired.load_balancers {
        let groups = balancer.spec.forwards().flat_map(|(_, _, groups)| groups).map(|group| &group.target_group);
        groups.for_each(|group| assert!(desired.target_groups.contains_key(group), "{group} of load balancer {name}"));
    }
    for (name, service) in &desired.services {
        for own in &service.spec.load_balancers {
            let groups = [Some(&own.target_group), own.alternate_target_group.as_ref()];
            let mut groups = groups.into_iter().flatten();
            assert!(groups.all(|group| desired.target_groups.contains_key(group)), "{own:?} of service {name}");
        }
    }
}

/// Nothing multiplies itself: neither values nor bytes.
fn is_bounded(desired: &Desired, tree: &SourceTree, previous: &Desired) {
    fn size(value: &Value) -> (usize, usize) {
        let sum = |(values, bytes): (usize, usize), (more, longer): (usize, usize)| (values + more, bytes + longer);
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => (1, 0),
            Value::String(text) => (1, text.len()),
            Value::Array(items) => items.iter().map(size).fold((1, 0), sum),
            Value::Object(fields) => {
                fields.iter().map(|(key, value)| sum((0, key.len()), size(value))).fold((1, 0), sum)
            }
        }
    }
    let of = |desired: &Desired| size(&serde_json::to_value(desired).expect("JSON"));
    let ((values, bytes), (values_before, bytes_before)) = (of(desired), of(previous));
    let (files, limits) = (tree.files.len(), &tree.limits);
    // Defaults are written out; so are the names of fields, and the file of each object.
    assert!(values <= 5 + 16 * limits.nodes * files + values_before, "{values} values");
    assert!(bytes <= 64 + (limits.text_bytes + 256 * limits.nodes) * files + bytes_before, "{bytes} bytes");
}

/// Each object as a manifest of its own is admitted as what it is.
fn renders(desired: &Desired, reached: &mut Reached) {
    let (admitted, mut texts) = (desired, Vec::new());
    // What `expose` stands for is in no manifest.
    let desired = &*as_written(admitted);
    written("Cluster", &desired.clusters, &mut texts);
    written("Host", &desired.hosts, &mut texts);
    written("TaskDefinition", &desired.task_definitions, &mut texts);
    written("Service", &desired.services, &mut texts);
    written("ScheduledTask", &desired.scheduled_tasks, &mut texts);
    written("Subnet", &desired.subnets, &mut texts);
    written("SecurityGroup", &desired.security_groups, &mut texts);
    written("TargetGroup", &desired.target_groups, &mut texts);
    written("LoadBalancer", &desired.load_balancers, &mut texts);
    reached.extend(texts.iter().map(|(kind, ..)| *kind));
    let files = texts.iter().map(|(kind, name, text)| (format!("{kind}-{name}.json"), text.as_str()));
    let tree = SourceTree::from_texts("/srv/manifests", files);
    let admission = admit(&tree, &Desired::default(), check_expression);
    assert!(!admission.has_errors(), "admitted, and then: {}", render(&admission.diagnostics, false));
    assert_eq!(placeless(admission.desired), placeless(admitted.clone()));
}

fn written<N: AsRef<str>, S: Serialize>(
    kind: &'static str,
    objects: &BTreeMap<N, Manifest<S>>,
    texts: &mut Vec<(&'static str, String, String)>,
) {
    for (name, Manifest { labels, annotations, spec, .. }) in objects {
        let metadata = json!({ "name": name.as_ref(), "labels": labels, "annotations": annotations });
        let text = json!({ "apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec });
        texts.push((kind, name.as_ref().to_owned(), text.to_string()));
    }
}

fn placeless(mut desired: Desired) -> Desired {
    fn forget<N, S>(objects: &mut BTreeMap<N, Manifest<S>>) {
        for manifest in objects.values_mut() {
            (manifest.file, manifest.line) = (String::new(), 0);
        }
    }
    forget(&mut desired.clusters);
    forget(&mut desired.hosts);
    forget(&mut desired.task_definitions);
    forget(&mut desired.services);
    forget(&mut desired.scheduled_tasks);
    forget(&mut desired.subnets);
    forget(&mut desired.security_groups);
    forget(&mut desired.target_groups);
    forget(&mut desired.load_balancers);
    desired
}

/// Nothing that a broken file declared is taken away.
fn stays(before: &Desired, then: &Admission, reached: &mut Reached) {
    fn all<N: Ord + std::fmt::Debug, S>(
        before: &BTreeMap<N, Manifest<S>>,
        after: &BTreeMap<N, Manifest<S>>,
        broken: &BTreeSet<String>,
        reached: &mut Reached,
    ) {
        for (name, _) in before.iter().filter(|(_, manifest)| broken.contains(&manifest.file)) {
            assert!(after.contains_key(name), "{name:?} is gone although its file is broken");
            reached.insert("stays");
        }
    }
    let Admission { desired: after, broken_files: broken, .. } = then;
    all(&before.clusters, &after.clusters, broken, reached);
    all(&before.hosts, &after.hosts, broken, reached);
    all(&before.task_definitions, &after.task_definitions, broken, reached);
    all(&before.services, &after.services, broken, reached);
    all(&before.scheduled_tasks, &after.scheduled_tasks, broken, reached);
    all(&before.subnets, &after.subnets, broken, reached);
    all(&before.security_groups, &after.security_groups, broken, reached);
    all(&before.target_groups, &after.target_groups, broken, reached);
    all(&before.load_balancers, &after.load_balancers, broken, reached);
}
