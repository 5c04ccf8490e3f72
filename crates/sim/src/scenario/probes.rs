//! Some seeds have some services checked from their hosts instead of by their engines.

use crate::rng::Rng;
use roadstead_core::model::{
    desired::Desired,
    quantity::Seconds,
    spec::task_definition::{HealthCheck, HttpCheck, TcpCheck},
};

/// A label of containers that are checked from their hosts.
pub(crate) const PROBED: &str = "probed";
/// The port that takes connections only from whoever is well.
pub(crate) const TCP_PORT: u16 = 81;

/// Sets these draws apart, so that they do not change the others.
const APART: u64 = 0x7072_6f62_6573_0000;

pub(super) fn draw(seed: u64, desired: &mut Desired) {
    let mut rng = Rng::new(seed ^ APART);
    if !rng.chance(250) {
        return;
    }
    for definition in desired.task_definitions.values_mut() {
        if rng.chance(500) {
            continue;
        }
        let tcp = rng.chance(300).then_some(TcpCheck { port: TCP_PORT });
        let http = || HttpCheck { path: "/healthz".into(), port: 80, matcher: None, headers: Default::default() };
        let check = HealthCheck {
            command: Vec::new(),
            http: tcp.is_none().then(http),
            tcp,
            interval: Seconds(4),
            timeout: Seconds(2),
            retries: 2,
            // Containers take up to eight seconds to be well.
            start_period: Seconds(rng.within(9, 15) as u32),
        };
        definition.spec.edit(|spec| {
            for container in spec.container_definitions.iter_mut().filter(|container| container.health_check.is_some())
            {
                container.health_check = Some(check.clone());
                container.docker_labels.insert(PROBED.to_owned(), String::new());
            }
        });
    }
}
