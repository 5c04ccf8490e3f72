//! Certificates: files with their keys, of which HAProxy shows to each client the one for the name that it asks for.

use std::{collections::BTreeMap, fmt::Write};

use aws_lc_rs::digest::{SHA256, digest};
use roadstead_core::model::{
    certificate::Hidden,
    hex::hex,
    name::CertificateId,
    spec::load_balancer::{Listener, ListenerProtocol},
    traffic::Edge,
};

use super::{FOLDER, config, script};
use crate::{lb::Bundles, net::NetError};

/// Certificates with their keys, by certificate.
pub type Pems = BTreeMap<CertificateId, Hidden>;

/// What is spoken with clients that know no TLS 1.3 (Mozilla's "intermediate").
const CIPHERS: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:\
    ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";

/// All that an edge shows.
///
/// # Errors
/// [`NetError::Refused`]: one of them cannot be had.
pub fn pems(wanted: &Edge, bundles: &dyn Bundles) -> Result<Pems, NetError> {
    let pem = |(id, shown): (&CertificateId, &roadstead_core::model::certificate::Shown)| {
        let refused = |said| NetError::Refused { what: format!("certificate {id}"), said };
        bundles.bundle(id, &shown.digest).map(|pem| (id.clone(), pem)).map_err(refused)
    };
    wanted.certificates.iter().map(pem).collect()
}

/// A listener's certificates that there are, in order.
pub fn of<'e>(edge: &'e Edge, listener: &Listener) -> impl Iterator<Item = &'e CertificateId> {
    listener.certificates().iter().filter_map(|spec| Some(edge.certificates.get_key_value(&spec.id())?.0))
}

fn file(id: &CertificateId) -> String {
    format!("certs/{}.pem", id.file_stem())
}

/// A list's file is called by what is in it: what runs and what is to run never share one that differs.
fn list(edge: &Edge, listener: &Listener) -> (String, String) {
    let text = of(edge, listener).fold(String::new(), |mut text, id| {
        let _ = writeln!(text, "{FOLDER}/{}", file(id));
        text
    });
    let name: String = hex(digest(&SHA256, text.as_bytes()).as_ref()).chars().take(24).collect();
    (format!("certs/{name}.list"), text)
}

fn speaking_tls(edge: &Edge) -> impl Iterator<Item = &Listener> {
    config::listeners(edge).into_iter().map(|(_, it)| it).filter(|it| it.protocol == ListenerProtocol::Https)
}

/// The words of a `bind`.
pub fn bind(edge: &Edge, listener: &Listener) -> String {
    match (&listener.protocol, &listener.tls) {
        (ListenerProtocol::Https, Some(tls)) => format!(
            " ssl crt-list {FOLDER}/{} ssl-min-ver {} alpn h2,http/1.1",
            list(edge, listener).0,
            tls.minimum_protocol_version.as_str()
        ),
        _ => String::new(),
    }
}

/// Lines of the section `global`.
pub fn ciphers(edge: &Edge) -> String {
    match speaking_tls(edge).next() {
        Some(_) => format!("  ssl-default-bind-ciphers {CIPHERS}\n"),
        None => String::new(),
    }
}

/// What HAProxy must say of its certificates: files, and the SHA-1 of each.
pub fn expected(edge: &Edge) -> Vec<(String, String)> {
    let ids = speaking_tls(edge).flat_map(|listener| of(edge, listener));
    ids.filter_map(|id| Some((format!("{FOLDER}/{}", file(id)), edge.certificates.get(id)?.sha1.clone()))).collect()
}

/// Writes all files, readable by their owner alone.
pub fn write(wanted: &Edge, pems: &Pems) -> String {
    if wanted.certificates.is_empty() {
        return String::new();
    }
    let lists: BTreeMap<String, String> = speaking_tls(wanted).map(|listener| list(wanted, listener)).collect();
    let mut text = BEGIN.to_owned();
    for (name, list) in &lists {
        text += &script::write(name, list);
    }
    for (id, pem) in pems {
        put(&mut text, id, pem);
    }
    text + END
}

const BEGIN: &str = "(\numask 077\nmkdir -p certs\n";
const END: &str = ")\n";

fn put(text: &mut String, id: &CertificateId, pem: &Hidden) {
    let file = file(id);
    *text += &script::write(&format!("{file}.new"), pem.reveal());
    let _ = writeln!(text, "mv {file}.new {file}");
}

/// Puts other certificates in the place of those that differ: on disk, and into what runs. What came of it is read back.
pub fn swap(was: &Edge, wanted: &Edge, pems: &Pems) -> String {
    let differs = |id: &&CertificateId| was.certificates.get(*id) != wanted.certificates.get(*id);
    let mut text = String::new();
    for id in wanted.certificates.keys().filter(differs) {
        let Some(pem) = pems.get(id) else { continue };
        if text.is_empty() {
            text += BEGIN;
            text += SWAP;
        }
        put(&mut text, id, pem);
        let _ = writeln!(text, "swap_certificate {FOLDER}/{}", file(id));
    }
    if text.is_empty() { text } else { text + END }
}

/// Workers before the last reload take no new connections: only the newest needs it.
const SWAP: &str = r#"
admin() { socat -t 20 - unix:/run/roadstead-lb/admin.sock >/dev/null 2>&1 || true; }
swap_certificate() {
  echo "abort ssl cert $1" | admin
  { echo "set ssl cert $1 <<"; cat "$1"; echo; } | admin
  echo "commit ssl cert $1" | admin
}
"#;

/// Takes away what nothing shows any more.
pub fn tidy(wanted: &Edge) -> String {
    let lists = speaking_tls(wanted).map(|listener| list(wanted, listener).0);
    let kept: Vec<String> = wanted.certificates.keys().map(file).chain(lists).collect();
    let kept = if kept.is_empty() { String::new() } else { format!("{}) ;; ", kept.join("|")) };
    format!("for it in certs/*; do case $it in {kept}*) rm -f \"$it\" ;; esac; done\n")
}
