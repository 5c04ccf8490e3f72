//! `why`: the planner's own account of a service or a task.

use clap::Args;
use serde_yaml::Value;

use super::{
    Context,
    client::path,
    failure::Failure,
    get::now,
    name::{Subject, resolve},
    plan::{action_line, waiting_lines},
    printer::Tone,
    rows::Row,
    table::Table,
    text::clean,
};
use crate::api::view::{event::EventView, reachability::ReachabilityView, task::TaskView, why::WhyView};

#[derive(Args)]
#[command(after_help = "\
Examples:
  roadstead why web             why does the service not have all its tasks?
  roadstead why task/3fa9c2     why did this task stop?
  roadstead why scheduledtask/nightly
  roadstead why 3fa9c2 --from 9be001 --port 8080         does a packet from that task pass, and by which rule?
  roadstead why 3fa9c2 --from 192.168.7.9 --port 53 --protocol udp

Exit status with --from: 0 it passes, 1 it does not.")]
pub(super) struct Options {
    /// A service or a task
    #[arg(value_name = "SERVICE|TASK")]
    subject: String,
    /// Who sends a packet to the task: another task, or an address
    #[arg(long, value_name = "TASK|ADDRESS")]
    from: Option<String>,
    /// To which port of the task
    #[arg(long, value_name = "PORT", requires = "from", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Of which protocol: tcp, udp or icmp
    #[arg(long, value_name = "NAME", requires = "from", value_parser = ["tcp", "udp", "icmp"])]
    protocol: Option<String>,
}

pub(super) async fn run(context: &Context, options: Options) -> Result<(), Failure> {
    let subject = resolve(&context.client, &options.subject).await?;
    if let Some(from) = &options.from {
        return packet(context, &options, &subject, from).await;
    }
    let answer: Value = context.client.get(&path(&["why", subject.kind, &subject.name], &[])).await?;
    if context.printer.is_document() {
        return context.printer.document(&answer);
    }
    let why: WhyView = serde_yaml::from_value(answer).map_err(Failure::not_tried)?;
    print(context, &why)
}

/// Whether a packet reaches a task.
async fn packet(context: &Context, options: &Options, subject: &Subject, from: &str) -> Result<(), Failure> {
    if subject.kind != "task" {
        return Err(Failure::not_tried(format!("{} is no task: security groups are each task's own", subject.name))
            .hint(format!("`roadstead get tasks --service {}` lists them", subject.name)));
    }
    let port = options.port.map(|port| port.to_string());
    let query = [("from", Some(from)), ("port", port.as_deref()), ("protocol", options.protocol.as_deref())];
    let answer: Value = context.client.get(&path(&["tasks", &subject.name, "reachability"], &query)).await?;
    let view: ReachabilityView = serde_yaml::from_value(answer.clone()).map_err(Failure::not_tried)?;
    let printer = &context.printer;
    if printer.is_document() {
        printer.document(&answer)?;
    } else {
        let (verdict, tone) = match view.passes {
            true => ("passes", Tone::Good),
            false => ("does not pass", Tone::Bad),
        };
        let summary = format!("{} from {} to {} {verdict}", view.packet, view.from, view.to);
        printer.line(&printer.tinted(tone, &clean(&summary)))?;
        printer.line(&format!("  egress:  {}", clean(&view.egress.reason)))?;
        printer.line(&format!("  ingress: {}", clean(&view.ingress.reason)))?;
        for note in &view.notes {
            printer.line(&format!("{} {}", printer.tinted(Tone::Change, "!"), clean(note)))?;
        }
    }
    if view.passes { Ok(()) } else { Err(Failure::Status(1)) }
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
