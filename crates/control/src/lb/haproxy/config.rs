//! The whole configuration, and the files beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use roadstead_core::model::{
    acme,
    name::{LoadBalancerName, TargetGroupName, TaskId},
    spec::{
        TargetGroupSpec,
        load_balancer::{Action, Listener, ListenerProtocol, WeightedGroup},
        target_group::{Algorithm, TargetProtocol},
    },
    traffic::{Edge, Group, RuleRef, Target},
};

use super::{FOLDER, NOWHERE, RUN, certificates, latency, quote, rules};

/// A server's weight; of one that leaves it is 0. Great enough to be parted by slow start.
pub const FULL_WEIGHT: u32 = 100;
/// Longer than this nothing is waited for, whatever a manifest says.
const MAX_S: u32 = 86_400;

/// A group's backend.
pub fn backend(group: &TargetGroupName) -> String {
    format!("g.{}", quote::name(group.as_str()).replace('/', "_2f"))
}

/// The one that takes its place while none of its targets is healthy.
pub fn open_backend(group: &TargetGroupName) -> String {
    format!("{}.open", backend(group))
}

/// A target's server, in both backends.
pub fn server(task: &TaskId) -> String {
    quote::name(task.as_str()).replace('/', "_2f")
}

/// A rule's key in the map of forwards.
pub fn key(rule: &RuleRef) -> String {
    quote::name(rule.as_str())
}

/// The configuration.
pub fn render(edge: &Edge) -> String {
    let mut config = format!(
        "global\n  \
           stats socket {RUN}/admin.sock mode 600 level admin expose-fd listeners\n  \
           server-state-file {FOLDER}/state\n  \
           uid 65534\n  gid 65534\n  \
           hard-stop-after 1h\n  mworker-max-reloads 20\n  fd-hard-limit 200000\n  \
           log stdout format raw local0 info\n{ciphers}\
         defaults\n  \
           mode http\n  \
           timeout connect 3s\n  timeout queue 10s\n  timeout http-request 15s\n  \
           timeout client {idle}s\n  timeout server {idle}s\n  timeout tunnel {idle}s\n  \
           option idle-close-on-response\n  option dontlognull\n  \
           retries 2\n  option redispatch 1\n  retry-on conn-failure\n  http-reuse safe\n  \
           load-server-state-from-file global\n",
        ciphers = certificates::ciphers(edge),
        idle = edge.balancers.values().map(|balancer| balancer.idle_timeout.0).max().unwrap_or(60).clamp(1, MAX_S)
    );
    latency::table(&mut config);
    for (name, listener) in listeners(edge) {
        frontend(&mut config, edge, name, listener);
    }
    for (name, group) in &edge.groups {
        backends(&mut config, name, group);
    }
    // Only a worker that was replaced, and still has a connection from before, can lack the group that a map names: the
    // client is to come again.
    let _ = writeln!(
        config,
        // A map that no rule asks would not be known.
        "backend {NOWHERE}\n  \
           http-request set-var(txn.known) str(-),map_str({FOLDER}/forwards.map)\n  \
           http-request set-var(txn.known) str(-),map_str({FOLDER}/leaving.map)\n  \
           http-request reject unless {{ var(txn.to) -m str {NOWHERE} }}\n  http-request return status 503\n\
         backend {NOWHERE}.tcp\n  mode tcp\n  tcp-request content reject"
    );
    config
}

/// Those that are answered: of two on one port the first.
pub fn listeners(edge: &Edge) -> Vec<(&LoadBalancerName, &Listener)> {
    let mut ports = BTreeSet::new();
    let all = edge.balancers.iter().flat_map(|(name, balancer)| balancer.listeners.iter().map(move |it| (name, it)));
    all.filter(|(_, listener)| match listener.protocol {
        ListenerProtocol::Https if certificates::of(edge, listener).next().is_none() => false,
        ListenerProtocol::Http | ListenerProtocol::Https | ListenerProtocol::Tcp => {
            listener.port != 0 && ports.insert(listener.port)
        }
    })
    .collect()
}

/// The map of forwards: `KEY GROUP`, or `KEY GROUP:BELOW:GROUP`.
pub fn forwards(edge: &Edge) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    for (name, listener) in listeners(edge) {
        let rules = listener.rules.iter().map(|rule| (Some(rule.name.as_str()), rule.action.clone()));
        for (rule, action) in rules.chain([(None, listener.default_action())]) {
            if let Action::Forward(said) = action {
                let rule = RuleRef::new(name, &listener.name, rule);
                let shares = edge.forwards.get(&rule).unwrap_or(&said.0);
                map.insert(key(&rule), shared(edge, listener.protocol, shares));
            }
        }
    }
    map
}

/// Tasks that leave: no cookie leads to them.
pub fn leaving(edge: &Edge) -> BTreeMap<String, String> {
    let targets = edge.groups.values().flat_map(|group| &group.targets);
    targets.filter(|(_, target)| target.leaves).map(|(task, _)| (server(task), "1".to_owned())).collect()
}

/// What authorities are answered, by path; nothing where no listener answers them. Their words become ours only if they are
/// words.
pub fn challenges(edge: &Edge) -> BTreeMap<String, String> {
    if !listeners(edge).into_iter().any(|(name, listener)| is_asked(edge, name, listener)) {
        return BTreeMap::new();
    }
    let words = edge.challenges.iter().filter(|(token, answer)| acme::is_word(token) && acme::is_word(answer));
    words.map(|(token, answer)| (format!("{}{token}", acme::CHALLENGE_PATH), answer.clone())).collect()
}

fn is_asked(edge: &Edge, balancer: &LoadBalancerName, listener: &Listener) -> bool {
    edge.balancers.get(balancer).is_some_and(|spec| spec.answers_challenges(listener))
}

/// A map as its file.
pub fn file(map: &BTreeMap<String, String>) -> String {
    map.iter().fold(String::new(), |mut text, (key, value)| {
        let _ = writeln!(text, "{key} {value}");
        text
    })
}

fn shared(edge: &Edge, protocol: ListenerProtocol, shares: &[WeightedGroup]) -> String {
    let fits = |share: &&WeightedGroup| {
        let group = edge.groups.get(&share.target_group);
        share.weight > 0 && group.is_some_and(|it| is_tcp(&it.spec) == (protocol == ListenerProtocol::Tcp))
    };
    let shares: Vec<&WeightedGroup> = shares.iter().filter(fits).take(rules::MAX_GROUPS).collect();
    let total: u64 = shares.iter().map(|share| u64::from(share.weight)).sum();
    let mut value = String::new();
    let mut sum = 0;
    for share in &shares {
        if !value.is_empty() {
            let _ = write!(value, ":{}:", sum * rules::DRAWN / total.max(1));
        }
        value += &backend(&share.target_group);
        sum += u64::from(share.weight);
    }
    match (value.is_empty(), protocol) {
        (false, _) => value,
        (true, ListenerProtocol::Tcp) => format!("{NOWHERE}.tcp"),
        (true, ListenerProtocol::Http | ListenerProtocol::Https) => NOWHERE.to_owned(),
    }
}

fn is_tcp(group: &TargetGroupSpec) -> bool {
    group.protocol == TargetProtocol::Tcp
}

fn frontend(config: &mut String, edge: &Edge, balancer: &LoadBalancerName, listener: &Listener) {
    let default_key = key(&RuleRef::new(balancer, &listener.name, None));
    let spec = edge.balancers.get(balancer);
    let idle = spec.map_or(60, |spec| spec.idle_timeout.0).clamp(1, MAX_S);
    let frontend = quote::name(&format!("f.{balancer}.{}", listener.name)).replace('/', "_2f");
    let _ = writeln!(config, "frontend {frontend}.{}", listener.port);
    let accept = if listener.accept_proxy_protocol { " accept-proxy" } else { "" };
    let tls = certificates::bind(balancer, listener);
    let _ = writeln!(config, "  bind :{}{accept}{tls}\n  timeout client {idle}s", listener.port);
    let logs = spec.is_some_and(|spec| spec.access_logs);
    match listener.protocol {
        ListenerProtocol::Tcp => {
            let _ = writeln!(config, "  mode tcp{}", if logs { "\n  log global\n  option tcplog" } else { "" });
            match listener.default_action() {
                Action::Forward(_) => {
                    let _ = writeln!(config, "  tcp-request content {}", rules::look_up(&default_key));
                    rules::choose(config, "tcp-request content", &format!("{NOWHERE}.tcp"));
                }
                Action::Redirect(_) | Action::FixedResponse(_) => *config += "  tcp-request content reject\n",
            }
        }
        ListenerProtocol::Http | ListenerProtocol::Https => {
            let _ = writeln!(
                config,
                "  timeout http-keep-alive {idle}s{}\n{}  \
                   option forwardfor\n  \
                   http-request set-header X-Forwarded-Proto {}\n  \
                   http-request set-header X-Forwarded-Port {}",
                if logs { "\n  log global\n  option httplog" } else { "" },
                latency::BEGIN,
                if listener.protocol == ListenerProtocol::Https { "https" } else { "http" },
                listener.port
            );
            if is_asked(edge, balancer, listener) {
                let _ = writeln!(
                    config,
                    "  http-request set-var(txn.challenge) path,map_str({FOLDER}/challenges.map)\n  \
                       http-request return status 200 content-type text/plain lf-string %[var(txn.challenge)] if {{ var(txn.challenge) -m found }}"
                );
            }
            for (number, rule) in listener.rules_in_order().into_iter().enumerate() {
                let key = key(&RuleRef::new(balancer, &listener.name, Some(&rule.name)));
                rules::rule(config, number, &rule.conditions, &rule.action, &key, listener);
            }
            rules::otherwise(config, &listener.default_action(), &default_key, listener);
            rules::choose(config, "http-request", NOWHERE);
        }
    }
}

fn backends(config: &mut String, name: &TargetGroupName, group: &Group) {
    for (backend, checked) in [(backend(name), true), (open_backend(name), false)] {
        let _ = writeln!(config, "backend {backend}");
        let balance = match group.spec.algorithm {
            Algorithm::RoundRobin => "roundrobin",
            Algorithm::LeastOutstandingRequests => "leastconn",
            Algorithm::WeightedRandom => "random(1)",
        };
        let _ = writeln!(config, "  balance {balance}");
        if is_tcp(&group.spec) {
            *config += "  mode tcp\n";
        } else {
            stickiness(config, &group.spec);
            latency::count(config);
        }
        if checked {
            check(config, &group.spec);
        }
        for (task, target) in &group.targets {
            let _ = writeln!(config, "  server {} {}", server(task), arguments(&group.spec, target, checked));
        }
    }
}

/// The cookie names the target itself, so that all edges agree.
fn stickiness(config: &mut String, spec: &TargetGroupSpec) {
    let cookie = &spec.stickiness.cookie_name;
    if !spec.stickiness.enabled || !rules::is_token(cookie) {
        return;
    }
    let _ = writeln!(
        config,
        "  use-server %[req.cook({cookie})] if {{ req.cook({cookie}) -m found }} !{{ req.cook({cookie}),map_str({FOLDER}/leaving.map) -m found }}\n  \
           http-response add-header Set-Cookie '{cookie}=%[srv_name]; Max-Age={}; Path=/; HttpOnly' if {{ srv_name -m found }}",
        spec.stickiness.duration.0
    );
}

fn check(config: &mut String, spec: &TargetGroupSpec) {
    let check = &spec.health_check;
    let _ = writeln!(config, "  timeout check {}s", check.timeout.0.clamp(1, MAX_S));
    if spec.check_protocol() == TargetProtocol::Tcp {
        return;
    }
    let answers = spec.good_answers().unwrap_or_else(|| vec![(200, 200)]);
    let answers: Vec<String> = answers
        .iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
        .collect();
    let _ = writeln!(
        config,
        "  option httpchk\n  \
           http-check send meth GET uri {} ver HTTP/1.1 hdr Host health.check hdr User-Agent Roadstead-HealthChecker\n  \
           http-check expect status {}",
        quote::word(&path(&check.path)),
        answers.join(",")
    );
}

/// What can stand in the first line of a request.
fn path(text: &str) -> Vec<u8> {
    const MAX_BYTES: usize = 1_024;
    let mut path = if text.starts_with('/') { Vec::new() } else { b"/".to_vec() };
    for byte in text.bytes().take(MAX_BYTES) {
        match byte {
            b'!'..=b'~' => path.push(byte),
            _ => path.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    path
}

/// Its connections serve one request after another. Of a server that is added at runtime HAProxy keeps none open unless it is told
/// to: every request would wait for a new one.
const KEPT_OPEN: &str = " pool-max-conn -1 pool-purge-delay 5s";

/// What is said of a server after its name, in the configuration and at runtime.
pub fn arguments(spec: &TargetGroupSpec, target: &Target, checked: bool) -> String {
    let weight = if target.leaves { 0 } else { FULL_WEIGHT };
    let mut said = format!("{}:{} weight {weight}", target.address, target.port);
    if !is_tcp(spec) {
        said += KEPT_OPEN;
    }
    if spec.protocol == TargetProtocol::Https {
        said += " ssl verify none";
    }
    let proxied = is_tcp(spec) && spec.proxy_protocol;
    if proxied {
        said += " send-proxy-v2";
    }
    if !checked {
        return said;
    }
    let check = &spec.health_check;
    let port = check.port.unwrap_or(target.port);
    let _ = write!(
        said,
        " check port {port} inter {}s rise {} fall {}",
        check.interval.0.clamp(1, MAX_S),
        check.healthy_threshold_count.clamp(1, 10),
        check.unhealthy_threshold_count.clamp(2, 10)
    );
    if spec.check_protocol() == TargetProtocol::Https {
        said += if spec.protocol == TargetProtocol::Https { " check-ssl" } else { " check-ssl verify none" };
    }
    if proxied && port == target.port {
        said += " check-send-proxy";
    }
    if spec.slow_start.0 > 0 {
        let _ = write!(said, " slowstart {}s", spec.slow_start.0.min(MAX_S));
    }
    said
}
