//! The manifests' folder of a run.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use serde::Serialize;

use crate::fleet::{FakeFleet, Folder};
use roadstead_control::control::{
    ingest,
    seams::{Admit, Source},
};
use roadstead_core::{
    manifest::{Admission, SourceTree},
    model::{
        desired::{Desired, Manifest},
        diagnostic::{Diagnostic, Place, Severity},
        name::ServiceName,
    },
};

const ROOT: &str = "/simulated";

/// See the module.
pub(super) struct FakeSource(FakeFleet);

impl FakeSource {
    pub(super) fn new(fleet: FakeFleet) -> Self {
        Self(fleet)
    }
}

#[async_trait]
impl Source for FakeSource {
    async fn read(&mut self) -> Result<SourceTree, String> {
        let (folder, version, wanted, through_yaml) = self
            .0
            .ground(|ground| (ground.folder, ground.version, Arc::clone(&ground.wanted), ground.scenario.through_yaml));
        match folder {
            Folder::Unreadable => Err("/simulated: permission denied".to_owned()),
            Folder::Empty => Ok(SourceTree::from_texts(ROOT, Vec::<(String, String)>::new())),
            Folder::Fine if through_yaml => Ok(SourceTree::from_texts(ROOT, texts(&wanted, None))),
            Folder::Broken(nth) if through_yaml => {
                Ok(SourceTree::from_texts(ROOT, texts(&wanted, nth_service(&wanted, nth))))
            }
            Folder::Fine => Ok(SourceTree::from_texts(ROOT, [("fine", version.to_string())])),
            Folder::Broken(nth) => {
                Ok(SourceTree::from_texts(ROOT, [("broken", nth.to_string()), ("fine", version.to_string())]))
            }
        }
    }

    async fn touched(&mut self) {
        self.0.touched().await;
    }
}

fn nth_service(wanted: &Desired, nth: u64) -> Option<&ServiceName> {
    wanted.services.keys().nth((nth as usize) % wanted.services.len().max(1))
}

/// Admission as it is, or a short way to the same: what the texts stand for is known here.
pub(super) fn admit(fleet: FakeFleet) -> Admit {
    Arc::new(move |tree, in_force| {
        if fleet.ground(|ground| ground.scenario.through_yaml) {
            return ingest::admit(tree, in_force);
        }
        let number = |file: &str| tree.files.get(file).and_then(|file| file.text.parse::<u64>().ok());
        let Some(version) = number("fine") else { return Admission::default() };
        let wanted = fleet.ground(|ground| ground.versions.get(&version).cloned()).unwrap_or_default();
        let mut admission = Admission { desired: (*wanted).clone(), ..Admission::default() };
        if let Some(service) = number("broken").and_then(|nth| nth_service(&wanted, nth)) {
            stay(&mut admission, in_force, service);
        }
        admission
    })
}

/// What a broken file declared stays as it was.
fn stay(admission: &mut Admission, in_force: &Desired, service: &ServiceName) {
    let (desired, family) = (&mut admission.desired, service.as_str());
    desired.services.remove(service);
    desired.task_definitions.remove(family);
    if let Some(before) = in_force.services.get(service) {
        desired.services.insert(service.clone(), before.clone());
    }
    if let Some((name, before)) = in_force.task_definitions.get_key_value(family) {
        desired.task_definitions.insert(name.clone(), before.clone());
    }
    let file = format!("{service}.yaml");
    admission.diagnostics.push(Diagnostic {
        place: Place { file: file.clone(), line: 1, ..Place::default() },
        severity: Severity::Error,
        code: "syntax".into(),
        message: "simulated".into(),
        also: Vec::new(),
        help: None,
    });
    admission.broken_files = BTreeSet::from([file]);
}

/// One file for each object; JSON is YAML.
fn texts(wanted: &Desired, broken: Option<&ServiceName>) -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for (name, cluster) in &wanted.clusters {
        texts.push((format!("{name}-cluster.yaml"), text("Cluster", name.as_str(), cluster)));
    }
    for (name, host) in &wanted.hosts {
        texts.push((format!("{name}.yaml"), text("Host", name.as_str(), host)));
    }
    for (name, subnet) in &wanted.subnets {
        texts.push((format!("{name}.yaml"), text("Subnet", name.as_str(), subnet)));
    }
    for (name, group) in &wanted.security_groups {
        texts.push((format!("{name}-group.yaml"), text("SecurityGroup", name.as_str(), group)));
    }
    for (name, group) in &wanted.target_groups {
        texts.push((format!("{name}-targets.yaml"), text("TargetGroup", name.as_str(), group)));
    }
    for (name, balancer) in &wanted.load_balancers {
        texts.push((format!("{name}-balancer.yaml"), text("LoadBalancer", name.as_str(), balancer)));
    }
    for (name, definition) in &wanted.task_definitions {
        texts.push((format!("{name}-task.yaml"), text("TaskDefinition", name.as_str(), definition)));
    }
    for (name, scheduled) in &wanted.scheduled_tasks {
        texts.push((format!("{name}-schedule.yaml"), text("ScheduledTask", name.as_str(), scheduled)));
    }
    for (name, service) in &wanted.services {
        let whole = text("Service", name.as_str(), service);
        let text = if Some(name) == broken { format!("{whole}\n]") } else { whole };
        texts.push((format!("{name}.yaml"), text));
    }
    texts
}

fn text<S: Serialize>(kind: &str, name: &str, manifest: &Manifest<S>) -> String {
    let spec = without_nulls(serde_json::to_value(&manifest.spec).unwrap_or_default());
    let object = serde_json::json!({
        "apiVersion": "roadstead/v1",
        "kind": kind,
        "metadata": { "name": name, "labels": manifest.labels },
        "spec": spec,
    });
    object.to_string()
}

fn without_nulls(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name, without_nulls(value)))
            .collect(),
        serde_json::Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}
