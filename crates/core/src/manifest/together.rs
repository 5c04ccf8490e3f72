//! Objects together: references, clashes between hosts, and what stays as it was.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    admit::Findings,
    check,
    node::{Node, Step, at},
    read::SourceFile,
    report::{Finding, place, quote},
    suggest::did_you_mean,
};
use crate::model::{
    definition::Definition,
    desired::{Desired, Manifest},
    fargate,
    name::{ClusterName, Family, HostName, ScheduleName, ServiceName},
    spec::{
        ClusterSpec, HostSpec, Kind, ScheduledTaskSpec, ServiceSpec,
        cluster::DEFAULT_CLUSTER,
        service::{LaunchType, SchedulingStrategy, TaskDefinitionRef},
    },
};

/// Rounds until nothing new falls: a host, then what goes through it or names it, is a few; the bound is only there to end.
const ROUNDS: usize = 16;

/// Hosts that one may be reached through, one behind the other.
const MAX_JUMPS: usize = 8;

/// Slips that are compared with all names, per round.
const MAX_HINTS: usize = 50;

/// An object and its text.
#[derive(Debug)]
pub struct Declared<S> {
    /// With its file and line.
    pub manifest: Manifest<S>,
    /// The spec as written.
    pub node: Node,
}

/// The objects of one kind.
#[derive(Debug)]
pub struct Table<N, S> {
    good: BTreeMap<N, Declared<S>>,
    failed: BTreeSet<N>,
}

impl<N, S> Default for Table<N, S> {
    fn default() -> Self {
        Self { good: BTreeMap::new(), failed: BTreeSet::new() }
    }
}

impl<N: Ord + Clone, S: Clone> Table<N, S> {
    /// Takes in an object that is right by itself, or the name of one that is not.
    pub fn put(&mut self, name: N, good: bool, declared: Declared<S>) {
        if good && !self.failed.contains(&name) {
            self.good.insert(name, declared);
        } else {
            self.fail(name);
        }
    }

    fn fail(&mut self, name: N) {
        self.good.remove(&name);
        self.failed.insert(name);
    }

    /// What is good, and of what was there before what stays.
    fn resolve(&self, before: &BTreeMap<N, Manifest<S>>, kept: &Kept<'_>) -> BTreeMap<N, Manifest<S>> {
        let stays = before.iter().filter(|(name, manifest)| self.failed.contains(name) || kept.covers(&manifest.file));
        let mut all: BTreeMap<N, Manifest<S>> =
            stays.map(|(name, manifest)| (name.clone(), manifest.clone())).collect();
        all.extend(self.good.iter().map(|(name, declared)| (name.clone(), declared.manifest.clone())));
        all
    }
}

/// All objects of a tree.
#[derive(Debug, Default)]
pub struct Tables {
    /// By name.
    pub clusters: Table<ClusterName, ClusterSpec>,
    /// By name.
    pub hosts: Table<HostName, HostSpec>,
    /// By family.
    pub task_definitions: Table<Family, Definition>,
    /// By name; task definitions are named.
    pub services: Table<ServiceName, ServiceSpec>,
    /// By name.
    pub scheduled_tasks: Table<ScheduleName, ScheduledTaskSpec>,
    /// Families written inside services: a service and its own task definition take effect together or not at all.
    pub inline: BTreeMap<ServiceName, Family>,
}

impl Tables {
    /// Names of objects that are wrong.
    pub fn fail(&mut self, names: impl IntoIterator<Item = (Kind, String)>) {
        for (kind, name) in names {
            match kind {
                Kind::Cluster => self.clusters.fail(name.into()),
                Kind::Host => self.hosts.fail(name.into()),
                Kind::TaskDefinition => self.task_definitions.fail(name.into()),
                Kind::Service => self.services.fail(name.into()),
                Kind::ScheduledTask => self.scheduled_tasks.fail(name.into()),
            }
        }
    }

    fn fail_inline(&mut self) {
        for (service, family) in &self.inline {
            if self.services.failed.contains(service) {
                self.task_definitions.fail(family.clone());
            }
        }
    }
}

/// What was wanted before, and which of its files are broken now.
#[derive(Debug)]
pub struct Kept<'a> {
    /// As admitted last.
    pub previous: &'a Desired,
    /// Files, and folders that end in `/`.
    pub broken: &'a BTreeSet<String>,
}

impl Kept<'_> {
    /// The files that declared something.
    pub fn files(previous: &Desired) -> BTreeSet<&str> {
        let clusters = previous.clusters.values().map(|manifest| &manifest.file);
        let hosts = previous.hosts.values().map(|manifest| &manifest.file);
        let task_definitions = previous.task_definitions.values().map(|manifest| &manifest.file);
        let services = previous.services.values().map(|manifest| &manifest.file);
        let scheduled = previous.scheduled_tasks.values().map(|manifest| &manifest.file);
        clusters.chain(hosts).chain(task_definitions).chain(services).chain(scheduled).map(String::as_str).collect()
    }

    fn covers(&self, file: &str) -> bool {
        self.broken.contains(file)
            || file.match_indices('/').any(|(at, _)| file.get(..=at).is_some_and(|folder| self.broken.contains(folder)))
    }
}

/// Puts the objects together. One that refers to nothing falls, and then what refers to it, until the rest stands.
pub fn settle(
    mut tables: Tables,
    kept: &Kept<'_>,
    files: &BTreeMap<String, SourceFile>,
    findings: &mut Findings,
) -> Desired {
    let mut say = |file: &str, finding: Finding| findings.entry(file.to_owned()).or_default().push(finding);
    for _ in 0..ROUNDS {
        tables.fail_inline();
        let desired = compose(&tables, kept);
        let judge = Judge { tables: &tables, kept, desired: &desired, files, hints: Cell::new(0) };
        let fallen = judge.all();
        if fallen.is_empty() {
            for (file, warning) in judge.warnings() {
                say(&file, warning);
            }
            return desired;
        }
        for (kind, name, file, finding) in fallen {
            say(&file, finding);
            tables.fail([(kind, name)]);
        }
    }
    tables.fail_inline();
    compose(&tables, kept)
}

fn compose(tables: &Tables, kept: &Kept<'_>) -> Desired {
    let previous = kept.previous;
    let mut desired = Desired {
        clusters: tables.clusters.resolve(&previous.clusters, kept),
        hosts: tables.hosts.resolve(&previous.hosts, kept),
        task_definitions: tables.task_definitions.resolve(&previous.task_definitions, kept),
        services: tables.services.resolve(&previous.services, kept),
        scheduled_tasks: tables.scheduled_tasks.resolve(&previous.scheduled_tasks, kept),
    };
    // What stays as it was needs what it referred to, should that be gone.
    let scheduled = desired.scheduled_tasks.values().map(|scheduled| family_of(&scheduled.spec.task_definition));
    let families: Vec<Family> =
        desired.services.values().map(|service| family_named(&service.spec)).chain(scheduled).collect();
    for family in families {
        if let Some(before) = previous.task_definitions.get(&family) {
            desired.task_definitions.entry(family).or_insert_with(|| before.clone());
        }
    }
    let stays = |file: &str, name: bool| name || kept.covers(file);
    let hosts = desired
        .hosts
        .iter()
        .filter(|(name, host)| stays(&host.file, tables.hosts.failed.contains(*name)))
        .map(|(_, host)| &host.spec.cluster);
    let services = desired
        .services
        .iter()
        .filter(|(name, service)| stays(&service.file, tables.services.failed.contains(*name)))
        .map(|(_, service)| &service.spec.cluster);
    let scheduled = desired
        .scheduled_tasks
        .iter()
        .filter(|(name, scheduled)| stays(&scheduled.file, tables.scheduled_tasks.failed.contains(*name)))
        .map(|(_, scheduled)| &scheduled.spec.cluster);
    let clusters: Vec<ClusterName> = hosts.chain(services).chain(scheduled).cloned().collect();
    for cluster in clusters {
        if let Some(before) = previous.clusters.get(&cluster) {
            desired.clusters.entry(cluster).or_insert_with(|| before.clone());
        }
    }
    desired
}

/// The family that a service's `taskDefinition` names.
fn family_named(service: &ServiceSpec) -> Family {
    match &service.task_definition {
        TaskDefinitionRef::Named(name) => family_of(name),
        TaskDefinitionRef::Inline(spec) => spec.family.clone().unwrap_or_default().into(),
    }
}

/// `auth` of `auth:3`.
fn family_of(reference: &str) -> Family {
    reference.split_once(':').map_or(reference, |(family, _)| family).into()
}

type Fallen = (Kind, String, String, Finding);

struct Judge<'a> {
    tables: &'a Tables,
    kept: &'a Kept<'a>,
    desired: &'a Desired,
    files: &'a BTreeMap<String, SourceFile>,
    /// How many slips have been looked up among all names: that is worth it for a few.
    hints: Cell<usize>,
}

impl Judge<'_> {
    fn all(&self) -> Vec<Fallen> {
        let mut fallen = Vec::new();
        for (name, host) in &self.tables.hosts.good {
            let found = self.cluster(&host.manifest.spec.cluster, &host.node).or_else(|| self.jump(name, host));
            fallen.extend(found.map(|finding| (Kind::Host, name.to_string(), host.manifest.file.clone(), finding)));
        }
        for (name, service) in &self.tables.services.good {
            let found =
                self.cluster(&service.manifest.spec.cluster, &service.node).or_else(|| self.task_definition(service));
            fallen
                .extend(found.map(|finding| (Kind::Service, name.to_string(), service.manifest.file.clone(), finding)));
        }
        for (name, scheduled) in &self.tables.scheduled_tasks.good {
            let (spec, node) = (&scheduled.manifest.spec, &scheduled.node);
            let found = self
                .cluster(&spec.cluster, node)
                .or_else(|| self.definition(node, &spec.task_definition, spec.launch_type))
                .or_else(|| self.overrides(scheduled));
            let file = || scheduled.manifest.file.clone();
            fallen.extend(found.map(|finding| (Kind::ScheduledTask, name.to_string(), file(), finding)));
        }
        if fallen.is_empty() { self.address_clashes() } else { fallen }
    }

    /// What to say of a name that is not there.
    fn unknown<'n>(
        &self,
        node: &Node,
        path: &[Step<'_>],
        what: &str,
        name: &str,
        failed: bool,
        others: impl Iterator<Item = &'n str>,
    ) -> Finding {
        let span = node.locate(path);
        if failed {
            return Finding::error(
                "broken-reference",
                span,
                format!("the {what} {} has errors of its own", quote(name)),
            )
            .label("this waits until they are mended");
        }
        let finding = Finding::error("unknown-reference", span, format!("there is no {what} {}", quote(name)));
        self.hints.set(self.hints.get() + 1);
        let hint = (self.hints.get() <= MAX_HINTS).then(|| did_you_mean(name, others)).flatten();
        match hint {
            Some(help) => finding.label(help),
            None if !self.kept.broken.is_empty() => {
                let broken = super::report::quote_all(self.kept.broken.iter().map(String::as_str));
                finding.help(format!("it may stand in what could not be read: {broken}"))
            }
            None => finding,
        }
    }

    fn cluster(&self, name: &ClusterName, node: &Node) -> Option<Finding> {
        if self.desired.has_cluster(name) {
            return None;
        }
        let names = self.desired.clusters.keys().map(ClusterName::as_str).chain([DEFAULT_CLUSTER]);
        Some(self.unknown(
            node,
            at!["cluster"],
            "cluster",
            name.as_str(),
            self.tables.clusters.failed.contains(name),
            names,
        ))
    }

    /// Follows `proxyJump` from host to host. A word that names no Host is an address.
    fn jump(&self, name: &HostName, host: &Declared<HostSpec>) -> Option<Finding> {
        let path = at!["ssh", "proxyJump"];
        let error = |message: String| Some(Finding::error("proxy-jump", host.node.locate(path), message));
        let mut way = vec![name.as_str()];
        let mut spec = &host.manifest.spec;
        while let Some(next) = spec.ssh.proxy_jump.as_deref().and_then(check::names_a_host) {
            let told = |way: &[&str]| way.iter().chain([&next]).map(|name| quote(name)).collect::<Vec<_>>().join(" → ");
            if way.contains(&next) {
                return match way.len() {
                    1 => error("a host cannot be reached through itself".to_owned()),
                    _ => error("the way to this host goes in a circle".to_owned())
                        .map(|finding| finding.help(told(&way))),
                };
            }
            if way.len() > MAX_JUMPS {
                return error(format!("the way to this host goes through more than {MAX_JUMPS} others"))
                    .map(|finding| finding.help(told(&way)));
            }
            let Some(other) = self.desired.hosts.get(next) else {
                let failed = self.tables.hosts.failed.contains(next);
                return failed.then(|| self.unknown(&host.node, path, "host", next, true, std::iter::empty()));
            };
            way.push(next);
            spec = &other.spec;
        }
        None
    }

    fn task_definition(&self, service: &Declared<ServiceSpec>) -> Option<Finding> {
        match &service.manifest.spec.task_definition {
            TaskDefinitionRef::Named(reference) => {
                self.definition(&service.node, reference, service.manifest.spec.launch_type)
            }
            TaskDefinitionRef::Inline(_) => None,
        }
    }

    /// Overrides name containers of the task definition that the manifests have; of an older revision nobody knows yet.
    fn overrides(&self, scheduled: &Declared<ScheduledTaskSpec>) -> Option<Finding> {
        let spec = &scheduled.manifest.spec;
        let definition = self.desired.task_definitions.get(spec.task_definition.as_str())?;
        if spec.launch_type == LaunchType::Fargate
            && let Some((field, message, help)) = fargate::unfit(&spec.overrides.over(&definition.spec))
        {
            let span = scheduled.node.locate(at!["overrides", field]);
            return Some(Finding::error("fargate", span, message).help(help));
        }
        let (place, words) = spec.overrides.misfit(&definition.spec)?;
        let mut path = vec![Step::Key("overrides")];
        path.extend(place.iter().map(|word| word.parse().map_or(Step::Key(word), Step::Index)));
        Some(Finding::error("overrides", scheduled.node.locate(&path), words))
    }

    fn definition(&self, node: &Node, reference: &str, launch_type: LaunchType) -> Option<Finding> {
        let path = at!["taskDefinition"];
        if let Some((_, revision)) = reference.split_once(':')
            && revision.parse::<u32>().is_err()
        {
            let span = node.locate(path);
            return Some(
                Finding::error("bad-reference", span, format!("{} is no task definition", quote(reference)))
                    .label("`family` or `family:revision`"),
            );
        }
        let family = family_of(reference);
        let Some(definition) = self.desired.task_definitions.get(&family) else {
            let names = self.desired.task_definitions.keys().map(Family::as_str);
            return Some(self.unknown(
                node,
                path,
                "task definition",
                family.as_str(),
                self.tables.task_definitions.failed.contains(&family),
                names,
            ));
        };
        match launch_type {
            LaunchType::Ec2 => None,
            LaunchType::Fargate => {
                let (field, message, help) = fargate::unfit(&definition.spec)?;
                let mut finding = Finding::error("fargate", node.locate(at!["launchType"]), message).help(help);
                let declared = self.tables.task_definitions.good.get(&family);
                if let Some((file, declared)) = self.files.get(&definition.file).zip(declared) {
                    finding = finding.elsewhere(place(file, declared.node.locate(&[Step::Key(field)]), "here"));
                }
                Some(finding)
            }
        }
    }

    /// Two hosts at one address are one machine registered twice: the one that was there first stays.
    fn address_clashes(&self) -> Vec<Fallen> {
        type Address<'a> = (String, u16, Option<&'a str>);
        let mut by_address: BTreeMap<Address<'_>, Vec<(&HostName, &Declared<HostSpec>)>> = BTreeMap::new();
        for (name, host) in &self.tables.hosts.good {
            let spec = &host.manifest.spec;
            let key = (spec.address.to_ascii_lowercase(), spec.ssh.port.unwrap_or(22), spec.ssh.proxy_jump.as_deref());
            by_address.entry(key).or_default().push((name, host));
        }
        let mut fallen = Vec::new();
        for mut hosts in by_address.into_values().filter(|hosts| hosts.len() > 1) {
            let was_here = |name: &HostName, host: &Declared<HostSpec>| {
                self.kept
                    .previous
                    .hosts
                    .get(name)
                    .is_some_and(|before| before.spec.address == host.manifest.spec.address)
            };
            hosts.sort_by_key(|(name, host)| (!was_here(name, host), &host.manifest.file, host.manifest.line));
            let mut hosts = hosts.into_iter();
            let Some((first_name, first)) = hosts.next() else { continue };
            for (name, host) in hosts {
                let message = format!(
                    "the hosts {} and {} have the same address",
                    quote(first_name.as_str()),
                    quote(name.as_str())
                );
                let mut finding = Finding::error("duplicate-address", host.node.locate(at!["address"]), message);
                if let Some(file) = self.files.get(&first.manifest.file) {
                    finding = finding.elsewhere(place(file, first.node.locate(at!["address"]), "the other"));
                }
                fallen.push((Kind::Host, name.to_string(), host.manifest.file.clone(), finding));
            }
        }
        fallen
    }

    fn warnings(&self) -> Vec<(String, Finding)> {
        let mut warnings = Vec::new();
        for host in self.tables.hosts.good.values() {
            let Some(jump) = host.manifest.spec.ssh.proxy_jump.as_deref().and_then(check::names_a_host) else {
                continue;
            };
            if !self.desired.hosts.contains_key(jump) {
                let span = host.node.locate(at!["ssh", "proxyJump"]);
                let finding = Finding::warning(
                    "proxy-jump",
                    span,
                    format!("there is no Host {}: it is taken as an address", quote(jump)),
                );
                let names = self.desired.hosts.keys().map(HostName::as_str);
                warnings.push((host.manifest.file.clone(), finding.maybe_help(did_you_mean(jump, names))));
            }
        }
        for service in self.tables.services.good.values() {
            let found = self.too_few_hosts(service).into_iter().chain(self.unmapped(service));
            let found = found.chain(self.suspected_before(service));
            warnings.extend(found.map(|finding| (service.manifest.file.clone(), finding)));
        }
        warnings
    }

    /// A host that its cluster suspects takes no tasks, whatever one of its services says.
    fn suspected_before(&self, service: &Declared<ServiceSpec>) -> Option<Finding> {
        let spec = &service.manifest.spec;
        let of_cluster = self.desired.cluster(&spec.cluster).host_loss.suspect_after;
        spec.host_loss.suspect_after.filter(|own| *own > of_cluster).map(|_| {
            let span = service.node.locate(at!["hostLoss", "suspectAfter"]);
            let message = format!("its cluster suspects a host after {} s, and then it takes no tasks", of_cluster.0);
            Finding::warning("host-loss", span, message).label("has no effect")
        })
    }

    /// An EFS file system that the service's cluster does not say the place of.
    fn unmapped(&self, service: &Declared<ServiceSpec>) -> Option<Finding> {
        let spec = &service.manifest.spec;
        let definition = self.desired.task_definitions.get(&family_named(spec))?;
        let mapped = self.desired.cluster(&spec.cluster).file_systems;
        let ids = definition.spec.volumes.iter().filter_map(|volume| volume.efs_volume_configuration.as_ref());
        let id = ids.map(|efs| &efs.file_system_id).find(|id| id.starts_with("fs-") && !mapped.contains_key(*id))?;
        let cluster = quote(spec.cluster.as_str());
        Some(
            Finding::warning(
                "file-system",
                service.node.locate(at!["taskDefinition"]),
                format!("cluster {cluster} does not say where {} is: hosts look it up as a name", quote(id)),
            )
            .help(format!("`fileSystems: {{ {id}: nas.example.com:/export }}` in the cluster's spec")),
        )
    }

    fn too_few_hosts(&self, service: &Declared<ServiceSpec>) -> Option<Finding> {
        let spec = &service.manifest.spec;
        match spec.scheduling_strategy {
            SchedulingStrategy::Replica => {}
            SchedulingStrategy::Daemon => return None,
        }
        let definition = self.desired.task_definitions.get(&family_named(spec))?;
        let (port, _) = check::host_ports(&definition.spec).into_iter().next()?;
        let hosts = self.desired.hosts.values().filter(|host| host.spec.cluster == spec.cluster).count();
        (spec.desired_count as usize > hosts).then(|| {
            let span = service.node.locate(at!["desiredCount"]);
            Finding::warning(
                "impossible-count",
                span,
                format!("{} tasks cannot all run: each takes port {port} of its host", spec.desired_count),
            )
            .label(format!(
                "{hosts} {} in cluster {}",
                if hosts == 1 { "host" } else { "hosts" },
                quote(spec.cluster.as_str())
            ))
            .help("leave `hostPort` out and a free one is picked, or make it a DAEMON")
        })
    }
}
