//! Orders that the planner began, each carried out once: what an authority that speaks ACME asks is shown by the edges, and
//! what comes of it is told to the planner.

mod http;
mod talk;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use roadstead_core::{
    model::{
        acme::{AcmeAccount, AcmeNews, AcmeOrder, Challenges},
        certificate::Hidden,
        hex::hex,
        name::{CertificateId, HostName},
        time::Timestamp,
        world::World,
    },
    plan::{
        acme::{Asked, Standing, standing},
        certificates::{Need, needs},
    },
    turn::Input,
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::{sync::DropGuard, task::AbortOnDropHandle};

use super::Vault;
use crate::control::{fleet::Fleet, http::Network};
use talk::{Answers, Refused};

/// No order takes longer.
const ORDER_WITHIN: Duration = Duration::from_secs(600);
/// All edges that can be reached answer within this; then those that do must be enough.
const SHOWN_WITHIN: Duration = Duration::from_secs(60);

/// Orders under way.
#[derive(Default)]
pub(in crate::control) struct Orders {
    running: BTreeMap<CertificateId, Running>,
    /// Directories whose accounts were told to the planner, until they are durable.
    told: BTreeSet<String>,
}

struct Running {
    begun_at: Timestamp,
    standing: watch::Sender<Option<Standing>>,
    /// It ends with this.
    _stop: DropGuard,
}

impl Orders {
    /// Begins those that are durable by now, ends those that nobody waits for, and tells each who answers for it.
    pub(in crate::control) fn follow(&mut self, world: &World, fleet: &Fleet, vault: &Arc<Vault>) {
        if world.state.acme_orders.is_empty() && self.running.is_empty() {
            return;
        }
        let epoch = world.state.fleet.epoch;
        let orders = &world.state.acme_orders;
        let order_of = |id: &CertificateId| orders.get(id).filter(|order| order.worked_by == Some(epoch));
        self.running.retain(|id, running| order_of(id).is_some_and(|order| order.begun_at == running.begun_at));
        for (id, order) in orders.iter().filter(|(id, _)| order_of(id).is_some()) {
            match self.running.get(id) {
                Some(_) if order.challenges.is_empty() => {}
                Some(running) => {
                    let now = Some(standing(world, id));
                    running.standing.send_if_modified(|before| {
                        let differs = *before != now;
                        before.clone_from(&now);
                        differs
                    });
                }
                None => self.begin(world, order, fleet, vault),
            }
        }
    }

    fn begin(&mut self, world: &World, order: &AcmeOrder, fleet: &Fleet, vault: &Arc<Vault>) {
        let Some(Need::Ordered(asked)) = needs(&world.state).remove(&order.id) else { return };
        let key = match self.account(world, order, fleet, vault) {
            Ok(Some(key)) => Ok(key),
            // It is durable soon.
            Ok(None) => return,
            Err(why) => Err(why),
        };
        let (standing, edges) = watch::channel(None);
        let stop = fleet.stop.child_token();
        let work = Work {
            id: order.id.clone(),
            begun_at: order.begun_at,
            asked,
            vault: Arc::clone(vault),
            inputs: fleet.inputs.clone(),
            edges,
        };
        let stopped = stop.clone();
        fleet.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stopped.cancelled() => {}
                () = work.run(key) => {}
            }
        });
        let running = Running { begun_at: order.begun_at, standing, _stop: stop.drop_guard() };
        self.running.insert(order.id.clone(), running);
    }

    /// The key of the directory's account; none while a new one is not durable.
    fn account(
        &mut self,
        world: &World,
        order: &AcmeOrder,
        fleet: &Fleet,
        vault: &Vault,
    ) -> Result<Option<Vec<u8>>, String> {
        let directory = &order.directory;
        let known = world.state.acme_accounts.get(directory);
        if let Some(key) = known.and_then(|account| vault.account_key(account).ok()) {
            self.told.remove(directory);
            return Ok(Some(key));
        }
        if self.told.contains(directory) {
            return Ok(None);
        }
        // Another seal cannot open the one that there is: the authority gets to know us anew.
        let account = vault.new_account(directory)?;
        self.told.insert(directory.clone());
        let (inputs, id, begun_at) = (fleet.inputs.clone(), order.id.clone(), order.begun_at);
        fleet.tasks.spawn(async move {
            let _ = inputs.send(Input::Acme(id, begun_at, AcmeNews::Account(account))).await;
        });
        Ok(None)
    }
}

/// One order.
struct Work {
    id: CertificateId,
    begun_at: Timestamp,
    asked: Asked,
    vault: Arc<Vault>,
    inputs: mpsc::Sender<Input>,
    edges: watch::Receiver<Option<Standing>>,
}

impl Work {
    async fn run(self, key: Result<Vec<u8>, String>) {
        let (inputs, id, begun_at) = (self.inputs.clone(), self.id.clone(), self.begun_at);
        let work = AbortOnDropHandle::new(tokio::spawn(timeout(ORDER_WITHIN, self.ask(key))));
        let came = match work.await {
            Ok(Ok(came)) => came,
            Ok(Err(_)) => Err(refused(format!("it took longer than {ORDER_WITHIN:?}"))),
            Err(error) => Err(refused(format!("a defect: {error}"))),
        };
        let input = came.unwrap_or_else(|Refused { why, retry_after_ms }| {
            Input::Acme(id, begun_at, AcmeNews::Failed { why, retry_after_ms })
        });
        let _ = inputs.send(input).await;
    }

    async fn ask(mut self, key: Result<Vec<u8>, String>) -> Result<Input, Refused> {
        let key = key.map_err(refused)?;
        let ca = match &self.asked.ca_file {
            None => None,
            Some(file) => Some(self.vault.authority(file).ok_or_else(|| refused(format!("{file} was not read yet")))?),
        };
        let http = http::Http::new(Network::encrypted(ca.as_deref()).map_err(refused)?);
        let asked = self.asked.clone();
        let given = talk::order(http, &key, &asked, &mut self).await?;
        self.vault.record(&self.id, given).map(Input::Certificate).map_err(refused)
    }
}

fn refused(why: String) -> Refused {
    Refused { why, retry_after_ms: None }
}

#[async_trait]
impl Answers for Work {
    async fn show(&mut self, challenges: Challenges) -> Result<Vec<HostName>, String> {
        let input = Input::Acme(self.id.clone(), self.begun_at, AcmeNews::Challenges(challenges));
        let _ = self.inputs.send(input).await;
        let is_shown = |standing: &Option<Standing>| standing.as_ref().is_some_and(|it| it.awaited.is_empty());
        let _ = timeout(SHOWN_WITHIN, self.edges.wait_for(is_shown)).await;
        let Standing { shown, awaited, away } = self.edges.borrow().clone().unwrap_or_default();
        let silent = [awaited, away].concat();
        if shown.is_empty() {
            let hosts: Vec<&str> = silent.iter().map(HostName::as_str).collect();
            return Err(format!("no load balancer host answers the authority ({})", hosts.join(", ")));
        }
        Ok(silent)
    }
}

impl Vault {
    fn new_account(&self, directory: &str) -> Result<AcmeAccount, String> {
        let (_, key) = instant_acme::Key::generate_pkcs8().map_err(|error| error.to_string())?;
        let text = Hidden::new(hex(key.secret_pkcs8_der()));
        let sealed_key =
            self.seal.seal(&AcmeAccount::sealed_as(directory), &text).map_err(|error| error.to_string())?;
        Ok(AcmeAccount { directory: directory.to_owned(), sealed_key })
    }

    fn account_key(&self, account: &AcmeAccount) -> Result<Vec<u8>, String> {
        let text = self.seal.open(&AcmeAccount::sealed_as(&account.directory), &account.sealed_key)?;
        crate::control::key::bytes_of(text.reveal()).ok_or_else(|| "its account's key cannot be read".to_owned())
    }
}
