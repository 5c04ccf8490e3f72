//! A complete look: every container of a host, with details of ours.

use std::collections::BTreeMap;
use std::time::Instant;

use bollard::query_parameters::ListContainersOptionsBuilder;
use futures_util::{StreamExt, TryStreamExt};
use tokio::time::timeout;

use super::details::{Details, Shown, Touched};
use super::{DockerEngine, Engine, EngineError, Verify, view};
use roadstead_core::model::container::ContainerView;
use roadstead_core::model::name::RuntimeId;

/// Inspects of one list that run at once.
const INSPECTS_AT_ONCE: usize = 4;

/// What asking for one container's details came to.
enum Asked {
    Details(ContainerView),
    /// Gone since the list: the later look counts.
    Gone,
    /// It has no answer for this one: the list's own entry is all there is to know.
    Silent(ContainerView),
}

impl DockerEngine {
    /// The list's own entries with the details of ours. One container that cannot be inspected does not hide the others:
    /// what the list says of it is true, and the rest stays unknown until the next look.
    pub(super) async fn look(
        &self,
        verify: Verify<'_>,
        details: &mut Details,
        touched: &Touched,
    ) -> Result<BTreeMap<RuntimeId, ContainerView>, EngineError> {
        let began = Instant::now();
        let call = self.call("list containers", self.question()).await?;
        let docker = call.docker()?;
        let options = ListContainersOptionsBuilder::new().all(true).build();
        let entries = self.run(&call, docker.list_containers(Some(options))).await?;
        let seen = Instant::now();
        if entries.len() > self.limits.containers {
            return Err(call.malformed(&format!("more than {} containers", self.limits.containers)));
        }

        let mut containers = BTreeMap::new();
        let (mut ours, mut unknown) = (Vec::new(), Vec::new());
        for entry in entries {
            let (listed, shown) = view::from_summary(entry, verify).map_err(|reason| call.malformed(&reason))?;
            if listed.owner.ours().is_none() {
                containers.insert(listed.id.clone(), listed);
                continue;
            }
            let known = details.still_good(&listed, &shown, began);
            match known.filter(|known| !touched.contains(&known.id)) {
                Some(known) => ours.push((shown, ContainerView { name: listed.name, ..known.clone() })),
                None => unknown.push((shown, details.remembered(listed))),
            }
        }
        // Those that kept us waiting last time wait for the others now.
        unknown.sort_by_key(|(_, listed)| details.was_silent(&listed.id));
        let mut silent = Vec::new();
        let mut inspects = futures_util::stream::iter(unknown)
            .map(|(shown, listed)| async move { Ok::<_, EngineError>((shown, self.ask(listed, seen, verify).await?)) })
            .buffer_unordered(INSPECTS_AT_ONCE);
        while let Some((shown, asked)) = inspects.try_next().await? {
            match asked {
                Asked::Details(view) => {
                    // Kept also when a later one fails, or a slow host would never be through.
                    details.keep(seen, Shown::clone(&shown), view.clone());
                    ours.push((shown, view));
                }
                Asked::Gone => {}
                Asked::Silent(listed) => silent.push(listed),
            }
        }
        containers.extend(ours.iter().map(|(_, view)| (view.id.clone(), view.clone())));
        containers.extend(silent.iter().map(|listed| (listed.id.clone(), listed.clone())));
        details.replace(seen, ours, silent);
        Ok(containers)
    }

    /// Asks for one container's details, not for long.
    async fn ask(&self, listed: ContainerView, seen: Instant, verify: Verify<'_>) -> Result<Asked, EngineError> {
        let patience = self.limits.inspect.min(self.limits.inspects.saturating_sub(seen.elapsed()));
        if patience.is_zero() {
            return Ok(Asked::Silent(listed));
        }
        let reason = match timeout(patience, self.inspect(listed.id.as_str(), verify)).await {
            Ok(Ok(Some(inspected))) => return Ok(Asked::Details(inspected.view)),
            Ok(Ok(None)) => return Ok(Asked::Gone),
            Ok(Err(EngineError::ServerError { message, .. })) => message,
            Ok(Err(error)) => return Err(error),
            Err(_) => format!("no answer in {patience:?}"),
        };
        tracing::debug!(id = %listed.id, name = %listed.name, reason, "this container cannot be inspected");
        Ok(Asked::Silent(listed))
    }
}
