//! Private keys, sealed: what is in the database is of no use without a key that is not in its folder.

use std::{
    env,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use roadstead_core::model::{certificate::Hidden, hex::hex, name::CertificateId};

use crate::control::key::{self, KeyError};

/// What systemd's `LoadCredential=` calls it.
const CREDENTIAL: &str = "roadstead-seal-key";
const NONCE_BYTES: usize = 12;

/// Seals and opens private keys. The file of its own key is read, or made, when it is first needed.
pub struct Seal {
    path: PathBuf,
    /// May be made when there is none.
    may_make: bool,
    key: OnceLock<[u8; 32]>,
}

impl Seal {
    /// By the key that was named, else systemd's credential, else a file beside the data folder.
    pub fn new(named: Option<PathBuf>, data: &Path) -> Self {
        let credential = env::var_os("CREDENTIALS_DIRECTORY").map(|folder| PathBuf::from(folder).join(CREDENTIAL));
        let (path, may_make) = match (named, credential.filter(|path| path.exists())) {
            (Some(path), _) => (path, true),
            (None, Some(path)) => (path, false),
            (None, None) => (beside(data), true),
        };
        Self { path, may_make, key: OnceLock::new() }
    }

    /// Seals a private key; it can be opened as this certificate's only.
    ///
    /// # Errors
    /// [`KeyError`]: there is no key to seal with.
    pub fn seal(&self, id: &CertificateId, secret: &Hidden) -> Result<String, KeyError> {
        let key = self.key(self.may_make)?;
        let mut bytes = secret.reveal().as_bytes().to_vec();
        let nonce = key.seal_in_place_append_tag(aad(id), &mut bytes).map_err(|_| self.broken())?;
        Ok(hex(nonce.as_ref()) + &hex(&bytes))
    }

    /// Opens what was sealed.
    ///
    /// # Errors
    /// In words: the key is missing, or another one.
    pub fn open(&self, id: &CertificateId, sealed: &str) -> Result<Hidden, String> {
        let key = self.key(false).map_err(|error| error.to_string())?;
        let refused = || {
            format!(
                "its private key was not sealed with {}: put the key file of before back there",
                self.path.display()
            )
        };
        let mut bytes = key::bytes_of(sealed).filter(|bytes| bytes.len() > NONCE_BYTES).ok_or_else(refused)?;
        let mut text = bytes.split_off(NONCE_BYTES);
        let nonce = Nonce::try_assume_unique_for_key(&bytes).map_err(|_| refused())?;
        let opened = key.open_in_place(nonce, aad(id), &mut text).map_err(|_| refused())?;
        std::str::from_utf8(opened).map(Hidden::new).map_err(|_| refused())
    }

    fn key(&self, may_make: bool) -> Result<RandomizedNonceKey, KeyError> {
        let bytes = match self.key.get() {
            Some(bytes) => *bytes,
            None => {
                let bytes = key::bytes_in(&self.path, may_make)?;
                *self.key.get_or_init(|| bytes)
            }
        };
        RandomizedNonceKey::new(&AES_256_GCM, &bytes).map_err(|_| self.broken())
    }

    fn broken(&self) -> KeyError {
        KeyError::Malformed { path: self.path.clone() }
    }
}

fn aad(id: &CertificateId) -> Aad<Vec<u8>> {
    Aad::from(format!("roadstead certificate {id}").into_bytes())
}

/// `/var/lib/roadstead` → `/var/lib/roadstead.seal-key`: a copy of the folder does not hold it.
fn beside(data: &Path) -> PathBuf {
    let data = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    let mut name = data.file_name().unwrap_or_default().to_owned();
    name.push(".seal-key");
    data.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_sealed_opens_with_the_same_key_as_the_same_certificates_only() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("data");
        let (seal, id, secret) =
            (Seal::new(None, &data), CertificateId::from("file:a.pem"), Hidden::new("-----secret"));
        let file = root.path().join("data.seal-key");
        assert!(seal.open(&id, "00").is_err() && !file.exists(), "to open makes no key");
        let sealed = seal.seal(&id, &secret).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!sealed.contains("secret") && !sealed.contains(&hex(b"secret")));
        assert_ne!(sealed, seal.seal(&id, &secret).unwrap(), "never twice the same");
        assert_eq!(Seal::new(None, &data).open(&id, &sealed).unwrap(), secret);
        assert!(seal.open(&"file:b.pem".into(), &sealed).is_err());
        let mut cut = sealed.clone();
        cut.replace_range(30..31, if &sealed[30..31] == "0" { "1" } else { "0" });
        for wrong in [cut.as_str(), "", "zz", &sealed[..20]] {
            assert!(seal.open(&id, wrong).is_err(), "{wrong}");
        }
        let other = Seal::new(Some(root.path().join("other")), &data);
        other.seal(&id, &secret).unwrap();
        let why = other.open(&id, &sealed).unwrap_err();
        assert!(why.contains("other") && !why.contains("secret"), "{why}");
    }
}
