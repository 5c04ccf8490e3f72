//! Objects together: references, clashes between hosts, and what stays as it was.

mod expose;
mod hosts;
mod lan;
mod network;
mod targets;
mod traffic;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};

pub use expose::as_written;
use network::Wish;

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
    name::{
        ClusterName, Family, HostName, LoadBalancerName, ScheduleName, SecurityGroupName, ServiceName, SubnetName,
        TargetGroupName,
    },
    spec::{
        ClusterSpec, HostSpec, Kind, LoadBalancerSpec, ScheduledTaskSpec, SecurityGroupSpec, ServiceSpec, SubnetSpec,
        TargetGroupSpec,
        cluster::DEFAULT_CLUSTER,
        network::AwsvpcConfiguration,
        service::{LaunchType, SchedulingStrategy, TaskDefinitionRef},
    },
};

/// Rounds until nothing new falls: a host, then what goes through it or names it, is a few; the bound is only there to end.
const ROUNDS: usize = 16;

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
    /// By name.
    pub subnets: Table<SubnetName, SubnetSpec>,
    /// By name.
    pub security_groups: Table<SecurityGroupName, SecurityGroupSpec>,
    /// By name.
    pub target_groups: Table<TargetGroupName, TargetGroupSpec>,
    /// By name.
    pub load_balancers: Table<LoadBalancerName, LoadBalancerSpec>,
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
                Kind::Subnet => self.subnets.fail(name.into()),
                Kind::SecurityGroup => self.security_groups.fail(name.into()),
                Kind::TargetGroup => self.target_groups.fail(name.into()),
                Kind::LoadBalancer => self.load_balancers.fail(name.into()),
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
        let subnets = previous.subnets.values().map(|manifest| &manifest.file);
        let groups = previous.security_groups.values().map(|manifest| &manifest.file);
        let target_groups = previous.target_groups.values().map(|manifest| &manifest.file);
        let balancers = previous.load_balancers.values().map(|manifest| &manifest.file);
        let tasks = task_definitions.chain(services).chain(scheduled);
        let traffic = target_groups.chain(balancers);
        clusters.chain(hosts).chain(tasks).chain(subnets).chain(groups).chain(traffic).map(String::as_str).collect()
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
        let home = desired.home_cluster();
        let judge = Judge { tables: &tables, kept, desired: &desired, home, files, hints: Cell::new(0) };
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
        subnets: tables.subnets.resolve(&previous.subnets, kept),
        security_groups: tables.security_groups.resolve(&previous.security_groups, kept),
        target_groups: tables.target_groups.resolve(&previous.target_groups, kept),
        load_balancers: tables.load_balancers.resolve(&previous.load_balancers, kept),
    };
    // What stays as it was needs what it referred to, should that be gone.
    let scheduled = desired.scheduled_tasks.values().map(|scheduled| family_of(&scheduled.spec.task_definition));
    let hooks = desired.services.values().flat_map(|service| &service.spec.deployment_configuration.lifecycle_hooks);
    let hooks = hooks.filter_map(|hook| hook.task_definition.as_deref()).map(family_of);
    let services = desired.services.values().map(|service| family_named(&service.spec));
    let families: Vec<Family> = services.chain(scheduled).chain(hooks).collect();
    for family in families {
        if let Some(before) = previous.task_definitions.get(&family) {
            desired.task_definitions.entry(family).or_insert_with(|| before.clone());
        }
    }
    traffic::keep(&mut desired, tables, kept);
    let stays = |file: &str, failed: bool| failed || kept.covers(file);
    let services = desired
        .services
        .iter()
        .filter(|(name, service)| stays(&service.file, tables.services.failed.contains(*name)))
        .map(|(_, service)| (&service.spec.cluster, service.spec.network_configuration.as_ref()));
    let scheduled = desired
        .scheduled_tasks
        .iter()
        .filter(|(name, scheduled)| stays(&scheduled.file, tables.scheduled_tasks.failed.contains(*name)))
        .map(|(_, scheduled)| (&scheduled.spec.cluster, scheduled.spec.network_configuration.as_ref()));
    let staying: Vec<(ClusterName, Option<AwsvpcConfiguration>)> = services
        .chain(scheduled)
        .map(|(cluster, network)| (cluster.clone(), network.map(|network| network.awsvpc_configuration.clone())))
        .collect();
    for network in staying.iter().filter_map(|(_, network)| network.as_ref()) {
        for name in &network.subnets {
            if let Some(before) = previous.subnets.get(name) {
                desired.subnets.entry(name.clone()).or_insert_with(|| before.clone());
            }
        }
        for name in &network.security_groups {
            if let Some(before) = previous.security_groups.get(name) {
                desired.security_groups.entry(name.clone()).or_insert_with(|| before.clone());
            }
        }
    }
    let hosts = desired
        .hosts
        .iter()
        .filter(|(name, host)| stays(&host.file, tables.hosts.failed.contains(*name)))
        .map(|(_, host)| &host.spec.cluster);
    let subnets = desired
        .subnets
        .iter()
        .filter(|(name, _)| !tables.subnets.good.contains_key(*name))
        .map(|(_, subnet)| &subnet.spec.cluster);
    let staying = staying.iter().map(|(cluster, _)| cluster);
    let clusters: Vec<ClusterName> =
        hosts.chain(subnets).chain(staying).chain(traffic::clusters(&desired, tables)).cloned().collect();
    for cluster in clusters {
        if let Some(before) = previous.clusters.get(&cluster) {
            desired.clusters.entry(cluster).or_insert_with(|| before.clone());
        }
    }
    expose::expand(&mut desired);
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

/// Two objects that claim one thing.
struct Rivals<'a, K, N, S> {
    claim: K,
    holder: &'a N,
    /// None when it stays as it was, and stands in no text.
    held_by: Option<&'a Declared<S>>,
    name: &'a N,
    declared: &'a Declared<S>,
}

/// Who claims what another has already: who had it before keeps it, else who is declared first.
fn rivals<'a, K: Ord + Clone, N: Ord, S>(
    table: &'a Table<N, S>,
    claims: impl IntoIterator<Item = (K, &'a N)>,
    had: impl Fn(&K, &N) -> bool,
) -> Vec<Rivals<'a, K, N, S>> {
    let mut by_claim: BTreeMap<K, BTreeSet<&'a N>> = BTreeMap::new();
    for (claim, name) in claims {
        by_claim.entry(claim).or_default().insert(name);
    }
    let mut found = Vec::new();
    for (claim, names) in by_claim.into_iter().filter(|(_, names)| names.len() > 1) {
        let mut names: Vec<(&'a N, Option<&'a Declared<S>>)> =
            names.into_iter().map(|name| (name, table.good.get(name))).collect();
        names.sort_by_key(|(name, declared)| rank(*declared, had(&claim, name)));
        let mut names = names.into_iter();
        let Some((holder, held_by)) = names.next() else { continue };
        let others = names.filter_map(|(name, declared)| {
            Some(Rivals { claim: claim.clone(), holder, held_by, name, declared: declared? })
        });
        found.extend(others);
    }
    found
}

/// What stays as it was comes first, then what was there before, then as declared.
fn rank<S>(declared: Option<&Declared<S>>, had: bool) -> (bool, Option<(&str, u32)>) {
    let place = declared.map(|declared| (declared.manifest.file.as_str(), declared.manifest.line));
    (declared.is_some() && !had, place)
}

struct Judge<'a> {
    tables: &'a Tables,
    kept: &'a Kept<'a>,
    desired: &'a Desired,
    /// The cluster of what names none.
    home: ClusterName,
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
        for (name, subnet) in &self.tables.subnets.good {
            let found =
                self.cluster(&subnet.manifest.spec.cluster, &subnet.node).or_else(|| self.outside(name, subnet));
            fallen.extend(found.map(|finding| (Kind::Subnet, name.to_string(), subnet.manifest.file.clone(), finding)));
        }
        fallen.extend(self.traffic());
        for (name, service) in &self.tables.services.good {
            let (spec, node) = (&service.manifest.spec, &service.node);
            let found = self
                .cluster(&spec.cluster, node)
                .or_else(|| self.task_definition(service))
                .or_else(|| self.hooks(service))
                .or_else(|| self.network(&Wish::of_service(service)))
                .or_else(|| self.registries(service))
                .or_else(|| self.load_balancers(service))
                .or_else(|| self.expose(service));
            fallen
                .extend(found.map(|finding| (Kind::Service, name.to_string(), service.manifest.file.clone(), finding)));
        }
        for (name, scheduled) in &self.tables.scheduled_tasks.good {
            let (spec, node) = (&scheduled.manifest.spec, &scheduled.node);
            let found = self
                .cluster(&spec.cluster, node)
                .or_else(|| self.definition(node, at!["taskDefinition"], &spec.task_definition, spec.launch_type))
                .or_else(|| self.overrides(scheduled))
                .or_else(|| self.network(&Wish::of_scheduled(scheduled)));
            let file = || scheduled.manifest.file.clone();
            fallen.extend(found.map(|finding| (Kind::ScheduledTask, name.to_string(), file(), finding)));
        }
        if fallen.is_empty() {
            fallen.extend(self.address_clashes());
            fallen.extend(self.private_address_clashes());
            fallen.extend(self.subnet_overlaps());
            fallen.extend(self.name_clashes());
            fallen.extend(self.port_clashes());
            fallen.extend(self.target_clashes());
        }
        fallen
    }

    /// Points at a word of another object, where its text is at hand.
    fn beside<S>(&self, finding: Finding, other: Option<&Declared<S>>, path: &[Step<'_>], label: &str) -> Finding {
        match other.and_then(|other| Some((self.files.get(&other.manifest.file)?, other))) {
            Some((file, other)) => finding.elsewhere(place(file, other.node.locate(path), label)),
            None => finding,
        }
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
        match self.hint(name, others) {
            Some(help) => finding.label(help),
            None if !self.kept.broken.is_empty() => {
                let broken = super::report::quote_all(self.kept.broken.iter().map(String::as_str));
                finding.help(format!("it may stand in what could not be read: {broken}"))
            }
            None => finding,
        }
    }

    /// What was probably meant, for the first few.
    fn hint<'n>(&self, name: &str, others: impl Iterator<Item = &'n str>) -> Option<String> {
        self.hints.set(self.hints.get() + 1);
        (self.hints.get() <= MAX_HINTS).then(|| did_you_mean(name, others)).flatten()
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

    fn task_definition(&self, service: &Declared<ServiceSpec>) -> Option<Finding> {
        match &service.manifest.spec.task_definition {
            TaskDefinitionRef::Named(reference) => {
                let launch_type = service.manifest.spec.launch_type;
                self.definition(&service.node, at!["taskDefinition"], reference, launch_type)
            }
            TaskDefinitionRef::Inline(_) => None,
        }
    }

    /// What its lifecycle hooks run.
    fn hooks(&self, service: &Declared<ServiceSpec>) -> Option<Finding> {
        let hooks = service.manifest.spec.deployment_configuration.lifecycle_hooks.iter().enumerate();
        hooks.filter_map(|(index, hook)| Some((index, hook.task_definition.as_ref()?))).find_map(
            |(index, reference)| {
                let path = at!["deploymentConfiguration", "lifecycleHooks", index, "taskDefinition"];
                self.definition(&service.node, path, reference, LaunchType::Ec2)
            },
        )
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

    fn definition(&self, node: &Node, path: &[Step<'_>], reference: &str, launch_type: LaunchType) -> Option<Finding> {
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
                let finding = Finding::error("fargate", node.locate(at!["launchType"]), message).help(help);
                let declared = self.tables.task_definitions.good.get(&family);
                Some(self.beside(finding, declared, &[Step::Key(field)], "here"))
            }
        }
    }

    fn warnings(&self) -> Vec<(String, Finding)> {
        let mut warnings = Vec::new();
        self.about_hosts(&mut warnings);
        self.about_networks(&mut warnings);
        let published = self.published();
        self.about_traffic(&published, &mut warnings);
        for service in self.tables.services.good.values() {
            let found = self.too_few_hosts(service).into_iter().chain(self.unmapped(service));
            let found = found.chain(self.suspected_before(service));
            let found = found.chain(self.exposed_on_taken_ports(service, &published));
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
