//! What a running HAProxy says of itself.

use std::collections::{BTreeMap, BTreeSet};

use roadstead_core::model::{
    latency::Latency,
    name::{TargetGroupName, TaskId},
    spec::TargetGroupSpec,
    traffic::{Answers, Edge, TargetHealth, TargetSeen},
};

use super::{
    config::{backend, challenges, forwards, leaving, open_backend, server},
    latency,
};

/// Words of a check that are passed on.
const MAX_REASON_CHARS: usize = 120;
/// Programs of a host listen on fewer ports.
const MAX_LINES: usize = 200_000;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The configuration on disk is what was last told.
    pub is_as_told: bool,
    /// So is what it is to be told.
    pub is_on_disk: bool,
    /// Its workers, the one in charge first; the others finish what was begun before a reload.
    pub workers: Vec<Worker>,
}

/// A process that forwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Worker {
    /// Its number.
    pub pid: u32,
    /// The map of forwards.
    pub forwards: BTreeMap<String, String>,
    /// The map of tasks that leave.
    pub leaving: BTreeMap<String, String>,
    /// The map of what authorities are answered.
    pub challenges: BTreeMap<String, String>,
    /// Certificates by file: the SHA-1 of each.
    pub certificates: BTreeMap<String, String>,
    /// Files of certificates, by list.
    pub lists: BTreeMap<String, BTreeSet<String>>,
    /// How long answers took, by backend and server.
    pub latency: BTreeMap<(String, String), Latency>,
    /// Servers by backend and name.
    pub servers: BTreeMap<(String, String), Server>,
}

/// A server's line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// `UP`, `DOWN 1/2`, `NOLB`, `MAINT`, `no check` …
    pub status: String,
    /// 0: no new requests.
    pub weight: u32,
    /// Requests or connections under way, and those that wait for it.
    pub in_flight: u64,
    /// `L7STS` …
    pub check: String,
    /// What HTTP answered.
    pub code: String,
    /// In HAProxy's words.
    pub words: String,
    /// `ADDRESS:PORT`.
    pub address: String,
    /// Since it began.
    pub answers: Answers,
}

impl Seen {
    /// Of what [`super::script::LOOK`] prints. What cannot be read is left out, and is then missed.
    pub fn parse(said: &str) -> Self {
        let mut seen = Self::default();
        let mut part = "";
        let mut columns: Vec<String> = Vec::new();
        for line in said.lines().take(MAX_LINES) {
            if let Some(mark) = line.strip_prefix("--") {
                (part, columns) = (mark.split(' ').next().unwrap_or_default(), Vec::new());
                match (part, mark.split(' ').nth(1).and_then(|pid| pid.parse().ok())) {
                    ("as-told", _) => seen.is_as_told = true,
                    ("on-disk", _) => seen.is_on_disk = true,
                    ("worker", Some(pid)) => seen.workers.push(Worker { pid, ..Worker::default() }),
                    _ => {}
                }
                continue;
            }
            let Some(worker) = seen.workers.last_mut() else { continue };
            match part {
                // A map that it does not know has words of another kind.
                "forwards" | "leaving" | "challenges" if line.starts_with("0x") => {
                    let mut words = line.split(' ').skip(1);
                    if let (Some(key), Some(value)) = (words.next(), words.next()) {
                        let map = match part {
                            "forwards" => &mut worker.forwards,
                            "leaving" => &mut worker.leaving,
                            _ => &mut worker.challenges,
                        };
                        map.insert(key.to_owned(), value.to_owned());
                    }
                }
                "certificates" => {
                    if let Some((_, file)) = line.split_once("Filename: ") {
                        columns = vec![file.trim().to_owned()];
                    } else if let (Some(sha1), Some(file)) = (line.strip_prefix("SHA1 FingerPrint: "), columns.first())
                    {
                        worker.certificates.insert(file.clone(), sha1.trim().to_owned());
                    }
                }
                "lists" => {
                    if let Some((_, list)) = line.split_once("# /") {
                        columns = vec![format!("/{}", list.trim())];
                        worker.lists.entry(format!("/{}", list.trim())).or_default();
                    } else if let (true, Some(list)) = (line.starts_with('/'), columns.first()) {
                        let file = line.split(' ').next().unwrap_or_default();
                        worker.lists.entry(list.clone()).or_default().insert(file.to_owned());
                    }
                }
                "servers" => match line.strip_prefix("# ") {
                    Some(header) => columns = fields(header),
                    None => worker.servers.extend(of_line(&columns, line)),
                },
                "took" => worker.latency.extend(latency::of_line(line)),
                _ => {}
            }
        }
        seen
    }

    /// What is not as `wanted`, in words.
    pub fn differs(&self, wanted: &Edge) -> Option<String> {
        let Some(worker) = self.workers.first() else { return Some("its HAProxy is down".to_owned()) };
        if !self.is_as_told {
            return Some("its HAProxy's configuration was changed".to_owned());
        }
        if worker.forwards != forwards(wanted) || worker.leaving != leaving(wanted) {
            return Some("where its rules forward to was changed".to_owned());
        }
        if worker.challenges != challenges(wanted) {
            return Some("what it answers authorities was changed".to_owned());
        }
        let shown = |(file, sha1): &(String, String)| worker.certificates.get(file) == Some(sha1);
        if !super::certificates::expected(wanted).iter().all(shown) {
            return Some("it does not show the certificates that it was told".to_owned());
        }
        let is_listed = |(list, files): (String, Vec<String>)| {
            worker.lists.get(&list).is_some_and(|there| there.iter().eq(files.iter().collect::<BTreeSet<_>>()))
        };
        if !super::certificates::lists(wanted).into_iter().all(is_listed) {
            return Some("which certificates it shows was changed".to_owned());
        }
        let mut known = BTreeSet::new();
        for (name, group) in &wanted.groups {
            for (task, target) in &group.targets {
                for backend in [backend(name), open_backend(name)] {
                    let at = (backend, server(task));
                    let is_right = worker.servers.get(&at).is_some_and(|there| {
                        (there.weight == 0) == target.leaves
                            && there.address == format!("{}:{}", target.address, target.port)
                            && !there.is_shut()
                    });
                    if !is_right {
                        return Some(format!("target {task} of {name} is not as it was told"));
                    }
                    known.insert(at);
                }
            }
        }
        let foreign = worker.servers.iter().find(|(at, there)| !known.contains(*at) && !there.is_shut());
        foreign.map(|((backend, server), _)| readable(&format!("it has a server {backend}/{server} of others")))
    }

    /// Servers that were taken out and are not gone yet.
    pub fn remains(&self, wanted: &Edge) -> Vec<String> {
        let is_wanted = |backend: &str, name: &str| {
            wanted.groups.iter().any(|(group, it)| {
                (backend == super::config::backend(group) || backend == open_backend(group))
                    && it.targets.keys().any(|task| server(task) == name)
            })
        };
        let servers = self.workers.first().into_iter().flat_map(|worker| &worker.servers);
        // They become words of a command.
        let is_word = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        let shut = servers.filter(|((backend, name), there)| {
            there.is_shut() && !is_wanted(backend, name) && is_word(backend) && is_word(name)
        });
        shut.map(|((backend, name), _)| format!("{backend}/{name}")).collect()
    }

    /// The targets of `wanted` as they are.
    pub fn targets(&self, wanted: &Edge) -> BTreeMap<TargetGroupName, BTreeMap<TaskId, TargetSeen>> {
        let of_group = |(name, group): (&TargetGroupName, &roadstead_core::model::traffic::Group)| {
            let (checked, open) = (backend(name), open_backend(name));
            let target = |task: &TaskId| {
                let server = server(task);
                let at = |backend: &String| (backend.clone(), server.clone());
                let (checked, open) = (at(&checked), at(&open));
                let there = self.workers.first().and_then(|worker| worker.servers.get(&checked));
                let (health, reason) = there.map_or((TargetHealth::Initial, None), |it| it.health(&group.spec));
                let everywhere = self.workers.iter().flat_map(|it| [it.servers.get(&checked), it.servers.get(&open)]);
                // What was not seen may be busy.
                let idle = there.is_some() && everywhere.flatten().all(|it| it.in_flight == 0);
                let answers = self.workers.first().into_iter().flat_map(|it| [it.answers(&checked), it.answers(&open)]);
                let answers = answers.fold(Answers::default(), Answers::plus);
                TargetSeen { health, reason, idle, answers: Some(answers) }
            };
            (name.clone(), group.targets.keys().map(|task| (task.clone(), target(task))).collect())
        };
        wanted.groups.iter().map(of_group).collect()
    }
}

impl Worker {
    fn answers(&self, at: &(String, String)) -> Answers {
        let answers = self.servers.get(at).map(|it| it.answers).unwrap_or_default();
        Answers { latency: self.latency.get(at).copied().unwrap_or_default(), ..answers }
    }
}

impl Server {
    fn is_shut(&self) -> bool {
        self.status.starts_with("MAINT")
    }

    fn health(&self, spec: &TargetGroupSpec) -> (TargetHealth, Option<String>) {
        let health = match self.status.split(' ').next() {
            Some("UP" | "DRAIN" | "no") => TargetHealth::Healthy,
            Some("DOWN") => TargetHealth::Unhealthy,
            // Also while its first checks fail, until they are too many.
            _ => TargetHealth::Initial,
        };
        let reason = if health == TargetHealth::Healthy { None } else { self.reason(spec.health_check.timeout.0) };
        (health, reason)
    }

    /// Why its last check was not good.
    fn reason(&self, timeout_s: u32) -> Option<String> {
        match self.check.trim_start_matches("* ") {
            "" | "UNK" | "INI" | "L4OK" | "L6OK" | "L7OK" | "L7OKC" => None,
            "L7STS" => Some(format!("HTTP {}", readable(&self.code))),
            "L7TOUT" => Some(format!("no answer within {timeout_s} s")),
            "L6TOUT" => Some(format!("no TLS within {timeout_s} s")),
            "L4TOUT" => Some(format!("no connection within {timeout_s} s")),
            "L7RSP" => Some("its answer is not HTTP".to_owned()),
            "L6RSP" => Some("it does not speak TLS".to_owned()),
            _ if !self.words.is_empty() => Some(readable(&self.words).to_lowercase()),
            "L4CON" => Some("no connection".to_owned()),
            other => Some(format!("check failed: {}", readable(other))),
        }
    }
}

/// Ports that somebody listens on, of `/proc/net/tcp` and `tcp6`.
pub fn listening(table: &str) -> BTreeSet<u16> {
    let port = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (local, _, state) = (words.next()?, words.next()?, words.next()?);
        (state == "0A").then(|| u16::from_str_radix(local.rsplit(':').next()?, 16).ok())?
    };
    table.lines().take(MAX_LINES).filter_map(port).collect()
}

fn of_line(columns: &[String], line: &str) -> Option<((String, String), Server)> {
    let fields = fields(line);
    let field = |name: &str| {
        let at = columns.iter().position(|column| column == name)?;
        fields.get(at).map(String::as_str)
    };
    let number = |name: &str| field(name).and_then(|text| text.parse::<u64>().ok());
    let text = |name: &str| field(name).unwrap_or_default().to_owned();
    let of_class = |class: &str| number(&format!("hrsp_{class}")).unwrap_or_default();
    let answered = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"].into_iter().map(of_class).fold(0, u64::saturating_add);
    // What was sent, and brought no answer that can be passed on.
    let (failed, lost) = (of_class("5xx"), number("eresp").unwrap_or_default());
    let server = Server {
        status: field("status")?.to_owned(),
        weight: u32::try_from(number("uweight").or_else(|| number("weight"))?).ok()?,
        in_flight: number("scur")?.saturating_add(number("qcur")?),
        check: text("check_status"),
        code: text("check_code"),
        words: text("last_chk"),
        address: text("addr"),
        answers: Answers {
            requests: answered.saturating_add(lost),
            errors: failed.saturating_add(lost),
            latency: Latency::default(),
        },
    };
    Some(((field("pxname")?.to_owned(), field("svname")?.to_owned()), server))
}

/// A line of CSV; quotes are doubled inside quotes.
fn fields(line: &str) -> Vec<String> {
    const MAX_FIELDS: usize = 200;
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut rest = line.chars().peekable();
    while let (Some(next), Some(field)) = (rest.next(), fields.last_mut()) {
        match next {
            '"' if quoted && rest.peek() == Some(&'"') => field.extend(rest.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => {
                if fields.len() >= MAX_FIELDS {
                    break;
                }
                fields.push(String::new());
            }
            other => field.push(other),
        }
    }
    fields
}

fn readable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_REASON_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted() -> Edge {
        let target = |port: u16, leaves: bool| json!({"address": "127.0.0.1", "port": port, "leaves": leaves});
        let targets = json!({"t1": target(1, false), "t2": target(2, false), "t3": target(3, true)});
        serde_json::from_value(json!({
            "nodeImage": "n",
            "balancers": {"lb": {"listeners": [{"name": "http", "port": 80, "defaultAction": {"forward": "a"}}]}},
            "forwards": {},
            "groups": {"a": {"spec": {"port": 80}, "targets": targets}},
        }))
        .unwrap()
    }

    /// Columns as HAProxy 2.6 has them, without those that are not read.
    const HEADER: &str = "# pxname,svname,qcur,scur,status,weight,check_status,check_code,last_chk,addr,uweight,";

    fn said(lines: &[&str]) -> String {
        let head = "--as-told\n--worker 7\n--forwards\n0x55d lb/http g.a\n\n--leaving\n0x55e t3 1\n\n--servers\n";
        format!("{head}{HEADER}\n{}\n\n--end\n", lines.join("\n"))
    }

    const GOOD: [&str; 6] = [
        "g.a,t1,0,0,UP 1/2,7,* L7OK,200,,127.0.0.1:1,100,",
        "g.a,t2,0,0,DOWN 1/2,100,L7STS,500,\"a, \"\"b\"\"\",127.0.0.1:2,100,",
        "g.a,t3,0,1,UP,0,L7OK,200,,127.0.0.1:3,0,",
        "g.a.open,t1,0,0,no check,100,,,,127.0.0.1:1,100,",
        "g.a.open,t2,1,0,no check,100,,,,127.0.0.1:2,100,",
        "g.a.open,t3,0,0,no check,0,,,,127.0.0.1:3,0,",
    ];

    #[test]
    fn what_it_says_is_read() {
        let seen = Seen::parse(&said(&GOOD));
        assert_eq!(seen.differs(&wanted()), None);
        let targets = &seen.targets(&wanted())["a"];
        let seen = |health, reason: Option<&str>, idle| TargetSeen {
            health,
            reason: reason.map(str::to_owned),
            idle,
            answers: Some(Answers::default()),
        };
        assert_eq!(targets["t1"], seen(TargetHealth::Healthy, None, true));
        assert_eq!(targets["t2"], seen(TargetHealth::Unhealthy, Some("HTTP 500"), false));
        assert_eq!(targets["t3"], seen(TargetHealth::Healthy, None, false));
    }

    #[test]
    fn a_former_worker_may_be_busy_still() {
        let old = format!("--worker 5\n--servers\n{HEADER}\ng.a,t1,0,3,UP,100,L7OK,200,,127.0.0.1:1,100,\n");
        let seen = Seen::parse(&(said(&GOOD) + &old));
        assert_eq!(seen.differs(&wanted()), None);
        assert!(!seen.targets(&wanted())["a"]["t1"].idle);
    }

    #[test]
    fn each_difference_is_seen() {
        let with = |at: usize, line: &str| {
            let mut lines = GOOD.to_vec();
            lines[at] = line;
            said(&lines)
        };
        let good = said(&GOOD);
        for (said, words) in [
            (String::new(), "its HAProxy is down"),
            (good.replace("--as-told\n", ""), "configuration was changed"),
            (good.replace("lb/http g.a", "lb/http g.b"), "forward to was changed"),
            (good.replace("0x55d lb/http g.a\n", ""), "forward to was changed"),
            (good.replace("0x55e t3 1\n", ""), "forward to was changed"),
            (with(0, "g.a,t1,0,0,UP,0,L7OK,200,,127.0.0.1:1,0,"), "target t1 of a"),
            (with(2, "g.a,t3,0,0,UP,100,L7OK,200,,127.0.0.1:3,100,"), "target t3 of a"),
            (with(1, "g.a,t2,0,0,UP,100,L7OK,200,,127.0.0.1:9,100,"), "target t2 of a"),
            (with(1, "g.a,t2,0,0,MAINT,100,L7OK,200,,127.0.0.1:2,100,"), "target t2 of a"),
            (with(4, ""), "target t2 of a"),
            (with(4, "g.a.open,t2,not,a,number"), "target t2 of a"),
            (good.replace("g.a,t1", "g.a,t9,0,0,UP,1,,,,127.0.0.1:9,1,\ng.a,t1"), "server g.a/t9 of others"),
        ] {
            let differs = Seen::parse(&said).differs(&wanted());
            assert!(differs.as_ref().is_some_and(|it| it.contains(words)), "{words}: {differs:?}");
        }
        let shut = good.replace("g.a,t1", "g.a,t9,0,0,MAINT,1,,,,127.0.0.1:9,1,\ng.a,t1");
        let seen = Seen::parse(&shut);
        assert_eq!((seen.differs(&wanted()), seen.remains(&wanted())), (None, vec!["g.a/t9".to_owned()]));
    }

    #[test]
    fn why_a_check_failed_is_said_in_words() {
        let spec: TargetGroupSpec = serde_json::from_value(json!({"port": 80})).unwrap();
        let server = |status: &str, check: &str, words: &str| Server {
            status: status.to_owned(),
            check: check.to_owned(),
            words: words.to_owned(),
            code: "503".to_owned(),
            ..Server::default()
        };
        for (status, check, words, health, reason) in [
            ("NOLB 1/2", "INI", "", TargetHealth::Initial, None),
            ("NOLB", "* L4CON", "Connection refused", TargetHealth::Initial, Some("connection refused")),
            ("MAINT", "", "", TargetHealth::Initial, None),
            ("DOWN", "L7STS", "", TargetHealth::Unhealthy, Some("HTTP 503")),
            ("DOWN", "L7TOUT", "", TargetHealth::Unhealthy, Some("no answer within 5 s")),
            ("DOWN", "L4TOUT", "", TargetHealth::Unhealthy, Some("no connection within 5 s")),
            ("DOWN", "L4CON", "", TargetHealth::Unhealthy, Some("no connection")),
            ("DOWN", "NEW\u{1b}", "", TargetHealth::Unhealthy, Some("check failed: NEW")),
            ("UP 1/2", "L7STS", "", TargetHealth::Healthy, None),
            ("no check", "", "", TargetHealth::Healthy, None),
        ] {
            let expected = (health, reason.map(str::to_owned));
            assert_eq!(server(status, check, words).health(&spec), expected, "{status} {check}");
        }
    }

    #[test]
    fn ports_that_are_listened_on() {
        let table = "  sl  local_address rem_address   st tx_queue\n   0: 00000000:0050 00000000:0000 0A 0\n   1: 0100007F:1F90 0100007F:D431 01 0\n   2: 00000000000000000000000000000000:01BB 0:0 0A 0\n";
        assert_eq!(listening(table), BTreeSet::from([80, 443]));
        assert_eq!(listening("hostile: x:y z 0A\n a b:fffff c 0A\n"), BTreeSet::new());
    }
}
