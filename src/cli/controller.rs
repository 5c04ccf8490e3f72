//! `controller`: runs until it is told to stop; everything on the hosts goes on without it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing_subscriber::EnvFilter;

use super::{Context, endpoint::Endpoint, failure::Failure};
use crate::api::{self, ListenTarget, Token};
use roadstead_control::{control, net::NodeImage};

#[derive(Args)]
#[command(after_help = "\
Examples:
  roadstead controller --manifests fleet --data /var/lib/roadstead
  ROADSTEAD_TOKEN=… roadstead controller --manifests fleet --data state --listen 127.0.0.1:7433

SIGTERM and SIGINT stop it; containers go on. RUST_LOG chooses what is logged: RUST_LOG=roadstead=debug.")]
pub(super) struct Options {
    /// The directory of manifests
    #[arg(long, value_name = "DIR", required_unless_present = "git")]
    manifests: Option<PathBuf>,
    /// A git repository of manifests (not in this version)
    #[arg(long, value_name = "URL", conflicts_with = "manifests", hide = true)]
    git: Option<String>,
    /// Where the database is kept
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// unix:PATH or ADDRESS:PORT (then with a token); may be given several times
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<ListenTarget>,
    /// The key that marks this fleet's containers, when it is not in the data directory
    #[arg(long, value_name = "FILE")]
    fleet_key: Option<PathBuf>,
    /// The key that private keys in the database are sealed with; without it systemd's credential `roadstead-seal-key`, else a
    /// file beside the data directory, made when it is first needed
    #[arg(long, value_name = "FILE")]
    seal_key: Option<PathBuf>,
    /// An archive of the node image (deploy/node-image/build), sent to hosts that have no registry to pull it from; `{arch}` in
    /// the path stands for amd64 or arm64
    #[arg(long, value_name = "FILE", env = "ROADSTEAD_NODE_IMAGE")]
    node_image: Option<PathBuf>,
    /// Take over hosts that another controller drove; that one must not run any more
    #[arg(long)]
    take_over: bool,
    /// How the log is written to standard error
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    #[default]
    Text,
    Json,
}

pub(super) fn run(context: &Context, options: Options) -> Result<(), Failure> {
    let manifests = match (&options.manifests, &options.git) {
        (Some(manifests), _) => manifests.clone(),
        (None, _) => {
            return Err(Failure::not_tried("--git is not in this version")
                .hint("clone the repository and give its directory with --manifests"));
        }
    };
    if !manifests.is_dir() {
        return Err(Failure::not_tried(format!("{} is not a directory", manifests.display()))
            .hint(format!("`roadstead init {}` makes one to begin with", manifests.display())));
    }
    let manifests = manifests.canonicalize().map_err(Failure::not_tried)?;
    log(context, options.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::not_tried)?;
    let ended = runtime.block_on(control(context, manifests, options));
    runtime.shutdown_background();
    ended
}

fn log(context: &Context, format: LogFormat) {
    let default = if context.verbose { "warn,roadstead=debug" } else { "warn,roadstead=info" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    // Below info it prints the bodies of requests, and so the environment of containers.
    let filter = "bollard=info".parse().map_or_else(|_| EnvFilter::new(default), |cap| filter.add_directive(cap));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(context.printer.error_colour());
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

async fn control(context: &Context, manifests: PathBuf, options: Options) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    stop_on_signals(&stop)?;
    let token = match &context.token {
        Some(token) => Some(Token::new(token).map_err(Failure::not_tried)?),
        None => None,
    };
    let targets = match options.listen.is_empty() {
        true => vec![default_listen()],
        false => options.listen,
    };
    let mut bound = Vec::new();
    for target in targets {
        // Who may open the socket needs no token.
        let token = matches!(target, ListenTarget::Tcp(_)).then(|| token.clone()).flatten();
        bound.push(api::bind(target, token).await.map_err(Failure::not_tried)?);
    }
    let settings = control::Options {
        manifests,
        data: options.data,
        fleet_key: options.fleet_key,
        seal_key: options.seal_key,
        take_over: options.take_over,
        node_image: NodeImage(options.node_image),
    };
    let running = control::start(settings, stop.clone()).await.map_err(Failure::not_tried)?;
    let servers = TaskTracker::new();
    for bound in bound {
        servers.spawn(bound.serve(running.handle.clone(), stop.clone()));
    }
    servers.close();
    let ended = running.stopped().await;
    // It may have stopped by itself.
    stop.cancel();
    servers.wait().await;
    ended.map_err(Failure::failed)
}

fn default_listen() -> ListenTarget {
    match Endpoint::default() {
        Endpoint::Unix(path) => ListenTarget::Unix(path),
        Endpoint::Tcp(_) => ListenTarget::Unix("/run/roadstead/roadstead.sock".into()),
    }
}

/// The first signal asks for an orderly stop, the second ends the process at once.
fn stop_on_signals(stop: &CancellationToken) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::not_tried)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::not_tried)?;
    let stop = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.is_cancelled() {
                tracing::warn!("a second signal: ending at once");
                std::process::exit(1);
            }
            tracing::info!("stopping; containers go on");
            stop.cancel();
        }
    });
    Ok(())
}
