//! `protect`: a task outlives scale-in and deployments for a while.

use clap::Args;

use super::{Context, failure::Failure};
use roadstead_core::turn::Command;

#[derive(Args)]
#[command(after_help = "\
A protected task may still end: by itself, with its host, when it is unhealthy, or by `roadstead stop`.")]
pub(super) struct Options {
    /// The task's id, or the beginning of it
    task: String,
    /// For so long
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=2880), conflicts_with = "off")]
    minutes: u32,
    /// No longer
    #[arg(long)]
    off: bool,
}

pub(super) async fn run(context: &Context, options: Options) -> Result<(), Failure> {
    let task = options.task.strip_prefix("task/").unwrap_or(&options.task).into();
    let minutes = (!options.off).then_some(options.minutes);
    let said = context.client.command(&Command::ProtectTask { task, minutes }).await?;
    context.printer.line(&super::text::clean(&said))
}
