//! Lifecycle hooks: what must succeed before a deployment leaves a stage.
//!
//! Rule: "Lifecycle hooks for Amazon ECS service deployments", ECS developer guide. One after the other, in the manifest's order.

use std::sync::Arc;

use super::turns::Verdict;
use crate::model::{
    call::Turn,
    deployment::{HookRun, LifecycleStage},
    spec::{service::LaunchType, strategy::LifecycleHook, task_definition::Environment},
    standalone::{ContainerOverride, Standalone, TaskOverride},
    state::ServiceRecord,
    task::{StopCode, Task},
};
use crate::plan::{
    calls,
    draft::Draft,
    place::{self, Job},
    revision, schedule,
    service::{self, Subjected},
};

/// What the hooks of a stage make of it; none once they have all succeeded.
pub(super) fn judge(draft: &mut Draft<'_>, service: &Subjected<'_>, stage: LifecycleStage) -> Option<Verdict> {
    let hooks = &service.spec.deployment_configuration.lifecycle_hooks;
    let of_stage = hooks.iter().enumerate().filter(|(_, hook)| hook.lifecycle_stages.contains(&stage));
    for (index, hook) in of_stage {
        let primary = draft.services[service.no].record().and_then(ServiceRecord::primary);
        let run = primary.and_then(|primary| primary.hooks.iter().find(|run| (run.stage, run.index) == (stage, index)));
        let verdict = match run.cloned() {
            None => Some(begin(draft, service, stage, (index, hook))),
            Some(run) if run.done => None,
            Some(run) => follow(draft, service, hook, &run),
        };
        if verdict.is_some() {
            return verdict;
        }
    }
    None
}

fn note(draft: &mut Draft<'_>, service: &Subjected<'_>, run: HookRun, pauses: bool) {
    let now = draft.now();
    draft.services[service.no].change(|record| {
        let Some(primary) = record.deployments.first_mut() else { return };
        primary.hooks.retain(|known| (known.stage, known.index) != (run.stage, run.index));
        primary.hooks.push(run);
        if pauses {
            primary.paused_at = Some(now);
        }
        primary.updated_at = now;
    });
    draft.tasks.look_again();
}

fn begin(
    draft: &mut Draft<'_>,
    service: &Subjected<'_>,
    stage: LifecycleStage,
    (index, hook): (usize, &LifecycleHook),
) -> Verdict {
    let since = draft.now();
    let run = HookRun { stage, index, since, task: None, turn: None, failed: false, done: false };
    if hook.url.is_some() {
        let turn = Turn::first(since);
        let words = calls::words(hook, &turn);
        note(draft, service, HookRun { turn: Some(turn), ..run }, false);
        return Verdict::Stays(words, None);
    }
    let Some(name) = &hook.task_definition else {
        note(draft, service, HookRun { done: true, ..run }, true);
        return Verdict::Stays(format!("a person is to say `roadstead rollout continue {}`", service.name), None);
    };
    let revision = match revision::named(draft, name) {
        Ok(revision) => revision,
        Err(words) => return Verdict::Stays(format!("its hook waits: {words}"), None),
    };
    let definition = draft.revision(&revision).and_then(|revision| revision.spec.clone());
    let Some(definition) = definition else {
        return Verdict::Fails(format!("the content of its hook {revision} was lost"));
    };
    let told = [
        ("ROADSTEAD_SERVICE", service.name.to_string()),
        ("ROADSTEAD_REVISION", service.target.to_string()),
        ("ROADSTEAD_LIFECYCLE_STAGE", stage.word().to_owned()),
    ];
    let environment = Environment(told.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
    let of_container = |name: &String| ContainerOverride {
        name: name.clone(),
        environment: environment.clone(),
        ..ContainerOverride::default()
    };
    let containers = definition.container_definitions.iter().map(|container| of_container(&container.name)).collect();
    let job = Job {
        revision: &revision,
        definition: &definition,
        cluster: &service.spec.cluster,
        launch_type: LaunchType::Ec2,
        constraints: &[],
        strategies: &[],
        network: service.spec.network_configuration.as_ref(),
        standalone: Arc::new(Standalone {
            started_by: Some(format!("service/{}", service.name)),
            overrides: TaskOverride { container_overrides: containers, ..TaskOverride::default() },
            ..Standalone::default()
        }),
        nth: 0,
    };
    let reason = format!("the hook of {} at {}", service.name, stage.word());
    match place::start_standalone(draft, &job, &reason) {
        Ok(task) => {
            let words = format!("its hook runs: task {task}");
            note(draft, service, HookRun { task: Some(task), ..run }, false);
            Verdict::Stays(words, None)
        }
        Err(unplaceable) => Verdict::Stays(format!("its hook finds no host: {unplaceable}"), None),
    }
}

/// How a hook fares that is a task, or a server.
fn follow(draft: &mut Draft<'_>, service: &Subjected<'_>, hook: &LifecycleHook, run: &HookRun) -> Option<Verdict> {
    if let Some(turn) = &run.turn {
        return Some(asked(draft, hook, run, turn));
    }
    let Some(id) = &run.task else { return None };
    let known: Vec<&Task> = draft.tasks.iter().filter(|task| task.id == *id).collect();
    match schedule::ended(&known, 1) {
        Some(Ok(())) => {
            note(draft, service, HookRun { done: true, ..run.clone() }, false);
            None
        }
        Some(Err(words)) => Some(Verdict::Fails(format!("its hook at {} failed: {words}", run.stage.word()))),
        None => {
            let until = run.since.plus_ms(hook.timeout().as_ms());
            if until > draft.now() {
                return Some(Verdict::Stays(format!("its hook runs: task {id}"), Some(until)));
            }
            let of_hook = draft.tasks.with(|traits| traits.live).find(|(_, task)| task.id == *id).map(|(no, _)| no);
            if let Some(no) = of_hook {
                service::stop(draft, no, StopCode::ServiceSchedulerInitiated, "the hook took too long");
            }
            Some(Verdict::Fails(format!("its hook at {} took too long", run.stage.word())))
        }
    }
}

/// A server's word is taken in when it comes; here its time ends.
fn asked(draft: &Draft<'_>, hook: &LifecycleHook, run: &HookRun, turn: &Turn) -> Verdict {
    let stage = run.stage.word();
    let until = run.since.plus_ms(hook.timeout().as_ms());
    if run.failed {
        let url = hook.url.as_deref().unwrap_or_default();
        Verdict::Fails(format!("its hook at {stage} failed: {url} says FAILED"))
    } else if until <= draft.now() {
        let said = turn.said.as_deref().unwrap_or("no answer");
        Verdict::Fails(format!("its hook at {stage} took too long: {said}"))
    } else {
        let next = if turn.at > draft.now() { turn.at.min(until) } else { until };
        Verdict::Stays(calls::words(hook, turn), Some(next))
    }
}
