//! Text of others in HAProxy's configuration: it stays one word, whatever it holds.

use std::fmt::Write;

/// One word of a line. A NUL, which no word can hold, is left out.
pub fn word(text: &[u8]) -> String {
    let mut word = String::with_capacity(text.len() + 2);
    let mut quoted = false;
    for &byte in text {
        let plain = (b' '..=b'~').contains(&byte) && byte != b'\'';
        if byte != 0 && plain != quoted {
            word.push('\'');
            quoted = plain;
        }
        match byte {
            0 => {}
            _ if plain => word.push(char::from(byte)),
            _ => {
                let _ = write!(word, "\\x{byte:02x}");
            }
        }
    }
    if quoted {
        word.push('\'');
    }
    if word.is_empty() { "''".to_owned() } else { word }
}

/// A name of ours as a word of letters, digits, `.` and `-` (and `/`): what is else in it is spelt by its bytes, so that two
/// names never become one.
pub fn name(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'/' => name.push(char::from(byte)),
            _ => {
                let _ = write!(name, "_{byte:02x}");
            }
        }
    }
    name
}

/// A regular expression for the whole of a text: `*` stands for any bytes, `?` for one.
pub fn wildcards(pattern: &str) -> Vec<u8> {
    let mut regex = b"(?s)^".to_vec();
    let mut after_star = false;
    for byte in pattern.bytes() {
        match byte {
            b'*' if after_star => {}
            b'*' => regex.extend_from_slice(b".*"),
            b'?' => regex.push(b'.'),
            other => literal(&mut regex, other),
        }
        after_star = byte == b'*';
    }
    regex.push(b'$');
    // `$` alone would let a line end pass.
    regex.splice(regex.len() - 1.., *b"\\z");
    regex
}

/// A regular expression for a query with this parameter. Queries are compared undecoded: each byte of the pattern fits itself
/// and its percent-encoded form.
pub fn query(key: Option<&str>, value: &str) -> Vec<u8> {
    let mut regex = b"(?:^|&)".to_vec();
    match key {
        Some(key) => encoded(&mut regex, key),
        None => regex.extend_from_slice(b"[^&=]*"),
    }
    regex.push(b'=');
    encoded(&mut regex, value);
    regex.extend_from_slice(b"(?:&|\\z)");
    regex
}

fn encoded(regex: &mut Vec<u8>, pattern: &str) {
    let mut after_star = false;
    for byte in pattern.bytes() {
        match byte {
            b'*' if after_star => {}
            b'*' => regex.extend_from_slice(b"[^&]*"),
            b'?' => regex.extend_from_slice(b"(?:%[0-9a-f]{2}|[^&%])"),
            other => {
                regex.extend_from_slice(b"(?:");
                // Not encoded these end a parameter, or mean another byte.
                if !matches!(other, b'&' | b'%' | b'+' | b' ' | 0) {
                    literal(regex, other);
                    regex.push(b'|');
                }
                if other == b' ' {
                    regex.extend_from_slice(b"\\+|");
                }
                regex.extend_from_slice(format!("%{other:02x}").as_bytes());
                // Case does not matter: `%41` and `%61` are one letter.
                if other.is_ascii_alphabetic() {
                    regex.extend_from_slice(format!("|%{:02x}", other ^ 0x20).as_bytes());
                }
                regex.push(b')');
            }
        }
        after_star = byte == b'*';
    }
}

fn literal(regex: &mut Vec<u8>, byte: u8) {
    match byte {
        0 => regex.extend_from_slice(b"\\x00"),
        _ if byte.is_ascii_alphanumeric() || !byte.is_ascii() => regex.push(byte),
        _ if byte.is_ascii_graphic() || byte == b' ' => regex.extend_from_slice(&[b'\\', byte]),
        _ => regex.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word() {
        for (text, expected) in [
            ("", "''"),
            ("plain", "'plain'"),
            ("two words # and \"more\" \\", "'two words # and \"more\" \\'"),
            ("it's", r"'it'\x27's'"),
            ("a\nbackend b", r"'a'\x0a'backend b'"),
            ("\0", "''"),
            ("é", r"\xc3\xa9"),
        ] {
            assert_eq!(word(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn names_never_become_one() {
        assert_eq!(name("internal/http/a-1"), "internal/http/a-1");
        assert_eq!(name("a b"), "a_20b");
        assert_eq!(name("a_20b"), "a_5f20b");
        assert_eq!(name("g:1"), "g_3a1");
    }
}
