//! `version`: of both sides.

use clap::Args;
use serde_json::json;

use super::{Context, failure::Failure, text::clean};
use crate::api::view::status::StatusView;

#[derive(Args)]
pub(super) struct Options {
    /// Do not ask the controller
    #[arg(long)]
    client: bool,
}

pub(super) async fn run(context: &Context, options: Options) -> Result<(), Failure> {
    let own = env!("CARGO_PKG_VERSION");
    let controller = match options.client {
        true => None,
        // Whether one runs is only asked by the way.
        false => context.client.get::<StatusView>("/v1/status").await.ok().map(|status| status.version),
    };
    if context.printer.is_document() {
        return context.printer.document(&json!({ "client": own, "controller": controller }));
    }
    context.printer.line(&format!("roadstead {own}"))?;
    match (options.client, controller) {
        (true, _) => Ok(()),
        (false, Some(version)) => context.printer.line(&format!("controller {}", clean(&version))),
        (false, None) => {
            context.printer.notice(&format!("no controller answers at {}", context.client.endpoint()));
            Ok(())
        }
    }
}
