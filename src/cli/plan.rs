//! `plan`: what would happen, and why; changes nothing.

use std::path::PathBuf;

use clap::Args;

use super::{
    Context,
    failure::Failure,
    printer::Tone,
    text::{clean, count},
    validate,
};
use crate::api::view::plan::{PlanView, PlannedAction, WaitingView};
use roadstead_control::control::handle::WhatIf;
use roadstead_core::manifest;

#[derive(Args)]
#[command(after_help = "\
Examples:
  roadstead plan                                what the controller is about to do
  roadstead plan -f manifests/                  what these manifests would do
  roadstead plan -f web.yaml --detailed-exitcode

With -f, a file replaces the watched one of the same name or adds to them; a directory stands for the whole watched one,
so that what it lacks is shown as removed.
With --detailed-exitcode: 0 no change, 2 changes, 1 error.")]
pub(super) struct Options {
    /// Manifests that are not in force yet: a file, or a directory
    #[arg(short, long, value_name = "PATH")]
    filename: Option<PathBuf>,
    #[command(flatten)]
    images: validate::Images,
    /// Say by the exit status whether anything would change
    #[arg(long)]
    detailed_exitcode: bool,
    /// Also write the plan to this file, as JSON
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

pub(super) async fn run(context: &Context, options: Options) -> Result<(), Failure> {
    let detailed = options.detailed_exitcode;
    match plan(context, options).await {
        // 2 means "changes" then, so every error is 1.
        Err(failure @ (Failure::NotTried(_) | Failure::Failed(_))) if detailed => {
            context.printer.failure(&failure);
            Err(Failure::Status(1))
        }
        Ok(changes) if detailed && changes => Err(Failure::Status(2)),
        Ok(_) => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// Whether anything would change.
async fn plan(context: &Context, options: Options) -> Result<bool, Failure> {
    let question = match &options.filename {
        Some(path) => WhatIf { files: validate::texts(path)?, whole: path.is_dir(), ..WhatIf::default() },
        None => WhatIf::default(),
    };
    let question = WhatIf { images: options.images.by_name(), ..question };
    let plan: PlanView = match context.client.post("/v1/plan", &question).await? {
        Ok(plan) => plan,
        Err(error) => {
            if !error.diagnostics.is_empty() {
                context.printer.warning(manifest::render(&error.diagnostics, false).trim_end());
            }
            return Err(error.into());
        }
    };
    if !plan.diagnostics.is_empty() && !context.printer.is_document() {
        context.printer.notice(manifest::render(&plan.diagnostics, context.printer.error_colour()).trim_end());
    }
    if let Some(path) = &options.save {
        let text = serde_json::to_string_pretty(&plan).map_err(Failure::failed)?;
        std::fs::write(path, text + "\n")
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))?;
    }
    match context.printer.is_document() {
        true => context.printer.document(&plan)?,
        false => print(context, &plan)?,
    }
    Ok(plan.summary.changes)
}

fn print(context: &Context, plan: &PlanView) -> Result<(), Failure> {
    for action in &plan.actions {
        context.printer.line(&action_line(context, action))?;
    }
    for waiting in &plan.waiting {
        context.printer.line(&waiting_lines(context, waiting))?;
    }
    if !plan.actions.is_empty() || !plan.waiting.is_empty() {
        context.printer.line("")?;
    }
    context.printer.line(&summary(plan))
}

/// `+ start   task 3fa9… (web) on box-a: 2 of 3 tasks run`
pub(super) fn action_line(context: &Context, action: &PlannedAction) -> String {
    let (sign, tone) = match action.action.as_str() {
        "place" | "start" => ("+", Tone::Good),
        "stop" | "remove" => ("-", Tone::Bad),
        _ => ("~", Tone::Change),
    };
    let service = action.service.as_ref().map(|service| format!(" ({})", clean(service))).unwrap_or_default();
    let host = action.host.as_ref().map(|host| format!(" on {}", clean(host))).unwrap_or_default();
    let head = context.printer.tinted(tone, &format!("{sign} {:<8}", clean(&action.action)));
    format!("{head} {} {}{service}{host}: {}", action.kind, clean(&action.name), clean(&action.reason))
}

/// What waits, and what ends the waiting.
pub(super) fn waiting_lines(context: &Context, waiting: &WaitingView) -> String {
    let head = context.printer.tinted(Tone::Change, "? waits   ");
    let at = waiting.wakes_at.map(|at| format!(", at the latest {at}")).unwrap_or_default();
    format!(
        "{head} {} {}: {}\n           until {}{at}",
        waiting.kind,
        clean(&waiting.name),
        clean(&waiting.reason),
        clean(&waiting.wakes_when)
    )
}

fn summary(plan: &PlanView) -> String {
    let waiting = match plan.summary.waiting {
        0 => String::new(),
        waiting => format!("; {} waiting", count(waiting as usize, "thing")),
    };
    if !plan.summary.changes {
        return format!("Nothing to do{waiting}.");
    }
    let counts: Vec<String> =
        plan.summary.actions.iter().map(|(action, number)| format!("{number} to {action}")).collect();
    format!("Plan: {}{waiting}.", counts.join(", "))
}
