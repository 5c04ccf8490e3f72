//! `validate`: manifests checked as the controller checks them, without one.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Serialize;

use super::{Context, failure::Failure, text::count};
use roadstead_control::control::ingest::check_expression;
use roadstead_core::{
    manifest::{self, Admission, Attachments, Limits, SourceTree},
    model::{desired::Desired, diagnostic::Diagnostic},
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  roadstead validate manifests/
  roadstead validate web.yaml hosts/*.yaml      several files are checked together
  roadstead validate auth.json --image IMAGE1_NAME=registry.example.com/auth:1.4

Exit status: 0 good (warnings are allowed), 1 errors, 2 a path could not be read.")]
pub(super) struct Options {
    /// Files and directories
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    images: Images,
}

/// What placeholders stand for.
#[derive(Args)]
pub(super) struct Images {
    /// Fill `<NAME>` in with this image, wherever an image is written so
    #[arg(long = "image", value_name = "NAME=IMAGE", value_parser = pair)]
    images: Vec<(String, String)>,
}

impl Images {
    pub(super) fn by_name(&self) -> BTreeMap<String, String> {
        self.images.iter().cloned().collect()
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, image) = text.split_once('=').unwrap_or_default();
    match name.is_empty() || image.is_empty() {
        true => Err("say which placeholder and which image: IMAGE1_NAME=registry.example.com/auth:1.4".to_owned()),
        false => Ok((name.to_owned(), image.to_owned())),
    }
}

/// `-o json`.
#[derive(Serialize)]
struct Verdict<'a> {
    valid: bool,
    diagnostics: &'a [Diagnostic],
}

pub(super) fn run(context: &Context, options: &Options) -> Result<(), Failure> {
    let admission = admit(&options.paths, &options.images)?;
    let valid = !admission.has_errors();
    if context.printer.is_document() {
        context.printer.document(&Verdict { valid, diagnostics: &admission.diagnostics })?;
    } else {
        context.printer.text(&manifest::render(&admission.diagnostics, context.printer.colour()))?;
        let found = match admission.diagnostics.is_empty() {
            true => String::new(),
            false => format!("; {}", manifest::summary(&admission.diagnostics)),
        };
        context.printer.line(&format!("{}{found}", contents(&admission.desired)))?;
    }
    if valid { Ok(()) } else { Err(Failure::Status(1)) }
}

fn contents(desired: &Desired) -> String {
    let mut parts = vec![
        count(desired.hosts.len(), "host"),
        count(desired.services.len(), "service"),
        count(desired.task_definitions.len(), "task definition"),
        count(desired.clusters.len(), "cluster"),
    ];
    for (number, what) in [
        (desired.scheduled_tasks.len(), "scheduled task"),
        (desired.subnets.len(), "subnet"),
        (desired.security_groups.len(), "security group"),
        (desired.target_groups.len(), "target group"),
        (desired.load_balancers.len(), "load balancer"),
    ] {
        parts.extend((number > 0).then(|| count(number, what)));
    }
    parts.join(", ")
}

/// All paths as one tree, judged as if nothing was in force.
pub(super) fn admit(paths: &[PathBuf], images: &Images) -> Result<Admission, Failure> {
    let here = std::env::current_dir().map_err(Failure::not_tried)?;
    let mut texts = BTreeMap::new();
    let mut unread = Vec::new();
    // None are looked for when a single file is judged.
    let mut pems = Some(Attachments::new());
    for path in paths {
        let found = read(path)?;
        texts.extend(found.texts.into_iter().map(|(name, text)| (join(path, &name), text)));
        texts.extend(environment_files_beside(path));
        unread.extend(found.unread);
        match (&mut pems, found.pems) {
            (Some(pems), Some(found)) => pems.extend(found.into_iter().map(|(name, pem)| (join(path, &name), pem))),
            (_, _) => pems = None,
        }
    }
    let mut tree = SourceTree::from_texts(here, texts);
    tree.diagnostics = unread;
    tree.pems = pems;
    tree.read_at = Some(super::get::now());
    tree.images = images.by_name();
    Ok(manifest::admit(&tree, &Desired::default(), check_expression))
}

/// The texts of a file, or of a directory's files by their names in it.
pub(super) fn texts(path: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let Read { texts, unread, .. } = read(path)?;
    match unread.is_empty() {
        true => Ok(texts
            .into_iter()
            .map(|(name, text)| (if name.is_empty() { file_name(path) } else { name }, text))
            .collect()),
        false => Err(Failure::not_tried(manifest::render(&unread, false).trim_end())),
    }
}

/// What is at a path.
struct Read {
    /// By name in the directory; of a single file, by an empty name.
    texts: BTreeMap<String, String>,
    /// What could not be read.
    unread: Vec<Diagnostic>,
    /// A directory's certificates and keys.
    pems: Option<Attachments>,
}

fn read(path: &Path) -> Result<Read, Failure> {
    let limits = Limits::default();
    let cannot = |error: &dyn std::fmt::Display| Failure::not_tried(format!("cannot read {}: {error}", path.display()));
    let metadata = std::fs::metadata(path).map_err(|error| cannot(&error))?;
    if metadata.is_dir() {
        let tree = manifest::read_tree(path, &limits).map_err(Failure::not_tried)?;
        let files = tree.files.into_iter().map(|(name, file)| (name, file.text));
        // One that could not be read is missed by whoever names it.
        let attachments = tree.attachments.into_iter().filter_map(|(name, text)| Some((name, text.ok()?)));
        return Ok(Read { texts: files.chain(attachments).collect(), unread: tree.diagnostics, pems: tree.pems });
    }
    if !metadata.is_file() || metadata.len() > limits.file_bytes {
        return Err(cannot(&format!("not a regular file of at most {} bytes", limits.file_bytes)));
    }
    let text = std::fs::read_to_string(path).map_err(|error| cannot(&error))?;
    Ok(Read { texts: BTreeMap::from([(String::new(), text)]), unread: Vec::new(), pems: None })
}

/// What a single file may name of its own folder.
fn environment_files_beside(path: &Path) -> BTreeMap<String, String> {
    let folder = path.parent().filter(|_| path.is_file());
    let entries = folder
        .and_then(|folder| std::fs::read_dir(if folder.as_os_str().is_empty() { Path::new(".") } else { folder }).ok());
    let limit = Limits::default();
    let named = entries.into_iter().flatten().take(limit.entries).filter_map(Result::ok).filter(|entry| {
        entry.path().extension().is_some_and(|extension| extension == "env")
            && entry.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() <= limit.file_bytes)
    });
    let text = |entry: std::fs::DirEntry| {
        let name = folder?.join(entry.file_name()).display().to_string();
        Some((name, std::fs::read_to_string(entry.path()).ok()?))
    };
    named.filter_map(text).collect()
}

fn join(path: &Path, name: &str) -> String {
    match name {
        "" => path.display().to_string(),
        name => path.join(name).display().to_string(),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}
