//! `run`: start standalone tasks, and wait for their end if asked to.

use std::{collections::BTreeMap, path::Path, time::Duration};

use clap::Args;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep};

use super::{
    Context,
    client::path,
    failure::Failure,
    get::now,
    logs::{self, Prefixes},
    printer::Format,
    rows::Row,
    table::{Cell, Table},
    text::{clean, count, name_value},
};
use crate::api::{
    routes::RunView,
    view::{task::ContainerStatus, task::TaskView, task_definition::TaskDefinitionView, word},
};
use roadstead_core::model::{
    spec::{
        TaskDefinitionSpec,
        cluster::DEFAULT_CLUSTER,
        network::{AssignPublicIp, AwsvpcConfiguration, NetworkConfiguration},
    },
    standalone::{ContainerOverride, RunTask, TaskOverride},
    task::{DesiredStatus, LastStatus, StopCode},
};

/// The controller may be away for so long while somebody waits for a task.
const CONTROLLER_AWAY: Duration = Duration::from_secs(60);
/// Pause before it is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// The exit status of what a person ended with Ctrl-C.
const INTERRUPTED: u8 = 130;

#[derive(Args)]
#[command(after_help = "\
Examples:
  roadstead run migrate --wait                      its exit code is the container's
  roadstead run migrate --logs --env STEP=2         show what it prints, and wait
  roadstead run web:3 --wait --command sh -c 'env'  another command, once
  roadstead run report --count 3 --overrides report.json

The tasks are placed once and never replaced. Exit status with --wait or --logs: the exit code of the essential
container, of several tasks the first that is not 0; 1 when a task could not be started or was lost.")]
pub(super) struct Options {
    /// A task definition: FAMILY, or FAMILY:REVISION
    #[arg(value_name = "TASKDEF")]
    task_definition: String,
    /// How many tasks
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10))]
    count: u32,
    /// What differs from the task definition: ECS's TaskOverride, in a file or as JSON
    #[arg(long, value_name = "FILE|JSON")]
    overrides: Option<String>,
    /// One more environment variable; may be given again
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = name_value)]
    env: Vec<(String, String)>,
    /// The container that --env and --command mean, when several are essential
    #[arg(long, value_name = "NAME")]
    container: Option<String>,
    /// Wait until the tasks are over
    #[arg(short, long)]
    wait: bool,
    /// Show what the tasks print, and wait until they are over
    #[arg(short, long)]
    logs: bool,
    /// Who starts them, for the record
    #[arg(long, value_name = "TEXT")]
    started_by: Option<String>,
    /// A second request with the same token starts nothing
    #[arg(long, value_name = "TEXT")]
    client_token: Option<String>,
    /// With networkMode awsvpc: where their addresses are from; all subnets of the cluster when absent
    #[arg(long, value_name = "NAME")]
    subnet: Vec<String>,
    /// With networkMode awsvpc: a group that they are in; `default` when absent
    #[arg(long, value_name = "NAME")]
    security_group: Vec<String>,
    /// Another command; comes last, since every word behind it is part of it
    #[arg(long, value_name = "WORD", num_args = 1.., allow_hyphen_values = true)]
    command: Vec<String>,
}

fn network(subnets: Vec<String>, security_groups: Vec<String>) -> Option<NetworkConfiguration> {
    let is_said = !subnets.is_empty() || !security_groups.is_empty();
    is_said.then(|| NetworkConfiguration {
        awsvpc_configuration: AwsvpcConfiguration {
            subnets: subnets.into_iter().map(Into::into).collect(),
            security_groups: security_groups.into_iter().map(Into::into).collect(),
            assign_public_ip: AssignPublicIp::Disabled,
        },
    })
}

pub(super) async fn run(context: &Context, options: Options) -> Result<(), Failure> {
    let request = RunTask {
        overrides: overrides(context, &options).await?,
        task_definition: options.task_definition,
        count: options.count,
        cluster: context.cluster.as_deref().unwrap_or(DEFAULT_CLUSTER).into(),
        launch_type: Default::default(),
        network_configuration: network(options.subnet, options.security_group),
        placement_constraints: Vec::new(),
        placement_strategy: Vec::new(),
        started_by: options.started_by,
        client_token: options.client_token.unwrap_or_default(),
    };
    let mut answer: RunView = context.client.post("/v1/run", &request).await??;
    answer.warnings.iter().for_each(|words| context.printer.warning(&clean(words)));
    let is_waiting = options.wait || options.logs;
    let missing = answer.failures.first().map(|failure| {
        let what = count(answer.failures.len(), "task");
        Failure::failed(format!("{what} could not be started: {}", clean(&failure.reason)))
    });
    if is_waiting {
        let ids: Vec<String> = answer.tasks.iter().map(|task| task.task_id.clone()).collect();
        tokio::select! {
            over = watch(context, &ids, options.logs) => answer.tasks = over?,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(Failure::not_tried)?;
                return Err(goes_on(context, &ids));
            }
        }
    }
    match context.printer.is_document() {
        true => context.printer.document(&answer)?,
        // What they printed is the result.
        false if options.logs => {}
        false => print(context, &answer.tasks)?,
    }
    let ended_badly = answer.tasks.iter().filter(|_| is_waiting).find_map(|task| ended_badly(context, task));
    match ended_badly.or(missing) {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

/// What differs: `--overrides`, and over it `--env` and `--command`.
async fn overrides(context: &Context, options: &Options) -> Result<TaskOverride, Failure> {
    let mut overrides = match &options.overrides {
        None => TaskOverride::default(),
        Some(given) => {
            let text = match given.trim_start().starts_with('{') {
                true => given.clone(),
                false => std::fs::read_to_string(Path::new(given))
                    .map_err(|error| Failure::not_tried(format!("cannot read {given}: {error}")))?,
            };
            // YAML reads JSON, too.
            serde_yaml::from_str(&text).map_err(|error| Failure::not_tried(format!("bad overrides: {error}")))?
        }
    };
    if options.env.is_empty() && options.command.is_empty() {
        return Ok(overrides);
    }
    let name = match &options.container {
        Some(name) => name.clone(),
        None => essential(context, &options.task_definition).await?,
    };
    let containers = &mut overrides.container_overrides;
    let at = containers.iter().position(|container| container.name == name).unwrap_or_else(|| {
        containers.push(ContainerOverride { name, ..ContainerOverride::default() });
        containers.len() - 1
    });
    if let Some(container) = containers.get_mut(at) {
        container.environment.0.extend(options.env.iter().cloned());
        if !options.command.is_empty() {
            container.command.clone_from(&options.command);
        }
    }
    Ok(overrides)
}

/// The only essential container of a task definition.
async fn essential(context: &Context, name: &str) -> Result<String, Failure> {
    let view: TaskDefinitionView = context.client.get(&path(&["taskdefinitions", name], &[])).await?;
    let spec: TaskDefinitionSpec = match view.spec {
        Some(spec) => serde_json::from_value(spec).map_err(Failure::not_tried)?,
        None => return Err(Failure::failed(format!("the content of {name} was lost with the database"))),
    };
    let essential = spec.container_definitions.into_iter().filter(|container| container.essential);
    let names: Vec<String> = essential.map(|container| container.name).collect();
    match &names[..] {
        [only] => Ok(only.clone()),
        several => Err(Failure::not_tried(format!("{name} has {} essential containers", several.len()))
            .hint(format!("say which one you mean: --container {}", several.join(", or ")))),
    }
}

/// Until all tasks are over; shows what they print if asked to.
async fn watch(context: &Context, ids: &[String], with_logs: bool) -> Result<Vec<TaskView>, Failure> {
    if !with_logs {
        return wait(context, ids).await;
    }
    let prefixes = std::cell::RefCell::new(Prefixes::new(context));
    let mut readers: FuturesUnordered<_> = ids.iter().map(|id| follow(context, id, &prefixes)).collect();
    let mut over = Box::pin(wait(context, ids));
    loop {
        tokio::select! {
            biased;
            Some(read) = readers.next() => read?,
            tasks = &mut over => {
                let tasks = tasks?;
                // Their last lines may still be on the way; a lost host's never come.
                let rest = async { while let Some(read) = readers.next().await { read? } Ok::<(), Failure>(()) };
                return match tokio::time::timeout(Duration::from_secs(5), rest).await {
                    Ok(read) => read.map(|()| tasks),
                    Err(_) => Ok(tasks),
                };
            }
        }
    }
}

/// Prints what a task prints; when the controller goes away that ends, and the wait tells.
async fn follow(context: &Context, id: &str, prefixes: &std::cell::RefCell<Prefixes>) -> Result<(), Failure> {
    let address = path(&["logs", "task", id], &[("follow", Some("true"))]);
    let mut lines = match context.client.lines(&address).await {
        Ok(lines) => Box::pin(lines),
        Err(_) => return Ok(()),
    };
    while let Some(line) = lines.next().await {
        let Ok(line) = line else { return Ok(()) };
        logs::show(context, &mut prefixes.borrow_mut(), &line)?;
    }
    Ok(())
}

/// Until all tasks are over, also while the controller is started anew.
async fn wait(context: &Context, ids: &[String]) -> Result<Vec<TaskView>, Failure> {
    let mut seen: BTreeMap<String, TaskView> = BTreeMap::new();
    let mut heard = Instant::now();
    loop {
        match wait_once(context, ids, &mut seen, &mut heard).await {
            Ok(Some(tasks)) => return Ok(tasks),
            Ok(None) => {}
            Err(Failure::NotTried(_)) if heard.elapsed() < CONTROLLER_AWAY => {}
            Err(failure) => return Err(failure.hint("the tasks go on: `roadstead get tasks --all` lists them")),
        }
        sleep(PAUSE).await;
    }
}

/// The same until the connection ends.
async fn wait_once(
    context: &Context,
    ids: &[String],
    seen: &mut BTreeMap<String, TaskView>,
    heard: &mut Instant,
) -> Result<Option<Vec<TaskView>>, Failure> {
    let mut changes = Box::pin(context.client.changes().await?);
    while let Some(change) = changes.next().await {
        change?;
        for id in ids {
            // One that is over is forgotten after a while, when others may still run.
            if seen.get(id).is_some_and(is_over) {
                continue;
            }
            let task: TaskView = context.client.get(&path(&["tasks", id], &[])).await?;
            if seen.get(id).map(|before| before.last_status) != Some(task.last_status) {
                context.printer.notice(&format!("task {id} on {}: {}", clean(&task.host), word(&task.last_status)));
            }
            seen.insert(id.clone(), task);
        }
        *heard = Instant::now();
        if seen.values().all(is_over) {
            return Ok(Some(ids.iter().filter_map(|id| seen.remove(id)).collect()));
        }
    }
    Ok(None)
}

/// A task on a lost host is over for who waits: whether it ever ends there, nobody can tell.
fn is_over(task: &TaskView) -> bool {
    let lost = task.desired_status == DesiredStatus::Stopped && task.stop_code == Some(StopCode::HostLost);
    task.last_status == LastStatus::Stopped || lost
}

/// How a task that is over failed.
fn ended_badly(context: &Context, task: &TaskView) -> Option<Failure> {
    let essential = || task.containers.iter().filter(|container| container.essential);
    let codes = || essential().filter(|container| container.last_status == ContainerStatus::Stopped);
    let codes: Vec<i64> = codes().filter_map(|container| container.exit_code).collect();
    let ended_by_itself = task.stop_code == Some(StopCode::EssentialContainerExited);
    let reason = task.stopped_reason.as_deref().unwrap_or("it is gone");
    match codes.iter().find(|code| **code != 0) {
        None if ended_by_itself && !codes.is_empty() => None,
        Some(code) => {
            context.printer.notice(&format!("task {}: {}", task.task_id, clean(reason)));
            Some(Failure::Status(u8::try_from(*code).unwrap_or(255)))
        }
        None => Some(Failure::failed(format!("task {}: {}", task.task_id, clean(reason)))),
    }
}

fn goes_on(context: &Context, ids: &[String]) -> Failure {
    let (what, stop) = (if ids.len() == 1 { "the task goes on" } else { "the tasks go on" }, ids.join(" "));
    let commands: Vec<String> = ids.iter().map(|id| format!("roadstead stop {id}")).collect();
    context.printer.warning(&format!("{what}: {stop}. To stop: {}", commands.join("; ")));
    Failure::Status(INTERRUPTED)
}

fn print(context: &Context, tasks: &[TaskView]) -> Result<(), Failure> {
    let printer = &context.printer;
    if printer.format == Format::Name {
        return tasks.iter().try_for_each(|task| printer.line(&task.name()));
    }
    let cells: Vec<Vec<Cell>> = tasks.iter().map(|task| task.cells(now())).collect();
    printer.line(&Table::whole(TaskView::COLUMNS, printer.format == Format::Wide, &cells, printer))
}
