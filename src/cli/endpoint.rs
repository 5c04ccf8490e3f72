//! Where the controller is.

use std::{fmt, path::PathBuf, str::FromStr};

/// The controller's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Unix(PathBuf),
    /// `address:port`.
    Tcp(String),
}

impl Default for Endpoint {
    /// The contract's: `/run/roadstead` for root, else the user's runtime folder.
    fn default() -> Self {
        let directory = match (rustix::process::geteuid().is_root(), std::env::var_os("XDG_RUNTIME_DIR")) {
            (false, Some(directory)) if !directory.is_empty() => PathBuf::from(directory).join("roadstead"),
            (false, _) => PathBuf::from(format!("/tmp/roadstead-{}", rustix::process::geteuid().as_raw())),
            (true, _) => PathBuf::from("/run/roadstead"),
        };
        Self::Unix(directory.join("roadstead.sock"))
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is neither unix:PATH nor ADDRESS:PORT");
        if let Some(path) = text.strip_prefix("unix:").or_else(|| text.starts_with('/').then_some(text)) {
            return if path.is_empty() { Err(wrong()) } else { Ok(Self::Unix(path.into())) };
        }
        let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        match !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok() {
            true => Ok(Self::Tcp(address.to_owned())),
            false => Err(wrong()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => f.write_str(address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_as_people_write_them() {
        for (text, endpoint) in [
            ("unix:/a/b.sock", Some(Endpoint::Unix("/a/b.sock".into()))),
            ("/a/b.sock", Some(Endpoint::Unix("/a/b.sock".into()))),
            ("unix:rel.sock", Some(Endpoint::Unix("rel.sock".into()))),
            ("127.0.0.1:7433", Some(Endpoint::Tcp("127.0.0.1:7433".into()))),
            ("http://[::1]:7433/", Some(Endpoint::Tcp("[::1]:7433".into()))),
            ("unix:", None),
            ("box-a", None),
            ("box-a:ssh", None),
            ("https://box-a:1", None),
        ] {
            assert_eq!(text.parse::<Endpoint>().ok(), endpoint, "{text}");
        }
    }
}
