//! `stop`: end a task now.

use clap::Args;

use super::{Context, failure::Failure};
use roadstead_core::turn::Command;

#[derive(Args)]
#[command(after_help = "\
Example:
  roadstead stop 3fa9c2 --reason 'stuck in a loop'

The task's service starts another one.")]
pub(super) struct Options {
    /// The task's id, or the beginning of it
    task: String,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(super) async fn run(context: &Context, options: Options) -> Result<(), Failure> {
    let task = options.task.strip_prefix("task/").unwrap_or(&options.task).into();
    let said = context.client.command(&Command::StopTask { task, reason: options.reason }).await?;
    context.printer.line(&super::text::clean(&said))
}
