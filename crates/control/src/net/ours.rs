//! Containers of ours on a host that are no task's: their image, and that they run.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bytes::BytesMut;
use futures_util::stream;
use roadstead_core::model::{
    container::{ContainerConfig, ContainerState},
    hex::hex,
    name::{HostName, RuntimeId},
    ownership::{self, FleetKey, Owner},
};
use tokio::{fs::File, io::AsyncReadExt};

use super::NetError;
use crate::engine::{DockerEngine, Engine, EngineError};

/// Pieces that an image is sent in.
const PIECE_BYTES: usize = 64 << 10;

/// Where the node image is, when no registry serves it: an archive as `docker save` makes it; `{arch}` in its path stands for
/// the host's, amd64 or arm64.
#[derive(Clone, Debug, Default)]
pub struct NodeImage(pub Option<PathBuf>);

impl NodeImage {
    /// Sees to it that the host has the image.
    ///
    /// # Errors
    /// [`NetError::NoNodeImage`] when it cannot get it.
    pub(crate) async fn make(&self, engine: &DockerEngine, host: &HostName, image: &str) -> Result<(), NetError> {
        if engine.image(image).await?.is_some() {
            return Ok(());
        }
        let lacks = |why: String| NetError::NoNodeImage { image: image.to_owned(), why };
        let Some(archive) = self.0.as_deref() else {
            return engine.pull(image, &|_| {}).await.map_err(|error| match error {
                unreachable @ EngineError::Unreachable(_) => unreachable.into(),
                other => lacks(other.to_string()),
            });
        };
        let identity = engine.identify().await?;
        let arch = match identity.architecture.as_str() {
            "ARM64" => "arm64",
            _ => "amd64",
        };
        let path = archive.to_string_lossy().replace("{arch}", arch);
        let content = archive_of(Path::new(&path), host).await.map_err(|why| lacks(format!("{path}: {why}")))?;
        engine.load_images(content).await?;
        match engine.image(image).await? {
            Some(_) => Ok(()),
            None => Err(lacks(format!("{path} holds another image than that"))),
        }
    }
}

/// Signs what the container is made from: one that was made from something else is told by its labels.
pub(crate) fn sign(config: &mut ContainerConfig, key: &FleetKey, host: &HostName) {
    use aws_lc_rs::digest;
    let content = format!("{config:?}");
    let hash = digest::digest(&digest::SHA256, content.as_bytes());
    let labels = BTreeMap::from([(ownership::NODE.to_owned(), hex(hash.as_ref().get(..8).unwrap_or_default()))]);
    config.labels = key.sign(host, &config.name, &labels);
}

/// The running container, made anew when it was made from something else.
///
/// # Errors
/// [`NetError::NotOurs`] when another one bears its name.
pub(crate) async fn container(
    engine: &dyn Engine,
    host: &HostName,
    key: &FleetKey,
    config: &ContainerConfig,
) -> Result<RuntimeId, NetError> {
    let name = config.name.as_str();
    if let Some(there) = engine.inspect(name, &|_| Owner::Foreign).await? {
        if !key.has_signed(host, name, &there.labels) {
            return Err(NetError::NotOurs(format!(
                "a container `{name}` is there that is not this fleet's: remove it (docker rm -f {name})"
            )));
        }
        if there.labels == config.labels && there.view.state == ContainerState::Running {
            return Ok(there.view.id);
        }
        if there.labels == config.labels && there.view.state != ContainerState::Removing {
            engine.start(&there.view.id).await?;
            return Ok(there.view.id);
        }
        engine.remove(&there.view.id, true).await?;
    }
    let id = engine.create(config).await?.id;
    engine.start(&id).await?;
    Ok(id)
}

/// An archive's bytes, with how far it is in the log.
async fn archive_of(path: &Path, host: &HostName) -> Result<crate::engine::Content, std::io::Error> {
    let file = File::open(path).await?;
    let total = file.metadata().await?.len();
    tracing::info!(%host, archive = %path.display(), mib = total >> 20, "sending the node image");
    let pieces = stream::unfold((file, 0_u64, host.clone()), move |(mut file, sent, host)| async move {
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        match file.read_buf(&mut piece).await {
            Ok(0) => None,
            Ok(bytes) => {
                let now = sent + bytes as u64;
                let tenth = |sent: u64| sent.saturating_mul(10) / total.max(1);
                if tenth(now) > tenth(sent) {
                    tracing::info!(%host, percent = tenth(now) * 10, "the node image is on its way");
                }
                Some((Ok(piece.freeze()), (file, now, host)))
            }
            Err(error) => Some((Err(error), (file, sent, host))),
        }
    });
    Ok(Box::pin(pieces))
}
