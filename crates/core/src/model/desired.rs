//! What the manifests ask for, admitted and resolved.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    definition::Definition,
    name::{
        ClusterName, Family, HostName, LoadBalancerName, ScheduleName, SecurityGroupName, ServiceName, SubnetName,
        TargetGroupName,
    },
    spec::{
        ClusterSpec, HostSpec, LoadBalancerSpec, ScheduledTaskSpec, SecurityGroupSpec, ServiceSpec, SubnetSpec,
        TargetGroupSpec,
        cluster::{DEFAULT_CLUSTER, HostLoss, ImageCleanup},
    },
};

/// One manifest and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest<S> {
    /// `metadata.labels`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The file that declares it, relative to the manifests' folder.
    pub file: String,
    /// Line of the document in it, from 1.
    pub line: u32,
    /// The spec.
    pub spec: S,
}

/// Everything that is wanted, of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Desired {
    /// Clusters by name; `default` need not be declared.
    pub clusters: BTreeMap<ClusterName, Manifest<ClusterSpec>>,
    /// Hosts by name.
    pub hosts: BTreeMap<HostName, Manifest<HostSpec>>,
    /// Task definitions by family, those written inside services included.
    pub task_definitions: BTreeMap<Family, Manifest<Definition>>,
    /// Services by name; `task_definition` is always [`super::spec::service::TaskDefinitionRef::Named`] here.
    pub services: BTreeMap<ServiceName, Manifest<ServiceSpec>>,
    /// Scheduled tasks by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub scheduled_tasks: BTreeMap<ScheduleName, Manifest<ScheduledTaskSpec>>,
    /// Subnets by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub subnets: BTreeMap<SubnetName, Manifest<SubnetSpec>>,
    /// Security groups by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub security_groups: BTreeMap<SecurityGroupName, Manifest<SecurityGroupSpec>>,
    /// Target groups by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub target_groups: BTreeMap<TargetGroupName, Manifest<TargetGroupSpec>>,
    /// Load balancers by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub load_balancers: BTreeMap<LoadBalancerName, Manifest<LoadBalancerSpec>>,
}

impl Desired {
    /// Whether nothing at all is declared.
    pub fn is_empty(&self) -> bool {
        self.clusters.is_empty()
            && self.hosts.is_empty()
            && self.task_definitions.is_empty()
            && self.services.is_empty()
            && self.scheduled_tasks.is_empty()
            && self.subnets.is_empty()
            && self.security_groups.is_empty()
            && self.target_groups.is_empty()
            && self.load_balancers.is_empty()
    }

    /// The cluster of what names none and is no task's: the one that all hosts are in, else `default`.
    pub fn home_cluster(&self) -> ClusterName {
        let mut clusters = self.hosts.values().map(|host| &host.spec.cluster);
        match clusters.next() {
            Some(first) if clusters.all(|other| other == first) => first.clone(),
            Some(_) | None => DEFAULT_CLUSTER.into(),
        }
    }

    /// A cluster's settings; the defaults when it has no manifest.
    pub fn cluster(&self, name: &ClusterName) -> ClusterSpec {
        self.clusters.get(name).map(|manifest| manifest.spec.clone()).unwrap_or_default()
    }

    /// How long a host may be silent: as its cluster says.
    pub fn host_loss(&self, host: &HostName) -> HostLoss {
        self.cluster_of(host).map(|cluster| cluster.host_loss).unwrap_or_default()
    }

    /// The strictest of what a host's cluster and the services in it say: how closely it has to be watched.
    pub fn strictest_host_loss(&self, host: &HostName) -> HostLoss {
        let strictest = self.host_loss(host);
        let Some(cluster) = self.hosts.get(host).map(|manifest| &manifest.spec.cluster) else { return strictest };
        let services = self.services.values().filter(|service| service.spec.cluster == *cluster);
        services.map(|service| service.spec.host_loss).fold(strictest, |strictest, own| {
            let own = strictest.of_service(own);
            HostLoss { lost_after: own.lost_after.min(strictest.lost_after), ..own }
        })
    }

    /// When a host's images are removed: as its cluster says.
    pub fn image_cleanup(&self, host: &HostName) -> ImageCleanup {
        self.cluster_of(host).map(|cluster| cluster.image_cleanup).unwrap_or_default()
    }

    fn cluster_of(&self, host: &HostName) -> Option<&ClusterSpec> {
        let manifest = self.hosts.get(host)?;
        self.clusters.get(&manifest.spec.cluster).map(|manifest| &manifest.spec)
    }

    /// Whether a cluster may be named.
    pub fn has_cluster(&self, name: &ClusterName) -> bool {
        name.as_str() == DEFAULT_CLUSTER || self.clusters.contains_key(name)
    }
}
