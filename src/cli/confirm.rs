//! `confirm`: carry out a change of the manifests that was held back.

use clap::Args;

use super::{Context, failure::Failure};
use roadstead_core::turn::Command;

#[derive(Args)]
#[command(after_help = "\
A change that would remove many services or stop many tasks at once is held until a person
confirms it. `roadstead status` shows it with its token.")]
pub(super) struct Options {
    /// The token that the controller printed
    token: String,
}

pub(super) async fn run(context: &Context, options: Options) -> Result<(), Failure> {
    let said = context.client.command(&Command::Confirm { token: options.token }).await?;
    context.printer.line(&super::text::clean(&said))
}
