//! A YAML document as a tree that remembers where everything stands.

/// From a first to behind a last character; lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// First line.
    pub line: u32,
    /// First column.
    pub column: u32,
    /// Line of the end.
    pub end_line: u32,
    /// Column behind the end.
    pub end_column: u32,
}

impl Span {
    /// One character.
    pub fn point(line: u32, column: u32) -> Self {
        Self { line, column, end_line: line, end_column: column.saturating_add(1) }
    }
}

/// How a scalar is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Without quotes: may be a number, a boolean or null.
    Plain,
    /// In quotes: text.
    Quoted,
    /// `|` or `>`: text.
    Block,
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub value: Value,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A word, number, text.
    Scalar {
        /// As written, escapes resolved.
        text: String,
        /// How it is written.
        style: Style,
    },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub key_span: Span,
    /// The value.
    pub value: Node,
}

/// A plain scalar's meaning by YAML 1.2's core schema.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Plain<'a> {
    /// Nothing, `~`, `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A whole number of at least 0.
    Whole(u64),
    /// A whole number below 0.
    Negative(i64),
    /// Any other number.
    Fraction(f64),
    /// Text.
    Text(&'a str),
}

/// One step of a path into a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// The value of a key.
    Key(&'a str),
    /// An item of a list.
    Index(usize),
}

impl<'a> From<&'a str> for Step<'a> {
    fn from(key: &'a str) -> Self {
        Self::Key(key)
    }
}

impl From<usize> for Step<'_> {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// A path: `at!["containerDefinitions", 0, "image"]`.
macro_rules! at {
    ($($step:expr),* $(,)?) => { &[$($crate::manifest::node::Step::from($step)),*][..] };
}
pub(crate) use at;

impl Node {
    /// An empty mapping at a place.
    pub fn empty_map(span: Span) -> Self {
        Self { span, value: Value::Map(Vec::new()) }
    }

    /// The entries, when it is a mapping.
    pub fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            Value::Scalar { .. } | Value::List(_) => None,
        }
    }

    /// The items, when it is a list.
    pub fn items(&self) -> Option<&[Node]> {
        match &self.value {
            Value::List(items) => Some(items),
            Value::Scalar { .. } | Value::Map(_) => None,
        }
    }

    /// The text, when it is a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The entry of a key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries()?.iter().find(|entry| entry.key == key)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The node at a path.
    pub fn find(&self, path: &[Step<'_>]) -> Option<&Node> {
        path.iter().try_fold(self, |node, step| match step {
            Step::Key(key) => node.get(key),
            Step::Index(index) => node.items()?.get(*index),
        })
    }

    /// The word to point at for a path: the scalar itself, the key of a list or mapping, or what comes nearest when the path ends early.
    pub fn locate(&self, path: &[Step<'_>]) -> Span {
        let (mut node, mut span) = (self, self.word());
        for step in path {
            let next = match step {
                Step::Key(key) => node.entry(key).map(|entry| match &entry.value.value {
                    Value::Scalar { text, .. } if !text.is_empty() => (&entry.value, entry.value.span),
                    Value::Scalar { .. } | Value::List(_) | Value::Map(_) => (&entry.value, entry.key_span),
                }),
                Step::Index(index) => node.items().and_then(|items| items.get(*index)).map(|item| (item, item.word())),
            };
            match next {
                Some((next, at)) => (node, span) = (next, at),
                None => break,
            }
        }
        span
    }

    /// A short span for pointing at the whole: the first key of a mapping, else its own beginning.
    pub fn word(&self) -> Span {
        match &self.value {
            Value::Map(entries) => entries.first().map_or(self.span, |entry| entry.key_span),
            Value::List(items) => items.first().map_or(self.span, Node::word),
            Value::Scalar { .. } => self.span,
        }
    }

    /// What a scalar means; `None` for lists and mappings.
    pub fn plain(&self) -> Option<Plain<'_>> {
        match &self.value {
            Value::Scalar { text, style: Style::Plain } => Some(resolve(text)),
            Value::Scalar { text, style: Style::Quoted | Style::Block } => Some(Plain::Text(text)),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// Whether nothing is said: null, false, empty text, list or mapping.
    pub fn says_nothing(&self) -> bool {
        match &self.value {
            Value::List(items) => items.is_empty(),
            Value::Map(entries) => entries.is_empty(),
            Value::Scalar { .. } => matches!(self.plain(), Some(Plain::Null | Plain::Bool(false) | Plain::Text(""))),
        }
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        self.plain() == Some(Plain::Null)
    }

    /// In a few words, for messages: `` `abc` ``, "a list".
    pub fn describe(&self) -> String {
        match &self.value {
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
            Value::Scalar { text, .. } if text.is_empty() => "nothing".to_owned(),
            Value::Scalar { text, .. } => super::report::quote(text),
        }
    }
}

/// Reads a plain scalar by the core schema. Digits with a leading zero are text: an account number is no number.
fn resolve(text: &str) -> Plain<'_> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Plain::Null,
        "true" | "True" | "TRUE" => return Plain::Bool(true),
        "false" | "False" | "FALSE" => return Plain::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "-.inf" | ".nan" | ".NaN" | ".NAN" => return Plain::Text(text),
        _ => {}
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let radix = |prefix, radix| {
        digits
            .strip_prefix(prefix)
            .filter(|rest| rest.starts_with(|c: char| c.is_ascii_hexdigit()))
            .and_then(|rest| u64::from_str_radix(rest, radix).ok())
    };
    if !negative && let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return Plain::Whole(number);
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') || !digits.contains(|c: char| c.is_ascii_digit()) {
        return Plain::Text(text);
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        if digits.len() > 1 && digits.starts_with('0') {
            return Plain::Text(text);
        }
        if negative {
            return text.parse().map_or(Plain::Text(text), Plain::Negative);
        }
        return digits.parse().map_or(Plain::Text(text), Plain::Whole);
    }
    match digits.parse::<f64>() {
        Ok(number) if number.is_finite() => Plain::Fraction(if negative { -number } else { number }),
        Ok(_) | Err(_) => Plain::Text(text),
    }
}
