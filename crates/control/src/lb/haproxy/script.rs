//! What the container of the load balancers is told, as shell scripts. It has a shell, `cat`, `mv`, `rm`, `mkdir`, `sleep`
//! and `socat`.

use std::{collections::BTreeMap, fmt::Write};

use roadstead_core::model::traffic::Edge;

use super::{
    FOLDER, RUN,
    certificates::{self, Pems},
    config::{challenges, file, forwards, leaving, render},
    runtime,
};

/// No line of any file can be this.
const END: &str = "--end-of-this-file-of-roadstead--";

/// What runs when the container starts: HAProxy, for as long as there is a configuration on disk, and again when it ends.
pub const BOOT: &str = r#"
mkdir -p /run/roadstead-lb
cd /var/lib/roadstead-lb || exit 1
trap 'kill $! 2>/dev/null; exit 0' TERM INT
while :; do
  if [ -f haproxy.cfg ]; then
    # What is told is compared with what is on disk.
    cat haproxy.cfg >/run/roadstead-lb/haproxy.cfg
    haproxy -W -S /run/roadstead-lb/master.sock,mode,600 -f haproxy.cfg &
    wait $!
  fi
  sleep 0.2 & wait $!
done
"#;

/// Workers, the one in charge first, and how to tell one of them something.
const TOOLS: &str = r#"
master() { socat -t 20 - unix:/run/roadstead-lb/master.sock; }
workers() {
  echo 'show proc' | master 2>/dev/null | while read -r pid type rest; do
    if [ "$type" = worker ]; then echo "$pid"; fi
  done
}
tell() { { echo prompt; echo "@!$1"; cat; } | master; }
ask() { echo "@!$1 $2" | master; }
# swap PID MAP: every entry of it at once, from the lines of its file.
swap() {
  version=$(ask "$1" "prepare map $2")
  version=${version##*: }
  version=${version%%[!0-9]*}
  { while read -r key value; do echo "add map @$version $2 $key $value"; done <"$2"; echo "commit map @$version $2"; } | tell "$1"
}
"#;

/// How long answers took: a table of all targets, which is read while somebody counts.
const TOOK: &str = "echo --took\n  ask $pid 'show table took'";

/// Prints what [`super::stats::Seen`] reads.
const LOOK: &str = r#"
if [ "$(cat haproxy.cfg 2>/dev/null)" = "$(cat /run/roadstead-lb/haproxy.cfg 2>/dev/null)" ]; then echo --as-told; fi
for pid in $(workers); do
  echo "--worker $pid"
  echo --forwards
  ask $pid "show map /var/lib/roadstead-lb/forwards.map"
  echo --leaving
  ask $pid "show map /var/lib/roadstead-lb/leaving.map"
  echo --challenges
  ask $pid "show map /var/lib/roadstead-lb/challenges.map"
  set -- certs/*.pem
  if [ -f "$1" ]; then
    echo --certificates
    { for it in "$@"; do echo "show ssl cert $PWD/$it"; done; } | tell $pid
    # A prompt has no end of line.
    echo
  fi
  set -- certs/*.list
  if [ -f "$1" ]; then
    echo --lists
    { for it in "$@"; do echo "show ssl crt-list $PWD/$it"; done; } | tell $pid
    echo
  fi
  echo --servers
  ask $pid "show stat -1 4 -1"
  TOOK
done
echo --end
"#;

/// Health outlives a restart.
const KEEP_STATE: &str = r#"
if echo 'show servers state' | socat -t 20 - unix:/run/roadstead-lb/admin.sock >state.new 2>/dev/null; then mv state.new state; fi
"#;

fn read_back(counts: bool) -> String {
    LOOK.replace("TOOK", if counts { TOOK } else { ":" })
}

/// A look; with `counts` also at how long answers took.
pub fn look(remains: &[String], counts: bool) -> String {
    let mut script = begin();
    if !remains.is_empty() {
        let again: Vec<String> = remains.iter().flat_map(|server| runtime::remove_server(server)).collect();
        script += &to_all(&again);
    }
    format!("{script}{}{KEEP_STATE}", read_back(counts))
}

/// Prints what a reload must know: a look, `--ports`: the host's sockets, `--state`: the servers. Fails when HAProxy would not
/// take it, with its words.
pub fn prepare(wanted: &Edge, pems: &Pems) -> String {
    let mut script = begin();
    script += &certificates::write(wanted, pems);
    script += &write("haproxy.cfg.new", &render(wanted));
    script + &PREPARE.replace("LISTS_BACK", certificates::BACK) + &read_back(false) + SOCKETS
}

const PREPARE: &str = r#"
for map in forwards leaving challenges; do if [ ! -f $map.map ]; then : >$map.map; fi; done
if [ ! -f state ]; then echo 1 >state; fi
said=$(haproxy -c -f haproxy.cfg.new 2>&1) || { LISTS_BACK; echo "$said"; exit 1; }
if [ -f haproxy.cfg ] && [ "$(cat haproxy.cfg)" = "$(cat haproxy.cfg.new)" ]; then echo --on-disk; fi
"#;

const SOCKETS: &str = r#"
echo --ports
cat /proc/net/tcp
if [ -e /proc/net/tcp6 ]; then cat /proc/net/tcp6; fi
echo --state
echo 'show servers state' | socat -t 20 - unix:/run/roadstead-lb/admin.sock 2>/dev/null || true
"#;

/// What [`prepare`] left comes into force, and begins with these states. When it does not, what was on disk before is there
/// again.
pub fn reload(wanted: &Edge, states: &str) -> String {
    let mut script = begin();
    script += &write("state.new", states);
    script += &write("forwards.map.new", &file(&forwards(wanted)));
    script += &write("leaving.map.new", &file(&leaving(wanted)));
    script += &write("challenges.map.new", &file(&challenges(wanted)));
    script += &RELOAD.replace("LISTS_BACK", certificates::BACK);
    script += certificates::STAY;
    script += &certificates::tidy(wanted);
    script += &read_back(false);
    script
}

const RELOAD: &str = r#"
before=$(workers | { read -r pid && echo "$pid"; } || true)
mv state.new state
for name in haproxy.cfg forwards.map leaving.map challenges.map; do
  if [ -f $name ]; then cat $name >$name.old; fi
  mv $name.new $name
done
cat haproxy.cfg >/run/roadstead-lb/haproxy.cfg
back() {
  for name in haproxy.cfg forwards.map leaving.map challenges.map; do
    if [ -f $name.old ]; then mv $name.old $name; else rm -f $name; fi
  done
  if [ -f haproxy.cfg ]; then cat haproxy.cfg >/run/roadstead-lb/haproxy.cfg; fi
  LISTS_BACK
  echo "$1"
  exit 1
}
failures() { failed=$(echo 'show proc' | master 2>/dev/null || true); case $failed in *'failed: '*) failed=${failed#*failed: }; echo "${failed%%]*}" ;; esac; }
failed_before=$(failures)
if [ -n "$before" ]; then echo reload | master >/dev/null; fi
tries=0
while :; do
  now=$(workers | { read -r pid && echo "$pid"; } || true)
  if [ -n "$now" ] && [ "$now" != "$before" ]; then break; fi
  failed=$(failures)
  if [ -n "$failed" ] && [ "$failed" -gt "${failed_before:-0}" ]; then
    back 'HAProxy did not start anew: what runs goes on (its words: docker logs rs-lb)'
  fi
  tries=$((tries + 1))
  if [ $tries -gt 150 ]; then back 'HAProxy did not start within 15 s (its words: docker logs rs-lb)'; fi
  sleep 0.1
done
rm -f haproxy.cfg.old forwards.map.old leaving.map.old challenges.map.old
"#;

/// From `was`, which is in force, to `wanted` without a reload.
pub fn change(was: &Edge, wanted: &Edge, pems: &Pems, first: &[String], last: &[String]) -> String {
    let mut script = begin();
    let mut swaps = String::new();
    if first.is_empty() {
        script += &at_once(&forwards(was), &forwards(wanted));
    }
    for (name, before, map) in [
        ("forwards", forwards(was), forwards(wanted)),
        ("leaving", leaving(was), leaving(wanted)),
        ("challenges", challenges(was), challenges(wanted)),
    ] {
        if before != map {
            script += &write(&format!("{name}.map.new"), &file(&map));
            let _ = writeln!(script, "mv {name}.map.new {name}.map");
            let _ = writeln!(swaps, "  swap $pid {FOLDER}/{name}.map");
        }
    }
    if !first.is_empty() || !last.is_empty() {
        script += &write("haproxy.cfg.new", &render(wanted));
        script += &format!("mv haproxy.cfg.new haproxy.cfg\ncat haproxy.cfg >{RUN}/haproxy.cfg\n");
    }
    script += &certificates::swap(was, wanted, pems);
    script += &to_all(first);
    if !swaps.is_empty() {
        let _ = write!(script, "for pid in $(workers); do\n{swaps}done >/dev/null\n");
    }
    script += &to_all(last);
    script += &read_back(false);
    script
}

/// One rule that turns elsewhere, as deployments have it, is told before all else, in one step: so edges turn nearly together.
fn at_once(before: &BTreeMap<String, String>, map: &BTreeMap<String, String>) -> String {
    let mut turned = map.iter().filter(|(key, value)| before.get(*key) != Some(value));
    match (turned.next(), turned.next()) {
        (Some((key, value)), None) if before.keys().eq(map.keys()) => format!(
            "echo 'set map {FOLDER}/forwards.map {key} {value}' | socat - unix:{RUN}/admin.sock >/dev/null 2>&1 || true\n"
        ),
        (_, _) => String::new(),
    }
}

/// Each worker is told; that a former one does not know a server is no harm. What came of it is read back.
fn to_all(commands: &[String]) -> String {
    if commands.is_empty() {
        return String::new();
    }
    let commands = commands.iter().fold(String::new(), |text, command| text + command + "\n");
    format!(
        "cat >{RUN}/commands <<'{END}'\n{commands}{END}\n\
         for pid in $(workers); do tell $pid <{RUN}/commands; done >/dev/null\n"
    )
}

fn begin() -> String {
    format!("cd {FOLDER}\n{TOOLS}")
}

/// A file of the folder.
pub(super) fn write(name: &str, content: &str) -> String {
    format!("cat >{name} <<'{END}'\n{content}{END}\n")
}
