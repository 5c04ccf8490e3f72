//! Rules inside the namespaces of tasks on a LAN. Each is told by a shell of its own in its sandbox, some at once: one that
//! does not answer holds up no other for long.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use roadstead_core::model::{
    container::ContainerState,
    name::HostName,
    network::{HostNetwork, Namespace},
    ownership::Owner,
};
use tokio::time::timeout;

use super::{NetError, lan, script::DRIFTED, session::Session};
use crate::engine::Engine;

/// No sandbox is waited for longer.
const WITHIN: Duration = Duration::from_secs(5);
/// So many are told at once.
const AT_ONCE: usize = 8;

/// What is in force inside, by namespace.
#[derive(Default)]
pub(super) struct Sandboxes(BTreeMap<Namespace, Told>);

struct Told {
    session: Session,
    script: String,
}

impl Sandboxes {
    /// Puts into force what is not; returns the addresses of those that it could not be told.
    pub(super) async fn apply(
        &mut self,
        engine: &dyn Engine,
        host: &HostName,
        wanted: &HostNetwork,
    ) -> BTreeSet<Ipv4Addr> {
        let mut before = std::mem::take(&mut self.0);
        let mut work = Vec::new();
        for (address, task) in &wanted.tasks {
            let (address, Some(namespace)) = (*address, task.namespace.clone()) else { continue };
            let told = before.remove(&namespace);
            work.push(async move {
                let done = within(tell(engine, wanted, address, &namespace, told)).await;
                (address, namespace, done)
            });
        }
        let mut left_out = BTreeSet::new();
        let mut told = stream::iter(work).buffer_unordered(AT_ONCE);
        while let Some((address, namespace, done)) = told.next().await {
            match done {
                Ok(told) => {
                    self.0.insert(namespace, told);
                }
                Err(error) => {
                    tracing::warn!(%host, %address, %error, "the rules inside a task on the LAN are not in force: nothing joins it");
                    left_out.insert(address);
                }
            }
        }
        left_out
    }

    /// What is not as it was told, in words. One that does not run any more has nothing to be otherwise.
    pub(super) async fn drift(&mut self, engine: &dyn Engine) -> Option<String> {
        let work = std::mem::take(&mut self.0).into_iter().map(|(namespace, mut told)| async move {
            let script = lan::check();
            let look = told.session.run("a look at the rules inside a task", &script);
            let words = match within(look).await {
                Ok(said) => said.lines().filter_map(|line| line.strip_prefix(DRIFTED)).map(str::to_owned).next(),
                Err(error) => match within(is_running(engine, &namespace)).await {
                    Ok(false) => return None,
                    Ok(true) | Err(_) => Some(format!("the rules inside a task cannot be seen: {error}")),
                },
            };
            Some((namespace, told, words))
        });
        let mut drifted = None;
        let mut looked = stream::iter(work).buffer_unordered(AT_ONCE);
        while let Some(seen) = looked.next().await {
            let Some((namespace, told, words)) = seen else { continue };
            match words {
                Some(words) => drifted = Some(words),
                None => {
                    self.0.insert(namespace, told);
                }
            }
        }
        drifted
    }

    /// Nothing is known of any.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

async fn tell(
    engine: &dyn Engine,
    wanted: &HostNetwork,
    address: Ipv4Addr,
    namespace: &Namespace,
    told: Option<Told>,
) -> Result<Told, NetError> {
    let Some(script) = lan::inside(wanted, address) else {
        return Err(NetError::Lost(format!("{address} is of no LAN of the host")));
    };
    let mut session = match told {
        Some(told) if told.script == script => return Ok(told),
        Some(told) => told.session,
        None => Session::open(engine, &namespace.container).await?,
    };
    session.run("the rules inside a task", &script).await?;
    Ok(Told { session, script })
}

async fn is_running(engine: &dyn Engine, namespace: &Namespace) -> Result<bool, NetError> {
    let there = engine.inspect(namespace.container.as_str(), &|_| Owner::Foreign).await?;
    Ok(there.is_some_and(|there| there.view.state == ContainerState::Running))
}

async fn within<T>(work: impl Future<Output = Result<T, NetError>>) -> Result<T, NetError> {
    timeout(WITHIN, work).await.unwrap_or_else(|_| Err(NetError::Lost(format!("no answer within {WITHIN:?}"))))
}
