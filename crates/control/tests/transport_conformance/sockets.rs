//! Servers on Unix sockets for the transports to reach.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{UnixListener, UnixStream};

pub const FLOOD_BYTES: usize = 64 << 20;

/// A directory of sockets, served until the test ends.
pub struct Sockets {
    dir: PathBuf,
    /// How much of its floods the flooding socket got rid of, how many of them go on, and how many connections have ended.
    pub flooded: Arc<AtomicUsize>,
    pub floods: Arc<AtomicUsize>,
    pub ended: Arc<AtomicUsize>,
}

impl Sockets {
    pub fn serve(dir: &Path) -> Self {
        let flooded = Arc::new(AtomicUsize::new(0));
        let ended = Arc::new(AtomicUsize::new(0));
        serve(dir.join("echo.sock"), &ended, |mut stream| async move {
            let (mut read, mut write) = stream.split();
            let _ = copy(&mut read, &mut write).await;
        });
        serve(dir.join("count.sock"), &ended, |mut stream| async move {
            let mut content = Vec::new();
            let count = stream.read_to_end(&mut content).await.unwrap_or(0);
            let _ = stream.write_all(count.to_string().as_bytes()).await;
        });
        serve(dir.join("hangup.sock"), &ended, |_| async {});
        let floods = Arc::new(AtomicUsize::new(0));
        let (counter, going_on) = (Arc::clone(&flooded), Arc::clone(&floods));
        serve(dir.join("flood.sock"), &ended, move |mut stream| {
            let (counter, going_on) = (Arc::clone(&counter), Arc::clone(&going_on));
            async move {
                going_on.fetch_add(1, Ordering::SeqCst);
                let chunk = vec![b'x'; 64 << 10];
                for _ in 0..FLOOD_BYTES / chunk.len() {
                    if stream.write_all(&chunk).await.is_err() {
                        break;
                    }
                    counter.fetch_add(chunk.len(), Ordering::SeqCst);
                }
                going_on.fetch_sub(1, Ordering::SeqCst);
            }
        });
        Self { dir: dir.to_owned(), flooded, floods, ended }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.sock"))
    }
}

fn serve<F, Fut>(path: PathBuf, ended: &Arc<AtomicUsize>, serve_one: F)
where
    F: Fn(UnixStream) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = UnixListener::bind(path).unwrap();
    let ended = Arc::clone(ended);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let work = serve_one(stream);
            let ended = Arc::clone(&ended);
            tokio::spawn(async move {
                work.await;
                ended.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
}
