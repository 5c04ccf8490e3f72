//! `events`: what happened, oldest first.

use clap::Args;
use futures_util::StreamExt;
use serde_yaml::Value;

use super::{Context, client::path, failure::Failure, get::now, printer::Format, rows::Row, table::Table};
use crate::api::view::{Items, event::EventView};

/// Most events in one answer of the API.
const PAGE: &str = "1000";

#[derive(Args)]
#[command(after_help = "\
Examples:
  roadstead events -w                 what happens now
  roadstead events service/web        what happened to one service
  roadstead events host/box-a -n 500")]
pub(super) struct Options {
    /// About what: service/NAME, task/ID, host/NAME, file/NAME, fleet
    #[arg(value_name = "KIND/NAME")]
    about: Option<String>,
    /// How many of the newest
    #[arg(short = 'n', long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Go on and show what happens
    #[arg(short, long)]
    watch: bool,
}

pub(super) async fn run(context: &Context, options: Options) -> Result<(), Failure> {
    let (kind, name) = match options.about.as_deref().map(|about| about.split_once('/').unwrap_or((about, ""))) {
        None => (None, None),
        Some(("svc", name)) => (Some("service"), Some(name)),
        Some((kind, name)) => (Some(kind), Some(name)),
    };
    let limit = options.limit.to_string();
    let mut changes = match options.watch {
        true => Some(Box::pin(context.client.changes().await?)),
        false => None,
    };
    let mut page = Page { table: Table::new(EventView::COLUMNS, context.printer.format == Format::Wide), header: true };
    let mut last = page
        .show(context, &path(&["events"], &[("kind", kind), ("name", name), ("limit", Some(&limit))]), !options.watch)
        .await?;
    let Some(changes) = &mut changes else { return Ok(()) };
    while let Some(change) = changes.next().await {
        change?;
        let after = last.unwrap_or_default().to_string();
        let newer = page
            .show(
                context,
                &path(&["events"], &[("kind", kind), ("name", name), ("after", Some(&after)), ("limit", Some(PAGE))]),
                false,
            )
            .await?;
        last = newer.or(last);
    }
    Err(Failure::not_tried("the controller stopped"))
}

struct Page {
    table: Table,
    header: bool,
}

impl Page {
    /// Prints the events at `address`; the id of the last one. `whole`: nothing follows.
    async fn show(&mut self, context: &Context, address: &str, whole: bool) -> Result<Option<u64>, Failure> {
        let printer = &context.printer;
        let answer: Value = context.client.get(address).await?;
        let list: Items<EventView> = serde_yaml::from_value(answer.clone()).map_err(Failure::not_tried)?;
        let last = list.items.last().map(|event| event.id);
        match printer.format {
            Format::Json | Format::Yaml if whole => printer.document(&answer)?,
            Format::Json | Format::Yaml => list.items.iter().try_for_each(|event| printer.document(event))?,
            Format::Name => list.items.iter().try_for_each(|event| printer.line(&event.name()))?,
            Format::Table | Format::Wide if list.items.is_empty() => {
                if whole {
                    printer.notice("no events found");
                }
            }
            Format::Table | Format::Wide => {
                let now = now();
                let cells: Vec<_> = list.items.iter().map(|event| event.cells(now)).collect();
                let text = match std::mem::take(&mut self.header) {
                    true => self.table.with_header(&cells, printer),
                    false => self.table.rows(&cells, printer),
                };
                printer.line(&text)?;
            }
        }
        Ok(last)
    }
}
