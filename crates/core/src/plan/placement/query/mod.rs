//! The ECS cluster query language, in which `memberOf` constraints are written.
//!
//! Source of the rules: "Create expressions to define container instances for Amazon ECS tasks", ECS developer guide.
//! Where that is silent: a negative operator (`!=`, `not_in`, `!~`, `!exists`) is true exactly where its positive twin is
//! false, so also for a host without the attribute; `=~` must match the whole value; `>` and its kin compare numbers.

mod lexer;
mod parser;

use std::{borrow::Cow, collections::BTreeMap, fmt};

pub use parser::{MAX_DEPTH, MAX_LENGTH, parse};

/// Why a text is no expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (at byte {offset})")]
pub struct ParseError {
    /// Where, in bytes from the start of the expression.
    pub offset: usize,
    /// What is wrong and what was meant.
    pub message: String,
}

/// What an expression is asked about.
#[derive(Clone, Copy, Debug)]
pub struct HostAttrs<'a> {
    /// The host's name.
    pub name: &'a str,
    /// X86_64 or ARM64; empty when not known yet.
    pub architecture: &'a str,
    /// The labels of its manifest.
    pub labels: &'a BTreeMap<String, String>,
    /// The groups of the tasks on it: `service:web`.
    pub groups: &'a [&'a str],
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// All hold; two or more.
    And(Vec<Expr>),
    /// One holds at least; two or more.
    Or(Vec<Expr>),
    /// It does not hold.
    Not(Box<Expr>),
    /// A single question.
    Is {
        /// About what.
        subject: Subject,
        /// Whether the answer is turned round: `!=` is a negated `==`.
        negated: bool,
        /// What is asked.
        test: Test,
    },
}

/// The left side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// `attribute:NAME`.
    Attribute(String),
    /// `task:group`: has as many values as there are groups on the host.
    TaskGroup,
    /// `ec2InstanceId` or `host`: the host's name.
    Host,
}

/// The operator and its argument.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// `== x`
    Equals(String),
    /// `in [x, y]`
    In(Vec<String>),
    /// `=~ x`
    Matches(Pattern),
    /// `> 5`
    Compare(Comparison, f64),
    /// `exists`
    Exists,
}

/// The operators on numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
}

/// A regular expression that must match a whole value.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    regex: regex_lite::Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Expr {
    /// Whether a host satisfies it.
    pub fn matches(&self, host: &HostAttrs<'_>) -> bool {
        match self {
            Self::And(all) => all.iter().all(|expr| expr.matches(host)),
            Self::Or(any) => any.iter().any(|expr| expr.matches(host)),
            Self::Not(expr) => !expr.matches(host),
            Self::Is { subject, negated, test } => subject.any_value(host, |value| test.passes(value)) != *negated,
        }
    }

    /// Whether the answer depends on the tasks that a host has.
    pub fn asks_for_groups(&self) -> bool {
        match self {
            Self::And(list) | Self::Or(list) => list.iter().any(Self::asks_for_groups),
            Self::Not(expr) => expr.asks_for_groups(),
            Self::Is { subject, .. } => *subject == Subject::TaskGroup,
        }
    }
}

impl Subject {
    fn any_value(&self, host: &HostAttrs<'_>, passes: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Attribute(name) => {
                attribute(host.labels, host.architecture, name).is_some_and(|value| passes(&value))
            }
            Self::TaskGroup => host.groups.iter().any(|group| passes(group)),
            Self::Host => passes(host.name),
        }
    }
}

impl Test {
    fn passes(&self, value: &str) -> bool {
        match self {
            Self::Equals(wanted) => value == wanted,
            Self::In(list) => list.iter().any(|wanted| value == wanted),
            Self::Matches(pattern) => pattern.regex.is_match(value),
            Self::Compare(comparison, bound) => number(value).is_some_and(|number| match comparison {
                Comparison::Greater => number > *bound,
                Comparison::GreaterOrEqual => number >= *bound,
                Comparison::Less => number < *bound,
                Comparison::LessOrEqual => number <= *bound,
            }),
            Self::Exists => true,
        }
    }
}

/// A host's attribute: its label of that name. ECS's own attributes `ecs.NAME` mean the label `NAME`;
/// `ecs.cpu-architecture` (x86_64, arm64) and `ecs.os-type` are known without a label.
pub(super) fn attribute<'a>(
    labels: &'a BTreeMap<String, String>,
    architecture: &str,
    name: &str,
) -> Option<Cow<'a, str>> {
    if let Some(value) = labels.get(name) {
        return Some(Cow::Borrowed(value));
    }
    let own = name.strip_prefix("ecs.")?;
    if let Some(value) = labels.get(own) {
        return Some(Cow::Borrowed(value));
    }
    match own {
        "cpu-architecture" if !architecture.is_empty() => Some(Cow::Owned(architecture.to_ascii_lowercase())),
        "os-type" => Some(Cow::Borrowed("linux")),
        _ => None,
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::And(list) => join(f, list, " and ", |expr| matches!(expr, Self::And(_) | Self::Or(_))),
            Self::Or(list) => join(f, list, " or ", |expr| matches!(expr, Self::Or(_))),
            Self::Not(expr) => {
                f.write_str("not ")?;
                inner(f, expr, matches!(**expr, Self::And(_) | Self::Or(_)))
            }
            Self::Is { subject, negated, test } => {
                match subject {
                    Subject::Attribute(name) => write!(f, "attribute:{name} ")?,
                    Subject::TaskGroup => f.write_str("task:group ")?,
                    Subject::Host => f.write_str("host ")?,
                }
                match (test, negated) {
                    (Test::Equals(value), false) => write!(f, "== {}", lexer::Written(value)),
                    (Test::Equals(value), true) => write!(f, "!= {}", lexer::Written(value)),
                    (Test::In(list), negated) => {
                        f.write_str(if *negated { "not_in [" } else { "in [" })?;
                        for (index, value) in list.iter().enumerate() {
                            write!(f, "{}{}", if index == 0 { "" } else { ", " }, lexer::Written(value))?;
                        }
                        f.write_str("]")
                    }
                    (Test::Matches(pattern), false) => write!(f, "=~ {}", lexer::Written(&pattern.text)),
                    (Test::Matches(pattern), true) => write!(f, "!~ {}", lexer::Written(&pattern.text)),
                    (Test::Compare(comparison, bound), _) => write!(f, "{} {bound}", comparison.symbol()),
                    (Test::Exists, false) => f.write_str("exists"),
                    (Test::Exists, true) => f.write_str("!exists"),
                }
            }
        }
    }
}

impl Comparison {
    fn symbol(self) -> &'static str {
        match self {
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
        }
    }
}

fn join(f: &mut fmt::Formatter<'_>, list: &[Expr], word: &str, in_parentheses: fn(&Expr) -> bool) -> fmt::Result {
    for (index, expr) in list.iter().enumerate() {
        if index > 0 {
            f.write_str(word)?;
        }
        inner(f, expr, in_parentheses(expr))?;
    }
    Ok(())
}

fn inner(f: &mut fmt::Formatter<'_>, expr: &Expr, in_parentheses: bool) -> fmt::Result {
    if in_parentheses { write!(f, "({expr})") } else { write!(f, "{expr}") }
}
