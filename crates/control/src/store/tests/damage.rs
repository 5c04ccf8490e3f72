//! Files and disks as they should not be.

use std::{fs, path::PathBuf, sync::Arc};

use super::{applied, dir, open, sample};
use crate::store::{Store, StoreError, open::check_version};
use roadstead_core::model::state::{Change, State};

fn tasks(count: u32) -> Vec<Change> {
    (0..count).map(|n| Change::Task(Arc::new(sample::task(&format!("t{n}"), "box-a", &[])))).collect()
}

/// A closed database of a few hundred pages.
async fn written(dir: &tempfile::TempDir) -> PathBuf {
    let store = open(dir).await;
    store.commit(&tasks(300), None).await.unwrap();
    store.close().await.unwrap();
    dir.path().join("roadstead.db")
}

#[tokio::test]
async fn a_damaged_file_is_refused_with_the_next_step() {
    type Damage = fn(Vec<u8>) -> Vec<u8>;
    let cases: [(&str, Damage); 5] = [
        ("garbage", |_| b"not a database at all, just some text that is longer than a header".repeat(50)),
        ("cut in the middle", |bytes| bytes[..bytes.len() / 2 + 100].to_vec()),
        ("cut on a page", |bytes| bytes[..8192].to_vec()),
        ("cut in the header", |bytes| bytes[..60].to_vec()),
        ("a page overwritten", |mut bytes| {
            let middle = bytes.len() / 8192 * 4096;
            bytes[middle..middle + 4096].fill(0xa5);
            bytes
        }),
    ];
    for (what, damage) in cases {
        let dir = dir();
        let path = written(&dir).await;
        fs::write(&path, damage(fs::read(&path).unwrap())).unwrap();

        let refused = Store::open(dir.path()).await;

        match refused {
            Err(error @ StoreError::Corrupt { .. }) => {
                assert!(error.to_string().contains("move roadstead.db"), "{what}")
            }
            other => panic!("{what}: {other:?}"),
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(open(&dir).await.load().await.unwrap(), State::default(), "{what}: moved away, it begins anew");
    }
}

#[tokio::test]
async fn a_row_that_makes_no_sense_is_damage() {
    let dir = dir();
    let store = open(&dir).await;
    store.commit(&tasks(1), None).await.unwrap();
    let nonsense = async |sql: &'static str| {
        let mut writer = store.writer.lock().await;
        sqlx::query(sql).execute(writer.as_mut().unwrap()).await
    };
    assert!(nonsense("UPDATE tasks SET doc = 'x'").await.is_err());
    assert!(nonsense("UPDATE tasks SET doc = json_set(doc, '$.lastStatus', 'LOST')").await.is_err());
    nonsense("UPDATE tasks SET doc = json_remove(doc, '$.epoch')").await.unwrap();

    let refused = store.load().await.unwrap_err();

    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused:?}");
    assert!(refused.to_string().contains("task t0: missing field `epoch`"), "{refused}");
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_as_it_is() {
    let dir = dir();
    let store = open(&dir).await;
    {
        let mut writer = store.writer.lock().await;
        let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                     VALUES (999, 'of tomorrow', TRUE, x'00', 0)";
        sqlx::query(newer).execute(writer.as_mut().unwrap()).await.unwrap();
    }
    store.close().await.unwrap();
    let before = fs::read(dir.path().join("roadstead.db")).unwrap();

    let refused = Store::open(dir.path()).await.unwrap_err();

    assert!(matches!(refused, StoreError::NewerSchema { found: 999, known: 2 }), "{refused:?}");
    assert!(refused.to_string().contains("run the newer version"), "{refused}");
    assert_eq!(fs::read(dir.path().join("roadstead.db")).unwrap(), before);
}

#[tokio::test]
async fn a_full_disk_is_named_and_commits_nothing_until_there_is_room() {
    let dir = dir();
    let store = open(&dir).await;
    {
        let mut writer = store.writer.lock().await;
        // SQLite allows no less than what the file has already.
        sqlx::query("PRAGMA max_page_count = 1").execute(writer.as_mut().unwrap()).await.unwrap();
    }

    let refused = store.commit(&tasks(300), None).await;

    assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
    assert_eq!(store.load().await.unwrap(), State::default());
    store.commit(&tasks(300), None).await.unwrap();
    assert_eq!(store.load().await.unwrap(), applied(&tasks(300)));
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let dir = dir();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();

    let refused = Store::open(&file.join("data")).await.unwrap_err();

    assert!(matches!(&refused, StoreError::Io { what } if what.contains("file/data")), "{refused:?}");
}

#[tokio::test]
async fn readers_cannot_write() {
    let dir = dir();
    let store = open(&dir).await;

    let refused = sqlx::query("DELETE FROM tasks").execute(&store.readers).await;

    assert!(refused.unwrap_err().to_string().contains("readonly"));
}

#[tokio::test]
async fn a_commit_survives_a_power_cut() {
    let dir = dir();
    let store = open(&dir).await;
    let mut writer = store.writer.lock().await;
    let setting = async |pragma: &'static str, connection: &mut sqlx::SqliteConnection| -> String {
        sqlx::query_scalar(pragma).fetch_one(connection).await.unwrap()
    };
    let connection = writer.as_mut().unwrap();
    assert_eq!(setting("SELECT CAST(synchronous AS TEXT) FROM pragma_synchronous", connection).await, "2");
    assert_eq!(setting("SELECT journal_mode FROM pragma_journal_mode", connection).await, "wal");
    assert_eq!(setting("SELECT CAST(foreign_keys AS TEXT) FROM pragma_foreign_keys", connection).await, "1");
}

#[test]
fn old_sqlite_is_refused() {
    for old in ["3.51.2", "3.50.9", "3.9.20", "2.99.99", "", "nonsense"] {
        assert!(matches!(check_version(old), Err(StoreError::SqliteTooOld { .. })), "{old}");
    }
    for good in ["3.51.3", "3.51.10", "3.52.0", "4.0.0"] {
        assert!(check_version(good).is_ok(), "{good}");
    }
}
