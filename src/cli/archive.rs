//! What a volume's archive must be before anything is done with it: whole, and nothing in it that would lie elsewhere.
//!
//! Rule: POSIX.1-1988 (ustar) headers, with GNU's long names and POSIX.1-2001's (pax) `path` and `linkpath`, as Docker writes them.

use std::io::{self, Read};

use aws_lc_rs::digest;

use roadstead_core::model::hex::hex;

const BLOCK: usize = 512;
/// A longer name, or set of pax records, is nobody's.
const NAME_MAX_BYTES: u64 = 1 << 20;
/// The folder that is the volume.
const ROOT: &str = "volume";

/// An archive that is in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Checked {
    pub(super) bytes: u64,
    /// Hex.
    pub(super) sha256: String,
    pub(super) entries: u64,
}

/// Reads an archive to its end.
///
/// # Errors
/// Why it is no archive of a volume, in words.
pub(super) fn check(archive: impl Read) -> Result<Checked, String> {
    let mut tar = Tar { archive, sum: digest::Context::new(&digest::SHA256), bytes: 0 };
    let (mut entries, mut names) = (0_u64, Names::default());
    while let Some(header) = tar.header()? {
        let size = number(&header[124..136]).ok_or_else(|| format!("entry {entries} has no size"))?;
        match header[156] {
            b'L' => names.path = Some(text(&tar.content(size)?)),
            b'K' => names.link = Some(text(&tar.content(size)?)),
            b'x' => names.take(&tar.content(size)?)?,
            b'g' => drop(tar.content(size)?),
            kind => {
                let names = std::mem::take(&mut names);
                let path = names.path.unwrap_or_else(|| short_name(&header));
                let is_root = path.trim_end_matches('/') == ROOT;
                if entries == 0 && !(is_root && kind == b'5') {
                    return Err(format!("it does not begin with the folder `{ROOT}/`, but with `{path}`"));
                }
                inside(&path)?;
                if kind == b'1' {
                    inside(&names.link.unwrap_or_else(|| text(&header[157..257])))?;
                }
                entries += 1;
                // Only files have content, whatever the header says.
                if matches!(kind, b'0' | 0 | b'7') {
                    tar.skip(names.size.unwrap_or(size))?;
                }
            }
        }
    }
    match entries {
        0 => Err("it is empty".to_owned()),
        entries => Ok(Checked { bytes: tar.bytes, sha256: hex(tar.sum.finish().as_ref()), entries }),
    }
}

/// Names from the entries before the one that bears them.
#[derive(Default)]
struct Names {
    path: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

impl Names {
    /// `LENGTH KEY=VALUE\n`, one after the other.
    fn take(&mut self, mut records: &[u8]) -> Result<(), String> {
        let broken = || "a pax header in it is broken".to_owned();
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ').ok_or_else(broken)?;
            let length: usize = text(&records[..space]).parse().map_err(|_| broken())?;
            let record =
                records.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(broken)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
            let value = || Some(String::from_utf8_lossy(&record[equals + 1..]).into_owned());
            match &record[..equals] {
                b"path" => self.path = value(),
                b"linkpath" => self.link = value(),
                b"size" => self.size = Some(text(&record[equals + 1..]).parse().map_err(|_| broken())?),
                _ => {}
            }
            records = &records[length..];
        }
        Ok(())
    }
}

struct Tar<R> {
    archive: R,
    sum: digest::Context,
    bytes: u64,
}

impl<R: Read> Tar<R> {
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, String> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.archive.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err("it is cut off".to_owned()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        self.sum.update(&block);
        self.bytes += BLOCK as u64;
        Ok(Some(block))
    }

    /// The next entry's; `None` at the end, with what comes after it read and empty.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, String> {
        let block = self.block()?.ok_or("it is cut off")?;
        if block.iter().any(|byte| *byte != 0) {
            let sum = number(&block[148..156]);
            let counted = block.iter().enumerate();
            let counted: u64 =
                counted.map(|(at, byte)| u64::from(if (148..156).contains(&at) { b' ' } else { *byte })).sum();
            return if sum == Some(counted) {
                Ok(Some(block))
            } else {
                Err("it is no tar archive, or is damaged".to_owned())
            };
        }
        let mut zeroes = 1;
        while let Some(block) = self.block()? {
            zeroes += 1;
            if block.iter().any(|byte| *byte != 0) {
                return Err("there is something after its end".to_owned());
            }
        }
        if zeroes < 2 { Err("it is cut off".to_owned()) } else { Ok(None) }
    }

    fn skip(&mut self, bytes: u64) -> Result<(), String> {
        for _ in 0..bytes.div_ceil(BLOCK as u64) {
            self.block()?.ok_or("it is cut off")?;
        }
        Ok(())
    }

    /// A short content, without what fills its last block.
    fn content(&mut self, bytes: u64) -> Result<Vec<u8>, String> {
        if bytes > NAME_MAX_BYTES {
            return Err("a name in it is too long".to_owned());
        }
        let mut content = Vec::new();
        for _ in 0..bytes.div_ceil(BLOCK as u64) {
            content.extend(self.block()?.ok_or("it is cut off")?);
        }
        content.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
        Ok(content)
    }
}

/// In the volume's folder, whoever unpacks it.
fn inside(path: &str) -> Result<(), String> {
    let rest = path.strip_prefix(ROOT).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    match rest {
        Some(rest) if !rest.split('/').any(|part| part == "..") && !path.contains('\0') => Ok(()),
        Some(_) | None => Err(format!("`{path}` would not lie in the volume")),
    }
}

/// Octal digits, or with the first bit set a big number (GNU).
fn number(field: &[u8]) -> Option<u64> {
    if field.first().is_some_and(|first| first & 0x80 != 0) {
        let rest = field.get(field.len().checked_sub(8)?..)?;
        let is_small = field[1..field.len() - 8].iter().all(|byte| *byte == 0) && field[0] == 0x80;
        return is_small.then(|| rest.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
    }
    let text = text(field);
    let digits = text.trim();
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
}

fn short_name(header: &[u8; BLOCK]) -> String {
    let (name, prefix) = (text(&header[..100]), text(&header[345..500]));
    match &header[257..263] == b"ustar\0" && !prefix.is_empty() {
        true => format!("{prefix}/{name}"),
        false => name,
    }
}

/// Up to the first NUL.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, kind: u8, link: &str, content: &[u8]) -> Vec<u8> {
        let mut header = [0_u8; BLOCK];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[156] = kind;
        header[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header[257..263].copy_from_slice(b"ustar\0");
        header[148..156].fill(b' ');
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        let mut bytes = header.to_vec();
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = entry("volume/", b'5', "", b"");
        bytes.extend(entries.concat());
        bytes.extend([0; 2 * BLOCK]);
        bytes
    }

    fn checked(bytes: &[u8]) -> Result<u64, String> {
        check(bytes).map(|checked| checked.entries)
    }

    #[test]
    fn an_archive_of_a_volume_is_in_order() {
        let long = "volume/".to_owned() + &"x".repeat(200);
        let pax = format!("{} path={long}\n", long.len() + 10);
        // Its own header has no size.
        let sized = [entry("volume/big", b'0', "", b""), vec![7; 2 * BLOCK]].concat();
        let whole = archive(&[
            entry("volume/a", b'0', "", b"some text"),
            entry("volume/hard", b'1', "volume/a", b""),
            entry("volume/soft", b'2', "../../etc/passwd", b""),
            entry("././@LongLink", b'L', "", long.as_bytes()),
            entry("volume/xx", b'0', "", &[1; 1000]),
            entry("PaxHeaders/x", b'x', "", pax.as_bytes()),
            entry("volume/yy", b'0', "", b""),
            entry("PaxHeaders/x", b'x', "", b"12 size=700\n"),
            sized,
        ]);
        assert_eq!(checked(&whole), Ok(7));
        let of_all = check(whole.as_slice()).unwrap();
        assert_eq!(of_all.sha256, hex(digest::digest(&digest::SHA256, &whole).as_ref()));
        assert_eq!(of_all.bytes, whole.len() as u64);
        assert_eq!(checked(&archive(&[])), Ok(1));
    }

    #[test]
    fn what_is_no_archive_of_a_volume_is_refused_with_words() {
        let file = entry("volume/a", b'0', "", b"some text");
        let mut flipped = archive(std::slice::from_ref(&file));
        flipped[BLOCK + 3] ^= 1;
        let mut after = archive(&[]);
        after.extend(file.clone());
        let outside = |path: &str| archive(&[entry(path, b'0', "", b"")]);
        let long = |kind, text: &str| archive(&[entry("x", kind, "", text.as_bytes()), file.clone()]);
        for (what, bytes, words) in [
            ("nothing", Vec::new(), "cut off"),
            ("no archive", vec![b'x'; 2048], "no tar archive"),
            ("only an end", vec![0; 1024], "empty"),
            ("cut in a file", archive(&[entry("volume/a", b'0', "", &[1; 5000])])[..2048].to_vec(), "cut off"),
            ("cut within a block", archive(&[])[..700].to_vec(), "cut off"),
            ("without its end", archive(&[])[..BLOCK].to_vec(), "cut off"),
            ("with half of its end", archive(&[])[..2 * BLOCK].to_vec(), "cut off"),
            ("a flipped bit", flipped, "damaged"),
            ("more after its end", after, "after its end"),
            ("another folder", [entry("data/", b'5', "", b""), vec![0; 1024]].concat(), "does not begin with"),
            ("a file for the folder", [entry("volume", b'0', "", b""), vec![0; 1024]].concat(), "does not begin with"),
            ("an absolute path", outside("/etc/passwd"), "would not lie in the volume"),
            ("a way out", outside("volume/../etc/passwd"), "would not lie in the volume"),
            ("a neighbour", outside("volumes/x"), "would not lie in the volume"),
            ("a hard link out", archive(&[entry("volume/x", b'1', "/etc/passwd", b"")]), "would not lie in the volume"),
            ("a long way out", long(b'L', "volume/../../etc/passwd"), "would not lie in the volume"),
            ("a pax way out", long(b'x', "23 path=volume/../../x\n"), "would not lie in the volume"),
            ("a broken pax header", long(b'x', "99 path=volume/x\n"), "pax header"),
        ] {
            let refused = checked(&bytes).expect_err(what);
            assert!(refused.contains(words), "{what}: {refused}");
        }
    }
}
