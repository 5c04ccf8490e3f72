//! The fleet's key file: whoever has it may mark containers as this fleet's.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::crash_point::{Point, reach};
use roadstead_core::model::{hex::hex, ownership::FleetKey};

/// Its name in the data folder.
const FILE_NAME: &str = "fleet.key";
const HEX_LENGTH: usize = 64;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read or written.
    #[error("the key {path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Others can read it.
    #[error("the key {path} can be read by others (mode {mode:o}); run: chmod 600 {path}")]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is no key.
    #[error(
        "{path} is not a key: 64 hex digits are expected. Restore it from a backup; a new key would not know what was made with the one before"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// Reads the key; makes one in `data` when none was named and there is none yet.
///
/// # Errors
/// [`KeyError`].
pub fn load_or_make(named: Option<&Path>, data: &Path) -> Result<FleetKey, KeyError> {
    let path = named.map_or_else(|| data.join(FILE_NAME), Path::to_path_buf);
    bytes_in(&path, named.is_none()).map(FleetKey::new)
}

/// A key's bytes in a file that only its owner can read; made when there is none and it may be.
///
/// # Errors
/// [`KeyError`].
pub(super) fn bytes_in(path: &Path, may_make: bool) -> Result<[u8; 32], KeyError> {
    match read(path) {
        Err(KeyError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound && may_make => make(path),
        other => other,
    }
}

fn read(path: &Path) -> Result<[u8; 32], KeyError> {
    let io = |error| KeyError::Io { path: path.to_path_buf(), error };
    let mode = fs::metadata(path).map_err(io)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Readable { path: path.to_path_buf(), mode });
    }
    let text = fs::read_to_string(path).map_err(io)?;
    parse(text.trim()).ok_or_else(|| KeyError::Malformed { path: path.to_path_buf() })
}

fn parse(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != HEX_LENGTH || !hex.is_ascii() {
        return None;
    }
    bytes_of(hex)?.try_into().ok()
}

/// Hex digits as bytes.
pub(super) fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect()
}

fn make(path: &Path) -> Result<[u8; 32], KeyError> {
    let io = |error| KeyError::Io { path: path.to_path_buf(), error };
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io(io::Error::other("no randomness")))?;
    let hex = hex(&bytes);
    // Whole or not at all: half a key would disown the fleet.
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary).map_err(io)?;
    file.write_all(hex.as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
    reach(Point::KeyWritten);
    fs::rename(&temporary, path).map_err(io)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_refused_when_others_can_read_it_or_it_is_broken() {
        let folder = tempfile::tempdir().unwrap();
        let made = load_or_make(None, folder.path()).unwrap();
        assert_eq!(load_or_make(None, folder.path()).unwrap(), made);
        let path = folder.path().join(FILE_NAME);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(load_or_make(None, folder.path()), Err(KeyError::Readable { mode: 0o644, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "half").unwrap();
        assert!(
            matches!(load_or_make(None, folder.path()), Err(KeyError::Malformed { .. })),
            "never replaced by a new one"
        );
        assert!(load_or_make(Some(&folder.path().join("none")), folder.path()).is_err(), "a named key is never made");
    }
}
