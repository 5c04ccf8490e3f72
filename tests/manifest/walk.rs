//! The walk over a real directory.

use std::{
    fs,
    os::unix::{fs::symlink, net::UnixListener},
    path::Path,
};

use roadstead_core::manifest::{Limits, ReadError, SourceTree, admit, read_tree};
use roadstead_core::model::desired::Desired;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::check_expression;

const CLUSTER: &str = "apiVersion: roadstead/v1\nkind: Cluster\nmetadata: { name: klp }\n";

fn read(root: &Path) -> SourceTree {
    read_tree(root, &Limits::default()).unwrap()
}

fn codes(tree: &SourceTree) -> Vec<(String, String)> {
    let mut codes: Vec<_> = tree
        .diagnostics
        .iter()
        .map(|diagnostic| (diagnostic.place.file.clone(), diagnostic.code.to_string()))
        .collect();
    codes.sort();
    codes
}

#[test]
fn manifests_are_found_and_the_rest_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    for path in [
        "b.yaml",
        "a.yml",
        "sub/deep/c.json",
        "D.YAML",
        "README.md",
        "script.sh",
        ".hidden.yaml",
        ".git/x.yaml",
        "#b.yaml#",
        "b.yaml~",
        "~c.yaml",
        "b.yaml.swp",
    ] {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, CLUSTER).unwrap();
    }
    let tree = read(folder.path());
    assert_eq!(tree.files.keys().collect::<Vec<_>>(), ["D.YAML", "a.yml", "b.yaml", "sub/deep/c.json"]);
    assert!(tree.diagnostics.is_empty() && tree.unread.is_empty());
}

#[test]
fn the_hash_tells_whether_anything_changed() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("a.yaml", CLUSTER);
    let first = read(folder.path());
    write("notes.txt", "x");
    assert_eq!(read(folder.path()).hash, first.hash);
    write("a.yaml", "x");
    let second = read(folder.path());
    assert_ne!(second.hash, first.hash);
    fs::rename(folder.path().join("a.yaml"), folder.path().join("b.yaml")).unwrap();
    assert_ne!(read(folder.path()).hash, second.hash);
    write("a.yaml", CLUSTER);
    fs::remove_file(folder.path().join("b.yaml")).unwrap();
    assert_eq!(read(folder.path()).hash, first.hash);
}

#[test]
fn no_folder_is_not_an_empty_one() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(read_tree(&folder.path().join("none"), &Limits::default()), Err(ReadError::Missing(_))));
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(read_tree(&file, &Limits::default()), Err(ReadError::NotADirectory(_))));
    assert!(matches!(read_tree(&file.join("below"), &Limits::default()), Err(ReadError::NotADirectory(_))));
    assert!(read(folder.path()).files.is_empty());
}

#[test]
fn fifos_sockets_and_devices_are_refused_without_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    mknodat(CWD, at("fifo.yaml"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let _listener = UnixListener::bind(at("socket.yaml")).unwrap();
    symlink("/dev/zero", at("zero.yaml")).unwrap();
    symlink("fifo.yaml", at("link.yaml")).unwrap();
    fs::write(at("good.yaml"), CLUSTER).unwrap();
    let mut expected: Vec<(&str, &str)> = vec![
        ("fifo.yaml", "not-a-file"),
        ("link.yaml", "not-a-file"),
        ("socket.yaml", "not-a-file"),
        ("zero.yaml", "symlink"),
    ];
    // /dev/full's numbers. Not everybody may make devices.
    if mknodat(CWD, at("device.yaml"), FileType::CharacterDevice, Mode::from_raw_mode(0o600), rustix::fs::makedev(1, 7))
        .is_ok()
    {
        expected.insert(0, ("device.yaml", "not-a-file"));
    }
    let tree = read(folder.path());
    assert_eq!(
        codes(&tree),
        expected.iter().map(|(file, code)| ((*file).to_owned(), (*code).to_owned())).collect::<Vec<_>>()
    );
    assert_eq!(tree.files.keys().collect::<Vec<_>>(), ["good.yaml"]);
    assert_eq!(tree.unread.len(), expected.len());
}

#[test]
fn links_stay_inside() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret.yaml"), CLUSTER).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    // As a mounted ConfigMap looks.
    fs::create_dir(at("..2025")).unwrap();
    fs::write(at("..2025/a.yaml"), CLUSTER).unwrap();
    symlink("..2025", at("..data")).unwrap();
    symlink("..data/a.yaml", at("a.yaml")).unwrap();
    symlink(outside.path().join("secret.yaml"), at("out.yaml")).unwrap();
    symlink("nowhere", at("dangling.yaml")).unwrap();
    symlink("nowhere", at("dangling.txt")).unwrap();
    symlink(outside.path(), at("folder")).unwrap();
    symlink(".", at("loop")).unwrap();
    let tree = read(folder.path());
    assert_eq!(tree.files.keys().collect::<Vec<_>>(), ["a.yaml"]);
    let expected =
        ["dangling.yaml", "folder/", "loop/", "out.yaml"].map(|file| (file.to_owned(), "symlink".to_owned()));
    assert_eq!(codes(&tree), expected);
    assert!(admit(&tree, &Desired::default(), check_expression).broken_files.contains("out.yaml"));
}

#[test]
fn large_files_are_refused_unread() {
    let folder = tempfile::tempdir().unwrap();
    fs::File::create(folder.path().join("gigabyte.yaml")).unwrap().set_len(1 << 30).unwrap();
    fs::write(folder.path().join("good.yaml"), CLUSTER).unwrap();
    let tree = read(folder.path());
    assert_eq!(codes(&tree), [("gigabyte.yaml".to_owned(), "too-large".to_owned())]);
    assert_eq!(tree.files.len(), 1);
}

#[test]
fn a_folder_beyond_measure_is_no_folder_of_manifests() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..4 {
        fs::write(folder.path().join(format!("{number}.yaml")), CLUSTER).unwrap();
    }
    let total = 4 * CLUSTER.len() as u64;
    for (limits, fine) in [
        (Limits { files: 4, total_bytes: total, entries: 4, ..Limits::default() }, true),
        (Limits { files: 3, ..Limits::default() }, false),
        (Limits { entries: 3, ..Limits::default() }, false),
        (Limits { total_bytes: total - 1, ..Limits::default() }, false),
    ] {
        let read = read_tree(folder.path(), &limits);
        assert_eq!(read.is_ok(), fine, "{limits:?}");
        assert!(fine || matches!(read, Err(ReadError::TooLarge { .. })));
    }
}

#[test]
fn text_that_is_none_is_told() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("latin1.yaml"), b"a: 1\nb: caf\xe9\n").unwrap();
    fs::write(folder.path().join("bom.yaml"), format!("\u{feff}{CLUSTER}")).unwrap();
    let tree = read(folder.path());
    assert_eq!(codes(&tree), [("latin1.yaml".to_owned(), "not-utf8".to_owned())]);
    assert!(tree.diagnostics[0].message.contains("line 2"));
    assert!(admit(&tree, &Desired::default(), check_expression).desired.has_cluster(&"klp".into()));
}

#[test]
fn folders_nested_beyond_measure_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("a/b/c");
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("x.yaml"), CLUSTER).unwrap();
    let tree = read_tree(folder.path(), &Limits { depth: 2, ..Limits::default() }).unwrap();
    assert_eq!(codes(&tree), [("a/b/c/".to_owned(), "too-deep".to_owned())]);
}

#[test]
fn a_text_put_over_a_file_is_as_if_it_had_been_read() {
    let (good, other) = (CLUSTER, CLUSTER.replace("klp", "other"));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), b"\xff").unwrap();
    let mut tree = read(folder.path());
    assert!(tree.unread.contains("a.yaml"));
    tree.put("a.yaml", good);
    tree.put("b.yaml", other.as_str());
    fs::write(folder.path().join("a.yaml"), good).unwrap();
    fs::write(folder.path().join("b.yaml"), other).unwrap();
    let again = read(folder.path());
    assert_eq!((&tree.files, &tree.hash, &tree.unread), (&again.files, &again.hash, &again.unread));
    assert!(tree.diagnostics.is_empty());
}
