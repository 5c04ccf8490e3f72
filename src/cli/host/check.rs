//! `host check`: straight over SSH, without the controller.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use futures_util::future::join_all;
use serde::Serialize;

use super::{
    checks::{Check, Findings, duplicate, examine, login_advice, print},
    folder,
};
use crate::cli::{Context, failure::Failure};
use roadstead_control::control::{connect::RealHosts, seams::Connector};
use roadstead_core::model::{desired::Desired, name::HostName, observed::EngineIdentity};

#[derive(Args)]
#[command(after_help = "\
Examples:
  roadstead host check box-a
  roadstead host check --all --manifests fleet

Exit status: 0 all is well, 1 something is wrong.")]
pub(in crate::cli) struct Options {
    /// The host
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    name: Option<String>,
    /// Every declared host
    #[arg(long)]
    all: bool,
    /// The directory of manifests; the running controller's when absent
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report<'a> {
    name: &'a HostName,
    ok: bool,
    checks: &'a [Check],
}

pub(super) async fn run(context: &Context, options: Options) -> Result<(), Failure> {
    let folder = folder::locate(context, options.manifests.as_deref()).await?;
    let desired = folder::admit(&folder::read(&folder)?).desired;
    let names: Vec<&HostName> = match &options.name {
        None => desired.hosts.keys().collect(),
        Some(name) => {
            let known = desired.hosts.keys().map(HostName::as_str).collect::<Vec<_>>().join(", ");
            let found = desired.hosts.get_key_value(name.as_str());
            let (name, _) = found.ok_or_else(|| {
                Failure::failed(format!("{} declares no host {name:?}", folder.display()))
                    .hint(format!("it declares: {known}"))
            })?;
            vec![name]
        }
    };
    let mut found = examine_all(&desired, &names).await;
    add_identity(&mut found);
    let reports: Vec<Report> =
        found.iter().map(|(name, findings)| Report { name, ok: findings.ok(), checks: &findings.checks }).collect();
    match context.printer.is_document() {
        true => context.printer.document(&serde_json::json!({ "items": reports }))?,
        false => reports.iter().try_for_each(|report| {
            context.printer.line(&print(&context.printer, report.name.as_str(), report.checks))
        })?,
    }
    if reports.iter().all(|report| report.ok) { Ok(()) } else { Err(Failure::Status(1)) }
}

/// All at once: no host waits for another.
pub(super) async fn examine_all(desired: &Desired, names: &[&HostName]) -> BTreeMap<HostName, Findings> {
    let examined = names.iter().map(|name| async move {
        let Some(manifest) = desired.hosts.get(*name) else { return ((*name).clone(), Findings::default()) };
        let findings = match RealHosts::default().connect(name, &manifest.spec, desired).await {
            Ok(connection) => {
                let findings = examine(&connection).await;
                connection.transport.close().await;
                findings
            }
            Err(error) => Findings {
                checks: vec![Check::bad("login", error.to_string(), login_advice(&error))],
                ..Findings::default()
            },
        };
        ((*name).clone(), findings)
    });
    join_all(examined).await.into_iter().collect()
}

fn add_identity(found: &mut BTreeMap<HostName, Findings>) {
    let identities: Vec<(HostName, EngineIdentity)> =
        found.iter().filter_map(|(name, findings)| Some((name.clone(), findings.identity.clone()?))).collect();
    for (name, findings) in found {
        let Some(identity) = &findings.identity else { continue };
        let others: Vec<_> = identities.iter().filter(|(other, _)| other != name).cloned().collect();
        findings.checks.push(duplicate(identity, &others));
    }
}
