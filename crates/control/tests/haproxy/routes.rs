//! Which requests go where.

use std::net::Ipv4Addr;

use roadstead_core::model::traffic::Target;
use serde_json::json;

use crate::lab::{Balancer, Client, Upstream, edge, get, group, inside};

#[test]
fn every_condition_routes_as_an_alb_does() {
    inside("routes::every_condition_routes_as_an_alb_does", || {
        let names = ["host", "path", "header", "method", "query", "key", "both", "other"];
        let upstreams: Vec<Upstream> = names.map(Upstream::up).into();
        let rule =
            |name: &str, conditions| json!({"name": name, "conditions": conditions, "action": {"forward": name}});
        let rules = json!([
            {"name": "late", "priority": 50, "conditions": {"pathPattern": ["/first"]}, "action": {"fixedResponse": {"statusCode": 410}}},
            {"name": "first", "priority": 2, "conditions": {"pathPattern": ["/first"]}, "action": {"fixedResponse": {"statusCode": 218, "contentType": "text/x", "messageBody": "it's \"%[src]\"\n# ü"}}},
            {"name": "here", "priority": 3, "conditions": {"pathPattern": ["/here"], "sourceIp": ["10.0.0.0/8"]}, "action": {"fixedResponse": {"statusCode": 400}}},
            {"name": "here2", "priority": 4, "conditions": {"pathPattern": ["/here"], "sourceIp": ["10.0.0.0/8", "127.0.0.0/8"]}, "action": {"fixedResponse": {"statusCode": 201}}},
            {"name": "old", "priority": 5, "conditions": {"pathPattern": ["/old/*"]}, "action": {"redirect": {"protocol": "HTTPS", "host": "www.#{host}", "path": "/new/#{path}", "statusCode": "HTTP_301"}}},
            {"name": "old2", "priority": 6, "conditions": {"pathPattern": ["/old2"]}, "action": {"redirect": {"port": 8443, "query": "a=100%&#{query}&p=#{port}&s=#{protocol}"}}},
            rule("host", json!({"hostHeader": ["one.example", "*.Two.example", "th?ee.example"]})),
            rule("path", json!({"pathPattern": ["/exact", "/begin*", "/a*c?e", "/it's (odd) [1].x"]})),
            rule("header", json!({"httpHeader": [{"name": "X-Kind", "values": ["one", "t*"]}, {"name": "X-Other", "values": ["yes"]}]})),
            rule("method", json!({"httpRequestMethod": ["PURGE", "PUT"]})),
            rule("query", json!({"queryString": [{"key": "version", "value": "v1"}, {"key": "n?me", "value": "a b*"}]})),
            rule("key", json!({"queryString": [{"value": "any&thing"}]})),
            rule("both", json!({"hostHeader": ["both.example"], "pathPattern": ["/b"]})),
            {"name": "never", "conditions": {"httpHeader": [{"name": "a b", "values": ["*"]}]}, "action": {"fixedResponse": {"statusCode": 400}}},
        ]);
        let listeners = json!([
            {"name": "http", "port": 8000, "rules": rules, "defaultAction": {"forward": "other"}},
            {"name": "bare", "port": 8001},
            {"name": "bytes", "port": 8002, "protocol": "TCP", "defaultAction": {"forward": "bytes"}},
            {"name": "behind", "port": 8003, "acceptProxyProtocol": true, "defaultAction": {"forward": "other"}},
            {"name": "chain", "port": 8004, "protocol": "TCP", "defaultAction": {"forward": "chain"}},
        ]);
        let groups: Vec<_> = upstreams.iter().map(|it| (it.name, group(), [it])).collect();
        let mut groups: Vec<_> =
            groups.iter().map(|(name, spec, targets)| (*name, spec.clone(), &targets[..])).collect();
        let bytes = Upstream::up("bytes");
        let only_bytes = [&bytes];
        groups.push(("bytes", json!({"port": 80, "protocol": "TCP", "healthCheck": {"interval": 1}}), &only_bytes));
        // Its target is the listener that wants to be told by the PROXY protocol.
        let spec = json!({"port": 80, "protocol": "TCP", "proxyProtocol": true, "healthCheck": {"interval": 1}});
        groups.push(("chain", spec, &[]));
        let mut edge = edge(listeners, &groups);
        let behind = Target { address: Ipv4Addr::LOCALHOST, port: 8003, leaves: false };
        edge.groups.get_mut("chain").unwrap().targets.insert("behind".into(), behind);
        let mut balancer = Balancer::up();
        balancer.shows(&edge);

        for (request, expected) in [
            ("GET / HTTP/1.1\r\nHost: one.example", "host"),
            ("GET / HTTP/1.1\r\nHost: ONE.example:8000", "host"),
            ("GET / HTTP/1.1\r\nHost: one.example.org", "other"),
            ("GET / HTTP/1.1\r\nHost: a.b.two.example", "host"),
            ("GET / HTTP/1.1\r\nHost: two.example", "other"),
            ("GET / HTTP/1.1\r\nHost: three.example", "host"),
            ("GET / HTTP/1.1\r\nHost: thee.example", "other"),
            ("GET / HTTP/1.0", "other"),
            ("GET /exact HTTP/1.1\r\nHost: x", "path"),
            ("GET /exact?q HTTP/1.1\r\nHost: x", "path"),
            ("GET /Exact HTTP/1.1\r\nHost: x", "other"),
            ("GET /exact/ HTTP/1.1\r\nHost: x", "other"),
            ("GET /beginning/x HTTP/1.1\r\nHost: x", "path"),
            ("GET /begin HTTP/1.1\r\nHost: x", "path"),
            ("GET /x/begin HTTP/1.1\r\nHost: x", "other"),
            ("GET /abcde HTTP/1.1\r\nHost: x", "path"),
            ("GET /acde HTTP/1.1\r\nHost: x", "path"),
            ("GET /ace HTTP/1.1\r\nHost: x", "other"),
            ("GET /acdef HTTP/1.1\r\nHost: x", "other"),
            ("GET / HTTP/1.1\r\nHost: x\r\nX-Kind: ONE\r\nX-Other: yes", "header"),
            ("GET / HTTP/1.1\r\nHost: x\r\nX-Kind: three, four\r\nX-Other: yes", "header"),
            ("GET / HTTP/1.1\r\nHost: x\r\nX-Kind: one", "other"),
            ("GET / HTTP/1.1\r\nHost: x\r\nX-Kind: no\r\nX-Other: yes", "other"),
            ("PURGE / HTTP/1.1\r\nHost: x", "method"),
            ("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 0", "method"),
            ("GET /?version=v1 HTTP/1.1\r\nHost: x", "query"),
            ("GET /?a=b&VERSION=V1&c HTTP/1.1\r\nHost: x", "query"),
            ("GET /?version=%76%31 HTTP/1.1\r\nHost: x", "query"),
            ("GET /?version=v11 HTTP/1.1\r\nHost: x", "other"),
            ("GET /?aversion=v1 HTTP/1.1\r\nHost: x", "other"),
            ("GET /?name=a%20bc HTTP/1.1\r\nHost: x", "query"),
            ("GET /?n%61me=a+b HTTP/1.1\r\nHost: x", "query"),
            ("GET /?name=ab HTTP/1.1\r\nHost: x", "other"),
            ("GET /?k=any%26thing HTTP/1.1\r\nHost: x", "key"),
            ("GET /?k=any&thing HTTP/1.1\r\nHost: x", "other"),
            ("GET /b HTTP/1.1\r\nHost: both.example", "both"),
            ("GET /c HTTP/1.1\r\nHost: both.example", "other"),
            ("GET /b HTTP/1.1\r\nHost: x", "other"),
            ("GET / HTTP/1.1\r\nHost: x\r\na: b", "other"),
        ] {
            assert_eq!(Client::new(8000).ask(&format!("{request}\r\n\r\n")).body, expected, "{request}");
        }

        assert_eq!(get(8002, "/").body, "bytes");
        let headers = Client::new(8004).ask("GET /headers HTTP/1.1\r\nHost: x\r\n\r\n").body.to_ascii_lowercase();
        assert!(headers.contains("x-forwarded-for: 127.0.0.1\r\n"), "{headers}");

        let first = get(8000, "/first");
        assert_eq!((first.status, first.body.as_str()), (218, "it's \"%[src]\"\n# ü"));
        assert!(first.head.contains("content-type: text/x"), "{}", first.head);
        assert_eq!(get(8000, "/here").status, 201);
        assert_eq!(get(8001, "/").status, 404);
        let sent = |path: &str| {
            let answer = get(8000, path);
            let location = answer.head.lines().find_map(|line| line.strip_prefix("location: ")).unwrap_or_default();
            (answer.status, location.to_owned())
        };
        assert_eq!(sent("/old/x?y=1"), (301, "https://www.a.example/new/old/x?y=1".to_owned()));
        assert_eq!(sent("/old/x"), (301, "https://www.a.example/new/old/x".to_owned()));
        assert_eq!(sent("/old2?z"), (302, "http://a.example:8443/old2?a=100%&z&p=8443&s=http".to_owned()));

        let headers = Client::new(8000)
            .ask("GET /headers HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\n\r\n");
        let headers = headers.body.to_ascii_lowercase();
        assert!(
            headers.contains("x-forwarded-for: 1.2.3.4\r\n") && headers.contains("x-forwarded-for: 127.0.0.1\r\n"),
            "{headers}"
        );
        assert!(headers.contains("x-forwarded-proto: http\r\n") && !headers.contains("https"), "{headers}");
        assert!(headers.contains("x-forwarded-port: 8000\r\n"), "{headers}");
    });
}
