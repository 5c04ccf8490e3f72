//! Running a command: request, result, quoting, and the script behind `upload`.

use std::time::Duration;

use bytes::Bytes;

use super::TransportError;

/// A command to run on a host.
#[derive(Debug, Clone)]
pub struct ExecRequest {
    /// Program and arguments. No shell sees them, or a shell sees them quoted.
    pub argv: Vec<String>,
    /// What the command reads on its standard input, then end of file.
    pub stdin: Bytes,
    /// Time for everything, waiting for a free session included. Then the command is killed.
    pub deadline: Duration,
    /// Limit for standard output and standard error together.
    pub output_limit_bytes: usize,
}

impl ExecRequest {
    /// A request without input, 30 s and 1 MiB.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            stdin: Bytes::new(),
            deadline: Duration::from_secs(30),
            output_limit_bytes: 1 << 20,
        }
    }

    pub(super) fn check(&self) -> Result<(), TransportError> {
        let empty_program = self.argv.first().is_none_or(String::is_empty);
        if empty_program || self.argv.iter().any(|word| word.contains('\0')) {
            return Err(TransportError::misconfigured(
                "a command needs a program and may not contain a NUL byte",
                "correct the command",
            ));
        }
        Ok(())
    }

    pub(super) fn program(&self) -> &str {
        self.argv.first().map_or("", String::as_str)
    }

    /// The command as one line for the login shell of a host. The host itself ends it, a little after
    /// the deadline, also when we can no longer tell it to.
    pub(super) fn command_line(&self) -> String {
        let seconds = self.deadline.as_secs().saturating_add(2).to_string();
        let wrapper = ["sh", "-c", BOUNDED_SCRIPT, &seconds];
        let words = wrapper.into_iter();
        let words = words.chain(self.argv.iter().map(String::as_str));
        words.map(shell_quote).collect::<Vec<_>>().join(" ")
    }
}

/// Runs `$@` for at most `$0` seconds where the host has `timeout` (coreutils, busybox).
const BOUNDED_SCRIPT: &str = r#"command -v timeout >/dev/null && exec timeout -s KILL "$0" "$@"; exec "$@""#;

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitStatus {
    /// It returned this status.
    Exited(u32),
    /// A signal ended it (name without `SIG`, as in RFC 4254 6.10).
    Signalled(String),
}

impl ExitStatus {
    /// True for status 0.
    pub fn success(&self) -> bool {
        *self == Self::Exited(0)
    }
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: Bytes,
    /// Standard error.
    pub stderr: Bytes,
}

/// Collects the output of a command up to its limit.
pub(super) struct OutputBuffer {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    limit_bytes: usize,
}

impl OutputBuffer {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self { stdout: Vec::new(), stderr: Vec::new(), limit_bytes }
    }

    pub(super) fn push(&mut self, data: &[u8], is_stderr: bool) -> Result<(), TransportError> {
        let used = self.stdout.len() + self.stderr.len();
        if data.len() > self.limit_bytes.saturating_sub(used) {
            return Err(TransportError::OutputTooLarge { limit_bytes: self.limit_bytes });
        }
        let buffer = if is_stderr { &mut self.stderr } else { &mut self.stdout };
        buffer.extend_from_slice(data);
        Ok(())
    }

    pub(super) fn finish(self, status: ExitStatus) -> ExecOutput {
        ExecOutput { status, stdout: self.stdout.into(), stderr: self.stderr.into() }
    }
}

/// Quotes one word for a POSIX shell.
pub fn shell_quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Writes standard input to `$1`, and renames it to `$4` only when all `$3` bytes have come: a
/// connection that dies looks like the end of the input. `set -C` refuses a file or link that waits there.
const UPLOAD_SCRIPT: &str = r#"set -eu; umask 077; set -C
trap 'rm -f -- "$1"' EXIT
cat >"$1"
[ "$(wc -c <"$1")" -eq "$3" ] || { echo "the content was cut off" >&2; exit 1; }
[ ! -d "$4" ] || { echo "$4 is a directory" >&2; exit 1; }
chmod -- "$2" "$1"
mv -f -- "$1" "$4""#;

/// The command that does an upload over a shell.
pub(super) fn upload_request(
    path: &str,
    mode: u32,
    content: Bytes,
    deadline: Duration,
) -> Result<ExecRequest, TransportError> {
    let temporary = upload_temporary(path)?;
    let mut request = ExecRequest::new([
        "sh",
        "-c",
        UPLOAD_SCRIPT,
        "sh",
        &temporary,
        &format!("{:o}", mode & 0o7777),
        &content.len().to_string(),
        path,
    ]);
    request.stdin = content;
    request.deadline = deadline;
    request.output_limit_bytes = 16 << 10;
    Ok(request)
}

/// The name of the temporary file of an upload, in the same directory.
pub(super) fn upload_temporary(path: &str) -> Result<String, TransportError> {
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        return Err(TransportError::misconfigured(
            format!("{path:?} is no usable file path"),
            "give an absolute path of a file",
        ));
    }
    Ok(format!("{path}.{:016x}.part", rand::random::<u64>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_so_that_a_shell_gives_them_back() {
        for (word, quoted) in [
            ("", "''"),
            ("ls", "ls"),
            ("/var/run/docker.sock", "/var/run/docker.sock"),
            ("a b", "'a b'"),
            ("$(reboot)", "'$(reboot)'"),
            ("it's", r"'it'\''s'"),
            ("~root", "'~root'"),
            ("a\nb", "'a\nb'"),
            ("*", "'*'"),
        ] {
            assert_eq!(shell_quote(word), quoted);
        }
    }

    #[test]
    fn output_counts_both_streams_against_one_limit() {
        let mut buffer = OutputBuffer::new(4);
        assert_eq!(buffer.push(b"ab", false), Ok(()));
        assert_eq!(buffer.push(b"cd", true), Ok(()));
        assert_eq!(buffer.push(b"e", false), Err(TransportError::OutputTooLarge { limit_bytes: 4 }));
    }

    #[test]
    fn a_command_without_program_or_with_nul_is_refused() {
        for argv in [vec![], vec![""], vec!["ls", "a\0b"]] {
            assert!(ExecRequest::new(argv).check().is_err());
        }
    }

    #[test]
    fn uploads_take_absolute_file_paths_only() {
        for path in ["", "etc/x", "/etc/", "/a\0b"] {
            assert!(upload_temporary(path).is_err(), "{path:?}");
        }
        assert!(upload_temporary("/etc/x").is_ok_and(|name| name.starts_with("/etc/x.")));
    }

    /// What an upload looks like whose connection dies on the way.
    #[tokio::test]
    async fn an_upload_cut_short_leaves_the_old_file() {
        use crate::host::{LocalTransport, Transport};

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "old").unwrap();
        let content = Bytes::from_static(b"new content");
        let deadline = Duration::from_secs(30);
        let mut request = upload_request(path.to_str().unwrap(), 0o600, content, deadline).unwrap();
        request.stdin.truncate(5);

        let output = LocalTransport::new().exec(request).await.unwrap();

        assert_eq!(output.status, ExitStatus::Exited(1));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
