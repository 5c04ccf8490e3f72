//! Some seeds give some services volumes: of a task, or one that a task owns.

use crate::rng::Rng;
use roadstead_core::model::{
    desired::Desired,
    spec::{
        service::{DeploymentConfiguration, SchedulingStrategy},
        task_definition::{DockerVolumeConfiguration, MountPoint, Volume, VolumeScope},
    },
};

/// Sets the draws of a seed apart from those for volumes, so that these do not change the others.
const APART: u64 = 0x766f_6c75_6d65_7300;

pub(super) fn draw(seed: u64, desired: &mut Desired) {
    let mut rng = Rng::new(seed ^ APART);
    if !rng.chance(350) {
        return;
    }
    for (name, service) in &mut desired.services {
        let Some(definition) = desired.task_definitions.get_mut(name.as_str()) else { continue };
        let scope = match rng.within(0, 3) {
            0 => VolumeScope::Task,
            1 | 2 if service.spec.scheduling_strategy == SchedulingStrategy::Replica => VolumeScope::Shared,
            _ => continue,
        };
        if scope == VolumeScope::Shared && rng.chance(800) {
            service.spec.desired_count = 1;
            // What holds for a task that owns a volume, whatever is asked for.
            service.spec.deployment_configuration = DeploymentConfiguration {
                minimum_healthy_percent: Some(0),
                maximum_percent: Some(100),
                ..service.spec.deployment_configuration.clone()
            };
        }
        let volume = format!("data-{name}");
        definition.spec.edit(|spec| {
            for container in &mut spec.container_definitions {
                container.mount_points.push(MountPoint {
                    source_volume: volume.clone(),
                    container_path: "/data".into(),
                    read_only: false,
                });
            }
            spec.volumes.push(Volume {
                name: volume.clone(),
                docker_volume_configuration: Some(DockerVolumeConfiguration {
                    scope,
                    autoprovision: (scope == VolumeScope::Shared).then_some(true),
                    ..DockerVolumeConfiguration::default()
                }),
                ..Volume::default()
            });
        });
    }
}
