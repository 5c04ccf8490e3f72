//! Placing tasks one after the other, each seeing those before it.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::{
    HostInput, Placed, Placement, Request, Unplaceable,
    filter::Class,
    fleet::{Fleet, HostId, ServiceId, Tally},
    ports::PortWants,
    rank::{Hash, MAX_RULES, Rule, rules},
};
use crate::model::{
    name::{HostName, ServiceName},
    time::Timestamp,
};

/// Places tasks on hosts. The same input in any order gives the same answers.
pub struct Placer<'a> {
    pub(super) fleet: Fleet<'a>,
    numbers: BTreeMap<ServiceName, ServiceId>,
    /// `service:NAME`, `family:NAME` by number.
    groups: Vec<String>,
    /// What is worked out of a service when it is first asked for, by number.
    services: Vec<Option<Known>>,
    now: Timestamp,
    seed: u64,
}

/// What is worked out of a service.
struct Known {
    tally: Tally,
    classes: Vec<Class>,
}

impl<'a> Placer<'a> {
    /// All hosts, and all tasks that hold room on them. `now` and `seed` are the plan's.
    pub fn new<'t>(
        hosts: impl IntoIterator<Item = HostInput<'a>>,
        tasks: impl IntoIterator<Item = Placed<'t>>,
        now: Timestamp,
        seed: u64,
    ) -> Self {
        let fleet = Fleet::new(hosts);
        let mut placer = Self { fleet, numbers: BTreeMap::new(), groups: Vec::new(), services: Vec::new(), now, seed };
        for task in tasks {
            let host = placer.fleet.id(task.host);
            if let Some(address) = task.address {
                placer.hold_address(host, address);
            }
            let Some(host) = host else { continue };
            if task.counts {
                let service = placer.number(task.service);
                placer.fleet.count(host, service);
            }
            placer.fleet.take(host, task.cpu, task.memory, task.gpus);
            let host = &mut placer.fleet.hosts[host];
            task.ports.iter().for_each(|port| host.ports.hold(*port));
        }
        placer
    }

    /// Something else on a host has this address: what is left of a task that is over.
    pub fn hold(&mut self, host: &HostName, address: Ipv4Addr) {
        self.hold_address(self.fleet.id(host), address);
    }

    fn hold_address(&mut self, host: Option<HostId>, address: Ipv4Addr) {
        self.fleet.holders(host, address).for_each(|table| table.hold(address));
    }

    /// Chooses a host and reserves there what the task needs.
    pub fn place(&mut self, request: &Request<'_>) -> Result<Placement, Unplaceable> {
        let (now, hash) = (self.now, self.hash(request.service));
        let Parts { fleet, groups, service, tally, class } = self.parts(request);
        let rules = rules(request, fleet, tally, now, hash);
        let ports = PortWants::new(request.ports);
        let eligible = std::mem::take(&mut class.eligible);
        let fits = |host: &HostId| class.misfit(fleet, groups, tally, request, &ports, *host).is_none();
        let best = cheapest(fleet, tally, &rules, eligible.iter().copied().filter(fits));
        class.eligible = eligible;
        match best {
            Some(host) => Ok(reserve(fleet, tally, service, host, request, hash)),
            None => {
                let mut misfits = Vec::new();
                for (host, fixed) in class.members.clone() {
                    let misfit = fixed.or_else(|| class.misfit(fleet, groups, tally, request, &ports, host));
                    misfits.extend(misfit.map(|misfit| (host, misfit)));
                }
                Err(Unplaceable::new(fleet, class, request, &misfits))
            }
        }
    }

    /// Reserves on this very host (DAEMON), if it passes every filter.
    pub fn place_on(&mut self, host: &HostName, request: &Request<'_>) -> Result<Placement, Unplaceable> {
        let hash = self.hash(request.service);
        let host = self.fleet.id(host);
        let Parts { fleet, groups, service, tally, class } = self.parts(request);
        let member = host.and_then(|id| class.members.iter().find(|(member, _)| *member == id).copied());
        let Some((host, fixed)) = member else {
            return Err(Unplaceable::not_in_cluster(request.cluster));
        };
        let ports = PortWants::new(request.ports);
        match fixed.or_else(|| class.misfit(fleet, groups, tally, request, &ports, host)) {
            None => Ok(reserve(fleet, tally, service, host, request, hash)),
            Some(misfit) => Err(Unplaceable::new(fleet, class, request, &[(host, misfit)])),
        }
    }

    /// The hosts that a DAEMON belongs on, by name: state, architecture and `memberOf` constraints agree, whatever
    /// room they have.
    pub fn eligible(&mut self, request: &Request<'_>) -> Vec<HostName> {
        let Parts { fleet, groups, class, .. } = self.parts(request);
        let hosts = class.eligible.clone();
        let fits = |host: &HostId| class.group_misfit(fleet, groups, *host).is_none();
        hosts.into_iter().filter(fits).map(|host| fleet.hosts[host].input.name.clone()).collect()
    }

    /// A task was ordered to stop: it no longer counts as one of its service, and holds its room until [`Self::release`].
    pub fn uncount(&mut self, service: &ServiceName, host: &HostName) {
        let (Some(host), Some(service)) = (self.fleet.id(host), self.numbers.get(service).copied()) else {
            return;
        };
        if !self.fleet.uncount(host, service) {
            return;
        }
        if let Some(known) = self.services[service].as_mut() {
            known.tally.remove(&self.fleet, host);
        }
    }

    /// Gives back what a task held that is known to be gone: one of which this placer knows.
    pub fn release(&mut self, placed: &Placed<'_>) {
        if placed.counts {
            self.uncount(placed.service, placed.host);
        }
        if let Some(host) = self.fleet.id(placed.host) {
            self.fleet.give_back(host, placed);
        }
    }

    /// CPU units and MiB that are left on a host; `None` for one that is not known.
    pub fn remaining(&self, host: &HostName) -> Option<(u32, u32)> {
        let room = &self.fleet.room[self.fleet.id(host)?];
        let left = |amount: i64| u32::try_from(amount.max(0)).unwrap_or(u32::MAX);
        Some((left(room.cpu), left(room.memory)))
    }

    /// A service's start for everything that is left to chance. Another one each time, so that a port that was just given
    /// back is not the first one given out.
    pub(super) fn hash(&self, service: &ServiceName) -> Hash {
        self.lot(service).and(self.now.0)
    }

    /// The same at any time.
    pub(super) fn lot(&self, service: &ServiceName) -> Hash {
        Hash::new(self.seed, service.as_str())
    }

    fn number(&mut self, service: &ServiceName) -> ServiceId {
        if let Some(number) = self.numbers.get(service) {
            return *number;
        }
        let number = self.groups.len();
        self.numbers.insert(service.clone(), number);
        self.groups.push(service.group());
        self.services.push(None);
        number
    }

    /// What a request is about, worked out when it is asked for the first time.
    fn parts(&mut self, request: &Request<'_>) -> Parts<'_, 'a> {
        let service = self.number(request.service);
        let fleet = &mut self.fleet;
        let known = self.services[service]
            .get_or_insert_with(|| Known { tally: Tally::of_service(fleet, service), classes: Vec::new() });
        let class = known.classes.iter().position(|class| class.is_of(request)).unwrap_or_else(|| {
            known.classes.push(Class::new(fleet, request));
            known.classes.len() - 1
        });
        Parts { fleet, groups: &self.groups, service, tally: &mut known.tally, class: &mut known.classes[class] }
    }
}

struct Parts<'p, 'a> {
    fleet: &'p mut Fleet<'a>,
    groups: &'p [String],
    service: ServiceId,
    tally: &'p mut Tally,
    class: &'p mut Class,
}

/// The first of the cheapest.
fn cheapest(fleet: &Fleet<'_>, tally: &Tally, rules: &[Rule], hosts: impl Iterator<Item = HostId>) -> Option<HostId> {
    let mut best = None;
    let mut lowest = [0; MAX_RULES];
    for host in hosts {
        let mut better = best.is_none();
        for (rule, lowest) in rules.iter().zip(&mut lowest) {
            let cost = rule.cost(fleet, &fleet.room, tally, host);
            if !better && cost > *lowest {
                break;
            }
            better |= cost < *lowest;
            *lowest = cost;
        }
        if better {
            best = Some(host);
        }
    }
    best
}

fn reserve(
    fleet: &mut Fleet<'_>,
    tally: &mut Tally,
    service: ServiceId,
    host: HostId,
    request: &Request<'_>,
    hash: Hash,
) -> Placement {
    fleet.take(host, request.cpu, request.memory, request.gpus);
    fleet.count(host, service);
    tally.add(fleet, host);
    let row = &mut fleet.hosts[host];
    let address = request.subnets.and_then(|subnets| row.addresses.take(subnets, hash.and(request.nth)));
    Placement { host: row.input.name.clone(), ports: row.ports.bind(request, hash), address }
}
