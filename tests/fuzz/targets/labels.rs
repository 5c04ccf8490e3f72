//! Labels that say whose a container is. Input: a host's name, then one `label=value` per line; `!` stands for our prefix.

use std::collections::BTreeMap;

use roadstead_core::model::{
    name::HostName,
    ownership::{Claim, FleetKey, Owner, PREFIX},
};

use super::Reached;

type Labels = BTreeMap<String, String>;

/// The fleet of all inputs: a corpus with signed labels stays good.
pub const KEY: [u8; 32] = [7; 32];

/// Labels are ours exactly if this fleet signed them for this host and name and not one byte has changed.
pub fn ownership(input: &[u8]) -> Reached {
    let mut reached = Reached::new();
    let text = String::from_utf8_lossy(input);
    let mut lines = text.lines();
    let host: HostName = lines.next().unwrap_or_default().into();
    let labels: Labels = lines.take(64).filter_map(label).collect();
    let key = FleetKey::new(KEY);

    reached.insert(match key.owner_of(&host, &labels) {
        Owner::Ours(claim) => {
            assert_eq!(key.sign(&host, &claim.created_name, &labels), labels, "ours, and not as we sign it");
            "ours as given"
        }
        Owner::Forged => "forged",
        Owner::OtherFleet { fleet } => {
            assert_ne!(fleet, key.id());
            "another fleet's"
        }
        Owner::Foreign => "foreign",
    });

    let Some(claim) = Claim::from_labels(&labels) else { return reached };
    reached.insert("a claim");
    assert_eq!(Claim::from_labels(&claim.to_labels()).as_ref(), Some(&claim), "a claim is lost in its labels");
    let signed = key.sign(&host, &claim.created_name, &labels);
    assert_eq!(key.owner_of(&host, &signed), Owner::Ours(Box::new(claim.clone())), "signed by us");
    assert_eq!(key.sign(&host, &claim.created_name, &signed), signed, "signing twice changes nothing");
    assert!(
        matches!(FleetKey::new([8; 32]).owner_of(&host, &signed), Owner::OtherFleet { .. }),
        "taken over by another fleet"
    );
    let elsewhere: HostName = format!("{host}x").into();
    assert_eq!(key.owner_of(&elsewhere, &signed), Owner::Forged, "copied to another host");
    for name in [format!("{}x", claim.created_name), String::new()] {
        let renamed = key.sign(&host, &name, &labels);
        if name != claim.created_name {
            assert_eq!(key.owner_of(&host, &renamed), Owner::Forged, "signed for another name");
        }
    }
    // One byte of the text decides which byte of each label is flipped.
    for (at, label) in signed.keys().filter(|label| label.starts_with(PREFIX)).enumerate() {
        for changed in tampered(&signed, label, at + text.len()) {
            assert!(key.owner_of(&host, &changed).ours().is_none(), "{label} was changed: {changed:?}");
        }
    }
    // What is not ours to say changes nothing.
    let mut beside = signed;
    beside.insert("com.example".to_owned(), text.into_owned());
    assert!(key.owner_of(&host, &beside).ours().is_some());
    reached
}

fn label(line: &str) -> Option<(String, String)> {
    let (label, value) = line.split_once('=')?;
    let label = match label.strip_prefix('!') {
        Some(ours) => format!("{PREFIX}{ours}"),
        None => label.to_owned(),
    };
    Some((label, value.to_owned()))
}

/// The labels with one taken away, renamed, shortened, lengthened, or with a flipped byte.
fn tampered(labels: &Labels, label: &str, at: usize) -> Vec<Labels> {
    let value = &labels[label];
    let with = |label: String, value: String| {
        let mut changed = labels.clone();
        changed.insert(label, value);
        changed
    };
    let mut without = labels.clone();
    without.remove(label);
    let mut renamed = without.clone();
    renamed.insert(format!("{label}x"), value.clone());
    let mut all =
        vec![without, renamed, with(label.to_owned(), format!("{value} ")), with(format!("{PREFIX}~"), value.clone())];
    if !value.is_empty() {
        let mut chars: Vec<char> = value.chars().collect();
        let index = at % chars.len();
        chars[index] = if chars[index] == 'a' { 'b' } else { 'a' };
        all.push(with(label.to_owned(), chars.iter().collect()));
        all.push(with(label.to_owned(), chars[1..].iter().collect()));
    }
    // The first of ours may have held these very bytes under its own name already.
    all.retain(|changed| changed != labels);
    all
}
