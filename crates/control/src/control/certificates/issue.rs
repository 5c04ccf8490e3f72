//! Certificates by an authority of our own.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use roadstead_core::{
    manifest::certificate::{Given, given},
    model::{certificate::Hidden, time::Timestamp},
};

/// How long one is valid.
const LIFE: Duration = Duration::from_secs(90 * 86_400);
/// The authority's.
const AUTHORITY_LIFE: Duration = Duration::from_secs(20 * 365 * 86_400);
/// Clocks of clients may be behind.
const BACKDATED: Duration = Duration::from_secs(3_600);

/// An authority. `fleet` tells it from others'.
///
/// # Errors
/// In words.
pub fn authority(fleet: &str, now: Timestamp) -> Result<Given, String> {
    let mut params = CertificateParams::default();
    valid(&mut params, now, AUTHORITY_LIFE);
    params.distinguished_name = named(&format!("Roadstead {fleet}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().map_err(words)?;
    let certificate = params.self_signed(&key).map_err(words)?;
    read(&certificate.pem(), &key)
}

/// A certificate for these names.
///
/// # Errors
/// In words.
pub fn certificate(authority: &str, authority_key: &Hidden, names: &[String], now: Timestamp) -> Result<Given, String> {
    let signing = KeyPair::from_pem(authority_key.reveal()).map_err(words)?;
    let issuer = Issuer::from_ca_cert_pem(authority, signing).map_err(words)?;
    let mut params = CertificateParams::new(names.to_vec()).map_err(words)?;
    valid(&mut params, now, LIFE);
    params.distinguished_name = DistinguishedName::new();
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().map_err(words)?;
    let made = params.signed_by(&key, &issuer).map_err(words)?;
    read(&made.pem(), &key)
}

fn valid(params: &mut CertificateParams, now: Timestamp, life: Duration) {
    let now = date_time_ymd(1970, 1, 1) + Duration::from_millis(now.0);
    params.not_before = now - BACKDATED;
    params.not_after = now + life;
}

fn named(name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::CommonName, name);
    named
}

fn read(pem: &str, key: &KeyPair) -> Result<Given, String> {
    given(pem, &key.serialize_pem()).map_err(|wrong| format!("what was made is not right: {wrong:?}"))
}

fn words(error: rcgen::Error) -> String {
    error.to_string()
}
