//! RunTask → changes: standalone tasks, placed once.
//!
//! Rules: "RunTask", ECS API reference. What cannot be placed now fails now.

use std::sync::Arc;

use super::Refusal;
use crate::model::{
    fargate,
    spec::service::{LaunchType, PlacementStrategy, PlacementStrategyType},
    standalone::{MAX_COUNT, MAX_STARTED_BY_CHARS, MAX_TOKEN_CHARS, RunTask, Standalone},
    state::{Change, State},
    task::Task,
    world::World,
};
use crate::plan::{
    draft::Draft,
    place::{self, Job},
    revision, service, volumes,
};

/// The tasks that the request with this token started, as far as they are remembered.
pub fn started_by_token<'s>(state: &'s State, token: &str) -> impl Iterator<Item = &'s Task> {
    let of_token = move |task: &&Task| {
        task.standalone.as_ref().is_some_and(|standalone| standalone.client_token.as_deref() == Some(token))
    };
    state.tasks.values().map(AsRef::as_ref).filter(of_token)
}

/// Starts standalone tasks, as many as can be placed; gives the answer in words.
///
/// # Errors
/// Why none was started.
pub fn run(world: &World, request: &RunTask) -> Result<(String, Vec<Change>), Refusal> {
    let refuse = |words: String| Err(Refusal::Refused(words));
    check(request)?;
    if let Some(before) = started_by_token(&world.state, &request.client_token).next() {
        let overrides = before.standalone.as_ref().map(|standalone| &standalone.overrides);
        let family = request.task_definition.split(':').next().unwrap_or_default();
        return match overrides == Some(&request.overrides) && before.revision.family.as_str() == family {
            true => Ok(("this request was carried out before: nothing is started".to_owned(), Vec::new())),
            false => refuse("the client token was used for another request".to_owned()),
        };
    }
    if world.settling {
        return refuse("the controller has just started and first looks at every host: try again".to_owned());
    }
    if !world.state.desired.has_cluster(&request.cluster) {
        return Err(Refusal::Unknown(format!("there is no cluster {}", request.cluster)));
    }
    let mut draft = Draft::new(world);
    let revision = revision::named(&draft, &request.task_definition).map_err(Refusal::Unknown)?;
    let definition = draft.revision(&revision).and_then(|revision| revision.spec.clone());
    let Some(definition) = definition else {
        return Err(Refusal::Unknown(format!("the content of {revision} was lost with the database")));
    };
    if request.launch_type == LaunchType::Fargate {
        let unfit = [&*definition, &request.overrides.over(&definition)].into_iter().find_map(fargate::unfit);
        if let Some((field, words, help)) = unfit {
            return refuse(format!("{revision} cannot run with launchType FARGATE: {field}: {words}; {help}"));
        }
    }
    if let Some((path, words)) = request.overrides.misfit(&definition) {
        return refuse(format!("overrides.{}: {words}", path.join(".")));
    }
    if let Some((words, wakes_when)) = volumes::obstacle_in(&draft, &request.cluster, &definition) {
        return refuse(format!("{words}: try again once {wakes_when}"));
    }
    draft.read_tasks(service::is_kept);
    let mut job = Job {
        revision: &revision,
        definition: &definition,
        cluster: &request.cluster,
        launch_type: request.launch_type,
        constraints: &request.placement_constraints,
        strategies: &request.placement_strategy,
        network: request.network_configuration.as_ref(),
        standalone: Arc::new(Standalone {
            started_by: request.started_by.clone(),
            client_token: Some(request.client_token.clone()),
            overrides: request.overrides.clone(),
            scheduled: None,
        }),
        nth: 0,
    };
    let reason = format!("started by {}", request.started_by.as_deref().unwrap_or("a person"));
    let mut failure = None;
    while failure.is_none() && job.nth < u64::from(request.count) {
        match place::start_standalone(&mut draft, &job, &reason) {
            Ok(_) => job.nth += 1,
            Err(unplaceable) => failure = Some(format!("{}: {unplaceable}", unplaceable.failure_reason())),
        }
    }
    let (placed, asked) = (job.nth, request.count);
    match failure {
        Some(why) if placed == 0 => refuse(why),
        Some(why) => {
            Ok((format!("{placed} of {asked} tasks of {revision} are started; {why}"), draft.finish().changes))
        }
        None => Ok((format!("{placed} tasks of {revision} are started"), draft.finish().changes)),
    }
}

fn check(request: &RunTask) -> Result<(), Refusal> {
    let is_graphic = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    let token = &request.client_token;
    let started_by = request.started_by.as_deref().unwrap_or_default();
    let chooses_hosts = !(request.placement_strategy.is_empty() && request.placement_constraints.is_empty());
    let packs_by_nothing = |strategy: &PlacementStrategy| {
        strategy.kind == PlacementStrategyType::Binpack && !matches!(strategy.field.as_deref(), Some("cpu" | "memory"))
    };
    let wrong = if !(1..=MAX_COUNT).contains(&request.count) {
        format!("count is 1 to {MAX_COUNT}, not {}", request.count)
    } else if token.is_empty() || token.len() > MAX_TOKEN_CHARS || !is_graphic(token) {
        format!("clientToken is 1 to {MAX_TOKEN_CHARS} printable ASCII characters without blanks")
    } else if started_by.chars().count() > MAX_STARTED_BY_CHARS || started_by.chars().any(char::is_control) {
        format!("startedBy is at most {MAX_STARTED_BY_CHARS} printable characters")
    } else if request.placement_strategy.len() > 5 {
        "there may be five placement strategies at most".to_owned()
    } else if request.launch_type == LaunchType::Fargate && chooses_hosts {
        "with launchType FARGATE you choose no host: leave placementStrategy and placementConstraints out".to_owned()
    } else if request.placement_strategy.iter().any(packs_by_nothing) {
        "binpack is by the field cpu or memory".to_owned()
    } else {
        return Ok(());
    };
    Err(Refusal::Refused(wrong))
}
