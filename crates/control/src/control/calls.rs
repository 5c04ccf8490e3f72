//! Questions over HTTP that deployments put: each once when it is due, a few at once.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, header};
use roadstead_core::{
    model::{
        call::{Call, CallId, Reply},
        time::Timestamp,
        world::World,
    },
    plan::calls::calls,
    turn::Input,
};
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::sync::DropGuard;

use super::{
    fleet::Fleet,
    http::{Carrier, Network},
};

/// No question takes longer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Questions at once.
const AT_ONCE: usize = 8;

/// Those under way.
pub(super) struct Calls {
    /// By the time at which each was due, until the answer is durable.
    running: BTreeMap<CallId, (Timestamp, DropGuard)>,
    slots: Arc<Semaphore>,
    /// Over the network it is made with the first question.
    carrier: Option<Arc<dyn Carrier>>,
}

impl Calls {
    /// Over the network when there is no `carrier`.
    pub(super) fn new(carrier: Option<Arc<dyn Carrier>>) -> Self {
        Self { running: BTreeMap::new(), slots: Arc::new(Semaphore::new(AT_ONCE)), carrier }
    }

    /// Puts what is due and durable, and ends what nobody waits for.
    pub(super) fn follow(&mut self, world: &World, fleet: &Fleet) {
        let wanted = calls(&world.state);
        let is_wanted = |id: &CallId, at: Timestamp| wanted.iter().any(|call| call.id == *id && call.at == at);
        self.running.retain(|id, (at, _)| is_wanted(id, *at));
        for call in wanted {
            if call.at > world.now || self.running.contains_key(&call.id) {
                continue;
            }
            let carrier = self.carrier();
            let (id, at) = (call.id.clone(), call.at);
            let stop = fleet.stop.child_token();
            let (stopped, inputs, slots) = (stop.clone(), fleet.inputs.clone(), Arc::clone(&self.slots));
            fleet.tasks.spawn(async move {
                let ask = async {
                    let _slot = slots.acquire().await;
                    let (id, at) = (call.id.clone(), call.at);
                    let reply = match carrier {
                        Ok(carrier) => ask(&*carrier, call).await,
                        Err(why) => Err(why),
                    };
                    Input::Called(id, at, reply)
                };
                tokio::select! {
                    biased;
                    () = stopped.cancelled() => {}
                    input = ask => drop(inputs.send(input).await),
                }
            });
            self.running.insert(id, (at, stop.drop_guard()));
        }
    }

    fn carrier(&mut self) -> Result<Arc<dyn Carrier>, String> {
        if let Some(carrier) = &self.carrier {
            return Ok(Arc::clone(carrier));
        }
        let carrier: Arc<dyn Carrier> = Arc::new(Network::plain()?);
        Ok(Arc::clone(self.carrier.insert(carrier)))
    }
}

async fn ask(carrier: &dyn Carrier, call: Call) -> Reply {
    let request = Request::post(&call.url)
        .header(header::USER_AGENT, "roadstead")
        .header(header::CONTENT_TYPE, call.body.content_type)
        .body(Bytes::from(call.body.text))
        .map_err(|error| error.to_string())?;
    match timeout(ANSWER_WITHIN, carrier.carry(request)).await {
        Ok(answer) => answer.map(|answer| (answer.status().as_u16(), answer.into_body().to_vec())),
        Err(_) => Err(format!("no answer within {ANSWER_WITHIN:?}")),
    }
}
