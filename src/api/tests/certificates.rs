//! A load balancer with certificates.

use std::sync::Arc;

use roadstead_control::control::{handle::Snapshot, ingest::check_expression};
use roadstead_core::{
    manifest::{self, SourceTree},
    model::{
        acme::AcmeOrder,
        certificate::{CertificateFacts, CertificateRecord, DAY_MS},
        desired::Desired,
        name::CertificateId,
    },
};

const SECURE: &str = r#"
apiVersion: roadstead/v1
kind: LoadBalancer
metadata: { name: secure }
spec:
  listeners:
    - { name: http, port: 80, defaultAction: { redirect: { protocol: HTTPS } } }
    - name: https
      port: 443
      protocol: HTTPS
      tls: { certificates: [{ domains: [shop.lan], issuer: SELF_SIGNED }, { domains: [shop.io], issuer: ACME }] }
"#;

/// A load balancer with a certificate that ends soon, and one that was refused.
pub fn lay(snapshot: &mut Snapshot) {
    let tree = SourceTree::from_texts("/manifests", [("secure.yaml", SECURE)]);
    let more = manifest::admit(&tree, &Desired::default(), check_expression);
    assert!(!more.has_errors(), "{:?}", more.diagnostics);
    let now = snapshot.world.now;
    let state = &mut snapshot.world.state;
    Arc::make_mut(&mut state.desired).load_balancers.extend(more.desired.load_balancers);
    let facts = CertificateFacts {
        names: vec!["shop.lan".to_owned()],
        issuer: "CN=fleet".to_owned(),
        serial: "11".to_owned(),
        not_before: now,
        not_after: now.plus_ms(10 * DAY_MS),
        ..CertificateFacts::default()
    };
    let id = CertificateId::from("self-signed:shop.lan");
    state.certificates.insert(id.clone(), CertificateRecord { id, facts, ..CertificateRecord::default() });
    let id = CertificateId::from("acme:shop.io");
    let order = AcmeOrder {
        id: id.clone(),
        directory: "https://acme.example/dir".to_owned(),
        tries: 2,
        begun_at: now,
        not_before: now.plus_ms(60_000),
        problem: Some("no such name".to_owned()),
        ..AcmeOrder::default()
    };
    state.acme_orders.insert(id, order);
}
