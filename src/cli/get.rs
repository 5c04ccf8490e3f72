//! `get`: lists and single things, once or watched.

use std::{collections::BTreeMap, ffi::OsStr};

use clap::{
    Args, ValueEnum,
    builder::{EnumValueParser, PossibleValue, TypedValueParser},
};
use futures_util::StreamExt;
use serde_yaml::Value;

use super::{
    Context,
    client::path,
    failure::Failure,
    printer::Format,
    rows::Row,
    table::{Cell, Table},
};
use crate::api::view::{
    Items, cluster::ClusterView, deployment::DeploymentView, event::EventView, host::HostView,
    load_balancer::LoadBalancerView, scheduled_task::ScheduledTaskView, security_group::SecurityGroupView,
    service::ServiceView, subnet::SubnetView, target_group::TargetGroupView, task::TaskView,
    task_definition::TaskDefinitionView,
};
use roadstead_core::model::time::Timestamp;

/// What there is to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    #[value(alias = "host")]
    Hosts,
    #[value(aliases = ["service", "svc"])]
    Services,
    #[value(alias = "task")]
    Tasks,
    #[value(aliases = ["scheduledtask", "cron"])]
    Scheduledtasks,
    #[value(aliases = ["taskdefinition", "taskdef", "td"])]
    Taskdefinitions,
    #[value(aliases = ["deployment", "deploy"])]
    Deployments,
    #[value(alias = "subnet")]
    Subnets,
    #[value(aliases = ["securitygroup", "sg"])]
    Securitygroups,
    #[value(aliases = ["targetgroup", "tg"])]
    Targetgroups,
    #[value(aliases = ["loadbalancer", "lb"])]
    Loadbalancers,
    #[value(alias = "cluster")]
    Clusters,
    #[value(aliases = ["event", "ev"])]
    Events,
}

impl Kind {
    /// As the API's paths say it.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Hosts => "hosts",
            Self::Services => "services",
            Self::Tasks => "tasks",
            Self::Scheduledtasks => "scheduledtasks",
            Self::Taskdefinitions => "taskdefinitions",
            Self::Deployments => "deployments",
            Self::Subnets => "subnets",
            Self::Securitygroups => "securitygroups",
            Self::Targetgroups => "targetgroups",
            Self::Loadbalancers => "loadbalancers",
            Self::Clusters => "clusters",
            Self::Events => "events",
        }
    }

    /// As the API's events and the contract's names say it.
    pub fn singular(self) -> &'static str {
        self.plural().trim_end_matches('s')
    }
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  roadstead get services                    how many of each run
  roadstead get tasks --service web -w      follow the tasks of one service
  roadstead get hosts -o wide               addresses and labels, too
  roadstead get task 3fa9c2 -o json         one task, by the beginning of its id")]
pub(super) struct Options {
    /// What to list; KIND/NAME is one of them
    #[arg(value_parser = WhatParser, value_name = "KIND")]
    pub what: What,
    /// Only this one
    pub name: Option<String>,
    #[command(flatten)]
    pub filter: Filter,
}

/// `tasks`, or `task/3fa9c2` as `-o name` prints it.
#[derive(Clone, Debug)]
pub(super) struct What {
    pub kind: Kind,
    pub name: Option<String>,
}

/// Reads a [`What`], and tells shells the kinds.
#[derive(Clone)]
pub(super) struct WhatParser;

impl TypedValueParser for WhatParser {
    type Value = What;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<What, clap::Error> {
        let text = value.to_string_lossy();
        let (kind, name) =
            text.split_once('/').map_or((text.as_ref(), None), |(kind, name)| (kind, Some(name.to_owned())));
        let kind = EnumValueParser::<Kind>::new().parse_ref(command, argument, OsStr::new(kind))?;
        Ok(What { kind, name })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(Kind::value_variants().iter().filter_map(ValueEnum::to_possible_value)))
    }
}

/// `ps` and `ls`.
#[derive(Args)]
pub(super) struct Alias {
    /// Only this one
    name: Option<String>,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Args)]
pub(super) struct Filter {
    /// Go on and show what changes
    #[arg(short, long)]
    watch: bool,
    /// Tasks that ended, too
    #[arg(short, long)]
    all: bool,
    /// Tasks and deployments of this service only
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Tasks on this host only
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
}

impl Options {
    fn name(&self) -> Option<&str> {
        self.what.name.as_deref().or(self.name.as_deref())
    }
}

impl Alias {
    pub fn of(self, kind: Kind) -> Options {
        Options { what: What { kind, name: None }, name: self.name, filter: self.filter }
    }
}

pub(super) async fn run(context: &Context, options: Options) -> Result<(), Failure> {
    match options.what.kind {
        Kind::Hosts => show::<HostView>(context, &options).await,
        Kind::Services => show::<ServiceView>(context, &options).await,
        Kind::Tasks => show::<TaskView>(context, &options).await,
        Kind::Scheduledtasks => show::<ScheduledTaskView>(context, &options).await,
        Kind::Taskdefinitions => show::<TaskDefinitionView>(context, &options).await,
        Kind::Deployments => show::<DeploymentView>(context, &options).await,
        Kind::Subnets => show::<SubnetView>(context, &options).await,
        Kind::Securitygroups => show::<SecurityGroupView>(context, &options).await,
        Kind::Targetgroups => show::<TargetGroupView>(context, &options).await,
        Kind::Loadbalancers => show::<LoadBalancerView>(context, &options).await,
        Kind::Clusters => show::<ClusterView>(context, &options).await,
        Kind::Events => show::<EventView>(context, &options).await,
    }
}

/// Where the answer is.
fn address(context: &Context, options: &Options) -> Result<String, Failure> {
    let plural = options.what.kind.plural();
    let filter = &options.filter;
    match (options.what.kind, options.name()) {
        (Kind::Events, Some(_)) => {
            Err(Failure::not_tried("events have no names")
                .hint("`roadstead events service/web` shows those of a service"))
        }
        (_, Some(name)) => Ok(path(&[plural, name], &[])),
        (_, None) => Ok(path(
            &[plural],
            &[
                ("cluster", context.cluster.as_deref()),
                ("service", filter.service.as_deref()),
                ("host", filter.host.as_deref()),
                // A watch shows how tasks end.
                ("stopped", (filter.all || filter.watch).then_some("true")),
            ],
        )),
    }
}

async fn show<R: Row>(context: &Context, options: &Options) -> Result<(), Failure> {
    let address = address(context, options)?;
    if options.filter.watch {
        return watch::<R>(context, options, &address).await;
    }
    let answer: Value = context.client.get(&address).await?;
    if context.printer.is_document() {
        return context.printer.document(&answer);
    }
    let items = items_of(answer);
    if items.is_empty() {
        context.printer.notice(&format!("no {} found", options.what.kind.plural()));
        return Ok(());
    }
    let rows: Vec<R> = typed(items)?;
    if context.printer.format == Format::Name {
        return rows.iter().try_for_each(|row| context.printer.line(&row.name()));
    }
    let now = now();
    let cells: Vec<Vec<Cell>> = rows.iter().map(|row| row.cells(now)).collect();
    context.printer.line(&Table::whole(R::COLUMNS, context.printer.format == Format::Wide, &cells, &context.printer))
}

/// Prints everything, then each thing again whenever it changed.
async fn watch<R: Row>(context: &Context, options: &Options, address: &str) -> Result<(), Failure> {
    let mut seen: BTreeMap<String, Value> = BTreeMap::new();
    let mut table = Table::new(R::COLUMNS, context.printer.format == Format::Wide);
    let mut header = true;
    let mut changes = Box::pin(context.client.changes().await?);
    while let Some(change) = changes.next().await {
        change?;
        let Some(answer) = context.client.find::<Value>(address).await? else {
            return Err(Failure::failed(format!(
                "there is no {} {:?}",
                options.what.kind.singular(),
                options.name().unwrap_or_default()
            )));
        };
        let items = items_of(answer);
        let rows: Vec<R> = typed(items.clone())?;
        let first = seen.is_empty();
        let mut changed = Vec::new();
        let mut present = BTreeMap::new();
        for (item, row) in items.into_iter().zip(rows) {
            let name = row.name();
            let past = first && row.is_over() && !options.filter.all;
            if seen.get(&name) != Some(&item) && !past {
                changed.push((item.clone(), row));
            }
            present.insert(name, item);
        }
        let gone: Vec<String> = seen.keys().filter(|name| !present.contains_key(*name)).cloned().collect();
        seen = present;
        print_changed(context, &mut table, &mut header, &changed)?;
        for name in gone {
            context.printer.notice(&format!("{name} is gone"));
        }
    }
    Err(Failure::not_tried("the controller stopped"))
}

fn print_changed<R: Row>(
    context: &Context,
    table: &mut Table,
    header: &mut bool,
    changed: &[(Value, R)],
) -> Result<(), Failure> {
    let printer = &context.printer;
    if changed.is_empty() {
        return Ok(());
    }
    match printer.format {
        Format::Json | Format::Yaml => changed.iter().try_for_each(|(item, _)| printer.document(item)),
        Format::Name => changed.iter().try_for_each(|(_, row)| printer.line(&row.name())),
        Format::Table | Format::Wide => {
            let now = now();
            let cells: Vec<Vec<Cell>> = changed.iter().map(|(_, row)| row.cells(now)).collect();
            let text = match std::mem::take(header) {
                true => table.with_header(&cells, printer),
                false => table.rows(&cells, printer),
            };
            printer.line(&text)
        }
    }
}

fn items_of(answer: Value) -> Vec<Value> {
    match serde_yaml::from_value::<Items<Value>>(answer.clone()) {
        Ok(list) => list.items,
        Err(_) => vec![answer],
    }
}

fn typed<R: Row>(items: Vec<Value>) -> Result<Vec<R>, Failure> {
    serde_yaml::from_value(Value::Sequence(items)).map_err(|error| {
        Failure::not_tried(format!("the controller's answer is not understood: {error}"))
            .hint("`roadstead version` compares the versions of both sides")
    })
}

/// The clock that ages are counted by.
pub(super) fn now() -> Timestamp {
    Timestamp(u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0))
}
