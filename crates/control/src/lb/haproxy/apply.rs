//! How a picture comes into force, through a shell beside HAProxy, and what is found of it.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use roadstead_core::model::traffic::Edge;

use super::{
    certificates::Pems,
    config,
    runtime::{self, Update},
    script,
    stats::{self, Seen},
};
use crate::{lb::EdgeState, net::NetError};

/// What is done, for an error.
const WHAT: &str = "its load balancers";

/// A shell beside HAProxy.
#[async_trait]
pub trait Shell: Send {
    /// Runs a script that ends with its first failure, and returns what it printed.
    ///
    /// # Errors
    /// [`NetError::Refused`] with its output when it failed; [`NetError::Lost`] when the shell is of no use any more.
    async fn run(&mut self, what: &str, script: &str) -> Result<String, NetError>;
}

/// What a HAProxy is known to show.
#[derive(Debug, Default)]
pub struct Applied {
    /// What is in force; none while that is not known for sure.
    edge: Option<Edge>,
    /// Servers that were taken out, and wait for their last connection.
    remains: Vec<String>,
}

impl Applied {
    /// Forgets it: the next time all of it is told anew.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// The image that it was made from.
    pub fn node_image(&self) -> Option<&str> {
        self.edge.as_ref().map(|edge| edge.node_image.as_str())
    }

    /// Makes it so; without a reload when only targets, weights and certificates differ from what is in force.
    ///
    /// # Errors
    /// As the shell's; [`NetError::Refused`] with HAProxy's words when it does not take it: what runs goes on.
    pub async fn apply(&mut self, shell: &mut dyn Shell, wanted: &Edge, pems: &Pems) -> Result<(), NetError> {
        let was = self.edge.take();
        let mut touched = false;
        if let Some(was) = &was
            && let Update::Commands { first, last } = runtime::update(was, wanted)
        {
            touched = true;
            let said = shell.run(WHAT, &script::change(was, wanted, pems, &first, &last)).await?;
            if self.is(&Seen::parse(&said), wanted) {
                return Ok(());
            }
        }
        let seen = match reload(shell, was.as_ref(), wanted, pems).await {
            Ok(seen) => seen,
            Err(error) => {
                if matches!(error, NetError::Refused { .. }) && !touched {
                    self.edge = was;
                }
                return Err(error);
            }
        };
        if self.is(&seen, wanted) {
            return Ok(());
        }
        let said = seen.differs(wanted).unwrap_or_default();
        Err(NetError::Refused { what: WHAT.to_owned(), said })
    }

    fn is(&mut self, seen: &Seen, wanted: &Edge) -> bool {
        let is = seen.differs(wanted).is_none();
        if is {
            self.edge = Some(wanted.clone());
            self.remains = seen.remains(wanted);
        }
        is
    }

    /// What it shows, after `applied`; with `counts` also how long answers took.
    ///
    /// # Errors
    /// As the shell's.
    pub async fn look(&mut self, shell: &mut dyn Shell, applied: &Edge, counts: bool) -> Result<EdgeState, NetError> {
        let remains = std::mem::take(&mut self.remains);
        let said = shell.run("a look at its load balancers", &script::look(&remains, counts)).await?;
        let seen = Seen::parse(&said);
        let drift = seen.differs(applied);
        if drift.is_some() {
            self.edge = None;
        }
        self.remains = seen.remains(applied);
        let targets = if seen.workers.is_empty() { BTreeMap::new() } else { seen.targets(applied) };
        Ok(EdgeState { drift, targets })
    }
}

/// By another configuration, whatever runs now. It goes on when this one is not taken.
async fn reload(shell: &mut dyn Shell, was: Option<&Edge>, wanted: &Edge, pems: &Pems) -> Result<Seen, NetError> {
    let what = "the configuration of its load balancers";
    let refused = |said: String| NetError::Refused { what: what.to_owned(), said };
    let prepared = shell.run(what, &script::prepare(wanted, pems)).await?;
    let (before, rest) = prepared.split_once("--ports\n").ok_or_else(|| refused("no answer".to_owned()))?;
    let (ports, servers) = rest.split_once("--state\n").ok_or_else(|| refused("no answer".to_owned()))?;
    let before = Seen::parse(before);
    if before.is_on_disk && before.differs(wanted).is_none() {
        return Ok(before);
    }
    let taken = stats::listening(ports);
    let ours: BTreeSet<u16> = match was {
        _ if before.workers.is_empty() => BTreeSet::new(),
        Some(was) => config::listeners(was).iter().map(|(_, listener)| listener.port).collect(),
        // Whose they are cannot be told: HAProxy finds out.
        None => taken.clone(),
    };
    for (balancer, listener) in config::listeners(wanted) {
        if taken.contains(&listener.port) && !ours.contains(&listener.port) {
            return Err(refused(format!(
                "port {0} of the host is taken by another program: listener `{1}` of {balancer} needs it (who: ss -ltnp 'sport = :{0}')",
                listener.port, listener.name
            )));
        }
    }
    let script = script::reload(wanted, &runtime::states(servers, wanted));
    Ok(Seen::parse(&shell.run(what, &script).await?))
}
