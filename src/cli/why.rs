//! `why`: the planner's own account of a service or a task.

use clap::Args;
use serde_yaml::Value;

use super::{
    Context,
    client::path,
    failure::Failure,
    get::now,
    name::resolve,
    plan::{action_line, waiting_lines},
    printer::Tone,
    rows::Row,
    table::Table,
    text::clean,
};
use crate::api::view::{event::EventView, task::TaskView, why::WhyView};

#[derive(Args)]
#[command(after_help = "\
Examples:
  roadstead why web             why does the service not have all its tasks?
  roadstead why task/3fa9c2     why did this task stop?
  roadstead why scheduledtask/nightly")]
pub(super) struct Options {
    /// A service or a task
    #[arg(value_name = "SERVICE|TASK")]
    subject: String,
}

pub(super) async fn run(context: &Context, options: Options) -> Result<(), Failure> {
    let subject = resolve(&context.client, &options.subject).await?;
    let answer: Value = context.client.get(&path(&["why", subject.kind, &subject.name], &[])).await?;
    if context.printer.is_document() {
        return context.printer.document(&answer);
    }
    let why: WhyView = serde_yaml::from_value(answer).map_err(Failure::not_tried)?;
    print(context, &why)
}

fn print(context: &Context, why: &WhyView) -> Result<(), Failure> {
    let printer = &context.printer;
    printer.line(&printer.tinted(Tone::Strong, &clean(&why.summary)))?;
    for obstacle in &why.fleet {
        printer.line(&format!("{} {}", printer.tinted(Tone::Bad, "!"), clean(obstacle)))?;
    }
    if why.consecutive_failures > 0 {
        let next =
            why.not_before.filter(|at| *at > now()).map(|at| format!(", next start at {at}")).unwrap_or_default();
        printer.line(&printer.tinted(
            Tone::Change,
            &format!("{} failed in a row{next}", super::text::count(why.consecutive_failures as usize, "task")),
        ))?;
    }
    for action in &why.doing {
        printer.line(&action_line(context, action))?;
    }
    for waiting in &why.waiting {
        printer.line(&waiting_lines(context, waiting))?;
    }
    section::<TaskView>(context, "Tasks", &why.tasks)?;
    section::<EventView>(context, "Events", &why.events)
}

fn section<R: Row>(context: &Context, title: &str, rows: &[R]) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    let cells: Vec<_> = rows.iter().map(|row| row.cells(now())).collect();
    context.printer.line(&format!("\n{title}:"))?;
    context.printer.line(&Table::whole(R::COLUMNS, false, &cells, &context.printer))
}
