//! Certificates and keys in files: PEM → what they say, and whether they belong together.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use rcgen::{KeyPair, PublicKeyData};
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    pem::{Pem, parse_x509_pem},
};

use crate::model::{
    certificate::{CertificateFacts, Hidden},
    hex::hex,
    time::Timestamp,
};

/// A file's text.
const MAX_BYTES: usize = 64 * 1024;
/// A certificate and those that vouch for it.
const MAX_CHAIN: usize = 10;
/// Names of one certificate.
const MAX_NAMES: usize = 1_000;
const BROKEN: &str = "holds a certificate that cannot be read";

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct Given {
    /// What it says.
    pub facts: CertificateFacts,
    /// Its key, as PEM.
    pub key: Hidden,
}

/// Which of the two is wrong, and how: what a key is made of is in no word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The certificate.
    Certificate(String),
    /// The key.
    Key(String),
}

/// Reads both, and holds them against each other.
pub fn given(certificate: &str, key: &str) -> Result<Given, Wrong> {
    let (facts, public) = chain(certificate).map_err(Wrong::Certificate)?;
    let key = private_key(key).map_err(Wrong::Key)?;
    let pair = KeyPair::from_pem(key.reveal());
    let pair = pair.map_err(|_| Wrong::Key("holds no private key that can be used".to_owned()))?;
    if pair.subject_public_key_info() != public {
        return Err(Wrong::Key("is not the key of the certificate (which stands first in its file)".to_owned()));
    }
    Ok(Given { facts, key })
}

/// What a certificate says, those that vouch for it included.
pub fn facts(chain_text: &str) -> Result<CertificateFacts, String> {
    chain(chain_text).map(|(facts, _)| facts)
}

fn chain(text: &str) -> Result<(CertificateFacts, Vec<u8>), String> {
    let blocks: Vec<Block> = blocks(text)?.into_iter().filter(|block| block.label == "CERTIFICATE").collect();
    if blocks.len() > MAX_CHAIN {
        return Err(format!("holds {} certificates, {MAX_CHAIN} are the most", blocks.len()));
    }
    let pems: Vec<Pem> = blocks.iter().map(Block::parse).collect::<Result<_, _>>()?;
    let parsed: Vec<X509Certificate<'_>> =
        pems.iter().map(|pem| pem.parse_x509().map_err(|_| BROKEN.to_owned())).collect::<Result<_, _>>()?;
    let (Some(der), Some((leaf, vouching))) = (pems.first(), parsed.split_first()) else {
        return Err("holds no certificate (`-----BEGIN CERTIFICATE-----`)".to_owned());
    };
    if !vouching.iter().all(|certificate| certificate.is_ca()) {
        return Err("holds more than one certificate that is no authority's: give each a file of its own".to_owned());
    }
    let time = |seconds: i64| Timestamp(u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000));
    let chain: String = blocks.iter().map(|block| block.text.as_str()).collect();
    let facts = CertificateFacts {
        names: names(leaf),
        issuer: common_name(leaf.issuer()),
        serial: hex(leaf.raw_serial()),
        sha1: hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, &der.contents).as_ref()).to_uppercase(),
        digest: hex(digest(&SHA256, chain.as_bytes()).as_ref()),
        not_before: time(leaf.validity().not_before.timestamp()),
        not_after: time(leaf.validity().not_after.timestamp()),
        chain,
    };
    Ok((facts, leaf.public_key().raw.to_vec()))
}

fn private_key(text: &str) -> Result<Hidden, String> {
    let keys: Vec<Block> = blocks(text)?.into_iter().filter(|block| block.label.ends_with("PRIVATE KEY")).collect();
    let is_encrypted = |block: &&Block| block.label.contains("ENCRYPTED") || block.text.contains("Proc-Type:");
    match keys.first() {
        Some(key) if is_encrypted(&key) => {
            Err("holds an encrypted key: nobody is there to type its passphrase when a load balancer starts".to_owned())
        }
        Some(key) => Ok(Hidden::new(key.text.clone())),
        None => Err("holds no private key (`-----BEGIN PRIVATE KEY-----`)".to_owned()),
    }
}

fn names(leaf: &X509Certificate<'_>) -> Vec<String> {
    let alternative = leaf.subject_alternative_name().ok().flatten();
    let named = alternative.iter().flat_map(|extension| &extension.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(readable(name)),
        GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
            Ok(v4) => Some(std::net::Ipv4Addr::from(v4).to_string()),
            Err(_) => <[u8; 16]>::try_from(*bytes).ok().map(|v6| std::net::Ipv6Addr::from(v6).to_string()),
        },
        _ => None,
    });
    let mut names: Vec<String> = named.take(MAX_NAMES).collect();
    if names.is_empty() {
        names.push(common_name(leaf.subject()));
    }
    names
}

fn common_name(name: &x509_parser::x509::X509Name<'_>) -> String {
    let common = name.iter_common_name().next().and_then(|attribute| attribute.as_str().ok());
    common.map_or_else(|| readable(&name.to_string()), readable)
}

fn readable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(253).collect()
}

struct Block {
    label: String,
    /// From its first line to its last, without blanks.
    text: String,
}

impl Block {
    fn parse(&self) -> Result<Pem, String> {
        parse_x509_pem(self.text.as_bytes()).map(|(_, pem)| pem).map_err(|_| BROKEN.to_owned())
    }
}

/// The blocks of a text; what stands between them is left out.
fn blocks(text: &str) -> Result<Vec<Block>, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("is larger than {} KiB", MAX_BYTES / 1024));
    }
    let (mut found, mut open) = (Vec::new(), None::<Block>);
    for line in text.lines().map(str::trim) {
        if let Some(label) = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----")) {
            open = Some(Block { label: label.to_owned(), text: format!("{line}\n") });
        } else if let Some(block) = &mut open {
            if !line.is_empty() {
                block.text += line;
                block.text.push('\n');
            }
            if line.starts_with("-----END ") {
                found.extend(open.take());
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn made(names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn a_certificate_says_what_it_is_for() {
        let (certificate, key) = made(&["shop.example.com", "198.51.100.7"]);
        let noisy = format!("bag attributes\n\n{}\n\n", certificate.replace('\n', "  \r\n"));
        let given = given(&noisy, &format!("comment\n{key}")).unwrap();
        assert_eq!(given.facts.names, ["shop.example.com", "198.51.100.7"]);
        assert_eq!(given.facts.chain.lines().count(), certificate.lines().count(), "without what is between");
        assert_eq!(given.facts.digest, facts(&certificate).unwrap().digest);
        assert_eq!((given.facts.sha1.len(), given.facts.digest.len()), (40, 64));
        assert!(given.facts.not_after > given.facts.not_before);
        assert!(!format!("{given:?}").contains("PRIVATE"));
    }

    #[test]
    fn what_does_not_belong_together_is_refused_without_a_word_of_the_key() {
        let ((certificate, key), (other, other_key)) = (made(&["a"]), made(&["b"]));
        let body = key.lines().nth(1).unwrap();
        let cut = key.replace(body, "");
        let sealed = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        for (certificate, key, wrong) in [
            (certificate.as_str(), other_key.as_str(), "key of the certificate"),
            (&certificate, &cut, "can be used"),
            (&certificate, "", "no private key"),
            (&certificate, sealed, "encrypted"),
            (&key, &key, "no certificate"),
            (&certificate.replace("MII", "AAA"), &key, "cannot be read"),
            (&format!("{certificate}{other}"), &key, "more than one"),
            (&certificate.repeat(11), &key, "are the most"),
            (&" ".repeat(MAX_BYTES + 1), &key, "larger"),
        ] {
            let (Wrong::Certificate(said) | Wrong::Key(said)) = given(certificate, key).unwrap_err();
            assert!(said.contains(wrong), "{said}: {wrong}");
            assert!(!said.contains(body));
        }
    }
}
