//! `volume`: where the data of tasks is, and its way to another host.

use std::time::Duration;

use aws_lc_rs::digest;
use clap::{Args, Subcommand};
use futures_util::StreamExt;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio_util::io::ReaderStream;

use super::{
    Context, archive,
    client::path,
    failure::Failure,
    get::now,
    printer::Format,
    rows::Row,
    table::{Cell, Column, Table, column, sparse, wide},
    text::{age, clean},
};
use crate::api::{
    routes::Restoring,
    view::{
        Items,
        volume::{VolumeStatus, VolumeView},
        word,
    },
};
use roadstead_core::turn::Command;
use roadstead_core::{
    model::{hex::hex, spec::cluster::DEFAULT_CLUSTER, time::Timestamp, volume::VolumeId},
    plan::absorb::VolumeVerb,
};

#[derive(Subcommand)]
pub(super) enum VolumeCommand {
    /// List the volumes that have one place
    Ls,
    /// Stop what uses a volume, copy it to another host, compare, and start there
    Move(MoveOptions),
    /// Write what is in a volume as a tar archive
    Backup(BackupOptions),
    /// Put an archive that `backup` wrote back into its volume: what uses it stops meanwhile
    Restore(RestoreOptions),
    /// Say on which host the data of a volume is, when nobody knows, or that it is to be there
    Pin(PinOptions),
    /// Let a volume have no place any more: its data stays where it is, and the next task begins anywhere
    Forget(OfVolume),
}

#[derive(Args)]
pub(super) struct OfVolume {
    /// The volume
    #[arg(value_name = "VOLUME")]
    name: String,
}

#[derive(Args)]
#[command(after_help = "\
Nothing is removed where the volume was until a task is healthy where it is.
Exit status: 0 it is there, or --no-wait; 1 it stays where it was, or was not there in time.")]
pub(super) struct MoveOptions {
    #[command(flatten)]
    of: OfVolume,
    /// The other host
    #[arg(long, value_name = "HOST", required_unless_present = "cancel")]
    to: Option<String>,
    /// It stays where it is
    #[arg(long, conflicts_with = "to")]
    cancel: bool,
    /// Do not wait until it is there
    #[arg(long)]
    no_wait: bool,
    /// Wait no longer than so many seconds; it goes on
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    timeout: u64,
}

#[derive(Args)]
#[command(after_help = "\
A task that writes meanwhile makes it what a crash at that moment would leave; scale its service to 0 first when that is
not enough. The archive holds the folder `volume/`; `roadstead volume restore` puts it back.")]
pub(super) struct BackupOptions {
    #[command(flatten)]
    of: OfVolume,
    /// The archive, which must not be there yet; `-`: standard output
    #[arg(short, long, value_name = "FILE")]
    file: std::path::PathBuf,
}

#[derive(Args)]
#[command(after_help = "\
The archive is read to its end first, then put beside the volume on its host, read back there and compared. Nothing is touched
before that. Then what uses the volume stops, the archive's content takes the place of all that is in it, and it starts again.
Exit status: 0 it is restored, or --no-wait; 1 it is as it was, or it was not restored in time.")]
pub(super) struct RestoreOptions {
    #[command(flatten)]
    of: OfVolume,
    /// The archive
    #[arg(short, long, value_name = "FILE")]
    file: std::path::PathBuf,
    /// Do not wait until it is restored
    #[arg(long)]
    no_wait: bool,
    /// Wait no longer than so many seconds; it goes on
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    timeout: u64,
}

#[derive(Args)]
pub(super) struct PinOptions {
    #[command(flatten)]
    of: OfVolume,
    /// The host
    #[arg(long, value_name = "HOST")]
    host: String,
}

impl OfVolume {
    fn id(&self, context: &Context) -> VolumeId {
        let cluster = context.cluster.as_deref().unwrap_or(DEFAULT_CLUSTER);
        let name = self.name.strip_prefix("volume/").unwrap_or(&self.name);
        VolumeId { cluster: cluster.into(), name: name.to_owned() }
    }
}

pub(super) async fn run(context: &Context, command: VolumeCommand) -> Result<(), Failure> {
    match command {
        VolumeCommand::Ls => list(context).await,
        VolumeCommand::Backup(options) => backup(context, options).await,
        VolumeCommand::Restore(options) => restore(context, options).await,
        VolumeCommand::Move(options) => move_to(context, options).await,
        VolumeCommand::Pin(options) => {
            let verb = VolumeVerb::Pin { host: options.host.as_str().into() };
            context.printer.line(&say(context, options.of.id(context), verb).await?)
        }
        VolumeCommand::Forget(of) => context.printer.line(&say(context, of.id(context), VolumeVerb::Forget).await?),
    }
}

async fn say(context: &Context, volume: VolumeId, verb: VolumeVerb) -> Result<String, Failure> {
    let said = context.client.command(&Command::Volume { volume, verb }).await?;
    Ok(clean(&said).into_owned())
}

async fn volumes(context: &Context) -> Result<Vec<VolumeView>, Failure> {
    context.client.list(&path(&["volumes"], &[("cluster", context.cluster.as_deref())])).await
}

async fn list(context: &Context) -> Result<(), Failure> {
    let items = volumes(context).await?;
    if context.printer.is_document() {
        return context.printer.document(&Items { items });
    }
    if context.printer.format == Format::Name {
        return items.iter().try_for_each(|volume| context.printer.line(&volume.name()));
    }
    if items.is_empty() {
        context.printer.notice("no volume has a place yet: a task that works alone on a shared volume gives it one");
        return Ok(());
    }
    let cells: Vec<_> = items.iter().map(|volume| volume.cells(now())).collect();
    let wide = context.printer.format == Format::Wide;
    context.printer.line(&Table::whole(VolumeView::COLUMNS, wide, &cells, &context.printer))
}

async fn backup(context: &Context, options: BackupOptions) -> Result<(), Failure> {
    let id = options.of.id(context);
    let route = path(&["volumes", &id.name, "content"], &[("cluster", Some(id.cluster.as_str()))]);
    if options.file.as_os_str() == "-" {
        let mut out = tokio::io::stdout();
        let done = write(context, &route, &mut out).await?;
        context.printer.notice(&done);
        return Ok(());
    }
    let file = options.file.display().to_string();
    let cannot = |error: std::io::Error| Failure::failed(format!("cannot write {file}: {error}"));
    let mut out = tokio::fs::File::create_new(&options.file).await.map_err(cannot)?;
    let written = write(context, &route, &mut out).await;
    let synced = match written {
        Ok(done) => out.sync_all().await.map(|()| done).map_err(cannot),
        Err(failure) => Err(failure),
    };
    if synced.is_err() {
        // A part of an archive is none.
        let _ = tokio::fs::remove_file(&options.file).await;
    }
    context.printer.line(&format!("{file}: {}", synced?))
}

/// Writes all of it, saying on the way how much that is.
async fn write(context: &Context, route: &str, out: &mut (impl AsyncWrite + Unpin)) -> Result<String, Failure> {
    let mut pieces = Box::pin(context.client.bytes(route).await?);
    let (mut sum, mut bytes, mut told) = (digest::Context::new(&digest::SHA256), 0_u64, 0);
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        sum.update(&piece);
        bytes += piece.len() as u64;
        out.write_all(&piece).await.map_err(Failure::failed)?;
        if bytes - told >= TOLD_EVERY_BYTES {
            told = bytes;
            context.printer.notice(&format!("{} MiB", bytes >> 20));
        }
    }
    out.flush().await.map_err(Failure::failed)?;
    let sum = hex(sum.finish().as_ref());
    Ok(format!("{bytes} bytes, sha256 {sum}"))
}

const TOLD_EVERY_BYTES: u64 = 64 << 20;

async fn move_to(context: &Context, options: MoveOptions) -> Result<(), Failure> {
    let id = options.of.id(context);
    let Some(to) = options.to else {
        return context.printer.line(&say(context, id, VolumeVerb::CancelMove).await?);
    };
    let said = say(context, id.clone(), VolumeVerb::Move { to: to.as_str().into() }).await?;
    if options.no_wait {
        return context.printer.line(&said);
    }
    context.printer.notice(&said);
    let waited = tokio::time::timeout(Duration::from_secs(options.timeout), arrived(context, &id)).await;
    let volume = waited.map_err(|_| {
        Failure::failed(format!("volume {} was not on {to} within {} s", id.name, options.timeout))
            .hint("`roadstead volume ls` shows how far it is; it goes on")
    })??;
    if volume.host.as_str() != to {
        return Err(Failure::failed(format!("volume {} stays on {}", id.name, volume.host))
            .hint(format!("`roadstead why {}` and `roadstead events` say why", volume.service)));
    }
    context.printer.line(&format!("volume {} is on {to}", clean(&id.name)))
}

async fn restore(context: &Context, options: RestoreOptions) -> Result<(), Failure> {
    let id = options.of.id(context);
    let file = options.file.display().to_string();
    let cannot = |error: std::io::Error| Failure::not_tried(format!("cannot read {file}: {error}"));
    let archive = std::fs::File::open(&options.file).map_err(cannot)?;
    let checked = archive::check(std::io::BufReader::with_capacity(1 << 20, archive)).map_err(|reason| {
        Failure::failed(format!("{file} is no archive of a volume: {reason}"))
            .hint("`roadstead volume backup` writes one")
    })?;
    let what = format!("{} bytes, sha256 {}", checked.bytes, checked.sha256);
    context.printer.notice(&format!("{file}: {what}"));
    let before = of(context, &id).await?.restored_at;
    let route = path(&["volumes", &id.name, "content"], &[("cluster", Some(id.cluster.as_str()))]);
    let pieces = ReaderStream::with_capacity(tokio::fs::File::open(&options.file).await.map_err(cannot)?, 1 << 18);
    let answer: Restoring = context.client.upload(&route, pieces).await?;
    if answer.sha256 != checked.sha256 {
        context
            .printer
            .notice(&format!("{file} changed meanwhile: what is restored has sha256 {}", clean(&answer.sha256)));
    }
    let said = clean(&answer.message).into_owned();
    if options.no_wait {
        return context.printer.line(&said);
    }
    context.printer.notice(&said);
    let waited = tokio::time::timeout(Duration::from_secs(options.timeout), arrived(context, &id)).await;
    let volume = waited.map_err(|_| {
        Failure::failed(format!("volume {} was not restored within {} s", id.name, options.timeout))
            .hint("`roadstead volume ls` shows how far it is; it goes on")
    })??;
    if volume.restored_at == before {
        return Err(Failure::failed(format!("volume {} was not restored", id.name)).hint("`roadstead events` says why"));
    }
    context.printer.line(&format!("volume {} on {} is restored: {what}", clean(&id.name), volume.host))
}

async fn of(context: &Context, id: &VolumeId) -> Result<VolumeView, Failure> {
    let all = volumes(context).await?;
    let found = all.into_iter().find(|view| view.name == id.name && view.cluster == id.cluster.as_str());
    found.ok_or_else(|| Failure::failed(format!("volume {} has no place", id.name)))
}

/// Until it does not move any more; says on the way how far it is.
async fn arrived(context: &Context, id: &VolumeId) -> Result<VolumeView, Failure> {
    let mut changes = Box::pin(context.client.changes().await?);
    let mut said = String::new();
    loop {
        let volume = of(context, id).await?;
        match volume.status {
            VolumeStatus::Moving | VolumeStatus::Restoring => {
                let words = progress(&volume);
                if words != said {
                    context.printer.notice(&words);
                    said = words;
                }
            }
            VolumeStatus::Available | VolumeStatus::InUse => return Ok(volume),
        }
        // A copy's progress changes nothing that is durable.
        match tokio::time::timeout(PROGRESS_EVERY, changes.next()).await {
            Ok(Some(change)) => change?,
            Ok(None) => return Err(Failure::not_tried("the controller stopped; it goes on when that is back")),
            Err(_) => {}
        }
    }
}

const PROGRESS_EVERY: Duration = Duration::from_secs(2);

fn progress(volume: &VolumeView) -> String {
    match (volume.copied_bytes, volume.used_by.first()) {
        (Some(bytes), _) => format!("{:.1} MiB there and back", bytes as f64 / f64::from(1 << 20)),
        (None, Some(task)) => format!("task {task} ends"),
        (None, None) => "it is about to be copied".to_owned(),
    }
}

impl Row for VolumeView {
    const COLUMNS: &'static [Column] = &[
        column("NAME"),
        column("STATUS"),
        column("HOST"),
        column("SERVICE"),
        column("USED BY"),
        column("LAST USED"),
        sparse("MOVES TO"),
        sparse("OLD COPY"),
        wide("CLUSTER"),
        wide("AGE"),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let used_by: Vec<&str> = self.used_by.iter().map(|task| task.as_str()).collect();
        vec![
            self.name.as_str().into(),
            word(&self.status).into(),
            self.host.as_str().into(),
            self.service.as_str().into(),
            used_by.join(",").into(),
            self.last_used_at.map(|at| age(now.since_ms(at))).unwrap_or_default().into(),
            self.moving_to.as_ref().map(ToString::to_string).unwrap_or_default().into(),
            self.old_copy.as_ref().map(ToString::to_string).unwrap_or_default().into(),
            self.cluster.as_str().into(),
            age(now.since_ms(self.created_at)).into(),
        ]
    }

    fn name(&self) -> String {
        format!("volume/{}", self.name)
    }
}
