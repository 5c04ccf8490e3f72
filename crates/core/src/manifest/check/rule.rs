//! A listener's rules: what a request must be like, and what happens to it.
//!
//! Rules: "Condition types for listener rules" and "Action types for listener rules", Elastic Load Balancing.

use super::{
    health_check::{is_of_a_path, is_word},
    in_range, join, one_network,
};
use crate::{
    manifest::{
        node::Step,
        report::{Scope, quote, quote_all},
    },
    model::spec::load_balancer::{
        Action, Conditions, FixedResponse, Forward, Listener, ListenerProtocol, MAX_CONDITION_VALUES, MAX_FORWARDS,
        MAX_WEIGHT, Redirect, RedirectProtocol,
    },
};

/// A value of a condition (ELB).
const LONGEST_VALUE_BYTES: usize = 128;
/// A method, and a header's name (ELB).
const LONGEST_WORD_BYTES: usize = 40;
/// `*` and `?` in one value: more would cost each request too much.
const MAX_WILDCARDS: usize = 6;
/// The body of a fixed response (ELB).
const LONGEST_BODY_BYTES: usize = 1024;
/// What ELB fills in.
const PLACEHOLDERS: [&str; 5] = ["#{protocol}", "#{host}", "#{port}", "#{path}", "#{query}"];
/// Content types of a fixed response (ELB).
const CONTENT_TYPES: &[&str] = &["text/plain", "text/css", "text/html", "application/javascript", "application/json"];

/// Checks the conditions at `base`.
pub fn conditions(conditions: &Conditions, base: &[Step<'_>], scope: &mut Scope<'_>) {
    let Conditions { host_header, path_pattern, http_header, http_request_method, query_string, source_ip } =
        conditions;
    let of_headers: usize = http_header.iter().map(|header| header.values.len()).sum();
    let plain =
        host_header.len() + path_pattern.len() + http_request_method.len() + query_string.len() + source_ip.len();
    if plain + of_headers > MAX_CONDITION_VALUES {
        let message =
            format!("{} values in one rule's conditions, {MAX_CONDITION_VALUES} are the most", plain + of_headers);
        scope.error(base, "conditions", message).help("make two rules of it");
        return;
    }
    let item = |field: &'static str, index: usize| join(base, &[Step::Key(field), Step::Index(index)]);
    for (index, host) in host_header.iter().enumerate() {
        of_host(host, &item("hostHeader", index), scope);
    }
    for (index, pattern_of_path) in path_pattern.iter().enumerate() {
        of_path(pattern_of_path, &item("pathPattern", index), scope);
    }
    for (index, header) in http_header.iter().enumerate() {
        let base = item("httpHeader", index);
        let name = join(&base, &[Step::Key("name")]);
        if !is_word(&header.name) || header.name.len() > LONGEST_WORD_BYTES {
            scope
                .error(&name, "conditions", format!("{} is not the name of a header", quote(&header.name)))
                .label(format!("1 to {LONGEST_WORD_BYTES} letters, digits, hyphens and underscores"));
        } else if header.name.eq_ignore_ascii_case("host") {
            scope.error(&name, "conditions", "the `Host` header has a condition of its own").help("use `hostHeader`");
        }
        if header.values.is_empty() {
            let message = format!("the condition on {} has no values", quote(&header.name));
            scope.error(&join(&base, &[Step::Key("values")]), "conditions", message).help("`[\"*\"]`: it is there");
        }
        for (index, value) in header.values.iter().enumerate() {
            let path = join(&base, &[Step::Key("values"), Step::Index(index)]);
            pattern(value, is_printable, "ASCII without control characters", &path, scope);
        }
    }
    for (index, method) in http_request_method.iter().enumerate() {
        let fits = |byte: u8| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_');
        if method.is_empty() || method.len() > LONGEST_WORD_BYTES || !method.bytes().all(fits) {
            let message = format!("{} is not a method", quote(method));
            let upper = method.to_ascii_uppercase();
            let help =
                (!method.is_empty() && upper.bytes().all(fits)).then(|| format!("did you mean {}?", quote(&upper)));
            scope.error(&item("httpRequestMethod", index), "conditions", message).maybe_help(help);
        }
    }
    for (index, parameter) in query_string.iter().enumerate() {
        let base = item("queryString", index);
        if let Some(key) = &parameter.key {
            pattern(key, is_printable, "ASCII without control characters", &join(&base, &[Step::Key("key")]), scope);
        }
        let path = join(&base, &[Step::Key("value")]);
        pattern(&parameter.value, is_printable, "ASCII without control characters", &path, scope);
    }
    for (index, range) in source_ip.iter().enumerate() {
        one_network(*range, &item("sourceIp", index), scope);
    }
}

/// Checks a host's name, perhaps with wildcards.
pub(super) fn of_host(host: &str, path: &[Step<'_>], scope: &mut Scope<'_>) {
    if host.contains(':') {
        scope
            .error(path, "conditions", format!("{} is not a host's name", quote(host)))
            .help("the `Host` header is compared without its port: a listener has one");
    } else {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._*?".contains(&byte);
        pattern(host, fits, "letters, digits, `-`, `.` and wildcards", path, scope);
    }
}

/// Checks a path, perhaps with wildcards.
pub(super) fn of_path(pattern_of_path: &str, path: &[Step<'_>], scope: &mut Scope<'_>) {
    if pattern_of_path.starts_with(['/', '*', '?']) {
        pattern(pattern_of_path, is_of_a_path, "letters, digits and signs of a URL", path, scope);
    } else {
        scope
            .error(path, "conditions", format!("no path is like {}", quote(pattern_of_path)))
            .label("a path begins with `/`");
    }
}

fn is_printable(byte: u8) -> bool {
    byte == b' ' || byte.is_ascii_graphic()
}

/// A value in which `*` and `?` are wildcards.
fn pattern(text: &str, fits: impl Fn(u8) -> bool, of: &str, path: &[Step<'_>], scope: &mut Scope<'_>) {
    if text.is_empty() || text.len() > LONGEST_VALUE_BYTES || !text.bytes().all(fits) {
        scope
            .error(path, "conditions", format!("{} is no value for this condition", quote(text)))
            .label(format!("1 to {LONGEST_VALUE_BYTES} characters: {of}"));
    } else if text.bytes().filter(|byte| matches!(byte, b'*' | b'?')).count() > MAX_WILDCARDS {
        scope
            .error(path, "conditions", format!("more than {MAX_WILDCARDS} wildcards in one value"))
            .help("make several values of it");
    }
}

/// Checks the action at `base`, of a rule or for what no rule is for.
pub fn action(action: &Action, listener: &Listener, base: &[Step<'_>], scope: &mut Scope<'_>) {
    match action {
        Action::Forward(groups) => forward(groups, &join(base, &[Step::Key("forward")]), scope),
        Action::Redirect(to) => redirect(to, listener, &join(base, &[Step::Key("redirect")]), scope),
        Action::FixedResponse(answer) => fixed_response(answer, &join(base, &[Step::Key("fixedResponse")]), scope),
    }
}

fn forward(Forward(groups): &Forward, base: &[Step<'_>], scope: &mut Scope<'_>) {
    if groups.is_empty() {
        scope.error(base, "forward", "requests are forwarded to no target group").help("`forward: GROUP`");
    } else if groups.len() > MAX_FORWARDS {
        let message = format!("{} target groups in one rule, {MAX_FORWARDS} are the most", groups.len());
        scope.error(&join(base, &[Step::Index(MAX_FORWARDS)]), "forward", message).label("one too many");
    }
    for (index, group) in groups.iter().enumerate() {
        let item = join(base, &[Step::Index(index)]);
        in_range(scope, &join(&item, &[Step::Key("weight")]), group.weight, 0..=MAX_WEIGHT, "");
        if groups.iter().take(index).any(|other| other.target_group == group.target_group) {
            let message = format!("the target group {} is named twice in one rule", quote(group.target_group.as_str()));
            scope.error(&join(&item, &[Step::Key("targetGroup")]), "forward", message).label("again here");
        }
    }
    if !groups.is_empty() && groups.iter().all(|group| group.weight == 0) {
        scope
            .error(&join(base, &[Step::Index(0), Step::Key("weight")]), "weights", "the weights sum to nothing")
            .label("no request goes anywhere")
            .help("give one group a weight of 1 or more");
    }
}

fn redirect(to: &Redirect, listener: &Listener, base: &[Step<'_>], scope: &mut Scope<'_>) {
    let field = |field: &'static str| join(base, &[Step::Key(field)]);
    let mut part = |name: &'static str, text: &Option<String>, begin: &str, fits: fn(u8) -> bool, label: &str| {
        let Some(text) = text else { return };
        let rest = PLACEHOLDERS.iter().fold(text.clone(), |rest, placeholder| rest.replace(placeholder, ""));
        let says_nothing = text.is_empty() && name == "host";
        if says_nothing || !text.starts_with(begin) || text.len() > LONGEST_VALUE_BYTES || !rest.bytes().all(fits) {
            scope
                .error(&field(name), "redirect", format!("{} is no {name} to send clients to", quote(text)))
                .label(label)
                .help(format!("what is left out stays as it was asked for, and so does {}", quote_all(PLACEHOLDERS)));
        }
    };
    let of_a_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    part("host", &to.host, "", of_a_host, "letters, digits, `-` and `.`; the port has its own field");
    part(
        "path",
        &to.path,
        "/",
        |byte| byte != b'?' && is_of_a_path(byte),
        "it begins with `/`; the query has its own field",
    );
    part("query", &to.query, "", is_of_a_path, "letters, digits and signs of a URL");
    if to.port == Some(0) {
        scope.error(&field("port"), "out-of-range", "0 is not a port").label("from 1 to 65535");
    }
    let own = match listener.protocol {
        ListenerProtocol::Http => Some(RedirectProtocol::Http),
        ListenerProtocol::Https => Some(RedirectProtocol::Https),
        ListenerProtocol::Tcp => None,
    };
    let leads_away = to.protocol.is_some_and(|protocol| Some(protocol) != own)
        || to.port.is_some_and(|port| port != listener.port)
        || to.host.as_ref().is_some_and(|host| host != "#{host}")
        || to.path.as_ref().is_some_and(|path| path != "/#{path}");
    if !leads_away {
        scope
            .error(base, "redirect", "the client would be sent where it came from, again and again")
            .help("say another `protocol`, `host`, `port` or `path`");
    }
}

fn fixed_response(answer: &FixedResponse, base: &[Step<'_>], scope: &mut Scope<'_>) {
    let field = |field: &'static str| join(base, &[Step::Key(field)]);
    if !matches!(answer.status_code, 200..=299 | 400..=599) {
        let message = format!("{} is no status of a fixed response", answer.status_code);
        scope.error(&field("statusCode"), "out-of-range", message).label("2xx, 4xx or 5xx");
    }
    if let Some(kind) = &answer.content_type {
        super::one_of(scope, &field("contentType"), kind, CONTENT_TYPES);
    }
    let Some(body) = &answer.message_body else { return };
    if body.len() > LONGEST_BODY_BYTES {
        let message = format!("a body of {} bytes, {LONGEST_BODY_BYTES} are the most", body.len());
        scope.error(&field("messageBody"), "fixed-response", message);
    } else if body.chars().any(char::is_control) {
        scope
            .error(&field("messageBody"), "fixed-response", "the body has control characters")
            .help("write it in one line: `>-` makes one of several");
    }
}
