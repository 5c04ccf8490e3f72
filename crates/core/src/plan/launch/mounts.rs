//! A container's mount points → what its engine mounts.

use aws_lc_rs::digest;

use super::config::Context;
use crate::model::{
    container::{MountConfig, MountSource, VolumeConfig, task_volume},
    hex::hex,
    ownership,
    spec::task_definition::{ContainerDefinition, EfsVolumeConfiguration, Volume, VolumeScope},
    volume::VolumeClaim,
};

/// EFS's recommended mount options; a server that is away for a while is waited for.
const NFS_OPTIONS: &str = "nfsvers=4.1,rsize=1048576,wsize=1048576,hard,timeo=600,retrans=2,noresvport";

/// What is mounted, in the order of the definition.
pub(super) fn mounts(context: &Context<'_>, definition: &ContainerDefinition) -> Vec<MountConfig> {
    let mount = |point: &crate::model::spec::task_definition::MountPoint| {
        let volume = context.spec.volumes.iter().find(|volume| volume.name == point.source_volume)?;
        Some(MountConfig {
            source: source(context, volume),
            target: point.container_path.clone(),
            read_only: point.read_only,
        })
    };
    definition.mount_points.iter().filter_map(mount).collect()
}

fn source(context: &Context<'_>, volume: &Volume) -> MountSource {
    if let Some(path) = volume.host.as_ref().and_then(|host| host.source_path.as_ref()).filter(|path| !path.is_empty())
    {
        return MountSource::Host(path.clone());
    }
    if let Some(efs) = &volume.efs_volume_configuration {
        return MountSource::Volume(nfs(context, efs));
    }
    let docker = volume.docker_volume_configuration.clone().unwrap_or_default();
    let mut config = VolumeConfig {
        name: volume.name.clone(),
        driver: docker.driver.unwrap_or_default(),
        options: docker.driver_opts,
        labels: docker.labels,
        must_exist: false,
        no_copy: false,
    };
    match docker.scope {
        VolumeScope::Task => {
            let (task, service) = (context.task.id.clone(), context.task.service.clone());
            config.name = task_volume(&task, &volume.name);
            config.labels = VolumeClaim::Task { task, service }.to_labels(&config.name, &config.labels);
        }
        VolumeScope::Shared => {
            let cluster = context.task.cluster.clone();
            config.labels = VolumeClaim::Shared { cluster, moved_at: None }.to_labels(&config.name, &config.labels);
            config.must_exist = docker.autoprovision != Some(true);
        }
    }
    MountSource::Volume(config)
}

/// Named by all that it is made of: Docker keeps the options that a volume was made with, whatever is asked for later.
fn nfs(context: &Context<'_>, efs: &EfsVolumeConfiguration) -> VolumeConfig {
    let id = efs.file_system_id.as_str();
    let mapped = context.around.cluster.file_systems.get(id).map_or(id, String::as_str);
    let (server, export) = mapped.split_once(":/").unwrap_or((mapped, ""));
    let folder = efs.root_directory.as_deref().unwrap_or("/");
    let device = format!(":/{}", [export, folder].map(|part| part.trim_matches('/')).join("/").trim_matches('/'));
    let options = [("type", "nfs".to_owned()), ("o", format!("addr={server},{NFS_OPTIONS}")), ("device", device)];
    let options: std::collections::BTreeMap<String, String> =
        options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let hash = digest::digest(&digest::SHA256, format!("{options:?}").as_bytes());
    let short = hex(&hash.as_ref()[..8]);
    VolumeConfig {
        name: format!("rs-nfs-{short}"),
        driver: "local".to_owned(),
        options,
        labels: [(format!("{}file-system", ownership::PREFIX), id.to_owned())].into(),
        must_exist: false,
        // What is on the server stays as it is.
        no_copy: true,
    }
}
