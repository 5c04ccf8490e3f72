//! Text to tokens, one at a time: what follows `=~` is read differently.

use std::fmt;

use super::ParseError;

/// Longer ones first.
const SYMBOLS: [&str; 16] = ["==", "=~", "!=", "!~", ">=", "<=", "&&", "||", "(", ")", "[", "]", ",", "!", ">", "<"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'t> {
    /// One of [`SYMBOLS`].
    Symbol(&'static str),
    /// A bare word.
    Word(&'t str),
    /// What stood between quotes.
    Quoted(&'t str),
    /// Nothing is left.
    End,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Symbol(text) => write!(f, "`{text}`"),
            Self::Word(text) | Self::Quoted(text) => write!(f, "`{text}`"),
            Self::End => f.write_str("the end"),
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    /// The next token and where it begins.
    pub(super) fn next(&mut self) -> Result<(usize, Token<'t>), ParseError> {
        let (start, rest) = self.skip_space();
        let Some(first) = rest.chars().next() else {
            return Ok((start, Token::End));
        };
        if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            self.at += symbol.len();
            return Ok((start, Token::Symbol(symbol)));
        }
        if is_quote(first) {
            return Ok((start, Token::Quoted(self.quoted(start, first)?)));
        }
        let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        if length == 0 {
            return Err(error(start, format!("a single `{first}`: write `{first}{first}`")));
        }
        self.at += length;
        Ok((start, Token::Word(&rest[..length])))
    }

    /// A pattern: quoted, or bare up to a space or a `)` that it did not open.
    pub(super) fn pattern(&mut self) -> Result<(usize, &'t str), ParseError> {
        let (start, rest) = self.skip_space();
        if let Some(quote) = rest.chars().next().filter(|c| is_quote(*c)) {
            return Ok((start, self.quoted(start, quote)?));
        }
        let (mut open, mut escaped, mut length) = (0_u32, false, rest.len());
        for (index, c) in rest.char_indices() {
            if c.is_whitespace() || (c == ')' && open == 0 && !escaped) {
                length = index;
                break;
            }
            if is_quote(c) {
                return Err(error(
                    start + index,
                    "a quote inside a pattern: put the whole pattern in quotes of the other kind",
                ));
            }
            if escaped {
                escaped = false;
                continue;
            }
            match c {
                '\\' => escaped = true,
                '(' => open += 1,
                ')' => open -= 1,
                _ => {}
            }
        }
        if length == 0 {
            return Err(error(start, "a pattern is missing, such as `web-.*`"));
        }
        self.at += length;
        Ok((start, &rest[..length]))
    }

    fn skip_space(&mut self) -> (usize, &'t str) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let trimmed = rest.trim_start();
        self.at += rest.len() - trimmed.len();
        (self.at, trimmed)
    }

    fn quoted(&mut self, start: usize, quote: char) -> Result<&'t str, ParseError> {
        let inside = self.text.get(start + 1..).unwrap_or_default();
        let length = inside.find(quote).ok_or_else(|| error(start, format!("the closing {quote} is missing")))?;
        self.at = start + length + 2;
        Ok(&inside[..length])
    }
}

pub(super) fn error(offset: usize, message: impl Into<String>) -> ParseError {
    ParseError { offset, message: message.into() }
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\'')
}

fn is_word(c: char) -> bool {
    !(c.is_whitespace() || is_quote(c) || "()[],=!<>&|".contains(c))
}

/// A value or pattern as it can be read again: bare when simple, else in quotes that it does not contain.
pub(super) struct Written<'a>(pub(super) &'a str);

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let simple = |c: char| c.is_ascii_alphanumeric() || "_-.:/*+".contains(c);
        match self.0 {
            text if !text.is_empty() && text.chars().all(simple) => f.write_str(text),
            text if text.contains('"') => write!(f, "'{text}'"),
            text => write!(f, "\"{text}\""),
        }
    }
}
