//! How full one host's disk is, and which images are on it: looked at now and then, and after what changes it.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc},
    time::{sleep, timeout},
};

use crate::{
    engine::EngineError,
    host::{ExecRequest, Transport},
};
use roadstead_core::{
    model::{
        name::HostName,
        storage::{DiskUse, StorageSeen},
    },
    turn::Input,
};

use super::{connect::Connection, seams::Clock};

/// Between two looks that nobody asked for.
const EVERY: Duration = Duration::from_secs(60);
/// Two looks in a row keep at least this distance.
const GAP: Duration = Duration::from_secs(1);
/// Pause after a look that failed.
const RETRY: Duration = Duration::from_secs(10);
/// `df` takes no longer; a network file system that hangs must not hold up the rest.
const DF_DEADLINE: Duration = Duration::from_secs(5);
/// Longer is nothing that `df -P` prints of one folder.
const DF_LIMIT_BYTES: usize = 16 << 10;

/// Watches one host's disk and images.
pub(super) struct StorageWatch<'o> {
    pub(super) host: &'o HostName,
    pub(super) connection: &'o Connection,
    pub(super) clock: &'o Clock,
    pub(super) inputs: &'o mpsc::Sender<Input>,
    pub(super) hint: &'o Arc<Notify>,
}

impl StorageWatch<'_> {
    /// Runs until it is dropped, or nobody listens.
    pub(super) async fn run(self) {
        let mut is_told = false;
        loop {
            match self.look().await {
                Ok(seen) => {
                    if seen.disk.is_none() && !is_told {
                        is_told = true;
                        let folder = &seen.data_root;
                        tracing::info!(host = %self.host, %folder, "`df` does not tell how full the disk is: no image is removed there");
                    }
                    if self.inputs.send(Input::Storage(self.host.clone(), seen)).await.is_err() {
                        return;
                    }
                    sleep(GAP).await;
                    let _ = timeout(EVERY, self.hint.notified()).await;
                }
                Err(error) => {
                    tracing::debug!(host = %self.host, %error, "no list of images");
                    sleep(RETRY).await;
                }
            }
        }
    }

    async fn look(&self) -> Result<StorageSeen, EngineError> {
        let started_at = self.clock.now();
        let data_root = self.connection.engine.info().await?.data_root;
        let images = self.connection.engine.images().await?;
        let disk = disk_use(&*self.connection.transport, &data_root).await;
        Ok(StorageSeen { started_at, data_root, disk, images, ..StorageSeen::default() })
    }
}

/// How full the file system of a folder is; nothing when the SSH user may not run commands, or the host has no `df`.
async fn disk_use(transport: &dyn Transport, folder: &str) -> Option<DiskUse> {
    if !folder.starts_with('/') {
        return None;
    }
    let request = ExecRequest {
        deadline: DF_DEADLINE,
        output_limit_bytes: DF_LIMIT_BYTES,
        ..ExecRequest::new(["df", "-Pk", folder])
    };
    let output = timeout(DF_DEADLINE * 2, transport.exec(request)).await.ok()?.ok()?;
    output.status.success().then(|| read_df(&output.stdout)).flatten()
}

/// `Filesystem 1024-blocks Used Available Capacity Mounted on`, and a line with these of one file system: names may have
/// spaces, and nothing else is three numbers before a percentage.
fn read_df(output: &[u8]) -> Option<DiskUse> {
    let text = std::str::from_utf8(output).ok()?;
    let words: Vec<&str> = text.lines().nth(1)?.split_whitespace().collect();
    words.windows(4).find_map(|window| {
        let [size, used, available, capacity] = window else { return None };
        capacity.strip_suffix('%')?.parse::<u32>().ok()?;
        size.parse::<u64>().ok()?;
        let bytes = |word: &str| word.parse::<u64>().ok()?.checked_mul(1024);
        Some(DiskUse { used_bytes: bytes(used)?, available_bytes: bytes(available)? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn df_tells_what_is_taken_and_what_is_left() {
        let head = "Filesystem     1024-blocks    Used Available Capacity Mounted on\n";
        for (line, used_and_available) in [
            ("/dev/sda1         1000000  850000    100000      90% /\n", Some((850_000, 100_000))),
            ("a b 7 8 9 c     1000000  850000    100000      90% /mnt/with space 50%\n", Some((850_000, 100_000))),
            ("overlay 0 0 0 - /\n", None),
            ("/dev/sda1 1000000 850000\n", None),
            ("/dev/sda1 1000000 -1 100000 90% /\n", None),
            ("/dev/sda1 1 99999999999999999999 1 90% /\n", None),
            ("/dev/sda1 1 18446744073709551615 1 90% /\n", None),
            ("", None),
        ] {
            let read = read_df(format!("{head}{line}").as_bytes());
            let expected = used_and_available
                .map(|(used, available)| DiskUse { used_bytes: used * 1024, available_bytes: available * 1024 });
            assert_eq!(read, expected, "{line}");
        }
        assert_eq!(read_df(b"\xff\n/dev/sda1 1 1 1 1% /\n"), None);
    }
}
