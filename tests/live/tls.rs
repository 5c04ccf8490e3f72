//! TLS on real hosts: who trusts the fleet's authority gets answers, and nobody notices another certificate.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use serde_json::Value;

use crate::support::{Controller, Lab, MINUTE, run, until};

const TRAFFIC: &str = "
apiVersion: roadstead/v1
kind: TargetGroup
metadata: { name: web }
spec: { port: 80, healthCheck: { path: /healthz, interval: 1s, timeout: 1s }, deregistrationDelay: 10s }
---
apiVersion: roadstead/v1
kind: LoadBalancer
metadata: { name: front }
spec:
  listeners:
    - name: https
      port: 8443
      protocol: HTTPS
      tls:
        certificates:
          - { domains: [shop.lan], issuer: SELF_SIGNED }
          - { certificateFile: site.pem, privateKeyFile: site.key }
      defaultAction: { forward: web }
---
apiVersion: roadstead/v1
kind: Service
metadata: { name: web }
spec:
  desiredCount: 3
  loadBalancers: [{ targetGroup: web }]
  taskDefinition:
    containerDefinitions:
      - { name: web, image: 'roadstead/demo:1', memory: 16, portMappings: [{ containerPort: 80 }] }
";

/// A certificate that vouches for itself, and its key.
fn given(folder: &Path, serial: u32) -> (String, String) {
    let (certificate, key) = (folder.join(format!("{serial}.pem")), folder.join(format!("{serial}.key")));
    let serial = serial.to_string();
    run(Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"])
        .args(["-subj", "/CN=site.lan", "-addext", "subjectAltName=DNS:site.lan", "-set_serial", &serial])
        .arg("-out")
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key));
    (fs::read_to_string(certificate).unwrap(), fs::read_to_string(key).unwrap())
}

fn answers(trusted: &Path, host: &str, edge: &str) -> Result<(), String> {
    let output = Command::new("curl")
        .args(["-sS", "--fail", "--max-time", "20", "--resolve", &format!("{host}:8443:{edge}"), "--cacert"])
        .arg(trusted)
        .arg(format!("https://{host}:8443/"))
        .output()
        .unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn serial(host: &str, edge: &str) -> String {
    let script = format!(
        "openssl s_client -connect {edge}:8443 -servername {host} </dev/null 2>/dev/null | openssl x509 -noout -serial"
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().trim_start_matches("serial=").to_owned()
}

fn workers(lab: &Lab) -> Vec<String> {
    let ask = "echo 'show proc' | socat - unix:/run/roadstead-lb/master.sock | while read -r pid type rest; do [ \"$type\" != worker ] || echo $pid; done";
    lab.hosts().iter().map(|host| lab.docker(host, &["exec", "rs-lb", "sh", "-c", ask])).collect()
}

fn listed(controller: &Controller) -> Vec<Value> {
    let list: Value = serde_json::from_str(&controller.cli(&["cert", "ls", "-o", "json"])).unwrap();
    list["items"].as_array().unwrap().clone()
}

/// What must be nowhere.
fn body(key: &str) -> &str {
    key.lines().nth(1).unwrap()
}

#[test]
#[ignore = "needs a lab"]
fn certificates_are_trusted_swapped_unnoticed_and_kept_secret() {
    let lab = Lab::up("tls");
    let mut controller = Controller::new(&lab, &[("traffic.yaml", TRAFFIC)]);
    let (first, first_key) = given(&controller.path("."), 17);
    let (second, second_key) = given(&controller.path("."), 34);
    controller.write("site.key", &first_key);
    controller.write("site.pem", &first);
    controller.launch();
    controller.wait_steady();
    let edges: Vec<String> = lab.hosts().iter().map(|host| lab.address(host)).collect();
    let (authority, site) = (controller.path("ca.pem"), controller.path("site-trusted.pem"));
    fs::write(&authority, controller.cli(&["cert", "ca"])).unwrap();
    fs::write(&site, format!("{first}{second}")).unwrap();
    for edge in &edges {
        until("a client that trusts the authority is answered", MINUTE, || {
            answers(&authority, "shop.lan", edge).is_ok()
        });
        until("so is one that trusts the given one", MINUTE, || answers(&site, "site.lan", edge).is_ok());
        assert!(answers(&site, "shop.lan", edge).is_err(), "nobody else vouches for it");
        assert_eq!(serial("site.lan", edge), "11");
    }
    until("all edges are known to show them", MINUTE, || {
        listed(&controller).iter().all(|it| it["hosts"].as_array().unwrap().len() == 3)
    });
    let days: Vec<u64> = listed(&controller).iter().map(|it| it["daysLeft"].as_u64().unwrap()).collect();
    assert_eq!(days, [29, 89]);
    let table = controller.cli(&["cert", "ls"]);
    assert!(table.contains("shop.lan") && table.contains("site.lan"), "{table}");
    eprintln!("{table}");

    // Another one in its place, while clients of all edges come and go.
    let before = workers(&lab);
    let (ends, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let client = |edge: &str| {
            let mut failures = Vec::new();
            while !ends.load(Ordering::SeqCst) {
                failures.extend(answers(&site, "site.lan", edge).err());
                asked.fetch_add(1, Ordering::SeqCst);
            }
            failures
        };
        let clients: Vec<_> = edges.iter().map(|edge| scope.spawn(move || client(edge))).collect();
        // Whatever fails below, the clients end.
        let swapped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let more = || {
                let until_now = asked.load(Ordering::SeqCst);
                until("clients ask", MINUTE, || asked.load(Ordering::SeqCst) > until_now + 30);
            };
            more();
            controller.write("site.key", &second_key);
            until("a key that does not match is told", MINUTE, || {
                controller.log().contains("is not the key of the certificate")
            });
            more();
            controller.write("site.pem", &second);
            for edge in &edges {
                until("the other one is shown", MINUTE, || serial("site.lan", edge) == "22");
            }
            more();
        }));
        ends.store(true, Ordering::SeqCst);
        let failures: Vec<String> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        assert!(swapped.is_ok(), "see above");
        eprintln!("{} requests, {} failed", asked.load(Ordering::SeqCst), failures.len());
        assert_eq!(failures, Vec::<String>::new());
    });
    assert_eq!(workers(&lab), before, "no reload");

    // A controller that starts again makes nothing anew, and a load balancer starts alone with what it has.
    let own = serial("shop.lan", &edges[0]);
    controller.stop();
    lab.docker("host-a", &["restart", "rs-lb"]);
    until("it answers again", MINUTE, || answers(&authority, "shop.lan", &edges[0]).is_ok());
    controller.launch();
    controller.wait_steady();
    until("the edges are as they should be", MINUTE, || {
        listed(&controller).iter().all(|it| it["hosts"].as_array().unwrap().len() == 3)
    });
    assert_eq!((serial("shop.lan", &edges[0]), serial("site.lan", &edges[0])), (own, "22".to_owned()));

    // Keys: sealed in the database, in no log, answer or inspection.
    let mut told = controller.log() + &controller.cli(&["cert", "ls", "-o", "json"]) + &controller.cli(&["events"]);
    for host in lab.hosts() {
        told += &lab.docker(host, &["inspect", "rs-lb"]);
        told += &lab.docker(host, &["logs", "rs-lb"]);
        let modes = lab.docker(
            host,
            &[
                "exec",
                "rs-lb",
                "sh",
                "-c",
                "umask; cd /var/lib/roadstead-lb && for it in certs/*.pem; do [ -f $it ] && echo $it; done",
            ],
        );
        assert_eq!(modes.lines().filter(|line| line.ends_with(".pem")).count(), 2, "{modes}");
    }
    for file in fs::read_dir(controller.path("data")).unwrap() {
        told += &String::from_utf8_lossy(&fs::read(file.unwrap().path()).unwrap());
    }
    for key in [&first_key, &second_key] {
        assert!(!told.contains(body(key)), "a key leaked");
    }
    assert!(told.contains("sealedKey"), "the database was looked through");
    assert!(!told.contains("PRIVATE KEY"));
}
