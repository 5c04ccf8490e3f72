//! Where the API listens, and who may connect.

use std::{
    fmt, io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use tokio::net::{TcpListener, UnixListener, UnixStream};

/// The socket's mode: its owner and group.
const SOCKET_MODE: u32 = 0o660;
/// Its folder's mode, when we make it.
const DIRECTORY_MODE: u32 = 0o755;
/// How long an old socket's owner has to answer.
const STALE_AFTER: Duration = Duration::from_secs(2);

/// An address to listen on: `unix:PATH`, or `ADDRESS:PORT` for TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenTarget {
    /// A Unix socket; who may open the file may do everything.
    Unix(PathBuf),
    /// TCP; every request must carry the token.
    Tcp(SocketAddr),
}

impl FromStr for ListenTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("`unix:` needs a path".to_owned()),
            Some(path) => Ok(Self::Unix(path.into())),
            None if text.starts_with('/') => Ok(Self::Unix(text.into())),
            None => text
                .parse()
                .map(Self::Tcp)
                .map_err(|_| format!("`{text}` is neither unix:PATH nor ADDRESS:PORT such as 127.0.0.1:7433")),
        }
    }
}

impl fmt::Display for ListenTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

/// A listener that is open.
pub(super) enum Listener {
    Unix { listener: UnixListener, _socket: OwnSocket },
    Tcp(TcpListener),
}

/// A socket file of ours, removed in the end unless another took its place.
pub(super) struct OwnSocket {
    path: PathBuf,
    inode: u64,
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        if inode(&self.path).is_some_and(|inode| inode == self.inode) {
            // Best effort: the next start replaces a leftover.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    pub async fn open(target: &ListenTarget) -> io::Result<Self> {
        match target {
            ListenTarget::Unix(path) => unix(path).await,
            ListenTarget::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp),
        }
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {target}: {error}")))
    }
}

async fn unix(path: &Path) -> io::Result<Listener> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
    refuse_unless_stale(path).await?;
    // Bound beside its place and moved there when its mode is right: nobody meets it half made.
    let fresh = directory.join(format!(".{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh)?;
    let moved = std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(SOCKET_MODE))
        .and_then(|()| std::fs::rename(&fresh, path));
    if let Err(error) = moved {
        let _ = std::fs::remove_file(&fresh);
        return Err(error);
    }
    let inode = inode(path).ok_or_else(|| io::Error::other("the socket vanished"))?;
    Ok(Listener::Unix { listener, _socket: OwnSocket { path: path.to_owned(), inode } })
}

/// A leftover socket may be replaced; one that somebody answers, and any other file, may not.
async fn refuse_unless_stale(path: &Path) -> io::Result<()> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket is in the way"));
    }
    match tokio::time::timeout(STALE_AFTER, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Ok(Err(error)) => Err(error),
        Ok(Ok(_)) | Err(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another controller answers there")),
    }
}

fn inode(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).ok().map(|metadata| metadata.ino())
}
