//! LoadBalancer by itself: its listeners. Everything that is written here ends in a program's configuration.

use std::collections::BTreeMap;

use super::{Beside, in_range, join, rule, tls};
use crate::{
    manifest::{
        document::is_label,
        node::{Span, Step, at},
        report::{Scope, quote},
    },
    model::spec::{
        LoadBalancerSpec,
        load_balancer::{Action, Listener, ListenerProtocol},
    },
};

/// Listeners of one load balancer (ELB).
const MAX_LISTENERS: usize = 50;
/// Rules of one listener: each request may be held against all of them.
const MAX_RULES: usize = 1000;
/// Security groups of one load balancer (ELB).
const MAX_SECURITY_GROUPS: usize = 5;

/// Checks a load balancer.
pub fn load_balancer(spec: &mut LoadBalancerSpec, scope: &mut Scope<'_>, beside: Beside<'_>) {
    in_range(scope, at!["idleTimeout"], spec.idle_timeout.0, 1..=4000, " s");
    let groups = spec.security_groups.len();
    if groups > MAX_SECURITY_GROUPS {
        let path = at!["securityGroups", MAX_SECURITY_GROUPS];
        let message = format!("{groups} security groups, {MAX_SECURITY_GROUPS} are the most");
        scope.error(path, "load-balancer", message).label("one too many");
    }
    if spec.listeners.is_empty() {
        scope
            .error(at!["listeners"], "load-balancer", "a load balancer without listeners answers nobody")
            .help("such as `listeners: [{ name: http, port: 80, defaultAction: { forward: web } }]`");
    } else if spec.listeners.len() > MAX_LISTENERS {
        let message = format!("{} listeners, {MAX_LISTENERS} are the most", spec.listeners.len());
        scope.error(at!["listeners", MAX_LISTENERS], "load-balancer", message).label("one too many");
        return;
    }
    let has_asked = spec.listeners.iter().any(Listener::is_asked);
    for (index, listener) in spec.listeners.iter_mut().enumerate() {
        tls::tls(listener, has_asked, &[Step::Key("listeners"), Step::Index(index)], beside, scope);
    }
    let (mut names, mut ports) = (Claims::default(), Claims::default());
    for (index, listener) in spec.listeners.iter().enumerate() {
        let base = [Step::Key("listeners"), Step::Index(index)];
        let name = join(&base, &[Step::Key("name")]);
        label(&listener.name, &name, "listener", scope);
        names.claim(listener.name.as_str(), &name, scope, || {
            format!("two listeners are named {}", quote(&listener.name))
        });
        let port = join(&base, &[Step::Key("port")]);
        if listener.port == 0 {
            scope.error(&port, "out-of-range", "0 is not a port").label("from 1 to 65535");
        }
        ports.claim(listener.port, &port, scope, || format!("two listeners have the port {}", listener.port));
        check(listener, &base, scope);
    }
}

fn check(listener: &Listener, base: &[Step<'_>], scope: &mut Scope<'_>) {
    let field = |field: &'static str| join(base, &[Step::Key(field)]);
    match listener.protocol {
        ListenerProtocol::Http | ListenerProtocol::Https => {}
        ListenerProtocol::Tcp => of_bytes(listener, base, scope),
    }
    if listener.rules.len() > MAX_RULES {
        let message = format!("{} rules, {MAX_RULES} are the most", listener.rules.len());
        scope.error(&join(&field("rules"), &[Step::Index(MAX_RULES)]), "load-balancer", message).label("one too many");
        return;
    }
    let (mut names, mut priorities) = (Claims::default(), Claims::default());
    for (index, rule) in listener.rules.iter().enumerate() {
        let base = join(&field("rules"), &[Step::Index(index)]);
        let name = join(&base, &[Step::Key("name")]);
        label(&rule.name, &name, "rule", scope);
        names.claim(rule.name.as_str(), &name, scope, || {
            format!("two rules of the listener are named {}", quote(&rule.name))
        });
        if let Some(priority) = rule.priority {
            let path = join(&base, &[Step::Key("priority")]);
            in_range(scope, &path, priority, 1..=50_000, "");
            priorities
                .claim(priority, &path, scope, || format!("two rules of the listener have the priority {priority}"));
        }
        rule::conditions(&rule.conditions, &join(&base, &[Step::Key("conditions")]), scope);
        rule::action(&rule.action, listener, &join(&base, &[Step::Key("action")]), scope);
    }
    if let Some(action) = &listener.default_action {
        rule::action(action, listener, &field("defaultAction"), scope);
    }
}

/// Bytes have nothing that a rule could ask for.
fn of_bytes(listener: &Listener, base: &[Step<'_>], scope: &mut Scope<'_>) {
    let field = |field: &'static str| join(base, &[Step::Key(field)]);
    if !listener.rules.is_empty() {
        scope
            .error(&field("rules"), "load-balancer", "a TCP listener has no rules: it sees bytes, not requests")
            .help("say with `defaultAction` where connections go");
    }
    match &listener.default_action {
        Some(Action::Forward(_)) => {}
        Some(Action::Redirect(_) | Action::FixedResponse(_)) => {
            let message = "a TCP listener can only forward";
            scope.error(&field("defaultAction"), "load-balancer", message).help("`forward:` a target group");
        }
        None => {
            scope
                .error(base, "load-balancer", "a TCP listener does not say where connections go")
                .help("`defaultAction: { forward: GROUP }`");
        }
    }
}

/// Names of listeners and rules are parts of `LOADBALANCER/LISTENER/RULE`.
fn label(name: &str, path: &[Step<'_>], what: &str, scope: &mut Scope<'_>) {
    if !is_label(name) {
        scope
            .error(path, "bad-name", format!("{} is no name for a {what}", quote(name)))
            .label("1 to 63 lower-case letters, digits and hyphens");
    }
}

/// Who has what only one can have.
struct Claims<K>(BTreeMap<K, Span>);

impl<K> Default for Claims<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord> Claims<K> {
    fn claim(&mut self, what: K, path: &[Step<'_>], scope: &mut Scope<'_>, message: impl FnOnce() -> String) {
        let span = scope.node.locate(path);
        match self.0.get(&what).copied() {
            Some(first) => {
                scope.error(path, "duplicate", message()).label("again here").also(first, "first here");
            }
            None => {
                self.0.insert(what, span);
            }
        }
    }
}
