//! Volumes: those that must be there, and those that end with their task.

use std::collections::{BTreeMap, HashMap};

use bollard::query_parameters::{InspectContainerOptions, ListVolumesOptionsBuilder, RemoveVolumeOptions};

use super::docker::check_name;
use super::error::clip;
use super::{DockerEngine, EngineError, VerifyVolume};
use roadstead_core::model::container::is_task_volume;
use roadstead_core::model::name::{RuntimeId, TaskId};
use roadstead_core::model::ownership;
use roadstead_core::model::volume::VolumeClaim;

/// More volumes than this of one container are not looked at.
const MAX_VOLUMES: usize = 256;

impl DockerEngine {
    /// # Errors
    /// [`EngineError::Refused`] when somebody has to make it first.
    pub(super) async fn volume_must_exist(&self, name: &str) -> Result<(), EngineError> {
        match self.volume_exists(name).await? {
            true => Ok(()),
            false => Err(EngineError::Refused {
                status: 404,
                message: format!(
                    "there is no volume `{}` on this host: `docker volume create` makes it, or `autoprovision: true` in the task definition",
                    clip(name, 80)
                ),
            }),
        }
    }

    pub(super) async fn volume_exists(&self, name: &str) -> Result<bool, EngineError> {
        check_name(name)?;
        let call = self.call(format!("inspect volume {name:.64}"), self.question()).await?;
        let docker = call.docker()?;
        match self.run(&call, docker.inspect_volume(name)).await {
            Ok(_) => Ok(true),
            Err(EngineError::NotFound { .. }) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// The volumes of a container that live as long as its task.
    pub(super) async fn task_volumes_of(&self, id: &RuntimeId) -> Result<Vec<String>, EngineError> {
        let call = self.call(format!("inspect {id:.12}"), self.question()).await?;
        let docker = call.docker()?;
        let work = docker.inspect_container(id.as_str(), None::<InspectContainerOptions>);
        let answer = match self.run(&call, work).await {
            Err(EngineError::NotFound { .. }) => return Ok(Vec::new()),
            other => other?,
        };
        let labels = answer.config.and_then(|config| config.labels).unwrap_or_default();
        let Some(task) = labels.get(&format!("{}task", ownership::PREFIX)) else { return Ok(Vec::new()) };
        let task = TaskId::from(task.as_str());
        let names = answer.mounts.unwrap_or_default().into_iter().filter_map(|mount| mount.name);
        Ok(names.filter(|name| is_task_volume(name, &task)).take(MAX_VOLUMES).collect())
    }

    /// Removes volumes of a task. One that another of its containers still has stays: that one's removal ends it. What
    /// fails is told and no more: the container is gone, and the next list of volumes shows what is left.
    pub(super) async fn remove_volumes(&self, names: &[String]) {
        for name in names {
            match self.remove_one_volume(name).await {
                Ok(()) | Err(EngineError::Conflict { .. }) => {}
                Err(error) => {
                    tracing::warn!(volume = %name, %error, "a volume of a task that is gone stays until the next look")
                }
            }
        }
    }

    pub(super) async fn remove_one_volume(&self, name: &str) -> Result<(), EngineError> {
        check_name(name)?;
        let call = self.call(format!("remove volume {name:.64}"), self.change(self.limits.remove)).await?;
        let docker = call.docker()?;
        match self.run(&call, docker.remove_volume(name, None::<RemoveVolumeOptions>)).await {
            Err(EngineError::NotFound { .. }) => Ok(()),
            other => other,
        }
    }

    /// The engine itself leaves out what bears no label of ours.
    pub(super) async fn our_volumes(
        &self,
        verify: VerifyVolume<'_>,
    ) -> Result<BTreeMap<String, VolumeClaim>, EngineError> {
        let call = self.call("list volumes", self.question()).await?;
        let docker = call.docker()?;
        let label = HashMap::from([("label", vec![ownership::VOLUME])]);
        let options = ListVolumesOptionsBuilder::new().filters(&label).build();
        let volumes = self.run(&call, docker.list_volumes(Some(options))).await?.volumes.unwrap_or_default();
        if volumes.len() > self.limits.volumes {
            return Err(call.malformed(&format!("more than {} volumes", self.limits.volumes)));
        }
        let claimed = volumes.into_iter().filter_map(|volume| {
            let labels: BTreeMap<String, String> = volume.labels.into_iter().collect();
            Some((volume.name.clone(), verify(&volume.name, &labels)?))
        });
        Ok(claimed.collect())
    }
}
