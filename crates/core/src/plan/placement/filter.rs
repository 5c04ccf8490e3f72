//! Which hosts may and can take a task.
//!
//! What cannot change within a plan (state, architecture, most constraints) is judged once per service and set of
//! constraints. Room comes last, so that "lacks memory" speaks of hosts that could otherwise be used.

use super::{
    AddressLack, HostInput, Refusal, Request,
    fleet::{Fleet, Host, HostId, Tally},
    ports::{PortLack, PortWants},
    query::{Expr, HostAttrs, ParseError, parse},
};
use crate::model::{
    name::ClusterName,
    spec::service::{PlacementConstraint, PlacementConstraintType},
};

/// The first filter that a host does not pass, in the order in which people are told of them: what may end soonest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Misfit {
    Cpu,
    Memory,
    Gpus,
    Port(PortLack),
    Address(AddressLack),
    AlreadyThere,
    /// By its place in the list.
    Home(usize),
    Refused(Refusal),
    Architecture,
    /// By its place in the list.
    Constraint(usize),
}

/// A constraint made ready.
#[derive(Debug)]
pub(super) enum Constraint {
    Distinct,
    Member(Expr),
    /// Nothing passes it: a constraint is never dropped because it cannot be read.
    Unreadable {
        expression: String,
        error: ParseError,
    },
}

/// The places of the hosts that a DAEMON belongs on, as [`super::Placer::eligible`] tells them; `None` when constraints ask
/// for what runs there, which only a placer knows.
pub fn eligible_by_itself<'a>(
    hosts: impl IntoIterator<Item = HostInput<'a>>,
    request: &Request<'_>,
) -> Option<Vec<usize>> {
    let constraints: Vec<Constraint> = request.constraints.iter().map(Constraint::new).collect();
    if constraints.iter().any(Constraint::asks_for_groups) {
        return None;
    }
    let is_eligible = |host: &HostInput<'_>| {
        host.cluster == request.cluster && judge(host, request.architecture, &constraints).is_none()
    };
    let places = hosts.into_iter().enumerate().filter(|(_, host)| is_eligible(host)).map(|(place, _)| place);
    Some(places.collect())
}

/// The hosts of a cluster as judged for one set of constraints.
pub(super) struct Class {
    cluster: ClusterName,
    architecture: Option<String>,
    source: Vec<PlacementConstraint>,
    pub(super) constraints: Vec<Constraint>,
    /// Every host of the cluster.
    pub(super) members: Vec<(HostId, Option<Misfit>)>,
    /// Those without a misfit.
    pub(super) eligible: Vec<HostId>,
    distinct: bool,
    /// Constraints that ask for task groups: judged again when the groups on a host change.
    grouped: Vec<usize>,
    judged: Vec<(u32, Option<Misfit>)>,
}

impl Class {
    pub(super) fn is_of(&self, request: &Request<'_>) -> bool {
        self.cluster == *request.cluster
            && self.architecture.as_deref() == request.architecture
            && self.source == request.constraints
    }

    pub(super) fn new(fleet: &Fleet<'_>, request: &Request<'_>) -> Self {
        let constraints: Vec<Constraint> = request.constraints.iter().map(Constraint::new).collect();
        let members: Vec<(HostId, Option<Misfit>)> = fleet
            .hosts
            .iter()
            .enumerate()
            .filter(|(_, host)| host.input.cluster == request.cluster)
            .map(|(id, host)| (id, judge(&host.input, request.architecture, &constraints)))
            .collect();
        let grouped: Vec<usize> = constraints
            .iter()
            .enumerate()
            .filter(|(_, constraint)| constraint.asks_for_groups())
            .map(|(index, _)| index)
            .collect();
        Self {
            cluster: request.cluster.clone(),
            architecture: request.architecture.map(str::to_owned),
            source: request.constraints.to_vec(),
            eligible: members.iter().filter(|(_, misfit)| misfit.is_none()).map(|(id, _)| *id).collect(),
            members,
            distinct: constraints.iter().any(|constraint| matches!(constraint, Constraint::Distinct)),
            judged: if grouped.is_empty() { Vec::new() } else { vec![(0, None); fleet.hosts.len()] },
            constraints,
            grouped,
        }
    }

    /// What speaks against an eligible host just now, room included.
    pub(super) fn misfit(
        &mut self,
        fleet: &Fleet<'_>,
        groups: &[String],
        tally: &Tally,
        request: &Request<'_>,
        ports: &PortWants,
        host: HostId,
    ) -> Option<Misfit> {
        let here = fleet.hosts[host].input.name;
        if let Some(elsewhere) = request.homes.iter().position(|home| home.host != *here) {
            return Some(Misfit::Home(elsewhere));
        }
        if request.silent.contains(&here) {
            return Some(Misfit::Refused(Refusal::Suspect));
        }
        if self.distinct && tally.on_host[host] > 0 {
            return Some(Misfit::AlreadyThere);
        }
        if let Some(misfit) = self.group_misfit(fleet, groups, host) {
            return Some(misfit);
        }
        let room = &fleet.room[host];
        if room.cpu < request.cpu.into() && request.cpu > 0 {
            return Some(Misfit::Cpu);
        }
        if room.memory < request.memory.into() && request.memory > 0 {
            return Some(Misfit::Memory);
        }
        if room.gpus < request.gpus.into() && request.gpus > 0 {
            return Some(Misfit::Gpus);
        }
        let host = &fleet.hosts[host];
        let address = || request.subnets.and_then(|subnets| host.addresses.lacks(subnets)).map(Misfit::Address);
        host.ports.lacks(ports).map(Misfit::Port).or_else(address)
    }

    /// What `task:group` constraints have against a host.
    pub(super) fn group_misfit(&mut self, fleet: &Fleet<'_>, groups: &[String], host: HostId) -> Option<Misfit> {
        if self.grouped.is_empty() {
            return None;
        }
        let row: &Host<'_> = &fleet.hosts[host];
        let (version, misfit) = self.judged[host];
        if version == row.groups_version {
            return misfit;
        }
        let here: Vec<&str> = row.services.keys().map(|service| groups[*service].as_str()).collect();
        let attrs = attrs(&row.input, &here);
        let fails = |index: &&usize| !self.constraints[**index].passes(&attrs);
        let misfit = self.grouped.iter().find(fails).map(|index| Misfit::Constraint(*index));
        self.judged[host] = (row.groups_version, misfit);
        misfit
    }
}

impl Constraint {
    fn new(constraint: &PlacementConstraint) -> Self {
        match constraint.kind {
            PlacementConstraintType::DistinctInstance => Self::Distinct,
            PlacementConstraintType::MemberOf => {
                let expression = constraint.expression.as_deref().unwrap_or_default();
                match parse(expression) {
                    Ok(expr) => Self::Member(expr),
                    Err(error) => Self::Unreadable { expression: expression.to_owned(), error },
                }
            }
        }
    }

    fn asks_for_groups(&self) -> bool {
        match self {
            Self::Member(expr) => expr.asks_for_groups(),
            Self::Distinct | Self::Unreadable { .. } => false,
        }
    }

    fn passes(&self, host: &HostAttrs<'_>) -> bool {
        match self {
            Self::Distinct => true,
            Self::Member(expr) => expr.matches(host),
            Self::Unreadable { .. } => false,
        }
    }
}

fn judge(host: &HostInput<'_>, architecture: Option<&str>, constraints: &[Constraint]) -> Option<Misfit> {
    if let Err(refusal) = host.accepts {
        return Some(Misfit::Refused(refusal));
    }
    if architecture.is_some_and(|wanted| wanted != host.architecture) {
        return Some(Misfit::Architecture);
    }
    let attrs = attrs(host, &[]);
    let fails = |constraint: &Constraint| !constraint.asks_for_groups() && !constraint.passes(&attrs);
    constraints.iter().position(fails).map(Misfit::Constraint)
}

fn attrs<'h>(host: &'h HostInput<'_>, groups: &'h [&'h str]) -> HostAttrs<'h> {
    HostAttrs { name: host.name.as_str(), architecture: host.architecture, labels: host.labels, groups }
}
