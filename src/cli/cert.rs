//! `cert`: certificates of load balancers, and what clients are to trust.

use clap::Subcommand;
use serde_yaml::Value;

use super::{
    Context,
    failure::Failure,
    get::now,
    printer::Format,
    rows::Row,
    table::{Cell, Table},
    text::clean,
};
use crate::api::view::{
    Items,
    certificate::{AuthorityView, CertificateView},
};

#[derive(Subcommand)]
pub(super) enum CertCommand {
    /// List certificates: names, issuer, end, and the hosts that show them
    #[command(after_help = "\
A certificate is told of when it ends within 14 days, or within the last third of its life if that
is shorter: by then it should have been renewed. NEXT TRY and REASON are of those that an authority
(`issuer: ACME`) has not given: the one before is shown meanwhile.")]
    Ls,
    /// Print the certificate of the fleet's own authority, for clients to trust
    #[command(after_help = "\
Examples
  roadstead cert ca >roadstead-ca.pem && curl --cacert roadstead-ca.pem https://shop.lan/")]
    Ca,
}

pub(super) async fn run(context: &Context, command: CertCommand) -> Result<(), Failure> {
    match command {
        CertCommand::Ls => list(context).await,
        CertCommand::Ca => authority(context).await,
    }
}

async fn list(context: &Context) -> Result<(), Failure> {
    let answer: Value = context.client.get("/v1/certificates").await?;
    let typed = |error| Failure::not_tried(format!("the controller's answer is not understood: {error}"));
    let all: Items<CertificateView> = serde_yaml::from_value(answer.clone()).map_err(typed)?;
    if context.printer.is_document() {
        return context.printer.document(&answer);
    }
    if all.items.is_empty() {
        context.printer.notice("no certificates found");
        return Ok(());
    }
    if context.printer.format == Format::Name {
        return all.items.iter().try_for_each(|view| context.printer.line(&view.name()));
    }
    let cells: Vec<Vec<Cell>> = all.items.iter().map(|view| view.cells(now())).collect();
    let wide = context.printer.format == Format::Wide;
    context.printer.line(&Table::whole(CertificateView::COLUMNS, wide, &cells, &context.printer))?;
    let ending: Vec<&CertificateView> = all.items.iter().filter(|view| view.ending).collect();
    if !ending.is_empty() {
        let names: Vec<String> = ending.iter().map(|view| clean(&view.domains.join(", ")).into_owned()).collect();
        let words = format!("{} soon: {}", if ending.len() == 1 { "this ends" } else { "these end" }, names.join("; "));
        context.printer.warning(&words);
    }
    Ok(())
}

async fn authority(context: &Context) -> Result<(), Failure> {
    let answer: AuthorityView = context.client.get("/v1/certificates/authority").await?;
    match context.printer.is_document() {
        true => context.printer.document(&answer),
        false => context.printer.text(&answer.certificate),
    }
}
