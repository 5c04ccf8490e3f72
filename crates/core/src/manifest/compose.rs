//! Text → trees, within limits: what is too large, too deep or multiplies itself is refused before anything is made of it.

use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Parser, ScalarStyle, Span as Range, Tag};

use super::{
    node::{Entry, Node, Span, Style, Value},
    read::Limits,
    report::{Finding, quote},
};

/// The documents of one file as far as they could be read, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Composed {
    /// The documents, empty ones left out.
    pub documents: Vec<Node>,
    /// Errors; the file is broken when there is one.
    pub errors: Vec<Finding>,
}

/// Reads all documents of a text.
pub fn compose(text: &str, limits: &Limits) -> Composed {
    let mut composer = Composer {
        limits,
        anchors: BTreeMap::new(),
        cost: Cost::default(),
        aliases: 0,
        stack: Vec::new(),
        out: Composed::default(),
    };
    let mut parser = Parser::new_from_str(text);
    loop {
        let step = match parser.next_event() {
            None | Some(Ok((Event::StreamEnd, _))) => break,
            Some(Ok((event, range))) => composer.take(event, span_of(range)),
            Some(Err(error)) => {
                let mark = error.marker();
                Err(Box::new(syntax_error(
                    text,
                    clip(mark.line()).max(1),
                    clip(mark.col()).saturating_add(1),
                    error.info(),
                )))
            }
        };
        if let Err(error) = step {
            composer.out.errors.push(*error);
            break;
        }
    }
    composer.out
}

/// What of JSON is no YAML, written as YAML has it: tabs, which JSON has between words only, and characters escaped as two surrogates.
pub fn json_as_yaml(text: &str) -> String {
    let text = text.replace('\t', " ");
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let (taken, written) = match surrogates(escape) {
            Some(character) => (12, format!("\\U{:08x}", u32::from(character))),
            // The escaped character goes with its backslash: it may be one itself.
            None => {
                let taken = escape.chars().take(2).map(char::len_utf8).sum();
                (taken, escape.get(..taken).unwrap_or_default().to_owned())
            }
        };
        out.push_str(&written);
        rest = escape.get(taken..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// The character of `\uD83D\uDE00` at the beginning of a text.
fn surrogates(text: &str) -> Option<char> {
    let unit = |from: usize| {
        let digits = text.get(from..from + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut pair = char::decode_utf16([unit(0)?, unit(6)?]);
    match (pair.next(), pair.next()) {
        (Some(Ok(character)), None) => Some(character),
        (Some(_) | None, _) => None,
    }
}

/// Where something is missing at the end, what it is missing from is shown.
fn syntax_error(text: &str, line: u32, column: u32, info: &str) -> Finding {
    let before: Vec<&str> = text.lines().take(line as usize).collect();
    let last = before.iter().rposition(|line| !line.trim().is_empty()).unwrap_or(0);
    let shown = before.get(last).copied().unwrap_or_default();
    let span = if last + 1 == line as usize {
        Span::point(line, column)
    } else {
        Span::point(clip(last + 1), clip(shown.trim_end().chars().count() + 1))
    };
    let finding = Finding::error("syntax", span, format!("not valid YAML: {info}"));
    if shown.trim_start_matches(' ').starts_with('\t') {
        finding.help("YAML is indented with spaces, not with tabs")
    } else {
        finding
    }
}

fn clip(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn span_of(range: Range) -> Span {
    Span {
        line: clip(range.start.line()).max(1),
        column: clip(range.start.col()).saturating_add(1),
        end_line: clip(range.end.line()).max(1),
        end_column: clip(range.end.col()).saturating_add(1),
    }
}

/// Values and the bytes of their texts, aliases counted in full.
#[derive(Clone, Copy, Default)]
struct Cost {
    nodes: usize,
    text_bytes: usize,
}

impl Cost {
    fn of(text: &str) -> Self {
        Self { nodes: 1, text_bytes: text.len() }
    }

    fn plus(self, more: Self) -> Self {
        Self {
            nodes: self.nodes.saturating_add(more.nodes),
            text_bytes: self.text_bytes.saturating_add(more.text_bytes),
        }
    }

    fn minus(self, less: Self) -> Self {
        Self {
            nodes: self.nodes.saturating_sub(less.nodes),
            text_bytes: self.text_bytes.saturating_sub(less.text_bytes),
        }
    }
}

/// A value under an anchor, and what it costs to repeat it.
struct Anchored {
    node: Node,
    cost: Cost,
    depth: usize,
}

/// An open list or mapping.
struct Open {
    span: Span,
    anchor: usize,
    /// Counted before it was opened.
    cost_before: Cost,
    /// Depth of what it holds.
    depth: usize,
    value: Value,
    /// The keys so far.
    keys: BTreeMap<String, Span>,
    /// The key whose value comes next.
    key: Option<(String, Span)>,
}

struct Composer<'a> {
    limits: &'a Limits,
    anchors: BTreeMap<usize, Anchored>,
    cost: Cost,
    aliases: usize,
    stack: Vec<Open>,
    out: Composed,
}

impl Composer<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Box<Finding>> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let cost = Cost::of(&text);
                self.count(cost, span)?;
                let mut style = match style {
                    ScalarStyle::Plain => Style::Plain,
                    ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
                    ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
                };
                if known_tag(tag.as_deref(), span)? == Some("str") {
                    style = Style::Quoted;
                }
                let node = Node { span, value: Value::Scalar { text: text.into_owned(), style } };
                self.anchor(anchor, &node, cost, 0)?;
                self.add(node, 0)
            }
            Event::SequenceStart(anchor, tag) => {
                known_tag(tag.as_deref(), span)?;
                self.open(span, anchor, Value::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                known_tag(tag.as_deref(), span)?;
                self.open(span, anchor, Value::Map(Vec::new()))
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.stack.pop() else { return Ok(()) };
                let mut node = Node {
                    span: Span { end_line: span.end_line, end_column: span.end_column, ..open.span },
                    value: open.value,
                };
                merge(&mut node)?;
                self.anchor(open.anchor, &node, self.cost.minus(open.cost_before), open.depth)?;
                self.add(node, open.depth)
            }
            Event::Alias(anchor) => {
                self.aliases += 1;
                if self.aliases > self.limits.aliases {
                    let message = format!("more than {} aliases in one file", self.limits.aliases);
                    return Err(Finding::error("too-many-aliases", span, message).into());
                }
                let Some(anchored) = self.anchors.get(&anchor) else {
                    return Err(Finding::error("alias", span, "an alias inside the value that it stands for").into());
                };
                let (mut node, cost, depth) = (anchored.node.clone(), anchored.cost, anchored.depth);
                self.count(cost, span)?;
                node.span = span;
                self.add(node, depth)
            }
        }
    }

    fn count(&mut self, cost: Cost, span: Span) -> Result<(), Box<Finding>> {
        self.cost = self.cost.plus(cost);
        let Limits { nodes, text_bytes, .. } = self.limits;
        let message = if self.cost.nodes > *nodes {
            format!("more than {nodes} values in one file, aliases counted in full")
        } else if self.cost.text_bytes > *text_bytes {
            format!("more than {text_bytes} bytes of text in one file, aliases counted in full")
        } else {
            return Ok(());
        };
        Err(Finding::error("too-large", span, message).help("split it into several files").into())
    }

    fn open(&mut self, span: Span, anchor: usize, value: Value) -> Result<(), Box<Finding>> {
        let cost_before = self.cost;
        self.count(Cost::of(""), span)?;
        if self.stack.len() >= self.limits.depth {
            return Err(self.too_deep(span).into());
        }
        self.stack.push(Open { span, anchor, cost_before, depth: 1, value, keys: BTreeMap::new(), key: None });
        Ok(())
    }

    fn too_deep(&self, span: Span) -> Finding {
        Finding::error("too-deep", span, format!("nested deeper than {} levels", self.limits.depth))
    }

    /// Keeps a copy for aliases, which counts like any other: an anchor on every level is a bomb, too.
    fn anchor(&mut self, anchor: usize, node: &Node, cost: Cost, depth: usize) -> Result<(), Box<Finding>> {
        // 0 is "no anchor".
        if anchor != 0 {
            self.count(cost, node.word())?;
            self.anchors.insert(anchor, Anchored { node: node.clone(), cost, depth });
        }
        Ok(())
    }

    /// Puts a finished node where it belongs. `depth` is that of the node itself.
    fn add(&mut self, node: Node, depth: usize) -> Result<(), Box<Finding>> {
        if self.stack.len().saturating_add(depth) > self.limits.depth {
            return Err(self.too_deep(node.span).into());
        }
        let Some(open) = self.stack.last_mut() else {
            if !node.is_null() {
                self.out.documents.push(node);
            }
            return Ok(());
        };
        open.depth = open.depth.max(depth.saturating_add(1));
        match &mut open.value {
            Value::List(items) => items.push(node),
            Value::Map(entries) => match open.key.take() {
                Some((key, key_span)) => match open.keys.get(&key) {
                    Some(first) if key != MERGE => self.out.errors.push(
                        Finding::error("duplicate-key", key_span, format!("{} stands here twice", quote(&key)))
                            .label("again here")
                            .also(*first, "first here"),
                    ),
                    Some(_) | None => {
                        open.keys.insert(key.clone(), key_span);
                        entries.push(Entry { key, key_span, value: node });
                    }
                },
                None => match node.value {
                    Value::Scalar { text, .. } => open.key = Some((text, node.span)),
                    Value::List(_) | Value::Map(_) => {
                        return Err(Finding::error("syntax", node.span, "a key must be a word")
                            .help("`{{ … }}` of a template must be filled in, or put in quotes, before it is YAML")
                            .into());
                    }
                },
            },
            Value::Scalar { .. } => {}
        }
        Ok(())
    }
}

const MERGE: &str = "<<";

/// Resolves merge keys: what the mapping says itself goes first.
fn merge(node: &mut Node) -> Result<(), Box<Finding>> {
    let Value::Map(entries) = &mut node.value else { return Ok(()) };
    if !entries.iter().any(|entry| entry.key == MERGE) {
        return Ok(());
    }
    let (merges, own): (Vec<_>, Vec<_>) = std::mem::take(entries).into_iter().partition(|entry| entry.key == MERGE);
    let mut keys: BTreeSet<String> = own.iter().map(|entry| entry.key.clone()).collect();
    *entries = own;
    for merge in merges {
        let sources = match merge.value.value {
            Value::List(items) => items,
            value @ (Value::Map(_) | Value::Scalar { .. }) => vec![Node { span: merge.value.span, value }],
        };
        for source in sources {
            let Value::Map(more) = source.value else {
                return Err(Finding::error("syntax", source.span, "`<<` takes a mapping or a list of mappings").into());
            };
            entries.extend(more.into_iter().filter(|entry| keys.insert(entry.key.clone())));
        }
    }
    Ok(())
}

/// The core schema's tags are understood; others (`!Ref`, `!vault`) would change what a value means.
fn known_tag(tag: Option<&Tag>, span: Span) -> Result<Option<&str>, Box<Finding>> {
    let Some(tag) = tag else { return Ok(None) };
    if tag.is_yaml_core_schema()
        && matches!(tag.suffix.as_str(), "str" | "int" | "float" | "bool" | "null" | "map" | "seq")
    {
        return Ok(Some(&tag.suffix));
    }
    let name = quote(&format!("{}{}", tag.handle, tag.suffix));
    Err(Finding::error("tag", span, format!("the tag {name} means nothing here")).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_multiplies_itself_is_refused_before_it_has() {
        let anchors: String = (0..50).map(|level| format!("&a{level} [")).collect();
        let aliases = "- *a\n".repeat(1001);
        for (text, code) in [
            (format!("{anchors}{}", "x,".repeat(5_000)) + &"]".repeat(50), "more than 100000 values"),
            (format!("a: &a b\nc:\n{aliases}"), "more than 1000 aliases"),
            (format!("- &a {}\n{}", "x".repeat(100_000), "- *a\n".repeat(100)), "more than 4194304 bytes of text"),
            (format!("- &a {}\n{}", "x".repeat(100_000), "- *a\n".repeat(30)), ""),
            ("&a {b: *a}\n".to_string(), "alias"),
            ("x,".repeat(100_000), ""),
        ] {
            let errors = compose(&text, &Limits::default()).errors;
            assert_eq!(errors.is_empty(), code.is_empty(), "{errors:?}");
            assert!(errors.iter().all(|error| format!("{error:?}").contains(code)), "{errors:?}");
        }
    }
}
