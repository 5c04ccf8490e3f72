//! `logs`: what all containers of a service or a task print.

use std::collections::BTreeMap;

use anstyle::{AnsiColor, Style};
use clap::Args;
use futures_util::StreamExt;

use super::{Context, client::path, failure::Failure, get::now, name::resolve, text::clean};
use crate::api::routes::{LogRecord, LogSource};
use roadstead_core::model::{quantity::Seconds, time::Timestamp};

#[derive(Args)]
#[command(after_help = "\
Examples:
  roadstead logs web                     what all its tasks printed, in the order of time
  roadstead logs -f web --tail 10        go on, also with tasks that start later
  roadstead logs web -c sidecar --since 5m
  roadstead logs web -o json             one JSON record a line")]
pub(super) struct Options {
    /// A service or a task
    #[arg(value_name = "SERVICE|TASK")]
    subject: String,
    /// Only this container of each task
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Go on with what will be printed
    #[arg(short, long)]
    follow: bool,
    /// Only the last 30s, 5m, 2h, or from a time on such as 2026-01-31T08:00:00Z
    #[arg(long, value_parser = since, value_name = "AGE|TIME")]
    since: Option<Timestamp>,
    /// Only so many lines of the past, of each container
    #[arg(long, value_name = "LINES")]
    tail: Option<u32>,
    /// With the time of each line
    #[arg(long)]
    timestamps: bool,
}

fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(age) = text.parse::<Seconds>() {
        return Ok(Timestamp(now().0.saturating_sub(age.as_ms())));
    }
    let at: jiff::Timestamp =
        text.parse().map_err(|_| "neither an age such as 5m nor a time such as 2026-01-31T08:00:00Z".to_owned())?;
    Ok(Timestamp(u64::try_from(at.as_millisecond()).unwrap_or(0)))
}

pub(super) async fn run(context: &Context, options: Options) -> Result<(), Failure> {
    let subject = resolve(&context.client, &options.subject).await?;
    let since = options.since.map(|at| at.to_string());
    let tail = options.tail.map(|tail| tail.to_string());
    let address = path(
        &["logs", subject.kind, &subject.name],
        &[
            ("container", options.container.as_deref()),
            ("follow", options.follow.then_some("true")),
            ("since", since.as_deref()),
            ("tail", tail.as_deref()),
        ],
    );
    let mut lines = Box::pin(context.client.lines(&address).await?);
    let mut prefixes = Prefixes { timestamps: options.timestamps, ..Prefixes::new(context) };
    while let Some(line) = lines.next().await {
        show(context, &mut prefixes, &line?)?;
    }
    match options.follow && subject.kind == "service" {
        true => Err(Failure::not_tried("the controller stopped")),
        false => Ok(()),
    }
}

/// Prints one record: for people, or as it came.
pub(super) fn show(context: &Context, prefixes: &mut Prefixes, line: &str) -> Result<(), Failure> {
    if context.printer.is_document() {
        return context.printer.line(line);
    }
    let record: LogRecord = serde_json::from_str(line).map_err(Failure::not_tried)?;
    let prefix = prefixes.of(&record);
    match record.stream {
        LogSource::Notice => {
            context
                .printer
                .notice(&format!("{}/{} on {}: {}", record.task, record.container, record.host, record.line));
            Ok(())
        }
        LogSource::Stdout | LogSource::Stderr => {
            let at = record.at.filter(|_| prefixes.timestamps).map(|at| format!("{at} ")).unwrap_or_default();
            context.printer.line(&format!("{prefix} {at}{}", clean(&record.line)))
        }
    }
}

/// A colour for each task, in the order in which they come.
pub(super) struct Prefixes {
    colour: bool,
    timestamps: bool,
    styles: BTreeMap<String, Style>,
}

/// No red: it means trouble elsewhere.
const COLOURS: [AnsiColor; 10] = [
    AnsiColor::Cyan,
    AnsiColor::Yellow,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::BrightCyan,
    AnsiColor::BrightYellow,
    AnsiColor::BrightGreen,
    AnsiColor::BrightMagenta,
    AnsiColor::BrightBlue,
];
/// So much of a task's id tells it from others at a glance, and is enough for other commands.
const SHORT_ID: usize = 8;

impl Prefixes {
    pub(super) fn new(context: &Context) -> Self {
        Self { colour: context.printer.colour(), timestamps: false, styles: BTreeMap::new() }
    }

    /// `3fa9c2d1/web`
    fn of(&mut self, record: &LogRecord) -> String {
        let short: String = record.task.chars().take(SHORT_ID).collect();
        let text = format!("{}/{}", clean(&short), clean(&record.container));
        if !self.colour {
            return text;
        }
        let next = COLOURS.get(self.styles.len() % COLOURS.len()).copied().unwrap_or(AnsiColor::Cyan);
        let style = self.styles.entry(record.task.clone()).or_insert_with(|| Style::new().fg_color(Some(next.into())));
        format!("{}{text}{}", style.render(), style.render_reset())
    }
}
