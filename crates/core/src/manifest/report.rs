//! Findings at spans, and how they become diagnostics: with the file's name and the line itself, bounded and free of control characters.

use std::borrow::Cow;

use super::{
    node::{Node, Span, Step},
    read::SourceFile,
};
use crate::model::diagnostic::{Diagnostic, Place, Severity};

/// More findings than this in one file are counted, not listed.
pub const FINDINGS_PER_FILE: usize = 200;

/// As many characters of a line as are shown.
const SNIPPET_CHARS: usize = 160;

/// As many characters of a user's word as are repeated in a message.
const QUOTE_CHARS: usize = 80;

/// Something to say about a place of a file that the finder need not know.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub(crate) span: Span,
    severity: Severity,
    pub(crate) code: &'static str,
    message: String,
    label: String,
    also: Vec<(Span, String)>,
    elsewhere: Vec<Place>,
    help: Option<String>,
}

impl Finding {
    fn new(severity: Severity, code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            span,
            severity,
            code,
            message: message.into(),
            label: String::new(),
            also: Vec::new(),
            elsewhere: Vec::new(),
            help: None,
        }
    }

    /// What it is about does not take effect.
    pub fn error(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, span, message)
    }

    /// Probably not what was meant.
    pub fn warning(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, span, message)
    }

    /// Worth knowing.
    pub fn notice(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Notice, code, span, message)
    }

    /// What is said under the word.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// The next step.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The next step, when there is one to tell.
    pub fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }

    /// Another place in the same file.
    pub fn also(mut self, span: Span, label: impl Into<String>) -> Self {
        self.also.push((span, label.into()));
        self
    }

    /// Another place in any file.
    pub fn elsewhere(mut self, place: Place) -> Self {
        self.elsewhere.push(place);
        self
    }

    /// Whether it is an error.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// With the file's name and lines.
    pub fn diagnose(self, file: &SourceFile) -> Diagnostic {
        let mut also: Vec<Place> = self.also.iter().map(|(span, label)| place(file, *span, label)).collect();
        also.extend(self.elsewhere);
        Diagnostic {
            place: place(file, self.span, &self.label),
            severity: self.severity,
            code: Cow::Borrowed(self.code),
            message: clean(&self.message),
            also,
            help: self.help.map(|help| help.lines().map(clean).collect::<Vec<_>>().join("\n")),
        }
    }
}

/// A span of a file as a place to show.
pub fn place(file: &SourceFile, span: Span, label: &str) -> Place {
    let lines = file.line_count();
    let line_number = span.line.clamp(1, lines);
    let line = file.line(line_number);
    let chars = u32::try_from(line.chars().count()).unwrap_or(u32::MAX);
    // A span may end on a later line, or begin at the line's end where something is missing.
    let column = span.column.clamp(1, chars.saturating_add(1));
    let end =
        if span.end_line > span.line { chars.saturating_add(1) } else { span.end_column.min(chars.saturating_add(1)) };
    let offset =
        if chars as usize <= SNIPPET_CHARS { 0 } else { (column - 1).saturating_sub(SNIPPET_CHARS as u32 / 4) };
    Place {
        file: file.path.clone(),
        line: line_number,
        column,
        length: end.saturating_sub(column).max(1),
        snippet: line.chars().skip(offset as usize).take(SNIPPET_CHARS).map(visible).collect(),
        snippet_offset: offset,
        label: clean(label),
    }
}

/// A finding about a file as a whole.
pub fn about_file(path: &str, code: &'static str, message: impl Into<String>, help: Option<&str>) -> Diagnostic {
    Diagnostic {
        place: Place { file: clean(path), line: 1, column: 1, length: 1, ..Place::default() },
        severity: Severity::Error,
        code: Cow::Borrowed(code),
        message: clean(&message.into()),
        also: Vec::new(),
        help: help.map(str::to_owned),
    }
}

/// Shortens what one file has to say to a bound.
pub fn bounded(findings: Vec<Finding>, file: &SourceFile) -> Vec<Diagnostic> {
    let more = findings.len().saturating_sub(FINDINGS_PER_FILE);
    let errors_among_them = findings.iter().skip(FINDINGS_PER_FILE).any(Finding::is_error);
    let last = findings.last().map(|finding| finding.span);
    let mut diagnostics: Vec<Diagnostic> =
        findings.into_iter().take(FINDINGS_PER_FILE).map(|finding| finding.diagnose(file)).collect();
    if more > 0
        && let Some(span) = last
    {
        let message = format!("and {more} more findings in this file");
        let finding = if errors_among_them {
            Finding::error("more", span, message)
        } else {
            Finding::warning("more", span, message)
        };
        diagnostics.push(finding.diagnose(file));
    }
    diagnostics
}

/// A user's word in backticks, shortened, without control characters.
pub fn quote(word: &str) -> String {
    let mut text: String = word.chars().take(QUOTE_CHARS).map(visible).collect();
    if word.chars().nth(QUOTE_CHARS).is_some() {
        text.push('…');
    }
    format!("`{text}`")
}

/// Words in backticks with commas, the first ten.
pub fn quote_all<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let mut words = words.into_iter();
    let shown: Vec<String> = words.by_ref().take(10).map(quote).collect();
    let more = words.count();
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

fn clean(text: &str) -> String {
    text.chars().map(visible).collect()
}

/// Tabs become one space, so that columns stay; nothing that a terminal would obey passes.
fn visible(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}') =>
        {
            '\u{fffd}'
        }
        c => c,
    }
}

/// Findings about one object, at paths into its spec.
pub struct Scope<'a> {
    /// The spec as written.
    pub node: &'a Node,
    /// So far.
    pub findings: Vec<Finding>,
}

impl<'a> Scope<'a> {
    /// Nothing found yet.
    pub fn new(node: &'a Node) -> Self {
        Self { node, findings: Vec::new() }
    }

    /// An error at a path; the answer takes label and help.
    pub fn error(&mut self, path: &[Step<'_>], code: &'static str, message: impl Into<String>) -> Said<'_> {
        let span = self.node.locate(path);
        self.say(Finding::error(code, span, message))
    }

    /// A warning at a path.
    pub fn warning(&mut self, path: &[Step<'_>], code: &'static str, message: impl Into<String>) -> Said<'_> {
        let span = self.node.locate(path);
        self.say(Finding::warning(code, span, message))
    }

    /// Something worth knowing at a path.
    pub fn notice(&mut self, path: &[Step<'_>], code: &'static str, message: impl Into<String>) -> Said<'_> {
        let span = self.node.locate(path);
        self.say(Finding::notice(code, span, message))
    }

    fn say(&mut self, finding: Finding) -> Said<'_> {
        self.findings.push(finding);
        Said { finding: self.findings.last_mut() }
    }

    /// Whether there was an error.
    pub fn failed(&self) -> bool {
        self.findings.iter().any(Finding::is_error)
    }
}

/// What was just said, to add to.
pub struct Said<'a> {
    finding: Option<&'a mut Finding>,
}

impl Said<'_> {
    fn change(mut self, change: impl FnOnce(&mut Finding)) -> Self {
        if let Some(finding) = self.finding.as_deref_mut() {
            change(finding);
        }
        self
    }

    /// What is said under the word.
    pub fn label(self, label: impl Into<String>) -> Self {
        self.change(|finding| finding.label = label.into())
    }

    /// The next step.
    pub fn help(self, help: impl Into<String>) -> Self {
        self.change(|finding| finding.help = Some(help.into()))
    }

    /// The next step, when there is one to tell.
    pub fn maybe_help(self, help: Option<String>) -> Self {
        self.change(|finding| finding.help = help)
    }

    /// Another place of the same file.
    pub fn also(self, span: Span, label: impl Into<String>) -> Self {
        self.change(|finding| finding.also.push((span, label.into())))
    }

    /// At exactly this place instead.
    pub fn at(self, span: Span) -> Self {
        self.change(|finding| finding.span = span)
    }
}
