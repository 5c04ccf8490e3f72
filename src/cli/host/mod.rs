//! `host`: add, check and take care of hosts.

mod add;
mod check;
mod checks;
mod folder;
mod manifest;
mod remove;

use clap::{Args, Subcommand};

use super::{Context, failure::Failure, text::clean};
use roadstead_core::model::state::Schedulability;
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
    Drain(One),
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

pub(super) async fn run(context: &Context, command: HostCommand) -> Result<(), Failure> {
    match command {
        HostCommand::Add(options) => add::run(context, options).await,
        HostCommand::Check(options) => check::run(context, options).await,
        HostCommand::Remove(options) => remove::run(context, options).await,
        HostCommand::Cordon(one) => set(context, one, Schedulability::Cordoned).await,
        HostCommand::Uncordon(one) => set(context, one, Schedulability::Active).await,
        HostCommand::Drain(one) => set(context, one, Schedulability::Draining).await,
        HostCommand::Repin(one) => order(context, &Command::Repin { host: one.name.into() }).await,
    }
}

async fn set(context: &Context, one: One, to: Schedulability) -> Result<(), Failure> {
    let name = one.name.clone();
    order(context, &Command::SetSchedulability { host: one.name.into(), to }).await?;
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
