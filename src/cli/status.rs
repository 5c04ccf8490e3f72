//! `status`: how the controller is.

use clap::Args;
use serde_yaml::Value;

use super::{
    Context,
    failure::Failure,
    get::now,
    printer::Tone,
    text::{age, clean, count},
};
use crate::api::view::status::StatusView;
use roadstead_core::manifest;

#[derive(Args)]
#[command(
    after_help = "Exit status: 0 all is well; 1 the controller is fenced, holds a change back, brakes, or the manifests have errors."
)]
pub(super) struct Options {}

pub(super) async fn run(context: &Context, _: Options) -> Result<(), Failure> {
    let answer: Value = context.client.get("/v1/status").await?;
    let status: StatusView = serde_yaml::from_value(answer.clone()).map_err(Failure::not_tried)?;
    let obstacles = obstacles(&status);
    if context.printer.is_document() {
        context.printer.document(&answer)?;
    } else {
        print(context, &status, &obstacles)?;
    }
    if obstacles.is_empty() && status.errors == 0 { Ok(()) } else { Err(Failure::Status(1)) }
}

fn obstacles(status: &StatusView) -> Vec<String> {
    let fenced = status.fenced.iter().map(|reason| format!("fenced, does nothing: {reason}"));
    let held = status.held.iter().map(|held| {
        format!("a change of the manifests is held: {}\n  carry it out: roadstead confirm {}", held.reason, held.token)
    });
    let brake = status
        .brake
        .iter()
        .filter(|brake| !brake.released)
        .map(|brake| format!("the brake is on: {}\n  go on regardless: roadstead brake release", brake.reason));
    fenced.chain(held).chain(brake).collect()
}

fn print(context: &Context, status: &StatusView, obstacles: &[String]) -> Result<(), Failure> {
    let printer = &context.printer;
    printer.line(&format!(
        "Roadstead {} runs for {} on {}",
        clean(&status.version),
        age(now().since_ms(status.started_at)),
        clean(&status.manifests)
    ))?;
    let counts = status.counts;
    printer.line(&format!(
        "{}, {}, {}",
        count(counts.hosts as usize, "host"),
        count(counts.services as usize, "service"),
        count(counts.tasks as usize, "task")
    ))?;
    if status.settling {
        printer.line("still looking at every host for the first time")?;
    }
    for obstacle in obstacles {
        let text: Vec<_> = obstacle.lines().map(clean).collect();
        printer.line(&format!("{} {}", printer.tinted(Tone::Bad, "!"), text.join("\n")))?;
    }
    if status.diagnostics.is_empty() {
        return Ok(());
    }
    printer.line("")?;
    printer.text(&manifest::render(&status.diagnostics, printer.colour()))?;
    printer.line(&manifest::summary(&status.diagnostics))
}
