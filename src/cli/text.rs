//! Text of others, made fit for a terminal.

use std::borrow::Cow;

/// `text` without terminal control: escape sequences are dropped, other control characters and those that
/// reorder text are shown as escapes. Tabs stay.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_harmless) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in anstream::adapter::strip_str(text).to_string().chars() {
        match is_harmless(c) {
            true => out.push(c),
            false => out.extend(c.escape_default()),
        }
    }
    Cow::Owned(out)
}

/// [`clean`] on one line.
pub(super) fn one_line(text: &str) -> String {
    clean(&text.split(['\n', '\r', '\t']).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")).into_owned()
}

/// [`clean`] line by line.
pub(super) fn clean_lines(text: &str) -> String {
    text.split('\n').map(|line| clean(line.trim_end_matches('\r'))).collect::<Vec<_>>().join("\n")
}

fn is_harmless(c: char) -> bool {
    let reorders = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (c == '\t' || !c.is_control()) && !reorders
}

/// How long ago, as kubectl writes it: `12s`, `3m`, `3m20s`, `5h`, `2d`.
pub(super) fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    let two = |big: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{small_unit}"),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(seconds / 60, "m", seconds % 60, "s"),
        600..10_800 => format!("{}m", seconds / 60),
        10_800..28_800 => two(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        28_800..172_800 => format!("{}h", seconds / 3600),
        172_800..691_200 => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// `1 task`, `2 tasks`.
pub(super) fn count(number: usize, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        number => format!("{number} {thing}s"),
    }
}

/// `NAME=VALUE` of a command line.
pub(super) fn name_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| format!("`{text}` is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_others_controls_the_terminal() {
        for (text, shown) in [
            ("plain ünïcode 漢", "plain ünïcode 漢"),
            ("a\tb", "a\tb"),
            ("\x1b[31mred\x1b[0m", "red"),
            ("\x1b]0;title\x07x", "x"),
            ("bell\x07", "bell"),
            ("a\u{202e}b", "a\\u{202e}b"),
            ("c1 \u{9b}31m", "c1 \\u{9b}31m"),
        ] {
            let cleaned = clean(text);
            assert!(cleaned.chars().all(is_harmless), "{text:?} gives {cleaned:?}");
            if !text.contains('\x07') {
                assert_eq!(cleaned, shown, "{text:?}");
            }
        }
        assert_eq!(one_line("a\nb\r\n\tc"), "a b c");
    }

    #[test]
    fn ages_read_like_kubectl() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (3600, "60m"),
            (11_000, "3h3m"),
            (90_000, "25h"),
            (200_000, "2d7h"),
            (864_000, "10d"),
        ] {
            assert_eq!(age(seconds * 1000), text);
        }
    }
}
