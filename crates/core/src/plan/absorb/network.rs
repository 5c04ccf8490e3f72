//! What a host told of its part of the task network: by which key the others are to know it.

use crate::model::{
    name::HostName,
    network::NetworkSeen,
    state::{Change, HostRecord, State},
};

/// Takes a host's key in. One that another host has already is nobody's proof: it is left where it is, and `seen` says so.
pub fn network(state: &State, host: &HostName, seen: &mut NetworkSeen) -> Vec<Change> {
    let Some(key) = &seen.public_key else { return Vec::new() };
    let holder = state.hosts.values().find(|record| record.public_key.as_ref() == Some(key));
    match holder {
        Some(record) if record.name == *host => Vec::new(),
        Some(record) => {
            seen.problem = Some(format!(
                "its WireGuard key is that of host {}, too: was it copied? Another one is made after \
                 `docker rm -f rs-node; docker volume rm rs-node`",
                record.name
            ));
            seen.confirmed = None;
            Vec::new()
        }
        None => {
            let new = || HostRecord { name: host.clone(), ..HostRecord::default() };
            let known = state.hosts.get(host).cloned().unwrap_or_else(new);
            vec![Change::Host(HostRecord { public_key: Some(key.clone()), ..known })]
        }
    }
}
