//! From one picture to the next, without a reload where that is possible.

use std::collections::BTreeMap;

use roadstead_core::model::{
    name::{LoadBalancerName, TargetGroupName, TaskId},
    spec::{LoadBalancerSpec, tls::Certificate},
    traffic::{Edge, Group, Target},
};

use super::certificates;
use super::config::{FULL_WEIGHT, arguments, backend, open_backend, server};

/// How a running HAProxy comes from one picture to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// By another configuration.
    Reload,
    /// By commands. Maps are told between them.
    Commands {
        /// What comes.
        first: Vec<String>,
        /// What goes.
        last: Vec<String>,
    },
}

/// What is to be said to it. `was` is in force.
pub fn update(was: &Edge, wanted: &Edge) -> Update {
    let same_groups = was.groups.len() == wanted.groups.len()
        && was.groups.iter().zip(&wanted.groups).all(|(was, wanted)| was.0 == wanted.0 && was.1.spec == wanted.1.spec);
    let same_certificates = certificates::can_change(was, wanted);
    if was.node_image != wanted.node_image || !same_groups || !same_certificates || !same_balancers(was, wanted) {
        return Update::Reload;
    }
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for (was, (name, wanted)) in was.groups.values().zip(&wanted.groups) {
        for (task, target) in &wanted.targets {
            match was.targets.get(task) {
                None => first.extend(add(name, wanted, task, target)),
                Some(before) if (before.address, before.port) != (target.address, target.port) => {
                    return Update::Reload;
                }
                Some(before) if before.leaves == target.leaves => {}
                Some(_) if target.leaves => last.extend(weigh(name, task, 0)),
                Some(_) => first.extend(weigh(name, task, FULL_WEIGHT)),
            }
        }
        let gone = was.targets.keys().filter(|task| !wanted.targets.contains_key(*task));
        last.extend(gone.flat_map(|task| remove(name, task)));
    }
    Update::Commands { first, last }
}

/// But for their certificates, which come and go at runtime. Whether authorities are answered is structure.
fn same_balancers(was: &Edge, wanted: &Edge) -> bool {
    let is_same = |(was, wanted): ((&LoadBalancerName, &LoadBalancerSpec), (&LoadBalancerName, &LoadBalancerSpec))| {
        let orders = |spec: &LoadBalancerSpec| spec.certificates().any(Certificate::is_ordered);
        was == wanted || was.0 == wanted.0 && orders(was.1) == orders(wanted.1) && bare(was.1) == bare(wanted.1)
    };
    was.balancers.len() == wanted.balancers.len() && was.balancers.iter().zip(&wanted.balancers).all(is_same)
}

fn bare(spec: &LoadBalancerSpec) -> LoadBalancerSpec {
    let mut spec = spec.clone();
    spec.listeners.iter_mut().filter_map(|listener| listener.tls.as_mut()).for_each(|tls| tls.certificates.clear());
    spec
}

/// A new one gets no request until a check was good: `health stopping` is left by the first good one.
fn add(name: &TargetGroupName, group: &Group, task: &TaskId, target: &Target) -> [String; 7] {
    let (checked, open) = (of(backend(name), task), of(open_backend(name), task));
    [
        format!("add server {open} {}", arguments(&group.spec, target, false)),
        format!("set server {open} state ready"),
        format!("add server {checked} {}", arguments(&group.spec, target, true)),
        format!("enable health {checked}"),
        // Out of maintenance only so that it is never up in between.
        format!("set server {checked} state drain"),
        format!("set server {checked} health stopping"),
        format!("set server {checked} state ready"),
    ]
}

fn weigh(name: &TargetGroupName, task: &TaskId, weight: u32) -> [String; 2] {
    [backend(name), open_backend(name)].map(|backend| format!("set server {} weight {weight}", of(backend, task)))
}

fn remove(name: &TargetGroupName, task: &TaskId) -> impl Iterator<Item = String> {
    [backend(name), open_backend(name)]
        .map(|backend| of(backend, task))
        .into_iter()
        .flat_map(|server| remove_server(&server))
}

/// What still goes on with it ends. Until its connections are closed it stays in maintenance: [`super::script`] tries again.
pub fn remove_server(server: &str) -> [String; 3] {
    [
        format!("set server {server} state maint"),
        format!("shutdown sessions server {server}"),
        format!("del server {server}"),
    ]
}

fn of(backend: String, task: &TaskId) -> String {
    format!("{backend}/{}", server(task))
}

/// The file of states that a reload begins with, of what `show servers state` said before: health is kept, and a server that
/// was never checked, or that somebody shut, begins as at runtime.
pub fn states(said: &str, wanted: &Edge) -> String {
    let known: BTreeMap<(&str, &str), Vec<&str>> = said
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter_map(|fields| Some(((*fields.get(BACKEND)?, *fields.get(SERVER)?), fields)))
        .collect();
    let mut states = format!("1\n{COLUMNS}\n");
    for (name, group) in &wanted.groups {
        for (task, target) in &group.targets {
            // The other backend has no checks, and so no states.
            let (backend, server) = (backend(name), server(task));
            let (address, port) = (target.address.to_string(), target.port.to_string());
            let is_same = |fields: &&Vec<&str>| {
                fields.get(ADDRESS) == Some(&address.as_str())
                    && fields.get(PORT) == Some(&port.as_str())
                    && fields.get(ADMIN) == Some(&"0")
            };
            match known.get(&(backend.as_str(), server.as_str())).filter(is_same) {
                Some(fields) => states += &fields.join(" "),
                None => {
                    let weight = if target.leaves { 0 } else { FULL_WEIGHT };
                    // SRV_ST_STOPPING, and a check that is configured and enabled.
                    states += &format!(
                        "1 {backend} 1 {server} {address} 3 0 {weight} {weight} 0 1 0 2 6 0 0 0 - {port} - 0 0 - - 0"
                    );
                }
            }
            states.push('\n');
        }
    }
    states
}

/// Of version 1, which HAProxy 2.6 writes and all later ones read.
const COLUMNS: &str = "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight \
    srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state \
    bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr \
    srv_agent_port";
const BACKEND: usize = 1;
const SERVER: usize = 3;
const ADDRESS: usize = 4;
const ADMIN: usize = 6;
const PORT: usize = 18;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn edge(targets: serde_json::Value) -> Edge {
        let group = json!({"spec": {"port": 80}, "targets": targets});
        let listeners = json!([{"name": "http", "port": 80, "defaultAction": {"forward": "app"}}]);
        serde_json::from_value(json!({
            "nodeImage": "n", "balancers": {"lb": {"listeners": listeners}}, "forwards": {}, "groups": {"app": group},
        }))
        .unwrap()
    }

    fn commands(was: &Edge, wanted: &Edge) -> (Vec<String>, Vec<String>) {
        match update(was, wanted) {
            Update::Commands { first, last } => (first, last),
            Update::Reload => panic!("a reload"),
        }
    }

    #[test]
    fn targets_come_before_and_go_after() {
        let one = edge(json!({"t1": {"address": "10.0.0.1", "port": 80, "leaves": false}}));
        let leaves = edge(json!({"t1": {"address": "10.0.0.1", "port": 80, "leaves": true}}));
        let other = edge(json!({"t2": {"address": "10.0.0.2", "port": 80, "leaves": false}}));
        assert_eq!(update(&one, &one), Update::Commands { first: vec![], last: vec![] });
        assert_eq!(
            commands(&one, &leaves),
            (vec![], vec!["set server g.app/t1 weight 0".to_owned(), "set server g.app.open/t1 weight 0".to_owned()])
        );
        assert_eq!(commands(&leaves, &one).1, Vec::<String>::new());
        let (first, last) = commands(&one, &other);
        assert_eq!(first[0], "add server g.app.open/t2 10.0.0.2:80 weight 100 pool-max-conn -1 pool-purge-delay 5s");
        assert_eq!(
            first[2],
            "add server g.app/t2 10.0.0.2:80 weight 100 pool-max-conn -1 pool-purge-delay 5s check port 80 inter 5s rise 2 fall 2"
        );
        assert_eq!(last[2], "del server g.app/t1");
    }

    #[test]
    fn what_else_differs_needs_a_reload() {
        let was = edge(json!({"t1": {"address": "10.0.0.1", "port": 80, "leaves": false}}));
        let moved = edge(json!({"t1": {"address": "10.0.0.1", "port": 81, "leaves": false}}));
        let mut checked = was.clone();
        checked.groups.values_mut().for_each(|group| group.spec.health_check.interval.0 = 9);
        let mut listening = was.clone();
        listening.balancers.values_mut().for_each(|balancer| balancer.access_logs = true);
        let mut more = was.clone();
        more.groups.insert("more".into(), was.groups["app"].clone());
        for wanted in [moved, checked, listening, more] {
            assert_eq!(update(&was, &wanted), Update::Reload);
        }
    }

    #[test]
    fn health_outlives_a_reload_and_admin_states_do_not() {
        let up = "4 g.app 1 t1 10.0.0.1 2 0 100 100 48 15 3 3 6 0 0 0 - 80 - 0 0 - - 0";
        let shut = "4 g.app 2 t2 10.0.0.2 2 1 100 100 48 15 3 3 6 0 0 0 - 80 - 0 0 - - 0";
        let moved = "4 g.app 2 t3 10.0.0.9 2 0 100 100 48 15 3 3 6 0 0 0 - 80 - 0 0 - - 0";
        let target = |address: &str| json!({"address": address, "port": 80, "leaves": false});
        let edge = edge(json!({"t1": target("10.0.0.1"), "t2": target("10.0.0.2"), "t3": target("10.0.0.3")}));
        let states = states(&format!("1\n# be_id\n{up}\n{shut}\n{moved}\nhostile\n\n"), &edge);
        let begins: Vec<&str> = states.lines().skip(2).map(|line| line.split(" 100").next().unwrap()).collect();
        assert_eq!(begins, ["4 g.app 1 t1 10.0.0.1 2 0", "1 g.app 1 t2 10.0.0.2 3 0", "1 g.app 1 t3 10.0.0.3 3 0",]);
    }
}
