//! Certificates of an authority, on real hosts: Pebble asks, all edges answer, and nobody notices a renewal.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::{Controller, Lab, MINUTE, Service, run, until};

/// How long a certificate of this authority lives.
const LIFE_S: u64 = 120;
/// By then five sixths of that are over, and an order was carried out.
const RENEWED_WITHIN: Duration = Duration::from_secs(LIFE_S);

/// Pebble, and the DNS that it asks, on this machine.
struct Authority {
    folder: PathBuf,
    port: u16,
    management: u16,
    dns_management: u16,
    _running: [Service; 2],
}

fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

/// A certificate that vouches for the directory itself, and the directory's.
fn https(folder: &Path) {
    let make = |more: &[&str]| {
        let mut openssl = Command::new("openssl");
        openssl.current_dir(folder).args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        run(openssl.args(["-nodes", "-days", "30"]).args(more));
    };
    make(&["-subj", "/CN=the lab", "-keyout", "ca.key", "-out", "ca.pem"]);
    let own = ["-CA", "ca.pem", "-CAkey", "ca.key", "-subj", "/CN=pebble", "-keyout", "own.key", "-out", "own.pem"];
    let says = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"];
    make(&[&own[..], &says[..]].concat());
}

impl Authority {
    fn up(folder: &Path) -> Self {
        https(folder);
        let [port, management, dns, dns_management] = free_ports();
        let config = json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": folder.join("own.pem"),
            "privateKey": folder.join("own.key"),
            "httpPort": 80,
            "tlsPort": 443,
            "certificateValidityPeriod": LIFE_S,
            "domainBlocklist": ["blocked.example"],
        } });
        fs::write(folder.join("pebble.json"), config.to_string()).unwrap();
        let quiet = |command: &mut Command| {
            let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
            Service(command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap())
        };
        // A name that nobody told it is where nobody answers.
        let names =
            quiet(Command::new("pebble-challtestsrv").args(["-http01", "", "-https01", "", "-tlsalpn01", ""]).args([
                "-dns01",
                &format!("127.0.0.1:{dns}"),
                "-management",
                &format!("127.0.0.1:{dns_management}"),
                "-defaultIPv4",
                "127.0.0.99",
                "-defaultIPv6",
                "",
            ]));
        let pebble = quiet(
            Command::new("pebble")
                .args(["-strict", "-dnsserver", &format!("127.0.0.1:{dns}"), "-config"])
                .arg(folder.join("pebble.json"))
                .envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "5"), ("PEBBLE_AUTHZREUSE", "0")]),
        );
        let authority = Self { folder: folder.to_owned(), port, management, dns_management, _running: [names, pebble] };
        until("the authority answers", MINUTE, || !authority.root().is_empty());
        until("its DNS answers", MINUTE, || authority.name("nobody.example", "127.0.0.99"));
        authority
    }

    /// What clients are to trust.
    fn root(&self) -> String {
        let url = format!("https://127.0.0.1:{}/roots/0", self.management);
        let mut curl = Command::new("curl");
        let output =
            curl.args(["-sS", "--fail", "--cacert"]).arg(self.folder.join("ca.pem")).arg(url).output().unwrap();
        if output.status.success() { String::from_utf8(output.stdout).unwrap() } else { String::new() }
    }

    /// From now on a name is at this address.
    fn name(&self, name: &str, address: &str) -> bool {
        let url = format!("http://127.0.0.1:{}/add-a", self.dns_management);
        let body = json!({ "host": name, "addresses": [address] }).to_string();
        Command::new("curl").args(["-sS", "--fail", "-d", &body, &url]).output().unwrap().status.success()
    }

    /// How often a certificate was ordered.
    fn orders(&self) -> usize {
        self.log().matches("POST /order-plz").count()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap()
    }
}

fn traffic(authority: &Authority) -> String {
    let acme =
        format!("{{ directory: 'https://127.0.0.1:{}/dir', email: lab@example.com, caFile: ca.pem }}", authority.port);
    let certificate = |name: &str| format!("          - {{ domains: [{name}], issuer: ACME, acme: {acme} }}\n");
    let certificates: String = ["shop.example", "later.example", "blocked.example"].map(certificate).concat();
    format!(
        "apiVersion: roadstead/v1
kind: LoadBalancer
metadata: {{ name: front }}
spec:
  listeners:
    - {{ name: http, port: 80, defaultAction: {{ redirect: {{ protocol: HTTPS }} }} }}
    - name: https
      port: 443
      protocol: HTTPS
      tls:
        certificates:
{certificates}      defaultAction: {{ fixedResponse: {{ statusCode: 200, contentType: text/plain, messageBody: here }} }}
"
    )
}

fn answers(trusted: &Path, name: &str, edge: &str) -> bool {
    let output = Command::new("curl")
        .args(["-sS", "--fail", "--max-time", "20", "--resolve", &format!("{name}:443:{edge}"), "--cacert"])
        .arg(trusted)
        .arg(format!("https://{name}/"))
        .output()
        .unwrap();
    output.status.success() && output.stdout == b"here"
}

fn listed(controller: &Controller, name: &str) -> Value {
    let list: Value = serde_json::from_str(&controller.cli(&["cert", "ls", "-o", "json"])).unwrap();
    let items = list["items"].as_array().unwrap().clone();
    items.into_iter().find(|it| it["domains"][0] == name).unwrap_or_default()
}

fn refusals(controller: &Controller, words: &str) -> usize {
    controller
        .cli(&["events", "-n", "1000"])
        .lines()
        .filter(|it| it.contains("CertificateRefused") && it.contains(words))
        .count()
}

fn next_try(controller: &Controller, name: &str) -> Timestamp {
    listed(controller, name)["nextTryAt"].as_str().unwrap().parse().unwrap()
}

fn workers(lab: &Lab) -> Vec<String> {
    let ask = "echo 'show proc' | socat - unix:/run/roadstead-lb/master.sock | while read -r pid type rest; do [ \"$type\" != worker ] || echo $pid; done";
    lab.hosts().iter().map(|host| lab.docker(host, &["exec", "rs-lb", "sh", "-c", ask])).collect()
}

#[test]
#[ignore = "needs a lab"]
fn an_authority_is_answered_by_all_edges_asked_again_in_time_and_not_too_often() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::up(folder.path());
    let lab = Lab::up("acme");
    let mut controller = Controller::new(&lab, &[("traffic.yaml", &traffic(&authority))]);
    fs::copy(folder.path().join("ca.pem"), controller.path("manifests/ca.pem")).unwrap();
    let edges: Vec<String> = lab.hosts().iter().map(|host| lab.address(host)).collect();
    // Which edge is asked is not known before.
    authority.name("shop.example", &edges[1]);
    controller.launch();
    let trusted = controller.path("trusted.pem");
    fs::File::create(&trusted).unwrap().write_all(authority.root().as_bytes()).unwrap();
    for edge in &edges {
        until("every edge shows the first certificate", 2 * MINUTE, || answers(&trusted, "shop.example", edge));
    }
    let first = listed(&controller, "shop.example");
    assert_eq!((first["source"].as_str(), first["status"].as_str()), (Some("ACME"), Some("ISSUED")), "{first}");

    // Refused: said why, and not asked again at once.
    for (name, words) in [("later.example", "connection"), ("blocked.example", "rejectedIdentifier")] {
        until("it is refused", 2 * MINUTE, || listed(&controller, name)["status"] == "FAILED");
        let view = listed(&controller, name);
        assert!(view["reason"].as_str().unwrap().contains(words), "{view}");
        assert!(view["nextTryAt"].is_string(), "{view}");
        assert_eq!(refusals(&controller, name), 1, "{}", controller.cli(&["events", "-n", "1000"]));
    }
    eprintln!("{}", controller.cli(&["cert", "ls"]));
    let described = controller.cli(&["describe", "loadbalancer", "front"]);
    assert!(described.contains("the certificate for blocked.example is not there yet: try "), "{described}");
    // Not again before that, also by a controller that comes back; then it is, and a name that is ours by now gets its own.
    let next = ["later.example", "blocked.example"].map(|name| next_try(&controller, name)).into_iter().min().unwrap();
    // The controller's clock begins anew when it does.
    let next = next - Duration::from_secs(1);
    let asked = authority.orders();
    controller.kill();
    controller.launch();
    authority.name("later.example", &edges[0]);
    until("it is ordered again", 3 * MINUTE, || {
        // In this order: the time is not before that of what was seen.
        let more = authority.orders() > asked;
        assert!(!more || Timestamp::now() >= next, "before {next}");
        more
    });
    for edge in &edges {
        until("the second certificate comes", MINUTE, || answers(&trusted, "later.example", edge));
    }
    until("it is refused again", MINUTE, || {
        listed(&controller, "blocked.example")["reason"].as_str().is_some_and(|it| it.starts_with("try 2: "))
    });
    assert_eq!(refusals(&controller, "blocked.example"), 1, "the same again is no news");

    // Renewed while it is shown: without a reload, and what was answered for it is gone.
    let serial = |controller: &Controller| listed(controller, "shop.example")["serial"].to_string();
    let (before, of_workers) = (serial(&controller), workers(&lab));
    until("it is renewed", RENEWED_WITHIN, || {
        serial(&controller) != before && listed(&controller, "shop.example")["hosts"].as_array().unwrap().len() == 3
    });
    assert!(edges.iter().all(|edge| answers(&trusted, "shop.example", edge)));
    assert_eq!(workers(&lab), of_workers, "no reload");
    for host in lab.hosts() {
        until("nothing is answered any more", MINUTE, || {
            lab.docker(host, &["exec", "rs-lb", "cat", "/var/lib/roadstead-lb/challenges.map"]).is_empty()
        });
    }
    // A host that cannot be reached holds nobody up, and shows the new one once it can.
    let before = serial(&controller);
    let shows = |hosts: &[&str]| listed(&controller, "shop.example")["hosts"] == json!(hosts);
    lab.lab(&["cut", "host-c"]);
    until("it is renewed without a host", RENEWED_WITHIN, || {
        serial(&controller) != before && shows(&["host-a", "host-b"])
    });
    lab.lab(&["heal", "host-c"]);
    until("the host shows it, too", MINUTE, || shows(&["host-a", "host-b", "host-c"]));
    assert!(answers(&trusted, "shop.example", &edges[2]));
    // One account, and no key of it or of a certificate in the open.
    assert_eq!(authority.log().matches("There are now 1 accounts in memory").count(), 1);
    assert!(!authority.log().contains("There are now 2 accounts in memory"));
    let mut told = controller.log() + &controller.cli(&["cert", "ls", "-o", "json"]);
    for file in fs::read_dir(controller.path("data")).unwrap() {
        told += &String::from_utf8_lossy(&fs::read(file.unwrap().path()).unwrap());
    }
    assert!(told.contains("sealedKey") && !told.contains("PRIVATE KEY"));
}
