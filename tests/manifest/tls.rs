//! Certificates of listeners: what is said of those that are wrong, and what becomes of good ones.

use std::{fs, path::Path, process::Command};

use roadstead_core::{
    manifest::{Admission, Limits, admit, read_tree},
    model::{certificate::DAY_MS, desired::Desired},
};

use crate::check_expression;

fn make(folder: &Path, name: &str, arguments: &[&str]) {
    let output = Command::new("openssl")
        .current_dir(folder)
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj"])
        .args([&format!("/CN={name}.lan"), "-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn balancer(protocol: &str, tls: &str) -> String {
    format!(
        "apiVersion: roadstead/v1\nkind: LoadBalancer\nmetadata: {{ name: front }}\nspec:\n  listeners:\n    - name: https\n      port: 443\n      protocol: {protocol}\n{tls}      defaultAction: {{ fixedResponse: {{ statusCode: 404 }} }}\n"
    )
}

fn certificates(text: &str) -> String {
    balancer("HTTPS", &format!("      tls: {{ certificates: [{text}] }}\n"))
}

/// With a listener that authorities are answered on.
fn asked(text: &str) -> String {
    certificates(text) + "    - { name: http, port: 80, defaultAction: { fixedResponse: { statusCode: 404 } } }\n"
}

fn ordered(acme: &str) -> String {
    asked(&format!("{{ domains: [a.example], issuer: ACME, acme: {{ {acme} }} }}"))
}

fn admitted(folder: &Path, text: &str, previous: &Desired) -> Admission {
    fs::write(folder.join("web/front.yaml"), text).unwrap();
    let mut tree = read_tree(folder, &Limits::default()).unwrap();
    // The day after tomorrow.
    tree.read_at = tree.read_at.map(|now| now.plus_ms(2 * DAY_MS));
    admit(&tree, previous, check_expression)
}

#[test]
fn each_mistake_is_told_at_its_word() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("web")).unwrap();
    let web = root.path().join("web");
    make(&web, "good", &["-days", "30"]);
    make(&web, "other", &["-days", "30"]);
    make(&web, "old", &["-days", "1"]);
    fs::write(web.join("empty.pem"), "").unwrap();
    fs::write(web.join("big.pem"), " ".repeat(2 << 20)).unwrap();
    let good = "{ certificateFile: good.pem, privateKeyFile: good.key }";
    let many = vec![good; 26].join(", ");
    for (text, word, said) in [
        (balancer("HTTPS", ""), "HTTPS", "an HTTPS listener needs certificates"),
        (balancer("HTTP", "      tls: { certificates: [] }\n"), "tls", "only an HTTPS listener has certificates"),
        (certificates(""), "certificates", "an HTTPS listener needs a certificate"),
        (certificates("{}"), "{}", "neither given nor made"),
        (certificates("{ certificateFile: good.pem }"), "good.pem", "the certificate has no key"),
        (certificates("{ privateKeyFile: good.key }"), "good.key", "the key has no certificate"),
        (
            certificates("{ certificateFile: good.pem, privateKeyFile: other.key }"),
            "other.key",
            "is not the key of the certificate",
        ),
        (certificates("{ certificateFile: goood.pem, privateKeyFile: good.key }"), "goood.pem", "there is no file"),
        (certificates("{ certificateFile: good.txt, privateKeyFile: good.key }"), "good.txt", "ends in none of"),
        (
            certificates("{ certificateFile: ../../etc/good.pem, privateKeyFile: good.key }"),
            "../../etc",
            "leads out of",
        ),
        (certificates("{ certificateFile: /etc/good.pem, privateKeyFile: good.key }"), "/etc/good", "leads out of"),
        (certificates("{ certificateFile: empty.pem, privateKeyFile: good.key }"), "empty.pem", "holds no certificate"),
        (certificates("{ certificateFile: big.pem, privateKeyFile: good.key }"), "big.pem", "is larger than"),
        (
            certificates("{ certificateFile: good.pem, privateKeyFile: good.pem }"),
            "good.pem, p",
            "holds no private key",
        ),
        (certificates("{ certificateFile: old.pem, privateKeyFile: old.key }"), "old.pem", "the certificate ended at"),
        (
            certificates("{ certificateFile: good.pem, privateKeyFile: good.key, domains: [a.lan] }"),
            "domains",
            "given or made, not both",
        ),
        (certificates("{ domains: [a.lan] }"), "domains", "nobody is said to vouch"),
        (certificates("{ domains: [a b], issuer: SELF_SIGNED }"), "a b", "is no name"),
        (certificates("{ domains: ['a.*.lan'], issuer: SELF_SIGNED }"), "'a.*", "is no name"),
        (certificates("{ domains: [a.example], issuer: ACME }"), "ACME", "nobody answers the authority"),
        (asked("{ domains: ['*.a.example'], issuer: ACME }"), "'*.a", "is a wildcard"),
        (asked("{ domains: [a.example, 192.0.2.1], issuer: ACME }"), "192", "is an address"),
        (
            asked("{ domains: [a.lan], issuer: SELF_SIGNED, acme: {} }"),
            "acme: {}",
            "only a certificate with `issuer: ACME`",
        ),
        (
            asked("{ certificateFile: good.pem, privateKeyFile: good.key, acme: {} }"),
            "acme: {}",
            "only a certificate with `issuer: ACME`",
        ),
        (ordered("directory: http://ca.lan/"), "http://ca", "is no https URL"),
        (ordered("directory: 'https://'"), "'https", "is no https URL"),
        (ordered("directory: 'https://me@ca.lan/'"), "'https", "is no https URL"),
        (ordered("directory: 'https://ca.lan:0/'"), "'https", "is no https URL"),
        (ordered("directory: 'https://ca.lan/a b'"), "'https", "is no https URL"),
        (ordered("email: me"), "me }", "is no address that can be written to"),
        (ordered("email: 'me@a.lan?cc=b@b.lan'"), "'me@", "is no address that can be written to"),
        (ordered("caFile: none.pem"), "none.pem", "there is no file"),
        (ordered("caFile: good.key"), "good.key", "ends in none of"),
        (ordered("caFile: empty.pem"), "empty.pem", "holds no certificate"),
        (ordered("caFile: ../../good.pem"), "../../", "leads out of"),
        (certificates(&many), "", "26 certificates, 25 are the most"),
    ] {
        let admission = admitted(root.path(), &text, &Desired::default());
        let errors: Vec<_> = admission.diagnostics.iter().filter(|it| it.is_error()).collect();
        let [error] = errors.as_slice() else { panic!("{text}: {errors:?}") };
        assert!(error.message.contains(said), "{text}: {}", error.message);
        let line = text.lines().nth(error.place.line as usize - 1).unwrap();
        let at: String = line.chars().skip(error.place.column as usize - 1).collect();
        let word = if word == "good.pem, p" { "good.pem }" } else { word };
        assert!(at.starts_with(word), "{said}: at {at:?}, not at {word:?}");
        assert!(admission.desired.load_balancers.is_empty() && admission.certificates.is_empty());
    }
}

#[test]
fn good_ones_are_taken_in_and_a_broken_file_takes_nothing_away() {
    let root = tempfile::tempdir().unwrap();
    let web = root.path().join("web");
    fs::create_dir(&web).unwrap();
    make(&web, "good", &["-days", "30"]);
    let text = certificates(
        "{ certificateFile: ./good.pem, privateKeyFile: ../web/good.key }, { domains: [B.lan, '*.a.lan', b.lan, 192.0.2.1], issuer: SELF_SIGNED }",
    );
    let first = admitted(root.path(), &text, &Desired::default());
    assert!(!first.has_errors(), "{:?}", first.diagnostics);
    let spec = &first.desired.load_balancers["front"].spec;
    let ids: Vec<String> = spec.certificates().map(|it| it.id().to_string()).collect();
    assert_eq!(ids, ["file:web/good.pem", "self-signed:*.a.lan,192.0.2.1,b.lan"]);
    assert_eq!(first.certificates.keys().map(|id| id.as_str()).collect::<Vec<_>>(), ["file:web/good.pem"]);
    let stored = serde_json::to_string(&first.desired).unwrap();
    let key = fs::read_to_string(web.join("good.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    assert!(!stored.contains(secret) && !format!("{first:?}").contains(secret), "no key is in what is wanted");

    // A changed file is another tree.
    let before = read_tree(root.path(), &Limits::default()).unwrap();
    assert!(!format!("{before:?}").contains(secret));
    make(&web, "good", &["-days", "40"]);
    let after = read_tree(root.path(), &Limits::default()).unwrap();
    assert_ne!(before.hash, after.hash);
    let renewed = admit(&after, &first.desired, check_expression);
    let digest = |admission: &Admission| admission.certificates["file:web/good.pem"].facts.digest.clone();
    assert_ne!(digest(&first), digest(&renewed));
    assert_eq!(first.desired, renewed.desired, "only what it says differs");

    // One that is broken by now: the load balancer stays, and nothing is offered in its place.
    fs::write(web.join("good.key"), "half").unwrap();
    let broken = admitted(root.path(), &text, &first.desired);
    assert!(broken.has_errors());
    assert_eq!(broken.desired.load_balancers, first.desired.load_balancers);
    assert!(broken.certificates.is_empty());
}

#[test]
fn what_vouches_for_an_authority_is_read_and_two_authorities_are_told_apart() {
    let root = tempfile::tempdir().unwrap();
    let web = root.path().join("web");
    fs::create_dir(&web).unwrap();
    make(&web, "ca", &["-days", "30"]);
    let own = "{ domains: [B.lan, a.lan], issuer: ACME, acme: { directory: 'https://ca.lan:14000/dir', email: me@a.lan, caFile: ca.pem } }";
    let text = asked(&format!("{{ domains: [shop.example], issuer: ACME }}, {own}"));
    let admission = admitted(root.path(), &text, &Desired::default());
    assert!(!admission.has_errors(), "{:?}", admission.diagnostics);
    let spec = &admission.desired.load_balancers["front"].spec;
    let ids: Vec<String> = spec.certificates().map(|it| it.id().to_string()).collect();
    assert_eq!(ids, ["acme:shop.example", "acme:a.lan,b.lan@https://ca.lan:14000/dir"]);
    let pem = fs::read_to_string(web.join("ca.pem")).unwrap();
    assert_eq!(admission.authorities.into_iter().collect::<Vec<_>>(), [("web/ca.pem".to_owned(), pem)]);
}
