//! The encrypted way from host to host, for hosts that share no network: whose key is whose, and where it is reached.
//!
//! Rules: wg(8). A private key is made on its host and never leaves it.

use std::{collections::BTreeSet, fmt, net::SocketAddrV4};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// Where a host listens when its manifest says no other port (UDP).
pub const LISTEN_PORT: u16 = 51_820;
/// The interface that packets to other hosts' slices leave by.
pub const INTERFACE: &str = "rs-wg";

/// A host's public key, as wg(8) prints it: 32 bytes in base64.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(String);

impl PublicKey {
    /// None when it is anything else: other hosts' shells read it.
    pub fn parse(text: &str) -> Option<Self> {
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
        let digits = text.strip_suffix('=')?;
        // The last digit has four bits of a byte, and nothing in the other two.
        let is_whole = digits.len() == 43 && digits.ends_with(|last| "AEIMQUYcgkosw048".contains(last));
        (is_whole && digits.bytes().all(is_base64)).then(|| Self(text.to_owned()))
    }
}

impl TryFrom<String> for PublicKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| "not a WireGuard key".to_owned())
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Another host, as this one reaches it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// None until it has told it: nothing goes there before.
    pub public_key: Option<PublicKey>,
    /// None where it cannot be known: it must come to us.
    pub endpoint: Option<SocketAddrV4>,
    /// What is behind it, and all that it may send from.
    pub slices: BTreeSet<Ipv4Net>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_key_is_a_key() {
        let key = "9Yhk0K6R8sVqS0cXlLkd6oJTxH1CQoYI5tgPHZ0m4Wk=";
        assert_eq!(PublicKey::parse(key).unwrap().to_string(), key);
        let long = format!("{key}=");
        for bad in
            ["", "=", &key[1..], &long, &key.replace('9', "$"), &key.replace("Wk=", "Wl="), &key.replace('=', "A")]
        {
            assert_eq!(PublicKey::parse(bad), None, "{bad}");
        }
        assert!(serde_json::from_str::<PublicKey>("\"; reboot\"").is_err());
    }
}
