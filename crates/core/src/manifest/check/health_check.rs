//! A container's health check.

use super::{in_range, join};
use crate::{
    manifest::{
        node::Step,
        report::{Scope, quote},
    },
    model::spec::task_definition::{HealthCheck, HttpCheck, Probe},
};

/// Longer than any path that is only there to be asked for its health.
const LONGEST_PATH_BYTES: usize = 1024;
/// A request's head stays far below what servers take (8 KiB).
const MAX_HEADERS: usize = 20;
const LONGEST_HEADER_BYTES: usize = 256;

/// Checks the health check at `base`. A probe needs a container that `has_network`.
pub fn check(check: &HealthCheck, has_network: bool, base: &[Step<'_>], scope: &mut Scope<'_>) {
    let at = |field: &'static str| join(base, &[Step::Key(field)]);
    let ways = [("command", !check.command.is_empty()), ("http", check.http.is_some()), ("tcp", check.tcp.is_some())];
    let mut given = ways.iter().filter(|(_, given)| *given).map(|(way, _)| *way);
    match (given.next(), given.next()) {
        (Some(first), Some(second)) => {
            scope
                .error(
                    &at(second),
                    "health-check",
                    format!("a health check has one way of checking: {} or {}", quote(first), quote(second)),
                )
                .label("the second one");
        }
        (None, _) if scope.node.find(&at("command")).is_some() => {
            scope.error(&at("command"), "health-check", "the health check runs nothing");
        }
        (None, _) => {
            scope.error(base, "health-check", "the health check does not say what is checked").help(
                "give it `command` (inside), or `http: { port: 80, path: / }` or `tcp: { port: 80 }` (from the host)",
            );
        }
        (Some(_), None) => {}
    }
    if !check.command.is_empty() {
        command(&check.command, &at("command"), scope);
    }
    if let Some(probe) = check.probe() {
        let way = match probe {
            Probe::Http(http) => {
                request(http, &at("http"), scope);
                "http"
            }
            Probe::Tcp(_) => "tcp",
        };
        if probe.port() == 0 {
            scope
                .error(&join(base, &[Step::Key(way), Step::Key("port")]), "out-of-range", "0 is not a port")
                .label("from 1 to 65535");
        }
        if !has_network {
            scope
                .error(
                    &at(way),
                    "network",
                    format!("{} checks over the network, which the container has not", quote(way)),
                )
                .help("a `command` runs inside");
        }
    }
    let (interval, timeout) = if check.probe().is_some() { (1..=300, 1..=60) } else { (5..=300, 2..=60) };
    in_range(scope, &at("interval"), check.interval.0, interval, " s");
    in_range(scope, &at("timeout"), check.timeout.0, timeout, " s");
    in_range(scope, &at("retries"), check.retries, 1..=10, "");
    in_range(scope, &at("startPeriod"), check.start_period.0, 0..=300, " s");
}

fn command(words: &[String], path: &[Step<'_>], scope: &mut Scope<'_>) {
    let Some((first, rest)) = words.split_first() else { return };
    if first != "CMD" && first != "CMD-SHELL" {
        scope
            .error(
                path,
                "health-check",
                format!("a health check's list begins with `CMD` or `CMD-SHELL`, not with {}", quote(first)),
            )
            .help("`[CMD, program, argument]` runs a program, `[CMD-SHELL, \"a line\"]` a line of the image's shell");
    } else if rest.iter().all(String::is_empty) {
        scope.error(path, "health-check", "the health check runs nothing");
    }
}

fn request(http: &HttpCheck, base: &[Step<'_>], scope: &mut Scope<'_>) {
    path_of_a_request(&http.path, &join(base, &[Step::Key("path")]), scope);
    let headers = join(base, &[Step::Key("headers")]);
    if http.headers.len() > MAX_HEADERS {
        let message = format!("{} headers, {MAX_HEADERS} are the most", http.headers.len());
        scope.error(&headers, "headers", message);
    }
    for (name, value) in &http.headers {
        let is_name = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
        let is_value = value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if !is_name || !is_value || name.len() + value.len() > LONGEST_HEADER_BYTES {
            scope
                .error(
                    &join(&headers, &[Step::Key(name)]),
                    "headers",
                    format!("{} is not a header of a request", quote(name)),
                )
                .label(format!("up to {LONGEST_HEADER_BYTES} ASCII characters, name and value together"));
        }
        if ["connection", "content-length", "transfer-encoding"].iter().any(|own| name.eq_ignore_ascii_case(own)) {
            scope.error(
                &join(&headers, &[Step::Key(name)]),
                "headers",
                format!("{} is the request's own matter", quote(name)),
            );
        }
    }
}

/// The path that is asked for, with its query.
pub(super) fn path_of_a_request(text: &str, path: &[Step<'_>], scope: &mut Scope<'_>) {
    if !text.starts_with('/') {
        scope
            .error(path, "bad-path", format!("{} is not a path of a server", quote(text)))
            .label("it begins with `/`, and names no host");
    } else if text.len() > LONGEST_PATH_BYTES || !text.bytes().all(is_of_a_path) {
        scope
            .error(path, "bad-path", "a request cannot carry this path")
            .label(format!("up to {LONGEST_PATH_BYTES} letters, digits and signs of a URL; others as %20"));
    }
}

/// Whether it is what people name headers and cookies: a token (RFC 9110) without signs that mean something elsewhere.
pub(super) fn is_word(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// Of a path and its query as they are sent (RFC 3986).
pub(super) fn is_of_a_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&byte)
}
