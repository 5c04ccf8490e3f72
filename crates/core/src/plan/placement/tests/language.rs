//! The query language: what it means, how it is written back, what it says to mistakes.

use super::*;
use query::{HostAttrs, parse};

/// The host asked about: `box-a`, X86_64, disk=ssd, rack=7, ecs.instance-type by its short name, zone a, running web and db.
fn matches(expression: &str) -> bool {
    let labels = [
        ("disk", "ssd"),
        ("rack", "7"),
        ("instance-type", "t2.small"),
        ("availability-zone", "a"),
        ("note", "two words"),
    ];
    let labels = labels.map(|(label, value)| (label.to_owned(), value.to_owned())).into();
    let groups = ["service:db", "service:web"];
    let host = HostAttrs { name: "box-a", architecture: "X86_64", labels: &labels, groups: &groups };
    parse(expression).unwrap_or_else(|e| panic!("{expression}: {e}")).matches(&host)
}

#[test]
fn expressions_mean_what_ecs_says() {
    for (expression, expected) in [
        ("attribute:disk == ssd", true),
        ("attribute:disk==ssd", true),
        ("attribute:disk equals ssd", true),
        ("attribute:disk == 'ssd'", true),
        ("attribute:disk == SSD", false),
        ("attribute:note == \"two words\"", true),
        ("attribute:disk != ssd", false),
        ("attribute:disk not_equals hdd", true),
        ("attribute:gpu == yes", false),
        ("attribute:gpu != yes", true),
        ("attribute:disk in [hdd, ssd]", true),
        ("attribute:disk in [hdd]", false),
        ("attribute:disk not_in [hdd]", true),
        ("attribute:disk !in [ssd]", false),
        ("attribute:disk not in [ssd]", false),
        ("attribute:gpu not_in [yes]", true),
        ("attribute:disk exists", true),
        ("attribute:gpu exists", false),
        ("attribute:gpu !exists", true),
        ("attribute:gpu not_exists", true),
        ("attribute:instance-type =~ t2.*", true),
        ("attribute:ecs.instance-type matches t2.*", true),
        ("attribute:instance-type =~ t2", false),
        ("attribute:instance-type =~ 2.small", false),
        ("attribute:disk =~ (ssd|nvme)", true),
        ("(attribute:disk =~ (hdd|nvme))", false),
        ("attribute:disk =~ hdd|ssd", true),
        ("attribute:disk =~ hdd|sd", false),
        ("attribute:disk =~ s{2}[a-z]{1,200}|x{500}", true),
        ("attribute:disk !~ hdd.*", true),
        (r"(attribute:note !~ \))", true),
        ("attribute:gpu !~ .*", true),
        (r"attribute:rack =~ \d", true),
        ("attribute:rack > 6", true),
        ("attribute:rack > 7", false),
        ("attribute:rack >= 7", true),
        ("attribute:rack < 10", true),
        ("attribute:rack less_than 7", false),
        ("attribute:rack <= 7.0", true),
        ("attribute:disk > 0", false),
        ("attribute:gpu < 5", false),
        ("attribute:ecs.availability-zone == a", true),
        ("attribute:ecs.cpu-architecture == x86_64", true),
        ("attribute:ecs.os-type == linux", true),
        ("attribute:ecs.ami-id exists", false),
        ("host == box-a", true),
        ("ec2InstanceId in [box-b]", false),
        ("task:group == service:web", true),
        ("task:group == service:api", false),
        ("task:group != service:web", false),
        ("task:group != service:api", true),
        ("task:group in [service:api, service:db]", true),
        ("task:group =~ service:w.*", true),
        ("task:group !exists", false),
        ("attribute:disk == ssd and attribute:rack == 8", false),
        ("attribute:disk == ssd && attribute:rack == 7", true),
        ("attribute:disk == hdd or attribute:rack == 7", true),
        ("attribute:disk == hdd || attribute:rack == 8", false),
        ("not attribute:disk == hdd", true),
        ("!attribute:disk == ssd", false),
        ("!(attribute:gpu exists) AND NOT task:group == service:api", true),
        // and binds stronger than or
        ("attribute:disk == ssd or attribute:disk == ssd and attribute:gpu exists", true),
        ("(attribute:disk == ssd or attribute:disk == ssd) and attribute:gpu exists", false),
        // not binds stronger than and
        ("not attribute:gpu exists and attribute:disk == ssd", true),
        ("attribute:disk == and or attribute:disk == ssd", true),
    ] {
        assert_eq!(matches(expression), expected, "{expression}");
    }
}

#[test]
fn a_host_whose_architecture_is_not_known_has_none() {
    let labels = BTreeMap::new();
    for (architecture, exists) in [("", false), ("ARM64", true)] {
        let host = HostAttrs { name: "box-a", architecture, labels: &labels, groups: &[] };
        assert_eq!(parse("attribute:ecs.cpu-architecture exists").unwrap().matches(&host), exists);
    }
}

#[test]
fn expressions_that_ask_for_other_patterns_differ() {
    let parsed = |text: &str| parse(text).unwrap();
    assert_eq!(parsed("attribute:a =~ x"), parsed("attribute:a matches x"));
    assert_ne!(parsed("attribute:a =~ x"), parsed("attribute:a =~ y"));
}

#[test]
fn expressions_are_written_back_simply() {
    for (text, canonical) in [
        (
            "  attribute:a==b&&(!attribute:c exists||task:group   not_equals x)",
            "attribute:a == b and (not attribute:c exists or task:group != x)",
        ),
        (
            "(attribute:a exists and attribute:b exists) or ec2InstanceId == c",
            "attribute:a exists and attribute:b exists or host == c",
        ),
        ("attribute:a not in ['x y',z]", "attribute:a not_in [\"x y\", z]"),
        ("attribute:a == 'say \"hi\"'", "attribute:a == 'say \"hi\"'"),
        ("attribute:a =~ (x|y)", "attribute:a =~ \"(x|y)\""),
        ("attribute:a greater_than_equal 1.50", "attribute:a >= 1.5"),
        ("attribute:a == ''", "attribute:a == \"\""),
        ("not (attribute:a not_exists)", "not attribute:a !exists"),
    ] {
        let expr = parse(text).unwrap();
        assert_eq!(expr.to_string(), canonical, "{text}");
        assert_eq!(parse(canonical).unwrap(), expr, "{text}");
    }
}

#[test]
fn mistakes_are_answered_at_their_place() {
    for (text, offset, words) in [
        ("", 0, "expected a subject such as `attribute:disk`, found the end"),
        ("disk == ssd", 0, "write `attribute:disk`"),
        ("attribute: == ssd", 10, "`attribute:NAME`"),
        ("attribute:disk = ssd", 15, "write `==`"),
        ("attribute:disk is ssd", 15, "expected an operator"),
        ("(attribute:disk exists]", 22, "found `]`"),
        ("attribute:disk", 14, "found the end"),
        ("attribute:disk ==", 17, "expected a value"),
        ("attribute:disk == (ssd)", 18, "expected a value, found `(`"),
        ("attribute:disk == 'ssd", 18, "closing '"),
        ("attribute:disk == ssd attribute:a exists", 22, "expected `and`, `or` or the end"),
        ("attribute:disk == ssd & attribute:a exists", 22, "write `&&`"),
        ("(attribute:disk == ssd", 22, "expected `)`, found the end"),
        ("attribute:disk == ssd)", 21, "found `)`"),
        ("attribute:disk in ssd", 18, "a list such as `[a, b]`"),
        ("attribute:disk in []", 19, "expected a value"),
        ("attribute:disk in [a,]", 21, "expected a value"),
        ("attribute:disk in [a b]", 21, "expected `,` or `]`"),
        ("attribute:disk !a", 16, "expected `in` or `exists`"),
        ("attribute:disk > big", 17, "`big` is not a number"),
        ("attribute:disk > inf", 17, "`inf` is not a number"),
        ("task:group > 5", 11, "only attributes"),
        ("attribute:disk =~", 17, "a pattern is missing"),
        ("attribute:disk =~ *", 18, "is not a pattern"),
        ("attribute:disk =~ 'a)|(b'", 18, "is not a pattern"),
        ("attribute:disk =~ a'b", 19, "a quote inside a pattern"),
        ("attribute:disk =~ a{1000}{1000}", 18, "is not a pattern"),
        ("agentVersion == 1", 0, "hosts run no agent"),
        ("registeredAt > 1", 0, "cannot place tasks"),
        ("'attribute:a' exists", 0, "expected a subject"),
    ] {
        let error = parse(text).expect_err(text);
        assert!(error.message.contains(words), "{text}: {error}");
        assert_eq!(error.offset, offset, "{text}: {error}");
    }
}

#[test]
fn length_and_depth_are_limited() {
    let nested = |depth: usize| format!("{}attribute:a exists{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&nested(query::MAX_DEPTH)).is_ok());
    assert_eq!(parse(&nested(query::MAX_DEPTH + 1)).unwrap_err().offset, query::MAX_DEPTH);
    assert!(parse(&format!("{}attribute:a exists", "not ".repeat(query::MAX_DEPTH + 1))).is_err());
    let long = |length: usize| format!("{:length$}", "attribute:a exists");
    assert!(parse(&long(query::MAX_LENGTH)).is_ok());
    assert_eq!(parse(&long(query::MAX_LENGTH + 1)).unwrap_err().offset, query::MAX_LENGTH);
    let halved = format!("a{}", "é".repeat(query::MAX_LENGTH / 2));
    assert_eq!(parse(&halved).unwrap_err().offset, query::MAX_LENGTH - 1, "not inside a character");
}
