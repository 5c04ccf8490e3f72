//! `brake`: nothing is replaced while most of the fleet is silent, until a person says so.

use clap::Subcommand;

use super::{Context, failure::Failure};
use roadstead_core::turn::Command;

#[derive(Subcommand)]
pub(super) enum BrakeCommand {
    /// Replace what is on lost hosts although most of the fleet is silent
    #[command(after_help = "\
When most hosts fall silent at once, the controller itself is probably cut off, and replaces
nothing. Release the brake when the hosts are really gone.")]
    Release,
}

pub(super) async fn run(context: &Context, command: BrakeCommand) -> Result<(), Failure> {
    let said = match command {
        BrakeCommand::Release => context.client.command(&Command::ReleaseBrake).await?,
    };
    context.printer.line(&super::text::clean(&said))
}
