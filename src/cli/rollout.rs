//! `rollout`: how a service's deployment goes, and a person's word about it.

mod picture;

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use futures_util::StreamExt;

use super::{
    Context,
    client::path,
    failure::Failure,
    get::now,
    printer::Tone,
    rows::Row,
    table::Table,
    text::{clean, count},
};
use crate::api::view::{Items, deployment::DeploymentView, service::ServiceView, status::StatusView, word};
use roadstead_core::turn::Command;
use roadstead_core::{
    model::{
        deployment::percent,
        name::RevisionId,
        state::{DeploymentStatus, Outcome, RolloutState},
    },
    plan::absorb::RolloutVerb,
};

#[derive(Subcommand)]
pub(super) enum RolloutCommand {
    /// Say how the newest rollout goes, or went
    Status(StatusOptions),
    /// List the deployments that are remembered, newest first
    History(OfService),
    /// Go back to the completed revision before the one that runs, until the manifests change
    Undo(UndoOptions),
    /// Replace every task by a new one; a tag that moved becomes a new revision
    Restart(OfService),
    /// Let the rollout stand still: it replaces nothing more; what dies, crash-loops or is sick is healed
    Pause(OfService),
    /// Let it go on; try again what failed or was taken back
    Continue(OfService),
    /// Give the rollout up: back to the last completed revision
    Abort(OfService),
}

#[derive(Args)]
pub(super) struct OfService {
    /// The service
    #[arg(value_name = "SERVICE")]
    service: String,
}

#[derive(Args)]
#[command(after_help = "\
Exit status: 0 it SUCCEEDED, or goes on; 1 it FAILED, was ROLLED_BACK or SUPERSEDED, or did not end in time.")]
pub(super) struct StatusOptions {
    #[command(flatten)]
    of: OfService,
    /// Wait until the manifests as they are now are in force and it has ended, and end with its outcome
    #[arg(short, long)]
    wait: bool,
    /// Wait no longer than so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, requires = "wait")]
    timeout: u64,
}

#[derive(Args)]
pub(super) struct UndoOptions {
    #[command(flatten)]
    of: OfService,
    /// To this revision, as `rollout history` lists them; needed where the service was taken back already
    #[arg(long, value_name = "FAMILY:REVISION")]
    to: Option<RevisionId>,
}

impl OfService {
    fn name(&self) -> &str {
        let prefixes = ["service/", "services/", "svc/"];
        prefixes.iter().find_map(|prefix| self.service.strip_prefix(prefix)).unwrap_or(&self.service)
    }
}

pub(super) async fn run(context: &Context, command: RolloutCommand) -> Result<(), Failure> {
    let (of, verb) = match command {
        RolloutCommand::Status(options) => return status(context, &options).await,
        RolloutCommand::History(of) => return history(context, &of).await,
        RolloutCommand::Undo(options) => (options.of, RolloutVerb::Undo { to: options.to }),
        RolloutCommand::Restart(of) => (of, RolloutVerb::Restart),
        RolloutCommand::Pause(of) => (of, RolloutVerb::Pause),
        RolloutCommand::Continue(of) => (of, RolloutVerb::Continue),
        RolloutCommand::Abort(of) => (of, RolloutVerb::Abort),
    };
    let said = context.client.command(&Command::Rollout { service: of.name().into(), verb }).await?;
    context.printer.line(&clean(&said))
}

async fn deployments(context: &Context, of: &OfService) -> Result<Vec<DeploymentView>, Failure> {
    let list: Items<DeploymentView> =
        context.client.get(&path(&["deployments"], &[("service", Some(of.name()))])).await?;
    if list.items.is_empty() {
        // Says so when there is no such service.
        let _: ServiceView = context.client.get(&path(&["services", of.name()], &[])).await?;
    }
    Ok(list.items)
}

async fn history(context: &Context, of: &OfService) -> Result<(), Failure> {
    let items = deployments(context, of).await?;
    if context.printer.is_document() {
        return context.printer.document(&Items { items });
    }
    let cells: Vec<_> = items.iter().map(|deployment| deployment.cells(now())).collect();
    context.printer.line(&Table::whole(DeploymentView::COLUMNS, false, &cells, &context.printer))
}

async fn status(context: &Context, options: &StatusOptions) -> Result<(), Failure> {
    if options.wait {
        bring_into_force(context).await?;
    }
    let mut newest = pick(deployments(context, &options.of).await?, None);
    if options.wait {
        let waited = tokio::time::timeout(Duration::from_secs(options.timeout), wait(context, options, newest)).await;
        newest = waited.map_err(|_| {
            let (name, seconds) = (options.of.name(), options.timeout);
            Failure::failed(format!("the rollout of {name} did not end within {seconds} s"))
                .hint(format!("`roadstead why {name}` says what it waits for"))
        })??;
    }
    let Some((deployment, rollback)) = newest else {
        return Err(Failure::failed(format!("{} was never deployed", options.of.name())));
    };
    match context.printer.is_document() {
        true => context.printer.document(&deployment)?,
        false => {
            let tone = match deployment.outcome {
                Some(Outcome::Succeeded) => Tone::Good,
                Some(Outcome::Failed | Outcome::RolledBack) => Tone::Bad,
                Some(Outcome::Superseded) | None => Tone::Change,
            };
            context.printer.line(&context.printer.tinted(tone, &words(&deployment, rollback.as_ref())))?;
            if deployment.outcome.is_none() {
                let picture = picture::picture(context, options.of.name()).await?;
                if !picture.is_empty() {
                    context.printer.line(&format!("\n{picture}"))?;
                }
            }
        }
    }
    match deployment.outcome {
        Some(Outcome::Succeeded) | None => Ok(()),
        Some(Outcome::Failed | Outcome::RolledBack | Outcome::Superseded) => Err(Failure::Status(1)),
    }
}

/// Has the manifests read as they stand now, so that it is their deployment that is waited for.
async fn bring_into_force(context: &Context) -> Result<(), Failure> {
    context.client.command(&Command::Rescan).await?;
    let StatusView { held, errors, .. } = context.client.get("/v1/status").await?;
    if let Some(held) = held {
        return Err(Failure::failed(format!("the change of the manifests is held: {}", held.reason))
            .hint(format!("`roadstead confirm {}` carries it out", held.token)));
    }
    if errors > 0 {
        let found = count(errors as usize, "error");
        context.printer.warning(&format!(
            "the manifests have {found} (`roadstead status` shows them): what they declare there stays as it was"
        ));
    }
    Ok(())
}

/// A deployment, and what takes the service back from it.
type Rollout = Option<(DeploymentView, Option<DeploymentView>)>;

/// The deployment `id`, or the newest one that is no rollback.
fn pick(list: Vec<DeploymentView>, id: Option<&str>) -> Rollout {
    let primary = list.iter().find(|deployment| deployment.status == DeploymentStatus::Primary);
    let newest = || primary.map(|primary| primary.rollback_of.as_deref().unwrap_or(&primary.id));
    let id = id.or_else(newest)?;
    let asked = list.iter().find(|deployment| deployment.id == id).or(primary)?;
    let rollback = list.iter().find(|deployment| deployment.rollback_of.as_deref() == Some(&*asked.id));
    Some((asked.clone(), rollback.cloned()))
}

/// Until it has an outcome; says on the way how it goes.
async fn wait(context: &Context, options: &StatusOptions, mut newest: Rollout) -> Result<Rollout, Failure> {
    let mut changes = Box::pin(context.client.changes().await?);
    let (mut said, mut said_at) = (String::new(), Instant::now());
    let mut live = context.printer.live();
    loop {
        let id = match &newest {
            Some((deployment, _)) if deployment.outcome.is_some() => {
                live.clear();
                return Ok(newest);
            }
            Some((deployment, rollback)) => {
                let words = words(deployment, rollback.as_ref());
                let step = without_counts(deployment, &words).to_owned();
                if live.is_drawn() {
                    live.draw(&format!("{words}\n{}", picture::picture(context, options.of.name()).await?));
                } else if step != said || said_at.elapsed() > COUNTS_EVERY {
                    context.printer.notice(&words);
                    (said, said_at) = (step, Instant::now());
                }
                Some(deployment.id.clone())
            }
            None => None,
        };
        let Some(change) = changes.next().await else { return Err(Failure::not_tried("the controller stopped")) };
        change?;
        newest = pick(deployments(context, &options.of).await?, id.as_deref());
    }
}

/// Where nothing can be drawn anew, numbers that only grow are said no more often.
const COUNTS_EVERY: Duration = Duration::from_secs(10);

/// What is said of a deployment, without how many requests there were.
fn without_counts<'w>(deployment: &DeploymentView, words: &'w str) -> &'w str {
    let counts = deployment.requests.as_ref().map(|requests| format!("; {} requests, ", requests.total));
    counts.and_then(|counts| words.split_once(&counts)).map_or(words, |(step, _)| step)
}

/// `PRODUCTION_TRAFFIC_SHIFT with 12.5 % of the requests, `.
fn stage(deployment: &DeploymentView) -> String {
    let Some(stage) = &deployment.stage else { return String::new() };
    let share = deployment.traffic_per_mille.unwrap_or_default();
    format!("{stage} with {} of the requests, ", percent(share))
}

fn words(deployment: &DeploymentView, rollback: Option<&DeploymentView>) -> String {
    let DeploymentView { id, service, task_definition, rollout_state_reason: reason, .. } = deployment;
    let what = format!("{service}: deployment {id} of {task_definition}");
    let progress = |of: &DeploymentView| match of.pending_count {
        0 => format!("{} of {} tasks run", of.running_count, of.desired_count),
        pending => format!("{} of {} tasks run, {pending} are on their way", of.running_count, of.desired_count),
    };
    let text = match (deployment.outcome, deployment.rollout_state, rollback) {
        (Some(outcome), _, _) => format!("{what} {}: {reason}", outcome.word()),
        (None, RolloutState::Failed, Some(rollback)) => {
            format!("{what} FAILED: {reason}; back to {}: {}", rollback.task_definition, progress(rollback))
        }
        (None, state, _) => {
            format!("{what} is {}: {}{}; {reason}", word(&state), stage(deployment), progress(deployment))
        }
    };
    clean(&text).into_owned()
}
