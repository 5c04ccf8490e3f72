//! What a listener does with a request: conditions and actions, as lines of a frontend.

use std::fmt::Write;

use roadstead_core::model::spec::load_balancer::{
    Action, Conditions, FixedResponse, Listener, ListenerProtocol, Redirect, RedirectProtocol, RedirectStatus,
};

use super::{FOLDER, NOWHERE, quote};

/// What no rule before was for.
const NOT_YET: &str = "!{ var(txn.groups) -m found }";
/// A share is drawn out of so many.
pub const DRAWN: u64 = 1_000_000;
/// So many groups share one rule's requests; more are left out.
pub const MAX_GROUPS: usize = 5;

/// A rule's lines. `number` is its place in the listener, `key` its key in the map of forwards.
pub fn rule(config: &mut String, number: usize, conditions: &Conditions, action: &Action, key: &str, of: &Listener) {
    let tests = tests(config, number, conditions);
    act(config, action, key, of, &format!("if {NOT_YET}{tests}"));
}

/// What happens to requests that no rule is for.
pub fn otherwise(config: &mut String, action: &Action, key: &str, of: &Listener) {
    act(config, action, key, of, &format!("if {NOT_YET}"));
}

/// From what the map says to the group that gets this request. The same in a TCP frontend, by its own keyword.
pub fn choose(config: &mut String, keyword: &str, nowhere: &str) {
    // GROUP, or GROUP:BELOW:GROUP:BELOW:GROUP, where a draw below the number stays with the group before it.
    let _ = writeln!(config, "  {keyword} set-var(txn.to) var(txn.groups),field(1,:)");
    let _ = writeln!(config, "  {keyword} set-var(txn.draw) rand({DRAWN}) if {{ var(txn.groups) -m sub : }}");
    for group in 1..MAX_GROUPS {
        let _ = writeln!(
            config,
            "  {keyword} set-var(txn.to) var(txn.groups),field({},:) if {{ var(txn.draw) -m found }} {{ var(txn.groups),field({},:) -m found }} {{ var(txn.groups),field({},:),sub(txn.draw) le 0 }}",
            2 * group + 1,
            2 * group + 1,
            2 * group,
        );
    }
    // ELB's fail open. A worker that was replaced has no healthy one either: the last request of each of its connections
    // goes to any target.
    let _ = writeln!(
        config,
        "  {keyword} set-var(txn.to) var(txn.to),concat(.open) if {{ var(txn.to) -m beg g. }} {{ var(txn.to),nbsrv eq 0 }}"
    );
    let _ = writeln!(config, "  use_backend %[var(txn.to)]\n  default_backend {nowhere}");
}

/// Looks up where a rule's requests go.
pub fn look_up(key: &str) -> String {
    format!("set-var(txn.groups) str({key}),map_str({FOLDER}/forwards.map,{NOWHERE})")
}

fn tests(config: &mut String, number: usize, conditions: &Conditions) -> String {
    let Conditions { host_header, path_pattern, http_header, http_request_method, query_string, source_ip } =
        conditions;
    let mut tests = String::new();
    let mut test = |what: &str, lines: Vec<String>| {
        if lines.is_empty() {
            return;
        }
        let name = format!("r{number}.{what}");
        for line in lines {
            let _ = writeln!(config, "  acl {name} {line}");
        }
        let _ = write!(tests, " {name}");
    };
    test("host", each(host_header, |it| text("req.hdr(host),host_only", "-i ", &it.to_ascii_lowercase())));
    test("path", each(path_pattern, |it| text("path", "", it)));
    for (index, header) in http_header.iter().enumerate() {
        let lines = if is_token(&header.name) {
            each(&header.values, |it| text(&format!("req.fhdr({})", header.name), "-i ", it))
        } else {
            Vec::new()
        };
        // No request has such a header, or none of no values.
        let lines = if lines.is_empty() { vec!["always_false".to_owned()] } else { lines };
        test(&format!("header{index}"), lines);
    }
    test("method", each(http_request_method, |it| format!("method -m str -- {}", quote::word(it.as_bytes()))));
    test(
        "query",
        each(query_string, |it| {
            format!("query -m reg -i -- {}", quote::word(&quote::query(it.key.as_deref(), &it.value)))
        }),
    );
    test("source", each(source_ip, |it| format!("src {it}")));
    tests
}

fn each<T>(values: &[T], line: impl Fn(&T) -> String) -> Vec<String> {
    values.iter().map(line).collect()
}

/// A text that may have wildcards.
fn text(sample: &str, flags: &str, pattern: &str) -> String {
    if !pattern.contains(['*', '?']) {
        return format!("{sample} -m str {flags}-- {}", quote::word(pattern.as_bytes()));
    }
    match pattern.strip_suffix('*') {
        Some(begin) if !begin.is_empty() && !begin.contains(['*', '?']) => {
            format!("{sample} -m beg {flags}-- {}", quote::word(begin.as_bytes()))
        }
        _ => format!("{sample} -m reg {flags}-- {}", quote::word(&quote::wildcards(pattern))),
    }
}

/// Names of headers and cookies; RFC 9110 lets them hold a few signs more, which nobody uses.
pub fn is_token(name: &str) -> bool {
    (1..=128).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn act(config: &mut String, action: &Action, key: &str, of: &Listener, when: &str) {
    match action {
        Action::Forward(_) => {
            let _ = writeln!(config, "  http-request {} {when}", look_up(key));
        }
        Action::FixedResponse(response) => {
            let _ = writeln!(config, "  http-request return {} {when}", fixed(response));
        }
        Action::Redirect(redirect) => redirects(config, redirect, of, when),
    }
}

fn fixed(response: &FixedResponse) -> String {
    const MAX_BODY_BYTES: usize = 1_024;
    let status = response.status_code.clamp(200, 599);
    let body = response.message_body.as_deref().unwrap_or_default();
    // Longer than the schema allows, it is cut where a character ends.
    let end = (0..=body.len().min(MAX_BODY_BYTES)).rev().find(|at| body.is_char_boundary(*at)).unwrap_or_default();
    let body = body.get(..end).unwrap_or_default().replace('\0', "");
    if body.is_empty() {
        return format!("status {status}");
    }
    let is_value =
        |text: &&str| !text.is_empty() && text.len() <= 128 && text.bytes().all(|b| (b' '..=b'~').contains(&b));
    let content_type = response.content_type.as_deref().filter(is_value).unwrap_or("text/plain");
    format!(
        "status {status} content-type {} string {}",
        quote::word(content_type.as_bytes()),
        quote::word(body.as_bytes())
    )
}

fn redirects(config: &mut String, redirect: &Redirect, of: &Listener, when: &str) {
    let code = match redirect.status_code {
        RedirectStatus::Permanent => 301,
        RedirectStatus::Found => 302,
    };
    let asked = match of.protocol {
        ListenerProtocol::Https => RedirectProtocol::Https,
        ListenerProtocol::Http | ListenerProtocol::Tcp => RedirectProtocol::Http,
    };
    let protocol = redirect.protocol.unwrap_or(asked);
    let (scheme, usual) = match protocol {
        RedirectProtocol::Http => ("http", 80),
        RedirectProtocol::Https => ("https", 443),
    };
    // Of another protocol the port that was asked for would be the wrong one.
    let port = redirect.port.unwrap_or(if protocol == asked { of.port } else { usual });
    let fill = |text: &str| fill(text, scheme, port);
    let mut location = format!("{scheme}://{}", fill(redirect.host.as_deref().unwrap_or("#{host}")));
    if port != usual {
        let _ = write!(location, ":{port}");
    }
    let path = redirect.path.as_deref().unwrap_or("/#{path}");
    if !path.starts_with('/') {
        location.push('/');
    }
    location += &fill(path);
    let mut line = |location: &str, also: &str| {
        let _ = writeln!(
            config,
            "  http-request redirect code {code} location {} {when}{also}",
            quote::word(location.as_bytes())
        );
    };
    match redirect.query.as_deref() {
        None | Some("#{query}") => {
            line(&format!("{location}?%[query]"), " { query -m len gt 0 }");
            line(&location, "");
        }
        Some("") => line(&location, ""),
        Some(query) => line(&format!("{location}?{}", fill(query)), ""),
    }
}

/// ELB's placeholders, as HAProxy's. What no address can hold is encoded.
fn fill(text: &str, scheme: &str, port: u16) -> String {
    const PLACEHOLDERS: [&str; 5] = ["#{host}", "#{path}", "#{query}", "#{port}", "#{protocol}"];
    let mut filled = String::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let placeholder = PLACEHOLDERS.iter().find(|it| rest.starts_with(**it));
        match placeholder.copied() {
            Some("#{host}") => filled += "%[req.hdr(host),host_only]",
            // Without its first slash (ELB).
            Some("#{path}") => filled += "%[path,regsub(^/,)]",
            Some("#{query}") => filled += "%[query]",
            Some("#{port}") => filled += &port.to_string(),
            Some(_) => filled += scheme,
            None if next == '%' => filled += "%%",
            None if next.is_ascii_graphic() => filled.push(next),
            None => {
                for byte in next.to_string().bytes() {
                    let _ = write!(filled, "%%{byte:02X}");
                }
            }
        }
        rest = rest.get(placeholder.map_or(next.len_utf8(), |it| it.len())..).unwrap_or_default();
    }
    filled
}
