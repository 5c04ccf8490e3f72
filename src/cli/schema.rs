//! `schema`: JSON Schema of the manifests.

use clap::Args;

use super::{Context, failure::Failure};
use roadstead_core::{manifest, model::spec::KINDS};

#[derive(Args)]
#[command(after_help = "\
Examples:
  roadstead schema > manifest.json      any kind
  roadstead schema service              one kind

An editor takes it from a manifest's first line: # yaml-language-server: $schema=manifest.json")]
pub(super) struct Options {
    /// cluster, host, taskdefinition, service; all when absent
    kind: Option<String>,
}

pub(super) fn run(context: &Context, options: &Options) -> Result<(), Failure> {
    let kind = match &options.kind {
        None => None,
        Some(text) => {
            let row =
                KINDS.iter().find(|row| row.name.eq_ignore_ascii_case(text) || row.plural.eq_ignore_ascii_case(text));
            let names: Vec<String> = KINDS.iter().map(|row| row.name.to_lowercase()).collect();
            Some(
                row.ok_or_else(|| {
                    Failure::not_tried(format!("there is no kind {text:?}"))
                        .hint(format!("there is {}", names.join(", ")))
                })?
                .kind,
            )
        }
    };
    context.printer.document(&manifest::schema(kind))
}
