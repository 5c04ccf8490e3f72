//! The ports of one host: each held by one at most (S4).

use std::ops::RangeInclusive;

use super::{HostPort, PortRequest, Request, rank::Hash};
use crate::model::{container::PortBinding, spec::task_definition::Protocol};

/// Where host ports are picked from when none is asked for (Linux's own range for this, and ECS's).
pub const DYNAMIC_PORTS: RangeInclusive<u16> = 32768..=60999;

const FIRST: u16 = *DYNAMIC_PORTS.start();
const LAST: u16 = *DYNAMIC_PORTS.end();
const COUNT: usize = (LAST - FIRST) as usize + 1;

/// In order, a port once for each holder: a task's port may be in use by somebody else, too, and stays so when the task goes.
#[derive(Clone, Debug, Default)]
pub(super) struct PortTable {
    held: Vec<HostPort>,
}

impl PortTable {
    pub(super) fn new(mut held: Vec<HostPort>) -> Self {
        held.sort_unstable();
        Self { held }
    }

    pub(super) fn hold(&mut self, port: HostPort) {
        self.held.insert(self.before(port), port);
    }

    pub(super) fn release(&mut self, port: HostPort) {
        if let Ok(index) = self.held.binary_search(&port) {
            self.held.remove(index);
        }
    }

    /// How many stand before this port.
    fn before(&self, port: HostPort) -> usize {
        self.held.partition_point(|held| *held < port)
    }

    /// What of `wants` cannot be had.
    pub(super) fn lacks(&self, wants: &PortWants) -> Option<PortLack> {
        if let Some(port) = wants.twice {
            return Some(PortLack::Twice(port));
        }
        if let Some(port) = wants.fixed.iter().find(|port| self.held.binary_search(port).is_ok()) {
            return Some(PortLack::Taken(*port));
        }
        let lacks_dynamic = |(protocol, wanted): (Protocol, usize)| {
            let in_range = |port: &&HostPort| port.protocol == protocol && DYNAMIC_PORTS.contains(&port.port);
            wanted > 0 && !self.has_dynamic(protocol, wanted + wants.fixed.iter().filter(in_range).count())
        };
        let dynamic = [(Protocol::Tcp, wants.dynamic_tcp), (Protocol::Udp, wants.dynamic_udp)];
        dynamic.into_iter().any(lacks_dynamic).then_some(PortLack::Dynamic)
    }

    fn has_dynamic(&self, protocol: Protocol, wanted: usize) -> bool {
        self.held.len() + wanted <= COUNT || self.held_from(protocol, FIRST).count() + wanted <= COUNT
    }

    /// The dynamic ports that are held, in order from `start`, each once.
    fn held_from(&self, protocol: Protocol, start: u16) -> impl Iterator<Item = u16> {
        let rest = self.held.get(self.before(HostPort { protocol, port: start })..).unwrap_or_default();
        let dynamic = rest.iter().take_while(move |held| held.protocol == protocol && held.port <= LAST);
        let mut last = None;
        dynamic.map(|held| held.port).filter(move |port| last.replace(*port) != Some(*port))
    }

    /// Holds all that is asked for. What `lacks` would name is left out.
    pub(super) fn bind(&mut self, request: &Request<'_>, hash: Hash) -> Vec<PortBinding> {
        for port in request.ports.iter().filter_map(PortRequest::fixed) {
            self.hold(port);
        }
        let bind = |asked: &PortRequest| {
            let host_port = match asked.fixed() {
                Some(fixed) => fixed.port,
                None => {
                    let start = hash.and(request.nth).and(u64::from(asked.container_port)).value() % COUNT as u64;
                    let port = self.free_from(asked.protocol, FIRST + start as u16)?;
                    self.hold(HostPort { protocol: asked.protocol, port });
                    port
                }
            };
            Some(PortBinding { container_port: asked.container_port, host_port, protocol: asked.protocol })
        };
        request.ports.iter().filter_map(bind).collect()
    }

    /// The first free dynamic port from `start` on, round the end.
    fn free_from(&self, protocol: Protocol, start: u16) -> Option<u16> {
        let gap = |from: u16, to: u16| {
            let run = (from..=to).zip(self.held_from(protocol, from)).take_while(|(port, held)| port == held).count();
            Some(from + run as u16).filter(|port| *port <= to)
        };
        gap(start, LAST).or_else(|| gap(FIRST, start))
    }
}

/// What a task asks of a host's ports, made ready once for all hosts.
#[derive(Clone, Debug, Default)]
pub(super) struct PortWants {
    fixed: Vec<HostPort>,
    dynamic_tcp: usize,
    dynamic_udp: usize,
    twice: Option<HostPort>,
}

/// Why ports cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PortLack {
    /// Somebody holds it.
    Taken(HostPort),
    /// No dynamic port is left.
    Dynamic,
    /// The task itself asks for it twice.
    Twice(HostPort),
}

impl PortWants {
    pub(super) fn new(ports: &[PortRequest]) -> Self {
        let mut wants = Self::default();
        for asked in ports {
            match (asked.fixed(), asked.protocol) {
                (Some(port), _) if wants.fixed.contains(&port) => wants.twice = Some(port),
                (Some(port), _) => wants.fixed.push(port),
                (None, Protocol::Tcp) => wants.dynamic_tcp += 1,
                (None, Protocol::Udp) => wants.dynamic_udp += 1,
            }
        }
        wants
    }
}

impl PortRequest {
    fn fixed(&self) -> Option<HostPort> {
        self.host_port.filter(|port| *port != 0).map(|port| HostPort { protocol: self.protocol, port })
    }
}
