//! Some seeds give some services volumes: of a task, or one that a task owns. Then people move, read and replace those.

use std::collections::BTreeSet;

use super::{Happening, Rates, Scripted};
use crate::rng::Rng;
use roadstead_core::{
    model::{
        desired::Desired,
        name::HostName,
        spec::{
            service::{DeploymentConfiguration, SchedulingStrategy},
            task_definition::{DockerVolumeConfiguration, MountPoint, Volume, VolumeScope},
        },
        volume::stays_on_host,
    },
    plan::absorb::VolumeVerb,
};

/// Sets the draws of a seed apart from those for volumes, so that these do not change the others.
const APART: u64 = 0x766f_6c75_6d65_7300;
/// The same for what people say of them.
const WORDS_APART: u64 = 0x776f_7264_7300;
/// Before this no volume has a place.
const FIRST_WORD_MS: u64 = 5_000;

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

/// What people say of the volumes that stay on their hosts.
pub(super) fn words(seed: u64, desired: &Desired, faults_ms: u64, rates: &mut Rates) -> Vec<Scripted> {
    let mut rng = Rng::new(seed ^ WORDS_APART);
    let specs = desired.task_definitions.values().flat_map(|definition| stays_on_host(&definition.spec));
    let names: BTreeSet<&str> = specs.collect();
    let hosts: Vec<HostName> = desired.hosts.keys().cloned().collect();
    let mut script = Vec::new();
    for volume in names {
        for _ in 0..rng.within(0, 6) {
            let mut at_ms = rng.within(FIRST_WORD_MS, faults_ms.max(FIRST_WORD_MS));
            let Some(host) = rng.pick(&hosts).cloned() else { break };
            let volume = volume.to_owned();
            let word = |verb| Happening::Volume { volume: volume.clone(), verb };
            let what = match rng.within(0, 19) {
                0..=8 => word(VolumeVerb::Move { to: host }),
                9..=12 => {
                    let gone_after_ms = rng.chance(200).then(|| rng.within(10, 800));
                    Happening::Backup { volume: volume.clone(), gone_after_ms }
                }
                13..=17 => {
                    let cut = rng.chance(150).then(|| rng.within(0, 3) as usize);
                    Happening::Restore { volume: volume.clone(), cut }
                }
                18 => word(VolumeVerb::Pin { host }),
                _ => word(VolumeVerb::Forget),
            };
            let may_be_cancelled = matches!(what, Happening::Volume { .. } | Happening::Restore { .. });
            script.push(Scripted { at_ms, what });
            if may_be_cancelled && rng.chance(200) {
                at_ms += rng.within(100, 15_000);
                let what = Happening::Volume { volume, verb: VolumeVerb::CancelMove };
                script.push(Scripted { at_ms, what });
            }
        }
    }
    if !script.is_empty() && rng.chance(300) {
        rates.tear = rng.within(1, 150);
    }
    script
}
