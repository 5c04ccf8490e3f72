//! What a listener needs to speak TLS: every certificate is there, and has its key.

use std::net::IpAddr;

use super::{Beside, environment::inside, join};
use crate::{
    manifest::{
        certificate::{Wrong, facts, given},
        document::is_label,
        node::{Step, at},
        report::{Scope, quote},
        suggest::did_you_mean,
    },
    model::{
        spec::{
            load_balancer::{Listener, ListenerProtocol},
            tls::{Acme, Certificate, MAX_CERTIFICATES},
        },
        time::Timestamp,
    },
};

/// Names of one certificate (Let's Encrypt).
const MAX_DOMAINS: usize = 100;
/// Bytes of a name in the DNS.
const MAX_NAME_BYTES: usize = 253;
/// Bytes of a directory's URL.
const MAX_URL_BYTES: usize = 1_024;

/// Checks a listener's certificates; their paths become those of the tree. `has_asked`: authorities that ask whether its names
/// are ours are answered.
pub fn tls(listener: &mut Listener, has_asked: bool, base: &[Step<'_>], beside: Beside<'_>, scope: &mut Scope<'_>) {
    let path = join(base, at!["tls"]);
    let Some(tls) = &mut listener.tls else {
        if listener.protocol == ListenerProtocol::Https {
            scope
                .error(&join(base, at!["protocol"]), "tls", "an HTTPS listener needs certificates")
                .help("such as `tls: { certificates: [{ domains: [shop.lan], issuer: SELF_SIGNED }] }`");
        }
        return;
    };
    if listener.protocol != ListenerProtocol::Https {
        scope
            .error(&path, "tls", "only an HTTPS listener has certificates")
            .help("say `protocol: HTTPS`; with TCP the targets themselves can speak TLS");
        return;
    }
    let path = join(&path, at!["certificates"]);
    match tls.certificates.len() {
        0 => {
            scope.error(&path, "tls", "an HTTPS listener needs a certificate");
        }
        1..=MAX_CERTIFICATES => {
            for (index, certificate) in tls.certificates.iter_mut().enumerate() {
                let base = join(&path, &[Step::Index(index)]);
                one(certificate, &base, beside, scope);
                ordered(certificate, has_asked, &base, beside, scope);
            }
        }
        many => {
            let message = format!("{many} certificates, {MAX_CERTIFICATES} are the most");
            scope.error(&join(&path, &[Step::Index(MAX_CERTIFICATES)]), "tls", message).label("one too many");
        }
    }
}

fn one(certificate: &mut Certificate, base: &[Step<'_>], beside: Beside<'_>, scope: &mut Scope<'_>) {
    let (file, key) = (join(base, at!["certificateFile"]), join(base, at!["privateKeyFile"]));
    let domains = join(base, at!["domains"]);
    let Certificate { certificate_file, private_key_file, domains: names, issuer, acme: _ } = certificate;
    match (certificate_file, private_key_file) {
        (None, None) => of_names(names, issuer.is_some(), base, scope),
        (Some(_), None) => {
            scope
                .error(&file, "tls", "the certificate has no key")
                .help("`privateKeyFile:` the key that it was made with");
        }
        (None, Some(_)) => {
            scope.error(&key, "tls", "the key has no certificate").help("`certificateFile:` what was made with it");
        }
        (Some(_), Some(_)) if !names.is_empty() || issuer.is_some() => {
            let message = "a certificate is given or made, not both";
            let at = if names.is_empty() { join(base, at!["issuer"]) } else { domains };
            scope.error(&at, "tls", message).help("of a given one its own names count");
        }
        (Some(certificate), Some(private)) => {
            let found = read(certificate, &file, &[".pem", ".crt", ".cer"], beside, scope);
            let found_key = read(private, &key, &[".pem", ".key"], beside, scope);
            let (Some(text), Some(key_text)) = (found, found_key) else { return };
            match given(text, key_text) {
                Ok(given) => not_over(given.facts.not_after, beside.now, &file, scope),
                Err(Wrong::Certificate(what)) => {
                    scope.error(&file, "tls", format!("{} {what}", quote(certificate)));
                }
                Err(Wrong::Key(what)) => {
                    scope.error(&key, "tls", format!("{} {what}", quote(private)));
                }
            }
        }
    }
}

fn not_over(not_after: Timestamp, now: Option<Timestamp>, path: &[Step<'_>], scope: &mut Scope<'_>) {
    if now.is_some_and(|now| now >= not_after) {
        scope
            .error(path, "tls", format!("the certificate ended at {not_after}"))
            .help("put a new one in its place; what load balancers show stays until then");
    }
}

/// A file's text; its path becomes that of the tree.
fn read<'a>(
    value: &mut String,
    path: &[Step<'_>],
    endings: &[&str],
    beside: Beside<'a>,
    scope: &mut Scope<'_>,
) -> Option<&'a str> {
    let Some(found) = inside(beside.folder, value) else {
        let message = format!("{} leads out of the manifests' folder", quote(value));
        scope.error(path, "tls", message).help("copy the file next to this one");
        return None;
    };
    *value = found;
    if !endings.iter().any(|ending| value.ends_with(ending)) {
        let message = format!("the name of {} ends in none of {}", quote(value), endings.join(", "));
        scope.error(path, "tls", message);
        return None;
    }
    // Texts that were never on a disk have nothing beside them.
    let pems = beside.pems?;
    match pems.get(value.as_str()) {
        Some(Ok(text)) => Some(text),
        Some(Err(why)) => {
            scope.error(path, "tls", format!("{} {why}", quote(value)));
            None
        }
        None => {
            let help = did_you_mean(value, pems.keys().map(String::as_str)).unwrap_or_else(|| {
                "it is looked for from this manifest's folder; hidden files are not read".to_owned()
            });
            scope.error(path, "tls", format!("there is no file {}", quote(value))).help(help);
            None
        }
    }
}

fn of_names(names: &[String], has_issuer: bool, base: &[Step<'_>], scope: &mut Scope<'_>) {
    let domains = join(base, at!["domains"]);
    if names.is_empty() {
        scope
            .error(base, "tls", "a certificate is neither given nor made")
            .help("`certificateFile` and `privateKeyFile`, or `domains` and `issuer`");
        return;
    }
    if !has_issuer {
        scope
            .error(&domains, "tls", "nobody is said to vouch for these names")
            .help("`issuer: SELF_SIGNED`, or `issuer: ACME` of names in the public DNS");
    }
    if names.len() > MAX_DOMAINS {
        let message = format!("{} names, {MAX_DOMAINS} are the most", names.len());
        scope.error(&join(&domains, &[Step::Index(MAX_DOMAINS)]), "tls", message).label("one too many");
    }
    for (index, name) in names.iter().enumerate().take(MAX_DOMAINS) {
        if !is_domain(name) {
            let message = format!("{} is no name that a certificate can be for", quote(name));
            scope
                .error(&join(&domains, &[Step::Index(index)]), "tls", message)
                .label("such as shop.example.com, *.example.com, 192.0.2.1");
        }
    }
}

/// What an authority that speaks ACME needs.
fn ordered(
    certificate: &mut Certificate,
    has_asked: bool,
    base: &[Step<'_>],
    beside: Beside<'_>,
    scope: &mut Scope<'_>,
) {
    let field = |name: &'static str| join(base, &[Step::Key(name)]);
    if !certificate.is_ordered() {
        if certificate.acme.is_some() {
            scope
                .error(&field("acme"), "tls", "only a certificate with `issuer: ACME` is ordered of an authority")
                .help("add `issuer: ACME` with `domains`, or remove this");
        }
        return;
    }
    for (index, name) in certificate.domains.iter().enumerate().take(MAX_DOMAINS) {
        let path = join(&field("domains"), &[Step::Index(index)]);
        let what = match name {
            name if name.starts_with("*.") => "a wildcard",
            name if name.parse::<IpAddr>().is_ok() => "an address",
            _ => continue,
        };
        let message =
            format!("{} is {what}: of those an authority asks in ways that are not answered here", quote(name));
        scope.error(&path, "tls", message).help("name each host, or give a certificate by `certificateFile`");
    }
    if !has_asked {
        scope
            .error(&field("issuer"), "tls", "nobody answers the authority, which asks on port 80 of each name")
            .help("add a listener to this load balancer: `{ name: http, port: 80 }`");
    }
    if let Some(acme) = &mut certificate.acme {
        authority(acme, &field("acme"), beside, scope);
    }
}

/// Checks which authority is asked; the path to what vouches for it becomes that of the tree.
pub(super) fn authority(acme: &mut Acme, base: &[Step<'_>], beside: Beside<'_>, scope: &mut Scope<'_>) {
    let path = |name: &'static str| join(base, &[Step::Key(name)]);
    if acme.directory.as_deref().is_some_and(|url| !is_url(url, &["https"])) {
        let message = format!("{} is no https URL", quote(acme.directory()));
        scope.error(&path("directory"), "tls", message).label("such as https://ca.example.com/acme/directory");
    }
    if let Some(email) = acme.email.as_deref().filter(|email| !is_email(email)) {
        scope.error(&path("email"), "tls", format!("{} is no address that can be written to", quote(email)));
    }
    let Some(file) = &mut acme.ca_file else { return };
    let path = path("caFile");
    let found = read(file, &path, &[".pem", ".crt", ".cer"], beside, scope);
    if let Some(Err(what)) = found.map(facts) {
        scope.error(&path, "tls", format!("{} {what}", quote(file)));
    }
}

/// Whether it is an address of one of these schemes, without a user or a fragment.
pub(super) fn is_url(url: &str, schemes: &[&str]) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let (authority, _) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "443"));
    schemes.contains(&scheme)
        && url.len() <= MAX_URL_BYTES
        && url.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(&byte))
        && (host.parse::<IpAddr>().is_ok() || host.to_ascii_lowercase().split('.').all(is_label))
        && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_email(text: &str) -> bool {
    let is_plain =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>,?@".contains(&byte));
    text.len() <= MAX_NAME_BYTES && text.split_once('@').is_some_and(|(name, host)| is_plain(name) && is_plain(host))
}

/// Whether a certificate can be for it.
pub(super) fn is_domain(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let labels = lower.strip_prefix("*.").unwrap_or(&lower);
    lower.len() <= MAX_NAME_BYTES && (name.parse::<IpAddr>().is_ok() || labels.split('.').all(is_label))
}
