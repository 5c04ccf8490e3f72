//! `expose` of services: the target groups, rules, certificates and, in a cluster without load balancers, the load balancer that it
//! stands for. They are added to what the manifests say after every name is settled, and taken away from what they said before.

use std::{borrow::Cow, cmp::Reverse, collections::BTreeMap};

use super::{Declared, Judge, traffic::Published};
use crate::{
    manifest::{
        node::{Step, at},
        report::{Finding, quote, quote_all},
    },
    model::{
        desired::{Desired, Manifest},
        name::{ClusterName, LoadBalancerName, ServiceName, TargetGroupName},
        spec::{
            LoadBalancerSpec, ServiceSpec, TargetGroupSpec,
            expose::{EXPOSE_PREFIX, Expose, ExposeIssuer},
            load_balancer::{
                Action, Forward, Listener, ListenerProtocol, Redirect, RedirectProtocol, RedirectStatus, Rule,
                ServiceLoadBalancer, WeightedGroup,
            },
            tls::{Certificate, Tls},
        },
    },
};

const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// Of whom a service is.
#[derive(Debug, PartialEq, Eq)]
enum Owner<'a> {
    /// A load balancer that a manifest declares.
    Declared(&'a LoadBalancerName),
    /// The cluster has none: one is made.
    Made(LoadBalancerName),
    /// There is none of this name.
    Unknown(&'a LoadBalancerName),
    /// It is another cluster's.
    Elsewhere(&'a LoadBalancerName, &'a ClusterName),
    /// Nobody says which.
    Several(Vec<&'a LoadBalancerName>),
}

/// The name that what is made for a service or a cluster has.
fn made(name: &str) -> String {
    format!("{EXPOSE_PREFIX}{name}")
}

fn is_made(name: &str) -> bool {
    name.starts_with(EXPOSE_PREFIX)
}

/// What the manifests said, without what was made of it.
pub fn as_written(desired: &Desired) -> Cow<'_, Desired> {
    if desired.services.values().all(|service| service.spec.expose.is_none()) {
        return Cow::Borrowed(desired);
    }
    let mut desired = desired.clone();
    desired.target_groups.retain(|name, _| !is_made(name.as_str()));
    desired.load_balancers.retain(|name, _| !is_made(name.as_str()));
    let certificates: Vec<Certificate> =
        desired.services.values().filter_map(|service| service.spec.expose.as_ref()?.certificate(false)).collect();
    for listener in desired.load_balancers.values_mut().flat_map(|balancer| &mut balancer.spec.listeners) {
        listener.rules.retain(|rule| !is_made(&rule.name));
        if let Some(tls) = &mut listener.tls {
            tls.certificates.retain(|certificate| !certificates.contains(certificate));
        }
    }
    for service in desired.services.values_mut() {
        service.spec.load_balancers.retain(|entry| !is_made(entry.target_group.as_str()));
    }
    Cow::Owned(desired)
}

/// Adds what exposed services stand for.
pub(super) fn expand(desired: &mut Desired) {
    let exposed = |service: &Manifest<ServiceSpec>| service.spec.expose.as_deref().cloned();
    let mut services: Vec<(ServiceName, Expose, Place, ClusterName)> = desired
        .services
        .iter()
        .filter_map(|(name, service)| {
            Some((name.clone(), exposed(service)?, (service.file.clone(), service.line), service.spec.cluster.clone()))
        })
        .collect();
    // What is for fewer requests is asked first.
    services.sort_by_key(|(name, expose, _, _)| {
        let is_wild = |text: &str| text.contains(['*', '?']);
        let path = expose.path.as_deref().unwrap_or_default();
        (is_wild(&expose.host), Reverse(path.len()), is_wild(path), name.clone())
    });
    for (name, expose, place, cluster) in services {
        let owner = owner(desired, &cluster, &expose);
        let (balancer, is_new) = match owner {
            Owner::Declared(balancer) => (balancer.clone(), false),
            Owner::Made(balancer) => (balancer, true),
            // The judge says so.
            Owner::Unknown(_) | Owner::Elsewhere(..) | Owner::Several(_) => continue,
        };
        let group: TargetGroupName = made(name.as_str()).into();
        let Some(service) = desired.services.get_mut(&name) else { continue };
        service.spec.load_balancers.push(entry(&expose, group.clone()));
        let spec = TargetGroupSpec {
            cluster: Some(cluster.clone()),
            health_check: expose.health_check.clone(),
            ..TargetGroupSpec::of_port(expose.container_port.unwrap_or(HTTP_PORT))
        };
        desired.target_groups.insert(group.clone(), at_place(&place, spec));
        let front = desired.load_balancers.entry(balancer).or_insert_with(|| at_place(&place, on_every_host(&cluster)));
        route(&mut front.spec, &expose, made(name.as_str()), &group, is_new);
    }
}

/// What stands for it in `loadBalancers`.
fn entry(expose: &Expose, target_group: TargetGroupName) -> ServiceLoadBalancer {
    ServiceLoadBalancer {
        target_group,
        alternate_target_group: None,
        production_listener_rule: None,
        test_listener_rule: None,
        container_name: expose.container_name.clone(),
        container_port: expose.container_port,
    }
}

/// The file and the line of the manifest that something is made for.
type Place = (String, u32);

fn at_place<S>((file, line): &Place, spec: S) -> Manifest<S> {
    Manifest { labels: BTreeMap::new(), annotations: BTreeMap::new(), file: file.clone(), line: *line, spec }
}

fn on_every_host(cluster: &ClusterName) -> LoadBalancerSpec {
    let http = listener("http", HTTP_PORT, ListenerProtocol::Http);
    LoadBalancerSpec { cluster: Some(cluster.clone()), ..LoadBalancerSpec::of_listeners(vec![http]) }
}

fn listener(name: &str, port: u16, protocol: ListenerProtocol) -> Listener {
    Listener {
        name: name.to_owned(),
        port,
        protocol,
        rules: Vec::new(),
        default_action: None,
        accept_proxy_protocol: false,
        tls: None,
    }
}

/// A rule, and a certificate where there are some.
fn route(balancer: &mut LoadBalancerSpec, expose: &Expose, name: String, group: &TargetGroupName, is_new: bool) {
    if let Some(certificate) = expose.certificate(is_new) {
        if is_new && !balancer.speaks(ListenerProtocol::Https) {
            balancer.listeners.push(listener("https", HTTPS_PORT, ListenerProtocol::Https));
        }
        let https = balancer.listeners.iter_mut().filter(|listener| listener.protocol == ListenerProtocol::Https);
        for listener in https {
            let tls = listener.tls.get_or_insert_with(Tls::default);
            if !tls.certificates.iter().any(|it| it.id() == certificate.id()) {
                tls.certificates.push(certificate.clone());
            }
        }
    }
    let https = balancer.listeners.iter().find(|listener| listener.protocol == ListenerProtocol::Https);
    let https = https.map(|listener| listener.port);
    for listener in &mut balancer.listeners {
        let action = match (listener.protocol, https) {
            (ListenerProtocol::Tcp, _) => continue,
            (ListenerProtocol::Http, Some(port)) if expose.redirect_http => Action::Redirect(Redirect {
                protocol: Some(RedirectProtocol::Https),
                port: Some(port),
                status_code: RedirectStatus::Permanent,
                ..Redirect::default()
            }),
            (ListenerProtocol::Http | ListenerProtocol::Https, _) => {
                Action::Forward(Forward(vec![WeightedGroup { target_group: group.clone(), weight: 1 }]))
            }
        };
        listener.rules.push(Rule { name: name.clone(), priority: None, conditions: expose.conditions(), action });
    }
}

/// The load balancer of a service that is exposed: the one that it names, the cluster's own called `default`, its only one, or with
/// none one that is made.
fn owner<'a>(desired: &'a Desired, cluster: &'a ClusterName, expose: &'a Expose) -> Owner<'a> {
    let home = desired.home_cluster();
    let cluster_of = |spec: &LoadBalancerSpec| spec.cluster.clone().unwrap_or_else(|| home.clone());
    let declared = || desired.load_balancers.iter().filter(|(name, _)| !is_made(name.as_str()));
    if let Some(named) = &expose.load_balancer {
        return match declared().find(|(name, _)| *name == named) {
            None => Owner::Unknown(named),
            Some((name, balancer)) if cluster_of(&balancer.spec) == *cluster => Owner::Declared(name),
            Some((name, _)) => Owner::Elsewhere(name, cluster),
        };
    }
    let own: Vec<&LoadBalancerName> =
        declared().filter(|(_, balancer)| cluster_of(&balancer.spec) == *cluster).map(|(name, _)| name).collect();
    match own.as_slice() {
        [] => Owner::Made(made(cluster.as_str()).into()),
        [only] => Owner::Declared(only),
        _ => match own.iter().find(|name| name.as_str() == DEFAULT_BALANCER) {
            Some(name) => Owner::Declared(name),
            None => Owner::Several(own),
        },
    }
}

/// Of several load balancers of a cluster the one that exposed services are behind.
const DEFAULT_BALANCER: &str = "default";

/// Which requests are one service's alone: the load balancer, the host and the path.
pub(super) type Route = (LoadBalancerName, String, Option<String>);

/// The route that a service has for itself.
pub(super) fn route_of(desired: &Desired, spec: &ServiceSpec) -> Option<Route> {
    let expose = spec.expose.as_deref()?;
    let balancer = match owner(desired, &spec.cluster, expose) {
        Owner::Declared(name) => name.clone(),
        Owner::Made(name) => name,
        Owner::Unknown(_) | Owner::Elsewhere(..) | Owner::Several(_) => return None,
    };
    Some((balancer, expose.host.to_ascii_lowercase(), expose.path.clone()))
}

impl Judge<'_> {
    /// What a service says of how it is exposed.
    pub(super) fn expose(&self, service: &Declared<ServiceSpec>) -> Option<Finding> {
        let (spec, node) = (&service.manifest.spec, &service.node);
        let expose = spec.expose.as_deref()?;
        let base = at!["expose"];
        let locate = |field: &'static str| node.locate(at!["expose", field]);
        let cluster = quote(spec.cluster.as_str());
        let found = match owner(self.desired, &spec.cluster, expose) {
            Owner::Declared(name) => self.without_listener(name, service, expose),
            Owner::Made(_) if !self.tables.load_balancers.failed.is_empty() => {
                let failed = quote_all(self.tables.load_balancers.failed.iter().map(LoadBalancerName::as_str));
                let message = format!("which load balancer it is behind is not known: {failed} has errors of its own");
                let finding = Finding::error("broken-reference", node.locate(base), message);
                Some(finding.label("this waits until they are mended"))
            }
            Owner::Made(_) => (expose.redirect_http && expose.certificate(true).is_none()).then(|| {
                let message = "clients are sent to HTTPS, and nobody vouches for the name";
                let finding = Finding::error("tls", locate("redirectHttp"), message);
                finding.help("`issuer: SELF_SIGNED`, or leave it out")
            }),
            Owner::Unknown(name) => {
                let names = self.desired.load_balancers.keys().map(LoadBalancerName::as_str);
                let names = names.filter(|name| !is_made(name));
                let failed = self.tables.load_balancers.failed.contains(name);
                Some(self.unknown(node, at!["expose", "loadBalancer"], "load balancer", name.as_str(), failed, names))
            }
            Owner::Elsewhere(name, _) => {
                let message = format!("the load balancer {} is not of cluster {cluster}", quote(name.as_str()));
                Some(Finding::error("other-cluster", locate("loadBalancer"), message))
            }
            Owner::Several(names) => {
                let names = quote_all(names.into_iter().map(LoadBalancerName::as_str));
                let message = format!("cluster {cluster} has several load balancers");
                let finding = Finding::error("load-balancer", node.locate(base), message);
                Some(finding.help(format!("say `loadBalancer:` {names}; or name one of them `{DEFAULT_BALANCER}`")))
            }
        };
        let place =
            |field: &'static str| [base, &[Step::Key(if field == "targetGroup" { "host" } else { field })]].concat();
        found.or_else(|| self.target(service, &place, &entry(expose, TargetGroupName::default())))
    }

    /// A load balancer of one's own that lacks what is asked for.
    fn without_listener(
        &self,
        name: &LoadBalancerName,
        service: &Declared<ServiceSpec>,
        expose: &Expose,
    ) -> Option<Finding> {
        let balancer = &self.desired.load_balancers.get(name)?.spec;
        let name = quote(name.as_str());
        let locate = |field: &'static str| service.node.locate(at!["expose", field]);
        let has_http = balancer.speaks(ListenerProtocol::Http);
        let has_https = balancer.speaks(ListenerProtocol::Https);
        if !has_http && !has_https {
            let message = format!("the load balancer {name} has no HTTP listener");
            let finding = Finding::error("load-balancer", locate("host"), message);
            return Some(finding.help("add one: `{ name: http, port: 80 }`"));
        }
        let wants = match expose.issuer {
            Some(ExposeIssuer::Acme | ExposeIssuer::SelfSigned) => Some("issuer"),
            Some(ExposeIssuer::None) | None => expose.redirect_http.then_some("redirectHttp"),
        };
        if let Some(field) = wants.filter(|_| !has_https) {
            let message = format!("the load balancer {name} has no HTTPS listener");
            let finding = Finding::error("load-balancer", locate(field), message);
            return Some(finding.help(
                "add one: `{ name: https, port: 443, protocol: HTTPS, tls: { certificates: [{ domains: [shop.lan], issuer: SELF_SIGNED }] } }`",
            ));
        }
        let is_asked = balancer.listeners.iter().any(Listener::is_asked);
        (expose.issuer == Some(ExposeIssuer::Acme) && !is_asked).then(|| {
            let message = "nobody answers the authority, which asks on port 80 of each name";
            let finding = Finding::error("tls", locate("issuer"), message);
            finding.help(format!("add a listener to the load balancer {name}: `{{ name: http, port: 80 }}`"))
        })
    }

    /// A port of hosts that the load balancer which is made needs, and another service has.
    pub(super) fn exposed_on_taken_ports(
        &self,
        service: &Declared<ServiceSpec>,
        published: &Published<'_>,
    ) -> Option<Finding> {
        let (balancer, _, _) = route_of(self.desired, &service.manifest.spec)?;
        let balancer = self.desired.load_balancers.get(&balancer).filter(|_| is_made(balancer.as_str()))?;
        let cluster = &service.manifest.spec.cluster;
        let taken = balancer.spec.listeners.iter().find_map(|it| Some((it.port, published.get(&(cluster, it.port))?)));
        taken.map(|(port, other)| {
            let message = format!(
                "requests come by port {port} of every host, which service {} publishes, too",
                quote(other.as_str())
            );
            Finding::warning("port-clash", service.node.locate(at!["expose"]), message)
                .label("on a host that has both, one of them cannot start")
                .help("leave that service's `hostPort` out, or declare a LoadBalancer on other hosts")
        })
    }
}
