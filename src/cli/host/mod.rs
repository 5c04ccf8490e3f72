//! `host`: add, check and take care of hosts.

mod add;
mod check;
mod checks;
mod folder;
mod manifest;
mod remove;

use clap::{Args, Subcommand};

use super::{Context, failure::Failure, text::clean};
use roadstead_core::model::{quantity::Seconds, state::Schedulability};
use roadstead_core::turn::Command;

#[derive(Subcommand)]
pub(super) enum HostCommand {
    /// Check a machine and write its Host manifest
    Add(add::Options),
    /// Say what is wrong with hosts, and what to do
    Check(check::Options),
    /// Place nothing new on a host
    Cordon(One),
    /// Use a host again
    Uncordon(One),
    /// Move a host's tasks elsewhere: others start before these stop
    Drain(Drain),
    /// Take a drained host out of the manifests
    Remove(remove::Options),
    /// Accept the new identity of a machine that was installed again
    Repin(One),
}

#[derive(Args)]
pub(super) struct One {
    /// The host
    name: String,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  roadstead host drain box-b                standalone tasks go on until they end
  roadstead host drain box-b --timeout 1h   after an hour they are stopped")]
pub(super) struct Drain {
    #[command(flatten)]
    one: One,
    /// After so long standalone tasks are stopped, too: 30s, 10m, 2h
    #[arg(long)]
    timeout: Option<Seconds>,
}

pub(super) async fn run(context: &Context, command: HostCommand) -> Result<(), Failure> {
    match command {
        HostCommand::Add(options) => add::run(context, options).await,
        HostCommand::Check(options) => check::run(context, options).await,
        HostCommand::Remove(options) => remove::run(context, options).await,
        HostCommand::Cordon(one) => set(context, one, Schedulability::Cordoned, None).await,
        HostCommand::Uncordon(one) => set(context, one, Schedulability::Active, None).await,
        HostCommand::Drain(Drain { one, timeout }) => set(context, one, Schedulability::Draining, timeout).await,
        HostCommand::Repin(one) => order(context, &Command::Repin { host: one.name.into() }).await,
    }
}

async fn set(context: &Context, one: One, to: Schedulability, timeout: Option<Seconds>) -> Result<(), Failure> {
    let name = one.name.clone();
    order(
        context,
        &Command::SetSchedulability { host: one.name.into(), to, timeout_s: timeout.map(|timeout| timeout.0) },
    )
    .await?;
    match to {
        Schedulability::Draining => context.printer.notice(&format!("watch it: roadstead get tasks --host {name} -w")),
        Schedulability::Active | Schedulability::Cordoned => {}
    }
    Ok(())
}

async fn order(context: &Context, command: &Command) -> Result<(), Failure> {
    let said = context.client.command(command).await?;
    context.printer.line(&clean(&said))
}
