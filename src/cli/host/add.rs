//! `host add`: whose key is this, is the machine fit, and then its manifest.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, IsTerminal, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;

use super::{
    check::examine_all,
    checks::{Findings, duplicate, examine, login_advice, print},
    folder,
    manifest::{NewHost, name_from, write_new},
};
use crate::{
    api::view::ZONE_LABEL,
    cli::{Context, failure::Failure, text::name_value},
};
use roadstead_control::{
    control::connect::{self, Connection, LOCAL_ADDRESS},
    engine::{DockerEngine, Limits},
    host::{Destination, LocalTransport, ScannedHostKey, SshTarget, SshTransport, Transport, resolve, scan_host_keys},
};
use roadstead_core::{
    manifest as manifests,
    model::{desired::Desired, name::HostName, observed::EngineIdentity, spec::host::SshSpec},
};

/// Where the engine listens unless a manifest says otherwise.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";
const SCAN_DEADLINE: Duration = Duration::from_secs(20);

#[derive(Args)]
#[command(after_help = "\
Examples:
  roadstead host add root@192.0.2.11 --zone a --manifests fleet
  roadstead host add admin@box-b:2222 --identity ~/.ssh/fleet --label disk=ssd
  roadstead host add root@192.0.2.12 --fingerprint SHA256:… -y      from a script
  roadstead host add local                                         this machine itself

Compare the fingerprint with what the machine itself says:
  ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")]
pub(in crate::cli) struct Options {
    /// [user@]address[:port], a name of ~/.ssh/config, or `local`
    target: String,
    /// The host's name; from the machine's own when absent
    #[arg(long)]
    name: Option<String>,
    /// Its zone, over which services spread
    #[arg(long)]
    zone: Option<String>,
    /// A label, such as disk=ssd; may be given several times
    #[arg(long = "label", value_parser = name_value, value_name = "NAME=VALUE")]
    labels: Vec<(String, String)>,
    /// The private key; without it ~/.ssh/config and the agent are asked
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// The fingerprint that you know to be right: SHA256:…
    #[arg(long, value_name = "SHA256:…")]
    fingerprint: Option<String>,
    /// The directory of manifests; the running controller's when absent
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    manifests: Option<PathBuf>,
    /// Write exactly this file
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Do not ask: take the fingerprint as it is (only on a network that you trust)
    #[arg(short, long)]
    yes: bool,
    /// Write the manifest although a check failed
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(context: &Context, options: Options) -> Result<(), Failure> {
    let root = match &options.file {
        Some(file) => {
            file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
        }
        None => folder::locate(context, options.manifests.as_deref()).await?,
    };
    let tree = folder::read(&root)?;
    let desired = folder::admit(&tree).desired;
    let (connection, address, ssh) = connect(context, &options, &desired).await?;
    context.printer.notice("checking the machine …");
    let mut findings = examine(&connection).await;
    connection.transport.close().await;
    if let Some(identity) = findings.identity.clone() {
        findings.checks.push(duplicate(&identity, &identities(&desired).await));
    }
    context.printer.notice(&print(&context.printer, &options.target, &findings.checks));
    if !findings.ok() && !options.force {
        return Err(Failure::failed("the machine is not fit to be a host; nothing was written")
            .hint("mend what is marked ✗ and try again, or add --force"));
    }
    let name = name(&options, &address, &findings)?;
    let mut labels: BTreeMap<String, String> = options.labels.iter().cloned().collect();
    labels.extend(options.zone.iter().map(|zone| (ZONE_LABEL.to_owned(), zone.clone())));
    let host = NewHost { name: name.clone(), labels, address, cluster: context.cluster.clone(), ssh };
    let path = options.file.clone().unwrap_or_else(|| root.join("hosts").join(format!("{name}.yaml")));
    let inside = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
    let text = host.text();
    let (_, errors) = folder::judge(&tree, &inside, &text);
    if !errors.is_empty() {
        return Err(Failure::failed(manifests::render(&errors, false).trim_end()));
    }
    write_new(&path, &text).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::failed(format!("{} exists already and was left alone", path.display()))
                .hint("choose another name with --name, or remove the file")
        }
        _ => Failure::failed(format!("cannot write {}: {error}", path.display())),
    })?;
    context.printer.line(&path.display().to_string())?;
    context
        .printer
        .notice(&format!("host {name} is declared; a controller that watches {} uses it now", root.display()));
    Ok(())
}

/// A connection whose key a person vouched for.
async fn connect(
    context: &Context,
    options: &Options,
    desired: &Desired,
) -> Result<(Connection, String, Option<SshSpec>), Failure> {
    if options.target == LOCAL_ADDRESS {
        return Ok((engine_over(Arc::new(LocalTransport::new())), LOCAL_ADDRESS.to_owned(), None));
    }
    let mut target = resolve(&options.target).await.map_err(Failure::not_tried)?;
    if let Some(file) = &options.identity {
        let file = file
            .canonicalize()
            .map_err(|error| Failure::not_tried(format!("cannot read the key {}: {error}", file.display())))?;
        target.identity_file = Some(file);
    }
    refuse_known(&options.target, &target, desired)?;
    let keys = scan_host_keys(&target, SCAN_DEADLINE)
        .await
        .map_err(|error| Failure::failed(&error).hint(login_advice(&error)))?;
    target.host_keys = vec![vouched(context, options, &target, keys)?];
    target.known_hosts = Vec::new();
    let (address, ssh) = connect::manifest_for(&options.target, &target, desired).await.map_err(Failure::not_tried)?;
    // What is checked is what the controller will make of the manifest.
    let target = connect::target(&address, &ssh, desired).await.map_err(Failure::not_tried)?;
    Ok((engine_over(Arc::new(SshTransport::new(target, 0))), address, Some(ssh)))
}

fn engine_over(transport: Arc<dyn Transport>) -> Connection {
    let engine = Arc::new(DockerEngine::new(Arc::clone(&transport), PathBuf::from(DOCKER_SOCKET), Limits::default()));
    Connection { transport, engine, network: None, edge: None }
}

fn refuse_known(typed: &str, target: &SshTarget, desired: &Desired) -> Result<(), Failure> {
    let (alias, jump) = (Destination::parse(typed).map_err(Failure::not_tried)?.host, connect::proxy_jump(target));
    let known = desired.hosts.iter().find(|(_, host)| {
        let (spec, ssh) = (&host.spec, &host.spec.ssh);
        let by_address = spec.address == target.address && ssh.proxy_jump == jump;
        // By the name of ~/.ssh/config that both give.
        let by_alias = spec.address == alias && alias != target.address;
        (by_address || by_alias) && ssh.port.unwrap_or(22) == target.port
    });
    match known {
        Some((name, host)) => {
            Err(Failure::failed(format!("{} is declared already: host {name} in {}", target.name(), host.file))
                .hint(format!("`roadstead host check {name}` looks at it")))
        }
        None => Ok(()),
    }
}

/// The key that is trusted from now on.
fn vouched(
    context: &Context,
    options: &Options,
    target: &SshTarget,
    keys: Vec<ScannedHostKey>,
) -> Result<String, Failure> {
    if let Some(known) = &options.fingerprint {
        let shown: Vec<&str> = keys.iter().map(|key| key.fingerprint.as_str()).collect();
        let refused = Failure::failed(format!("{} presents {}, not {known}", target.name(), shown.join(" and ")))
            .hint("this is another machine than you think, or somebody is in between; nothing was sent");
        return keys.iter().find(|key| key.fingerprint == *known).map(|key| key.key.clone()).ok_or(refused);
    }
    let Some(key) = keys.into_iter().next() else {
        return Err(Failure::failed(format!("{} presents no key", target.name())));
    };
    let kind = key.key.split_whitespace().next().unwrap_or_default().to_owned();
    context.printer.notice(&format!("{} presents this {kind} key:\n  {}\nOn the machine itself, `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` prints the same, if it is the right one.", target.name(), key.fingerprint));
    if options.yes {
        return Ok(key.key);
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::not_tried("nobody is here to compare the fingerprint")
            .hint("find it out on the machine itself, then give it: --fingerprint SHA256:…"));
    }
    match ask("Is it the same? [y/N] ")? {
        true => Ok(key.key),
        false => Err(Failure::failed("the key was not accepted; nothing was written")),
    }
}

fn ask(question: &str) -> Result<bool, Failure> {
    let mut out = io::stderr().lock();
    out.write_all(question.as_bytes())?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(Failure::not_tried)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Who the declared hosts are, as far as they answer.
async fn identities(desired: &Desired) -> Vec<(HostName, EngineIdentity)> {
    let names: Vec<&HostName> = desired.hosts.keys().collect();
    let found = examine_all(desired, &names).await;
    found.into_iter().filter_map(|(name, findings)| Some((name, findings.identity?))).collect()
}

fn name(options: &Options, address: &str, findings: &Findings) -> Result<String, Failure> {
    if let Some(name) = &options.name {
        return Ok(name.clone());
    }
    let by_address =
        (address.parse::<IpAddr>().is_err() && address != LOCAL_ADDRESS).then(|| name_from(address)).flatten();
    let by_machine = || findings.hostname.as_deref().and_then(name_from);
    by_address
        .or_else(by_machine)
        .ok_or_else(|| Failure::not_tried("the machine does not say its name").hint("give one with --name"))
}
