//! The text of a Host manifest, and its way to the disk.

use std::{collections::BTreeMap, fs, io, os::unix::fs::OpenOptionsExt, path::Path};

use roadstead_core::model::spec::host::SshSpec;

/// What `host add` found out and was told.
#[derive(Clone, Debug, Default)]
pub(super) struct NewHost {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub address: String,
    pub cluster: Option<String>,
    /// None for this machine itself.
    pub ssh: Option<SshSpec>,
}

impl NewHost {
    /// A manifest that people like to read.
    pub fn text(&self) -> String {
        let mut lines = vec![
            "apiVersion: roadstead/v1".to_owned(),
            "kind: Host".to_owned(),
            "metadata:".to_owned(),
            format!("  name: {}", scalar(&self.name)),
        ];
        if !self.labels.is_empty() {
            lines.push("  labels:".to_owned());
            lines.extend(self.labels.iter().map(|(name, value)| format!("    {}: {}", scalar(name), scalar(value))));
        }
        lines.push("spec:".to_owned());
        lines.push(format!("  address: {}", scalar(&self.address)));
        lines.extend(self.cluster.iter().map(|cluster| format!("  cluster: {}", scalar(cluster))));
        if let Some(ssh) = &self.ssh {
            lines.push("  ssh:".to_owned());
            let SshSpec { user, port, identity_file, host_key, known_hosts, proxy_jump } = ssh;
            let port = port.map(|port| port.to_string());
            let fields = [
                ("user", user.as_deref().map(scalar)),
                ("port", port),
                ("identityFile", identity_file.as_deref().map(scalar)),
                ("hostKey", host_key.as_deref().map(scalar)),
                ("knownHosts", known_hosts.as_deref().map(scalar)),
                ("proxyJump", proxy_jump.as_deref().map(scalar)),
            ];
            lines.extend(fields.into_iter().filter_map(|(name, value)| Some(format!("    {name}: {}", value?))));
        }
        lines.join("\n") + "\n"
    }
}

/// Plain where no YAML reader can take it for anything but this text; else as a JSON string, which is YAML, too.
fn scalar(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    let word = text.to_ascii_lowercase();
    let means_else = matches!(word.as_str(), "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n");
    match text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/') && text.chars().all(plain) && !means_else {
        true => text.to_owned(),
        false => serde_json::Value::from(text).to_string(),
    }
}

/// Writes a new file, all of it or nothing; never over another.
pub(super) fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    // A name that begins with a dot is not taken for a manifest.
    let part = folder.join(format!(".{}.part", std::process::id()));
    let written =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&part).and_then(|mut file| {
            io::Write::write_all(&mut file, text.as_bytes())?;
            file.sync_all()
        });
    // A link, since a rename would replace what is there.
    let linked = written.and_then(|()| fs::hard_link(&part, path));
    fs::remove_file(&part)?;
    linked
}

/// A name for a host: what begins a machine's name, reduced to what names may have.
pub(super) fn name_from(text: &str) -> Option<String> {
    let label = text.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let name: String = label.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    let name = name.trim_matches('-').to_owned();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_read_well_and_back() {
        let host = NewHost {
            name: "box-a".to_owned(),
            labels: BTreeMap::from([
                ("availability-zone".to_owned(), "1".to_owned()),
                ("x: y".to_owned(), "on".to_owned()),
            ]),
            address: "198.18.0.11".to_owned(),
            cluster: Some("klp".to_owned()),
            ssh: Some(SshSpec {
                user: Some("root".to_owned()),
                port: Some(22),
                identity_file: Some("/k/id".to_owned()),
                host_key: Some("ssh-ed25519 AAAA".to_owned()),
                known_hosts: None,
                proxy_jump: Some("root@192.0.2.1:22".to_owned()),
            }),
        };
        let read: serde_json::Value = serde_yaml::from_str(&host.text()).unwrap();
        assert_eq!(
            read,
            serde_json::json!({
                "apiVersion": "roadstead/v1", "kind": "Host",
                "metadata": { "name": "box-a", "labels": { "availability-zone": "1", "x: y": "on" } },
                "spec": { "address": "198.18.0.11", "cluster": "klp",
                    "ssh": { "user": "root", "port": 22, "identityFile": "/k/id", "hostKey": "ssh-ed25519 AAAA",
                        "proxyJump": "root@192.0.2.1:22" } }
            })
        );
    }

    #[test]
    fn a_file_is_never_written_over_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts/a.yaml");
        write_new(&path, "one").unwrap();
        assert_eq!(write_new(&path, "two").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn names_come_from_machine_names() {
        for (text, name) in [
            ("box-a", Some("box-a")),
            ("Box.example.com", Some("box")),
            ("a_b", Some("a-b")),
            ("--", None),
            ("", None),
            ("\u{1b}[2J", Some("2j")),
        ] {
            assert_eq!(name_from(text).as_deref(), name, "{text:?}");
        }
    }
}
