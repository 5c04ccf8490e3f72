//! Commits to the manifests.

use serde::{Deserialize, Serialize};

use roadstead_core::model::{
    desired::{Desired, Manifest},
    name::{Family, HostName, SecurityGroupName, ServiceName},
    spec::{SecurityGroupSpec, ServiceSpec, TaskDefinitionSpec, task_definition::Environment},
    standalone::{ContainerOverride, TaskOverride},
};

/// What one commit changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "change")]
pub enum Change {
    /// A service wants more or fewer tasks.
    DesiredCount {
        /// Which.
        service: ServiceName,
        /// How many.
        to: u32,
    },
    /// A service's containers run another image.
    Image {
        /// Which.
        service: ServiceName,
        /// `demo:N`.
        version: u64,
        /// How it fares.
        sickness: Sickness,
    },
    /// Another service.
    Add {
        /// Its name.
        service: ServiceName,
        /// The service and what it runs.
        spec: Box<(ServiceSpec, TaskDefinitionSpec)>,
    },
    /// A service is no longer declared.
    Remove {
        /// Which.
        service: ServiceName,
    },
    /// A host's zone label changes.
    Zone {
        /// Which.
        host: HostName,
        /// To what.
        zone: String,
    },
    /// A security group's rules change.
    SecurityGroup {
        /// Which.
        name: SecurityGroupName,
        /// What it lets pass.
        spec: Box<SecurityGroupSpec>,
    },
    /// A service's tasks are in other security groups.
    Groups {
        /// Which.
        service: ServiceName,
        /// The default one where there are none.
        groups: Vec<SecurityGroupName>,
    },
    /// Takes sickness and schedules out of everything, so that the fleet can come to rest.
    Cure,
}

/// How the containers of an image fare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Sickness {
    /// Well.
    #[default]
    None,
    /// Their health checks fail.
    Unhealthy,
    /// They end at once.
    Crashes,
    /// The image is nowhere to be had.
    NoImage,
}

/// The variable that tells the fake hosts of it.
pub(crate) const SICKNESS: &str = "SICKNESS";
/// Of what is to end by itself, and well.
pub(crate) const ENDS_WELL: &str = "ends";
/// An image that no registry has.
pub(crate) const NO_IMAGE: &str = "nowhere:1";

fn manifest<S>(spec: S, file: String) -> Manifest<S> {
    Manifest { labels: Default::default(), annotations: Default::default(), file, line: 1, spec }
}

impl Change {
    /// Makes it.
    pub fn make(&self, desired: &mut Desired) {
        match self {
            Self::DesiredCount { service, to } => {
                if let Some(service) = desired.services.get_mut(service) {
                    service.spec.desired_count = *to;
                }
            }
            Self::Image { service, version, sickness } => {
                let Some(definition) = desired.task_definitions.get_mut(service.as_str()) else { return };
                definition.spec.edit(|spec| {
                    let Some(container) = spec.container_definitions.first_mut() else { return };
                    container.image = match sickness {
                        Sickness::NoImage => NO_IMAGE.to_owned(),
                        Sickness::None | Sickness::Unhealthy | Sickness::Crashes => format!("demo:{version}"),
                    };
                    container.environment = environment(*sickness);
                });
            }
            Self::Add { service, spec } => {
                let family = Family::from(service.as_str());
                let file = format!("{service}.yaml");
                desired.services.insert(service.clone(), manifest(spec.0.clone(), file.clone()));
                desired.task_definitions.insert(family, manifest(spec.1.clone().into(), file));
            }
            Self::Remove { service } => {
                desired.services.remove(service);
                desired.task_definitions.remove(service.as_str());
            }
            Self::Zone { host, zone } => {
                if let Some(host) = desired.hosts.get_mut(host) {
                    host.labels.insert("availability-zone".to_owned(), zone.clone());
                }
            }
            Self::SecurityGroup { name, spec } => {
                desired
                    .security_groups
                    .insert(name.clone(), manifest(SecurityGroupSpec::clone(spec), format!("{name}-group.yaml")));
            }
            Self::Groups { service, groups } => {
                let service = desired.services.get_mut(service);
                if let Some(configuration) = service.and_then(|service| service.spec.network_configuration.as_mut()) {
                    configuration.awsvpc_configuration.security_groups.clone_from(groups);
                }
            }
            Self::Cure => {
                desired.scheduled_tasks.clear();
                for definition in desired.task_definitions.values_mut() {
                    definition.spec.edit(|spec| {
                        for container in &mut spec.container_definitions {
                            container.environment.0.retain(|_, value| value == ENDS_WELL);
                            if container.image == NO_IMAGE {
                                container.image = "demo:1".to_owned();
                            }
                        }
                    });
                }
            }
        }
    }
}

/// What lets a standalone task end soon.
pub(crate) fn short() -> TaskOverride {
    let environment = environment(Sickness::Crashes);
    let container = ContainerOverride { name: "main".into(), environment, ..ContainerOverride::default() };
    TaskOverride { container_overrides: vec![container], ..TaskOverride::default() }
}

fn environment(sickness: Sickness) -> Environment {
    let word = match sickness {
        Sickness::None | Sickness::NoImage => return Environment::default(),
        Sickness::Unhealthy => "unhealthy",
        Sickness::Crashes => "crashes",
    };
    Environment([(SICKNESS.to_owned(), word.to_owned())].into_iter().collect())
}
