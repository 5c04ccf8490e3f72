//! `describe`: everything about one thing.

use clap::Args;
use serde_yaml::Value;

use super::{
    Context,
    client::path,
    failure::Failure,
    get::{Kind, What, WhatParser, now},
    printer::Tone,
    rows::Row,
    table::Table,
    text::clean,
};
use crate::api::view::{event::EventView, why::WhyView};

/// So many of its events are shown.
const EVENTS_SHOWN: &str = "20";

#[derive(Args)]
#[command(after_help = "\
Examples:
  roadstead describe service web
  roadstead describe host box-a
  roadstead describe taskdefinition web:3")]
pub(super) struct Options {
    /// What it is
    #[arg(value_parser = WhatParser, value_name = "KIND")]
    what: What,
    /// Its name; KIND/NAME is fine, too
    name: Option<String>,
}

pub(super) async fn run(context: &Context, options: Options) -> Result<(), Failure> {
    let kind = options.what.kind;
    let Some(name) = options.what.name.or(options.name) else {
        return Err(Failure::not_tried(format!("which {}?", kind.singular()))
            .hint(format!("`roadstead get {}` lists them", kind.plural())));
    };
    if kind == Kind::Events {
        return Err(
            Failure::not_tried("events have no names").hint("`roadstead events service/web` shows those of a service")
        );
    }
    let mut thing: Value = context.client.get(&path(&[kind.plural(), &name], &[])).await?;
    if context.printer.is_document() {
        return context.printer.document(&thing);
    }
    // Its events come below, with their ages.
    if let Some(fields) = thing.as_mapping_mut() {
        fields.remove("events");
    }
    let mut lines = Vec::new();
    write(&thing, 0, &mut lines);
    for line in lines {
        let (key, rest) = line.split_once(": ").unwrap_or((line.as_str(), ""));
        let text = match rest {
            "" => line.clone(),
            rest => format!("{} {}", context.printer.tinted(Tone::Strong, &format!("{key}:")), rest),
        };
        context.printer.line(&text)?;
    }
    events(context, kind, &name).await
}

async fn events(context: &Context, kind: Kind, name: &str) -> Result<(), Failure> {
    let events: Vec<EventView> = match kind {
        Kind::Tasks => context.client.get::<WhyView>(&path(&["why", "task", name], &[])).await?.events,
        Kind::Hosts | Kind::Services | Kind::Scheduledtasks => {
            context
                .client
                .list(&path(
                    &["events"],
                    &[("kind", Some(kind.singular())), ("name", Some(name)), ("limit", Some(EVENTS_SHOWN))],
                ))
                .await?
        }
        Kind::Taskdefinitions
        | Kind::Deployments
        | Kind::Subnets
        | Kind::Securitygroups
        | Kind::Targetgroups
        | Kind::Loadbalancers
        | Kind::Clusters
        | Kind::Events => return Ok(()),
    };
    if events.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = events.iter().map(|event| event.cells(now())).collect();
    context.printer.line("\nEvents:")?;
    context.printer.line(&Table::whole(EventView::COLUMNS, false, &rows, &context.printer))
}

/// A value as indented `Key: value` lines; what is empty is left out.
fn write(value: &Value, depth: usize, lines: &mut Vec<String>) {
    let indent = "  ".repeat(depth);
    let Value::Mapping(fields) = value else { return };
    for (key, value) in fields {
        let title = title(key.as_str().unwrap_or_default());
        match value {
            Value::Null => {}
            Value::Mapping(inner) if inner.is_empty() => {}
            Value::Sequence(list) if list.is_empty() => {}
            Value::Mapping(_) => {
                lines.push(format!("{indent}{title}:"));
                write(value, depth + 1, lines);
            }
            Value::Sequence(list) if list.iter().all(|item| !item.is_mapping()) => {
                let words: Vec<String> = list.iter().map(scalar).collect();
                lines.push(format!("{indent}{title}: {}", words.join(", ")));
            }
            Value::Sequence(list) => {
                lines.push(format!("{indent}{title}:"));
                for (index, item) in list.iter().enumerate() {
                    if index > 0 {
                        lines.push(format!("{indent}  ·"));
                    }
                    write(item, depth + 1, lines);
                }
            }
            Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Tagged(_) => {
                lines.push(format!("{indent}{title}: {}", scalar(value)))
            }
        }
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => clean(text).into_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => String::new(),
    }
}

/// `taskDefinition` → `Task definition`; names with other signs in them (labels) stay.
fn title(key: &str) -> String {
    if key.chars().any(|c| !c.is_ascii_alphanumeric()) || key.chars().next().is_none_or(|c| c.is_uppercase()) {
        return clean(key).into_owned();
    }
    let mut words = String::with_capacity(key.len() + 4);
    let mut signs = key.chars().peekable();
    words.extend(signs.next().map(|first| first.to_ascii_uppercase()));
    while let Some(c) = signs.next() {
        let is_abbreviation = c.is_uppercase() && signs.peek().is_none_or(|next| next.is_uppercase());
        match (c.is_uppercase(), is_abbreviation) {
            (true, true) if words.ends_with(|before: char| before.is_uppercase()) => words.push(c),
            (true, true) => words.extend([' ', c]),
            (true, false) => words.extend([' ', c.to_ascii_lowercase()]),
            (false, _) => words.push(c),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_described_in_indented_lines() {
        let thing: Value = serde_yaml::from_str(
            r#"{ name: web, taskDefinition: "web:1", reason: null, labels: { availability-zone: a }, list: [1, 2],
                 containers: [{ bindIP: "0.0.0.0\e[2J" }, { b: true }], none: [] }"#,
        )
        .unwrap();
        let mut lines = Vec::new();
        write(&thing, 0, &mut lines);
        insta::assert_snapshot!(lines.join("\n"), @r"
        Name: web
        Task definition: web:1
        Labels:
          availability-zone: a
        List: 1, 2
        Containers:
          Bind IP: 0.0.0.0
          ·
          B: true
        ");
    }
}
