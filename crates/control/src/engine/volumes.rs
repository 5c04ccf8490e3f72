//! Volumes: those that must be there, and those that end with their task.

use bollard::query_parameters::{InspectContainerOptions, RemoveVolumeOptions};

use super::docker::check_name;
use super::error::clip;
use super::{DockerEngine, EngineError};
use roadstead_core::model::container::is_task_volume;
use roadstead_core::model::name::{RuntimeId, TaskId};
use roadstead_core::model::ownership;

/// More volumes than this of one container are not looked at.
const MAX_VOLUMES: usize = 256;

impl DockerEngine {
    /// # Errors
    /// [`EngineError::Refused`] when somebody has to make it first.
    pub(super) async fn volume_must_exist(&self, name: &str) -> Result<(), EngineError> {
        check_name(name)?;
        let call = self.call(format!("inspect volume {name:.64}"), self.question()).await?;
        let docker = call.docker()?;
        match self.run(&call, docker.inspect_volume(name)).await {
            Ok(_) => Ok(()),
            Err(EngineError::NotFound { .. }) => Err(EngineError::Refused {
                status: 404,
                message: format!(
                    "there is no volume `{}` on this host: `docker volume create` makes it, or `autoprovision: true` in the task definition",
                    clip(name, 80)
                ),
            }),
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
    /// fails is told and no more: the container is gone, and nothing waits for its volumes.
    pub(super) async fn remove_volumes(&self, names: &[String]) {
        for name in names {
            match self.remove_volume(name).await {
                Ok(()) | Err(EngineError::NotFound { .. } | EngineError::Conflict { .. }) => {}
                Err(error) => {
                    tracing::warn!(volume = %name, %error, "a volume of a task that is gone could not be removed")
                }
            }
        }
    }

    async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        check_name(name)?;
        let call = self.call(format!("remove volume {name:.64}"), self.change(self.limits.remove)).await?;
        let docker = call.docker()?;
        self.run(&call, docker.remove_volume(name, None::<RemoveVolumeOptions>)).await
    }
}
