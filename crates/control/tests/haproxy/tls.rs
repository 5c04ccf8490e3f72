//! Certificates: shown by name, and swapped while nobody notices.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SerialNumber};
use roadstead_control::lb::haproxy::certificates::Pems;
use roadstead_core::{
    manifest::certificate::{Given, given},
    model::{
        certificate::{Hidden, Shown},
        name::CertificateId,
        traffic::Edge,
    },
};
use serde_json::{Value, json};

use crate::lab::{Balancer, Upstream, edge, group, inside, run, until};

const CA: &str = "/run/ca.pem";

struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        std::fs::write(CA, params.self_signed(&key).unwrap().pem()).unwrap();
        Self(Issuer::new(params, key))
    }

    fn certificate(&self, names: &[String], serial: u64) -> Given {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names.to_vec()).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        let made = params.signed_by(&key, &self.0).unwrap();
        given(&made.pem(), &key.serialize_pem()).unwrap()
    }
}

fn listeners(more: Value) -> Value {
    let mut tls = json!({"certificates": [
        {"certificateFile": "a.pem", "privateKeyFile": "a.key"}, {"domains": ["b.example"], "issuer": "SELF_SIGNED"},
    ]});
    for (key, value) in more.as_object().unwrap() {
        tls[key] = value.clone();
    }
    json!([{"name": "https", "port": 8443, "protocol": "HTTPS", "tls": tls, "defaultAction": {"forward": "app"}}])
}

fn show(edge: &mut Edge, shown: &[(&str, &Given)]) -> Pems {
    let all: BTreeMap<CertificateId, &Given> = shown.iter().map(|(id, given)| ((*id).into(), *given)).collect();
    edge.certificates = all
        .iter()
        .map(|(id, it)| (id.clone(), Shown { digest: it.facts.digest.clone(), sha1: it.facts.sha1.clone() }))
        .collect();
    let pem = |(id, it): (CertificateId, &Given)| (id, Hidden::new(it.facts.chain.clone() + it.key.reveal()));
    all.into_iter().map(pem).collect()
}

/// What curl prints, when it trusts the authority alone.
fn curl(host: &str, arguments: &[&str]) -> Option<String> {
    let resolve = format!("{host}:8443:127.0.0.1");
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "20", "--cacert", CA, "--resolve", &resolve])
        .args(arguments)
        .output()
        .unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

fn get(host: &str) -> Option<String> {
    curl(host, &[&format!("https://{host}:8443/")])
}

fn serial(host: &str) -> String {
    run(&format!(
        "openssl s_client -connect 127.0.0.1:8443 -servername {host} </dev/null 2>/dev/null | openssl x509 -noout -serial"
    ))
    .trim()
    .to_owned()
}

pub fn workers() -> String {
    run(
        "echo 'show proc' | socat - unix:/run/roadstead-lb/master.sock | while read -r pid type rest; do [ \"$type\" != worker ] || echo $pid; done",
    )
}

fn name(name: &str) -> Vec<String> {
    vec![name.to_owned()]
}

const A: &str = "file:a.pem";
const B: &str = "self-signed:b.example";
const D: &str = "self-signed:d.example";

fn path(id: &str) -> String {
    format!("/var/lib/roadstead-lb/certs/{}.pem", CertificateId::from(id).file_stem())
}

/// The only one that there is.
fn list() -> String {
    run("ls /var/lib/roadstead-lb/certs/*.list").trim().to_owned()
}

fn with_more(more: &Value) -> Edge {
    let mut all = listeners(json!({}));
    let certificates = all[0]["tls"]["certificates"].as_array_mut().unwrap();
    certificates.extend(more.as_array().unwrap().iter().cloned());
    edge(all, &[])
}

#[test]
fn each_name_gets_its_certificate_and_a_swap_is_not_noticed() {
    inside("tls::each_name_gets_its_certificate_and_a_swap_is_not_noticed", || {
        let (app, authority) = (Upstream::up("app"), Authority::new());
        let (a, b) = (authority.certificate(&name("a.example"), 0x11), authority.certificate(&name("b.example"), 0x22));
        let mut wanted = edge(listeners(json!({})), &[("app", group(), &[&app])]);
        let mut balancer = Balancer::up();
        // Without any certificate nobody answers, and the rest of the picture is in force.
        balancer.shows(&wanted);
        assert_eq!(get("a.example"), None);
        balancer.pems = show(&mut wanted, &[(A, &a), (B, &b)]);
        balancer.shows(&wanted);
        assert_eq!(get("a.example").as_deref(), Some("app"));
        assert_eq!(get("b.example").as_deref(), Some("app"));
        assert_eq!(get("c.example"), None, "a name that no certificate has");
        assert_eq!((serial("a.example"), serial("b.example")), ("serial=11".into(), "serial=22".into()));
        let seen = curl("a.example", &["-w", "\n%{http_version}", "https://a.example:8443/headers"]).unwrap();
        assert!(seen.to_lowercase().contains("x-forwarded-proto: https") && seen.ends_with("\n2"), "{seen}");
        for file in ["certs", &format!("certs/{}.pem", CertificateId::from(A).file_stem())] {
            let mode = std::fs::metadata(format!("/var/lib/roadstead-lb/{file}")).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{file}");
        }

        // Another one in its place, while clients come and go.
        let before = workers();
        let (ends, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
        let other = authority.certificate(&["a.example".to_owned(), "c.example".to_owned()], 0x33);
        let swapped = std::thread::scope(|scope| {
            let client = || {
                let mut failed = 0;
                while !ends.load(Ordering::SeqCst) {
                    failed += usize::from(get("a.example").as_deref() != Some("app"));
                    asked.fetch_add(1, Ordering::SeqCst);
                }
                failed
            };
            let clients = [scope.spawn(client), scope.spawn(client)];
            let more = || {
                let until_now = asked.load(Ordering::SeqCst);
                until("clients ask", || (asked.load(Ordering::SeqCst) > until_now + 6).then_some(()));
            };
            more();
            let mut swapped = wanted.clone();
            balancer.pems = show(&mut swapped, &[(A, &other), (B, &b)]);
            balancer.apply(&swapped).unwrap();
            more();
            ends.store(true, Ordering::SeqCst);
            assert_eq!(clients.map(|it| it.join().unwrap()), [0, 0]);
            swapped
        });
        assert_eq!(workers(), before, "no reload");
        assert_eq!((serial("a.example"), serial("b.example")), ("serial=33".into(), "serial=22".into()));
        assert_eq!(get("c.example").as_deref(), Some("app"), "its new name");
        assert_eq!(balancer.look(&swapped).drift, None);

        // Somebody puts another one in its place: seen, and mended.
        let file = format!("/var/lib/roadstead-lb/certs/{}.pem", CertificateId::from(A).file_stem());
        std::fs::write("/run/foreign", a.facts.chain.clone() + a.key.reveal()).unwrap();
        run(&format!(
            "{{ echo 'set ssl cert {file} <<'; cat /run/foreign; echo; }} | socat - unix:/run/roadstead-lb/admin.sock; \
             echo 'commit ssl cert {file}' | socat - unix:/run/roadstead-lb/admin.sock"
        ));
        assert_eq!(serial("a.example"), "serial=11");
        assert!(balancer.look(&swapped).drift.unwrap().contains("certificate"));
        balancer.shows(&swapped);
        assert_eq!(serial("a.example"), "serial=33");

        // One more and one less, while HAProxy runs; what is on disk says the same.
        let before = workers();
        let (more, c) = (
            json!([{"domains": ["d.example"], "issuer": "SELF_SIGNED"}]),
            authority.certificate(&name("d.example"), 0x55),
        );
        let mut third = swapped.clone();
        third.balancers = with_more(&more).balancers;
        balancer.pems = show(&mut third, &[(A, &other), (B, &b), (D, &c)]);
        balancer.apply(&third).unwrap();
        assert_eq!((serial("d.example"), get("d.example").as_deref()), ("serial=55".into(), Some("app")));
        assert_eq!((workers(), balancer.look(&third).drift), (before.clone(), None), "no reload");
        run(&format!(
            "echo 'del ssl crt-list {list} {d}' | socat - unix:/run/roadstead-lb/admin.sock",
            list = list(),
            d = path(D)
        ));
        assert!(balancer.look(&third).drift.unwrap().contains("which certificates"));
        balancer.shows(&third);
        let before = workers();
        balancer.pems = show(&mut swapped.clone(), &[(A, &other), (B, &b)]);
        balancer.apply(&swapped).unwrap();
        assert_eq!(serial("d.example"), "serial=33", "the first is shown");
        assert_eq!((workers(), balancer.look(&swapped).drift), (before, None), "no reload");
        assert!(!std::fs::exists(path(D)).unwrap());

        // Alone it starts with the last ones.
        let pid = workers();
        run(
            "kill -9 $(echo 'show proc' | socat - unix:/run/roadstead-lb/master.sock | while read -r pid type rest; do [ \"$type\" != master ] || echo $pid; done)",
        );
        until("it is back", || (get("a.example").as_deref() == Some("app") && workers() != pid).then_some(()));
        assert_eq!(serial("a.example"), "serial=33");

        // One that is too large for a command comes by a reload.
        let names = (0..600).map(|number| format!("name-{number}.a.example")).chain(name("a.example"));
        let large = authority.certificate(&names.collect::<Vec<_>>(), 0x44);
        assert!(large.facts.chain.len() > 16_384);
        let mut wanted = swapped.clone();
        balancer.pems = show(&mut wanted, &[(A, &large), (B, &b)]);
        balancer.shows(&wanted);
        assert_eq!(serial("a.example"), "serial=44");

        // One less: its file goes.
        let mut fewer = edge(listeners(json!({"minimumProtocolVersion": "TLSv1.3"})), &[("app", group(), &[&app])]);
        balancer.pems = show(&mut fewer, &[(B, &b)]);
        balancer.shows(&fewer);
        assert!(!std::fs::exists(&file).unwrap());
        assert_eq!(serial("a.example"), "serial=22", "the first of those that there are");
        assert_eq!(curl("b.example", &["--tls-max", "1.2", "https://b.example:8443/"]), None);
        assert_eq!(get("b.example").as_deref(), Some("app"));
        // Without any left, nothing of a key stays.
        let plain = edge(json!([{"name": "http", "port": 8080}]), &[]);
        balancer.pems.clear();
        balancer.apply(&plain).unwrap();
        assert_eq!(run("ls /var/lib/roadstead-lb/certs"), "");
    });
}
