//! The walk: a directory of manifests → their texts. The only I/O of this layer.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    io::Read,
    path::{Path, PathBuf},
    time::SystemTime,
};

use aws_lc_rs::digest::{Context, SHA256, digest};
use rustix::fs::{Mode, OFlags};

use super::report::about_file;
use crate::model::{diagnostic::Diagnostic, hex::hex, time::Timestamp};

/// What a tree and its files may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Manifest files in the tree.
    pub files: usize,
    /// Entries of any sort that are looked at.
    pub entries: usize,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Bytes of all files.
    pub total_bytes: u64,
    /// Levels of directories, and of nesting in a document.
    pub depth: usize,
    /// Values in one file, aliases counted in full.
    pub nodes: usize,
    /// Bytes of all texts in one file, aliases counted in full.
    pub text_bytes: usize,
    /// Aliases in one file.
    pub aliases: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            files: 10_000,
            entries: 100_000,
            file_bytes: 1 << 20,
            total_bytes: 64 << 20,
            depth: 64,
            nodes: 100_000,
            text_bytes: 4 << 20,
            aliases: 1_000,
        }
    }
}

/// Why there is no tree at all. None of these means that nothing is wanted.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no such directory.
    #[error("the manifests' folder {0} does not exist")]
    Missing(PathBuf),
    /// It is something else.
    #[error("{0} is not a directory")]
    NotADirectory(PathBuf),
    /// It is there and cannot be read.
    #[error("the manifests' folder {path} cannot be read: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not a folder of manifests, it seems.
    #[error("{path} holds more than {limit} {what}: is it the right folder?")]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// How many are read at most.
        limit: u64,
        /// Of what.
        what: &'static str,
    },
}

/// One file's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Relative to the root, with `/`.
    pub path: String,
    /// The text, without a byte order mark.
    pub text: String,
    /// SHA-256 of its bytes, in hex.
    pub hash: String,
    /// Byte offset of each line.
    line_starts: Vec<usize>,
}

impl SourceFile {
    /// A file of the given text.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let hash = hex(digest(&SHA256, text.as_bytes()).as_ref());
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { path: path.into(), text, hash, line_starts }
    }

    /// How many lines there are, at least 1.
    pub fn line_count(&self) -> u32 {
        u32::try_from(self.line_starts.len()).unwrap_or(u32::MAX).max(1)
    }

    /// A line by its number from 1, without its end; empty when there is none.
    pub fn line(&self, number: u32) -> &str {
        let index = (number as usize).saturating_sub(1);
        let start = self.line_starts.get(index).copied().unwrap_or(self.text.len());
        let end = self.line_starts.get(index + 1).copied().unwrap_or(self.text.len());
        self.text.get(start..end).unwrap_or_default().trim_end_matches(['\n', '\r'])
    }
}

/// Texts that are no manifests, by path; in place of one that could not be had, why.
pub type Attachments = BTreeMap<String, Result<String, String>>;

/// A directory of manifests at one moment.
#[derive(Clone, Default)]
pub struct SourceTree {
    /// The folder, absolute: what relative paths in manifests start from.
    pub root: PathBuf,
    /// The files that could be read, by path.
    pub files: BTreeMap<String, SourceFile>,
    /// Environment files (`*.env`), by path: their text, or why there is none. They matter to whoever names them.
    pub attachments: Attachments,
    /// Certificates and private keys (`*.pem`, `*.crt`, `*.cer`, `*.key`), likewise; none for a tree that was never on a disk.
    pub pems: Option<Attachments>,
    /// When it was read, if it was on a disk.
    pub read_at: Option<Timestamp>,
    /// Files and folders (these end in `/`) that are there and could not be read: what they declared before stays.
    pub unread: BTreeSet<String>,
    /// Why, one at least for each of them.
    pub diagnostics: Vec<Diagnostic>,
    /// SHA-256 over all paths, contents and failures, in hex: equal means nothing changed.
    pub hash: String,
    /// What its documents may cost.
    pub limits: Limits,
    /// Images by the name of the placeholder that they stand for, before what the manifests themselves say.
    pub images: BTreeMap<String, String>,
}

/// Without its texts: there may be keys among them.
impl fmt::Debug for SourceTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: Vec<&String> = self.files.keys().collect();
        f.debug_struct("SourceTree").field("root", &self.root).field("files", &files).finish_non_exhaustive()
    }
}

impl SourceTree {
    /// A tree that was never on a disk.
    pub fn from_texts<P: Into<String>, T: Into<String>>(
        root: impl Into<PathBuf>,
        texts: impl IntoIterator<Item = (P, T)>,
    ) -> Self {
        let mut tree = Self { root: root.into(), ..Self::default() };
        for (path, text) in texts {
            tree.take(path.into(), text.into());
        }
        tree.seal();
        tree
    }

    fn take(&mut self, path: String, text: String) {
        if is_attachment(&path) {
            self.attachments.insert(path, Ok(text));
        } else {
            self.files.insert(path.clone(), SourceFile::new(path, text));
        }
    }

    /// Puts a text in the place of a file, as if it had been read so: for asking what would happen.
    pub fn put(&mut self, path: impl Into<String>, text: impl Into<String>) {
        let path = path.into();
        self.unread.remove(&path);
        self.diagnostics.retain(|diagnostic| diagnostic.place.file != path);
        self.take(path, text.into());
        self.seal();
    }

    fn seal(&mut self) {
        let mut context = Context::new(&SHA256);
        for (path, file) in &self.files {
            context.update(format!("{}:{path}={}\n", path.len(), file.hash).as_bytes());
        }
        for (path, attachment) in self.attachments.iter().chain(self.pems.iter().flatten()) {
            let text = attachment.as_ref().unwrap_or_else(|why| why);
            context.update(format!("{}:{path}+{}:", path.len(), text.len()).as_bytes());
            context.update(text.as_bytes());
        }
        for path in &self.unread {
            context.update(format!("{}:{path}!\n", path.len()).as_bytes());
        }
        self.hash = hex(context.finish().as_ref());
    }

    fn refuse(&mut self, path: String, code: &'static str, message: impl Into<String>, help: Option<&str>) {
        self.diagnostics.push(about_file(&path, code, message, help));
        self.unread.insert(path);
    }
}

/// Reads the manifests below `root`, in the order of their names. What cannot be read is told in the tree's diagnostics.
pub fn read_tree(root: &Path, limits: &Limits) -> Result<SourceTree, ReadError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ReadError::Missing(root.to_owned()),
        io::ErrorKind::NotADirectory => ReadError::NotADirectory(root.to_owned()),
        _ => ReadError::Unreadable { path: root.to_owned(), source },
    };
    let canonical = fs::canonicalize(root).map_err(unreadable)?;
    if !fs::metadata(&canonical).map_err(unreadable)?.is_dir() {
        return Err(ReadError::NotADirectory(root.to_owned()));
    }
    let top = list(&canonical, limits.entries).map_err(unreadable)?;
    let mut walk = Walk {
        tree: SourceTree {
            root: canonical,
            limits: limits.clone(),
            pems: Some(Attachments::new()),
            read_at: Some(now()),
            ..SourceTree::default()
        },
        entries: 0,
        bytes: 0,
    };
    walk.folder(String::new(), top, 0)?;
    walk.tree.seal();
    Ok(walk.tree)
}

struct Walk {
    tree: SourceTree,
    entries: usize,
    bytes: u64,
}

impl Walk {
    fn too_large(&self, limit: u64, what: &'static str) -> ReadError {
        ReadError::TooLarge { path: self.tree.root.clone(), limit, what }
    }

    /// `folder` is empty or ends in `/`.
    fn folder(&mut self, folder: String, names: Vec<String>, depth: usize) -> Result<(), ReadError> {
        for name in names {
            self.entries += 1;
            if self.entries > self.tree.limits.entries {
                return Err(self.too_large(self.tree.limits.entries as u64, "entries"));
            }
            if ignored(&name) {
                continue;
            }
            let path = format!("{folder}{name}");
            let absolute = self.tree.root.join(&path);
            let kind = match fs::symlink_metadata(&absolute) {
                Ok(metadata) => metadata.file_type(),
                Err(error) => {
                    if is_manifest(&name) {
                        self.tree.refuse(path, "unreadable", format!("cannot be read: {error}"), None);
                    } else {
                        self.tree.refuse(format!("{path}/"), "unreadable", format!("cannot be read: {error}"), None);
                    }
                    continue;
                }
            };
            if kind.is_dir() {
                let path = format!("{path}/");
                if depth >= self.tree.limits.depth {
                    self.tree.refuse(
                        path,
                        "too-deep",
                        format!("folders nested deeper than {}", self.tree.limits.depth),
                        None,
                    );
                    continue;
                }
                match list(&absolute, self.tree.limits.entries) {
                    Ok(names) => self.folder(path, names, depth + 1)?,
                    Err(error) => {
                        self.tree.refuse(path, "unreadable", format!("the folder cannot be read: {error}"), None)
                    }
                }
            } else if kind.is_symlink() {
                self.link(path, &name, &absolute)?;
            } else if is_manifest(&name) {
                self.file(path, &absolute)?;
            } else if is_attachment(&name) || is_pem(&name) {
                self.attachment(path, &absolute)?;
            }
        }
        Ok(())
    }

    fn link(&mut self, path: String, name: &str, absolute: &Path) -> Result<(), ReadError> {
        match fs::canonicalize(absolute) {
            Ok(target) if target.is_dir() => {
                self.tree.refuse(
                    format!("{path}/"),
                    "symlink",
                    "a symbolic link to a folder is not followed",
                    Some("move the folder here"),
                );
                Ok(())
            }
            Ok(target) if (is_attachment(name) || is_pem(name)) && target.starts_with(&self.tree.root) => {
                self.attachment(path, &target)
            }
            Ok(_) | Err(_) if is_attachment(name) || is_pem(name) => {
                let why = "is a symbolic link that leads nowhere, or out of the manifests' folder";
                self.attach(path, Err(why.to_owned()));
                Ok(())
            }
            Ok(_) | Err(_) if !is_manifest(name) => Ok(()),
            Ok(target) if target.starts_with(&self.tree.root) => self.file(path, &target),
            Ok(_) => {
                self.tree.refuse(
                    path,
                    "symlink",
                    "a symbolic link that leads out of the manifests' folder is not followed",
                    Some("copy the file here"),
                );
                Ok(())
            }
            Err(error) => {
                self.tree.refuse(path, "symlink", format!("a symbolic link that leads nowhere: {error}"), None);
                Ok(())
            }
        }
    }

    /// One more file of this many bytes.
    fn count(&mut self, bytes: usize) -> Result<(), ReadError> {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.tree.files.len() + self.tree.attachments.len() + self.tree.pems.as_ref().map_or(0, BTreeMap::len)
            >= self.tree.limits.files
        {
            return Err(self.too_large(self.tree.limits.files as u64, "files"));
        }
        if self.bytes > self.tree.limits.total_bytes {
            return Err(self.too_large(self.tree.limits.total_bytes, "bytes of manifests"));
        }
        Ok(())
    }

    fn attach(&mut self, path: String, text: Result<String, String>) {
        match &mut self.tree.pems {
            Some(pems) if is_pem(&path) => pems.insert(path, text),
            Some(_) | None => self.tree.attachments.insert(path, text),
        };
    }

    /// What is wrong with it is told to whoever names it.
    fn attachment(&mut self, path: String, absolute: &Path) -> Result<(), ReadError> {
        let limit = self.tree.limits.file_bytes;
        let text = match read_regular(absolute, limit) {
            Ok(Contents::Bytes(bytes)) => {
                self.count(bytes.len())?;
                let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned());
                text.map(|text| text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
            }
            Ok(Contents::TooLarge) => Err(format!("is larger than {} KiB", limit / 1024)),
            Ok(Contents::NotAFile) => Err("is not a file".to_owned()),
            Err(error) => Err(format!("cannot be read: {error}")),
        };
        self.attach(path, text);
        Ok(())
    }

    fn file(&mut self, path: String, absolute: &Path) -> Result<(), ReadError> {
        let limit = self.tree.limits.file_bytes;
        let bytes = match read_regular(absolute, limit) {
            Ok(Contents::Bytes(bytes)) => bytes,
            Ok(Contents::TooLarge) => {
                self.tree.refuse(
                    path,
                    "too-large",
                    format!("larger than {} KiB", limit / 1024),
                    Some("split it into several files"),
                );
                return Ok(());
            }
            Ok(Contents::NotAFile) => {
                self.tree.refuse(
                    path,
                    "not-a-file",
                    "neither a file nor a folder: fifos, sockets and devices are not read",
                    None,
                );
                return Ok(());
            }
            Err(error) => {
                self.tree.refuse(path, "unreadable", format!("cannot be read: {error}"), None);
                return Ok(());
            }
        };
        self.count(bytes.len())?;
        match String::from_utf8(bytes) {
            Ok(text) => {
                let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
                self.tree.files.insert(path.clone(), SourceFile::new(path, text));
            }
            Err(error) => {
                let before = error.utf8_error().valid_up_to();
                let good = error.as_bytes().get(..before).unwrap_or_default();
                let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
                self.tree.refuse(
                    path,
                    "not-utf8",
                    format!("not UTF-8 text: line {line} holds a byte that is none"),
                    Some("save it as UTF-8"),
                );
            }
        }
        Ok(())
    }
}

enum Contents {
    Bytes(Vec<u8>),
    TooLarge,
    NotAFile,
}

/// Opens nothing but files (opening a device may do something), without waiting should it have become a fifo, and reads no more than the limit.
fn read_regular(path: &Path, limit: u64) -> io::Result<Contents> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Ok(Contents::NotAFile);
    }
    let descriptor = rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let file = fs::File::from(descriptor?);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(Contents::NotAFile);
    }
    if metadata.len() > limit {
        return Ok(Contents::TooLarge);
    }
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(if bytes.len() as u64 > limit { Contents::TooLarge } else { Contents::Bytes(bytes) })
}

/// Names in a folder, sorted; one more than `limit` at most. Names that are no text cannot be manifests of ours.
fn list(folder: &Path, limit: usize) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)?.take(limit.saturating_add(1)) {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Hidden files and what editors leave beside a file while it is open.
fn ignored(name: &str) -> bool {
    name.starts_with(['.', '#', '~']) || name.ends_with('~')
}

/// Files that manifests may name.
fn is_attachment(name: &str) -> bool {
    name.ends_with(".env")
}

/// Certificates and private keys.
fn is_pem(name: &str) -> bool {
    [".pem", ".crt", ".cer", ".key"].iter().any(|ending| name.ends_with(ending))
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn is_manifest(name: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension.eq_ignore_ascii_case(known)))
}
