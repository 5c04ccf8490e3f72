//! Certificates: files with their keys, of which HAProxy shows to each client the one for the name that it asks for.

use std::{collections::BTreeMap, fmt::Write};

use aws_lc_rs::digest::{SHA256, digest};
use roadstead_core::model::{
    certificate::Hidden,
    hex::hex,
    name::{CertificateId, LoadBalancerName},
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

/// The file that lists a listener's certificates: the same for as long as there is the listener, so that some can come and go while
/// HAProxy runs.
fn list(balancer: &LoadBalancerName, listener: &Listener) -> String {
    let name = format!("{balancer}/{}", listener.name);
    let name: String = hex(digest(&SHA256, name.as_bytes()).as_ref()).chars().take(24).collect();
    format!("certs/{name}.list")
}

/// What is in a listener's list.
fn listed(edge: &Edge, listener: &Listener) -> Vec<String> {
    of(edge, listener).map(|id| format!("{FOLDER}/{}", file(id))).collect()
}

fn speaking_tls(edge: &Edge) -> impl Iterator<Item = (&LoadBalancerName, &Listener)> {
    config::listeners(edge).into_iter().filter(|(_, it)| it.protocol == ListenerProtocol::Https)
}

/// All lists, by file.
pub fn lists(edge: &Edge) -> BTreeMap<String, Vec<String>> {
    speaking_tls(edge).map(|(name, it)| (format!("{FOLDER}/{}", list(name, it)), listed(edge, it))).collect()
}

/// Whether one list can become the other while HAProxy runs: the first, which is shown to clients that ask for no name that
/// there is, is told at the start alone.
pub fn can_change(was: &Edge, wanted: &Edge) -> bool {
    let (was, wanted) = (lists(was), lists(wanted));
    was.len() == wanted.len()
        && was.iter().zip(&wanted).all(|(was, wanted)| was.0 == wanted.0 && was.1.first() == wanted.1.first())
}

/// The words of a `bind`.
pub fn bind(balancer: &LoadBalancerName, listener: &Listener) -> String {
    match (&listener.protocol, &listener.tls) {
        (ListenerProtocol::Https, Some(tls)) => format!(
            " ssl crt-list {FOLDER}/{} ssl-min-ver {} alpn h2,http/1.1",
            list(balancer, listener),
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
    let ids = speaking_tls(edge).flat_map(|(_, listener)| of(edge, listener));
    ids.filter_map(|id| Some((format!("{FOLDER}/{}", file(id)), edge.certificates.get(id)?.sha1.clone()))).collect()
}

/// Writes all files, readable by their owner alone.
pub fn write(wanted: &Edge, pems: &Pems) -> String {
    if wanted.certificates.is_empty() {
        return String::new();
    }
    let mut text = BEGIN.to_owned();
    for (id, pem) in pems {
        put(&mut text, id, pem);
    }
    for (name, files) in lists(wanted) {
        put_list(&mut text, &name, &files);
    }
    text + END
}

/// What was in it stays beside it, for when HAProxy takes nothing of this.
fn put_list(text: &mut String, name: &str, files: &[String]) {
    let _ = writeln!(text, "if [ -f {name} ]; then cat {name} >{name}.old; else : >{name}.old; fi");
    *text += &script::write(&format!("{name}.new"), &lines(files));
    let _ = writeln!(text, "mv {name}.new {name}");
}

fn lines(files: &[String]) -> String {
    files.iter().fold(String::new(), |text, file| text + file + "\n")
}

/// Lists are as they were before they were written.
pub const BACK: &str = "for it in certs/*.list.old; do if [ -f \"$it\" ]; then mv \"$it\" \"${it%.old}\"; fi; done";
/// They stay as they are.
pub const STAY: &str = "rm -f certs/*.list.old\n";

const BEGIN: &str = "(\numask 077\nmkdir -p certs\n";
const END: &str = ")\n";

fn put(text: &mut String, id: &CertificateId, pem: &Hidden) {
    let file = file(id);
    *text += &script::write(&format!("{file}.new"), pem.reveal());
    let _ = writeln!(text, "mv {file}.new {file}");
}

/// Puts other certificates in the place of those that differ, adds some and takes some away: on disk, and in what runs. What came of
/// it is read back.
pub fn swap(was: &Edge, wanted: &Edge, pems: &Pems) -> String {
    let (listed_before, listed) = (lists(was), lists(wanted));
    let differs = |id: &&CertificateId| was.certificates.get(*id) != wanted.certificates.get(*id);
    let mut text = String::new();
    for id in wanted.certificates.keys().filter(differs) {
        let Some(pem) = pems.get(id) else { continue };
        if text.is_empty() {
            text += BEGIN;
            text += SWAP;
        }
        put(&mut text, id, pem);
        let verb = if was.certificates.contains_key(id) { "swap" } else { "add" };
        let _ = writeln!(text, "{verb}_certificate {FOLDER}/{}", file(id));
    }
    if listed_before != listed && text.is_empty() {
        text += BEGIN;
        text += SWAP;
    }
    for (name, files) in listed.iter().filter(|(name, files)| listed_before.get(*name) != Some(files)) {
        let before = listed_before.get(name).map(Vec::as_slice).unwrap_or_default();
        text += &script::write(&format!("{name}.new"), &lines(files));
        let _ = writeln!(text, "mv {name}.new {name}");
        for file in files.iter().filter(|file| !before.contains(file)) {
            let _ = writeln!(text, "echo 'add ssl crt-list {name} {file}' | admin");
        }
        for file in before.iter().filter(|file| !files.contains(file)) {
            let _ = writeln!(text, "echo 'del ssl crt-list {name} {file}' | admin");
        }
    }
    for id in was.certificates.keys().filter(|id| !wanted.certificates.contains_key(*id)) {
        let file = file(id);
        let _ = writeln!(text, "echo 'del ssl cert {FOLDER}/{file}' | admin\nrm -f {file}");
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
add_certificate() {
  echo "new ssl cert $1" | admin
  swap_certificate "$1"
}
"#;

/// Takes away what nothing shows any more.
pub fn tidy(wanted: &Edge) -> String {
    let lists = speaking_tls(wanted).map(|(name, listener)| list(name, listener));
    let kept: Vec<String> = wanted.certificates.keys().map(file).chain(lists).collect();
    let kept = if kept.is_empty() { String::new() } else { format!("{}) ;; ", kept.join("|")) };
    format!("for it in certs/*; do case $it in {kept}*) rm -f \"$it\" ;; esac; done\n")
}
