//! A plan: what would happen, and what waits.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use roadstead_core::model::{
    diagnostic::Diagnostic,
    report::{Doing, Report, Waiting},
    spec::{KINDS, Kind},
    time::Timestamp,
    world::Subject,
};

/// What would happen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanView {
    /// In order.
    pub actions: Vec<PlannedAction>,
    /// What is wanted and cannot be done now.
    pub waiting: Vec<WaitingView>,
    /// Counts.
    pub summary: PlanSummary,
    /// Warnings about the manifests.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub diagnostics: Vec<Diagnostic>,
}

/// One thing that would be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedAction {
    /// start, stop, remove, adopt, …
    pub action: String,
    /// fleet, host, service, task; of what is declared no longer, also cluster and taskdefinition.
    pub kind: String,
    /// Of what it is about; empty for the fleet.
    pub name: String,
    /// Its service, for a task.
    pub service: Option<String>,
    /// Where.
    pub host: Option<String>,
    /// Why.
    pub reason: String,
}

/// One thing that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaitingView {
    /// fleet, host, service, task.
    pub kind: String,
    /// Of what it is about; empty for the fleet.
    pub name: String,
    /// Why, and what a person can do.
    pub reason: String,
    /// What ends the waiting.
    pub wakes_when: String,
    /// When it is tried again by itself.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub wakes_at: Option<Timestamp>,
}

/// Counts of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanSummary {
    /// How many actions of each word.
    pub actions: BTreeMap<String, u32>,
    /// How many things wait.
    pub waiting: u32,
    /// Whether anything would be done.
    pub changes: bool,
}

/// A plan's report and what is declared no longer; `service_of` knows the services of tasks.
pub fn view(
    report: &Report,
    removed: &[(Kind, String)],
    diagnostics: Vec<Diagnostic>,
    service_of: impl Fn(&Subject) -> Option<String>,
) -> PlanView {
    let undeclared = removed.iter().map(|(kind, name)| undeclared(*kind, name));
    let actions: Vec<PlannedAction> =
        undeclared.chain(steps(report).map(|doing| action(&doing, service_of(&doing.subject)))).collect();
    let mut summary =
        PlanSummary { waiting: report.waiting.len() as u32, changes: !actions.is_empty(), ..PlanSummary::default() };
    for action in &actions {
        *summary.actions.entry(action.action.clone()).or_default() += 1;
    }
    PlanView { actions, waiting: report.waiting.iter().map(waiting).collect(), summary, diagnostics }
}

/// What is done, each task's way into life as one step: where it was placed, it says why.
fn steps(report: &Report) -> impl Iterator<Item = Doing> {
    let placed: BTreeSet<&Subject> = of(report, "place").map(|doing| &doing.subject).collect();
    let started: BTreeSet<&Subject> = of(report, "start").map(|doing| &doing.subject).collect();
    let mut seen = BTreeSet::new();
    report.doing.iter().filter_map(move |doing| {
        let word = match doing.action.as_str() {
            "place" if started.contains(&doing.subject) => "start",
            "start" if placed.contains(&doing.subject) || !seen.insert(&doing.subject) => return None,
            other => other,
        };
        Some(Doing { action: word.to_owned(), ..doing.clone() })
    })
}

fn of<'a>(report: &'a Report, word: &'a str) -> impl Iterator<Item = &'a Doing> {
    report.doing.iter().filter(move |doing| doing.action == word)
}

fn undeclared(kind: Kind, name: &str) -> PlannedAction {
    PlannedAction {
        action: "remove".to_owned(),
        kind: KINDS.iter().find(|row| row.kind == kind).map(|row| row.name.to_lowercase()).unwrap_or_default(),
        name: name.to_owned(),
        service: None,
        host: None,
        reason: "the manifests do not declare it any more".to_owned(),
    }
}

pub(super) fn action(doing: &Doing, service: Option<String>) -> PlannedAction {
    let (kind, name) = words(&doing.subject);
    PlannedAction {
        action: doing.action.clone(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        service,
        host: doing.host.as_ref().map(ToString::to_string),
        reason: doing.reason.clone(),
    }
}

pub(super) fn waiting(waiting: &Waiting) -> WaitingView {
    let (kind, name) = words(&waiting.subject);
    WaitingView {
        kind: kind.to_owned(),
        name: name.to_owned(),
        reason: waiting.reason.clone(),
        wakes_when: waiting.wakes_when.clone(),
        wakes_at: waiting.wakes_at,
    }
}

fn words(subject: &Subject) -> (&'static str, &str) {
    match subject {
        Subject::Fleet => ("fleet", ""),
        Subject::Host(name) => ("host", name.as_str()),
        Subject::Service(name) => ("service", name.as_str()),
        Subject::Task(id) => ("task", id.as_str()),
        Subject::ScheduledTask(name) => ("scheduledtask", name.as_str()),
        Subject::Subnet(name) => ("subnet", name.as_str()),
        Subject::LoadBalancer(name) => ("loadbalancer", name.as_str()),
    }
}
