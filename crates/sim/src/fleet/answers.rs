//! Servers of people's own, which deployments put questions to: hooks say when a stage may end, and a Prometheus has no alarm. They
//! answer late, twice, with an error, with nothing that can be read, or not at all; in the end they do.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use roadstead_control::control::seams::Carrier;

use super::FakeFleet;
use crate::rng::Rng;

/// The one who asks gives up long before.
const HANGS: Duration = Duration::from_secs(120);
/// After so many questions of one kind the answer is good.
const TRIES: u64 = 3;

/// All of them. What one says follows from the seed and from how often it was asked the same.
pub(crate) struct Servers {
    fleet: FakeFleet,
    seed: u64,
    asked: Mutex<BTreeMap<u64, u64>>,
}

impl Servers {
    pub(crate) fn new(fleet: FakeFleet) -> Self {
        let seed = fleet.ground(|ground| ground.scenario.seed);
        Self { fleet, seed, asked: Mutex::default() }
    }

    /// What this question draws, and whether it was asked often enough.
    fn draw(&self, request: &Request<Bytes>) -> (Rng, bool) {
        let mut hasher = DefaultHasher::new();
        (request.uri().path(), request.body()).hash(&mut hasher);
        let question = hasher.finish();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let nth = asked.entry(question).or_default();
        *nth = nth.saturating_add(1).min(TRIES + 1);
        (Rng::keyed(self.seed, &[question, *nth]), *nth > TRIES)
    }
}

#[async_trait]
impl Carrier for Servers {
    async fn carry(&self, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
        let (mut rng, is_last) = self.draw(&request);
        let good = match request.uri().path() {
            "/api/v1/query" => r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#,
            _ => r#"{"hookStatus":"SUCCEEDED"}"#,
        };
        tokio::time::sleep(Duration::from_millis(rng.within(1, 1_500))).await;
        let what = if is_last { 0 } else { rng.within(0, 9) };
        let counted = match what {
            0..=4 => "question of a deployment answered",
            5 | 6 => "question of a deployment answered: not yet",
            _ => "question of a deployment not answered",
        };
        self.fleet.ground(|ground| ground.count(counted));
        let (status, body) = match what {
            0..=4 => (200, good),
            5 | 6 => (200, r#"{"hookStatus":"IN_PROGRESS","callBackDelay":3}"#),
            7 => (503, good),
            8 => (200, "<html>"),
            _ if rng.chance(500) => return Err("connection refused".to_owned()),
            _ => {
                tokio::time::sleep(HANGS).await;
                return Err("hung".to_owned());
            }
        };
        Response::builder().status(status).body(Bytes::from_static(body.as_bytes())).map_err(|error| error.to_string())
    }
}
