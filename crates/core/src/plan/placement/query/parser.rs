//! Tokens to an expression: `or` binds weaker than `and`, that weaker than `not`.

use super::{
    Comparison, Expr, ParseError, Pattern, Subject, Test,
    lexer::{Lexer, Token, error},
    number,
};

/// Longest expression in bytes (ECS: 2000 characters).
pub const MAX_LENGTH: usize = 2000;
/// Deepest nesting of parentheses and `not`.
pub const MAX_DEPTH: usize = 32;
/// Largest compiled pattern in bytes.
const MAX_PATTERN_SIZE: usize = 64 * 1024;

/// Reads an expression.
pub fn parse(text: &str) -> Result<Expr, ParseError> {
    if text.len() > MAX_LENGTH {
        return Err(error(text.floor_char_boundary(MAX_LENGTH), format!("longer than {MAX_LENGTH} bytes")));
    }
    let mut parser = Parser { lexer: Lexer::new(text) };
    let expr = parser.or(0)?;
    match parser.lexer.next()? {
        (_, Token::End) => Ok(expr),
        (at, found) => Err(error(at, format!("expected `and`, `or` or the end, found {found}"))),
    }
}

struct Parser<'t> {
    lexer: Lexer<'t>,
}

impl<'t> Parser<'t> {
    fn or(&mut self, depth: usize) -> Result<Expr, ParseError> {
        let mut list = vec![self.and(depth)?];
        while self.accept("or", "||")? {
            list.push(self.and(depth)?);
        }
        Ok(single(list, Expr::Or))
    }

    fn and(&mut self, depth: usize) -> Result<Expr, ParseError> {
        let mut list = vec![self.not(depth)?];
        while self.accept("and", "&&")? {
            list.push(self.not(depth)?);
        }
        Ok(single(list, Expr::And))
    }

    fn not(&mut self, depth: usize) -> Result<Expr, ParseError> {
        let (at, token) = self.lexer.next()?;
        let nested = matches!(token, Token::Symbol("(" | "!")) || is_word(token, "not");
        if nested && depth == MAX_DEPTH {
            return Err(error(at, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        match token {
            Token::Symbol("(") => {
                let expr = self.or(depth + 1)?;
                self.require(")", "`)`")?;
                Ok(expr)
            }
            _ if nested => Ok(Expr::Not(Box::new(self.not(depth + 1)?))),
            Token::Word(word) => {
                let subject = subject(at, word)?;
                self.test(subject)
            }
            found @ (Token::Symbol(_) | Token::Quoted(_) | Token::End) => {
                Err(error(at, format!("expected a subject such as `attribute:disk`, found {found}")))
            }
        }
    }

    fn test(&mut self, subject: Subject) -> Result<Expr, ParseError> {
        let (at, operator, negated) = self.operator()?;
        let test = match operator {
            Operator::Equals => Test::Equals(self.value()?),
            Operator::In => Test::In(self.list()?),
            Operator::Exists => Test::Exists,
            Operator::Matches => {
                let (at, text) = self.lexer.pattern()?;
                Test::Matches(pattern(at, text)?)
            }
            Operator::Compare(comparison) => {
                if !matches!(subject, Subject::Attribute(_)) {
                    return Err(error(at, "only attributes can be compared as numbers"));
                }
                let (value_at, _) = self.peek()?;
                let value = self.value()?;
                let bound = number(&value).ok_or_else(|| error(value_at, format!("`{value}` is not a number")))?;
                Test::Compare(comparison, bound)
            }
        };
        Ok(Expr::Is { subject, negated, test })
    }

    /// The operator, where it begins, and whether it is a negative one.
    fn operator(&mut self) -> Result<(usize, Operator, bool), ParseError> {
        let (at, token) = self.lexer.next()?;
        if token == Token::Symbol("!") || is_word(token, "not") {
            return match self.lexer.next()? {
                (_, token) if is_word(token, "in") => Ok((at, Operator::In, true)),
                (_, token) if is_word(token, "exists") => Ok((at, Operator::Exists, true)),
                (after, found) => Err(error(after, format!("expected `in` or `exists`, found {found}"))),
            };
        }
        let lower;
        let text = match token {
            Token::Symbol(symbol) => symbol,
            Token::Word(word) => {
                lower = word.to_ascii_lowercase();
                &lower
            }
            Token::Quoted(_) | Token::End => "",
        };
        let (operator, negated) = match text {
            "==" | "equals" => (Operator::Equals, false),
            "!=" | "not_equals" => (Operator::Equals, true),
            "in" => (Operator::In, false),
            "not_in" => (Operator::In, true),
            "=~" | "matches" => (Operator::Matches, false),
            "!~" | "not_matches" => (Operator::Matches, true),
            "exists" => (Operator::Exists, false),
            "not_exists" => (Operator::Exists, true),
            ">" | "greater_than" => (Operator::Compare(Comparison::Greater), false),
            ">=" | "greater_than_equal" => (Operator::Compare(Comparison::GreaterOrEqual), false),
            "<" | "less_than" => (Operator::Compare(Comparison::Less), false),
            "<=" | "less_than_equal" => (Operator::Compare(Comparison::LessOrEqual), false),
            _ => {
                let known = "==, !=, in, not_in, =~, !~, exists, !exists, >, >=, <, <=";
                return Err(error(at, format!("expected an operator ({known}), found {token}")));
            }
        };
        Ok((at, operator, negated))
    }

    fn value(&mut self) -> Result<String, ParseError> {
        match self.lexer.next()? {
            (_, Token::Word(text) | Token::Quoted(text)) => Ok(text.to_owned()),
            (at, found @ (Token::Symbol(_) | Token::End)) => {
                Err(error(at, format!("expected a value, found {found}; a value with signs goes in quotes")))
            }
        }
    }

    fn list(&mut self) -> Result<Vec<String>, ParseError> {
        self.require("[", "a list such as `[a, b]`")?;
        let mut values = vec![self.value()?];
        loop {
            match self.lexer.next()? {
                (_, Token::Symbol(",")) => values.push(self.value()?),
                (_, Token::Symbol("]")) => return Ok(values),
                (at, found) => return Err(error(at, format!("expected `,` or `]`, found {found}"))),
            }
        }
    }

    fn peek(&self) -> Result<(usize, Token<'t>), ParseError> {
        self.lexer.clone().next()
    }

    fn accept(&mut self, word: &str, symbol: &str) -> Result<bool, ParseError> {
        let mut ahead = self.lexer;
        let (_, token) = ahead.next()?;
        let found = is_word(token, word) || matches!(token, Token::Symbol(text) if text == symbol);
        if found {
            self.lexer = ahead;
        }
        Ok(found)
    }

    fn require(&mut self, symbol: &str, what: &str) -> Result<(), ParseError> {
        match self.lexer.next()? {
            (_, Token::Symbol(text)) if text == symbol => Ok(()),
            (at, found) => Err(error(at, format!("expected {what}, found {found}"))),
        }
    }
}

#[derive(Clone, Copy)]
enum Operator {
    Equals,
    In,
    Matches,
    Exists,
    Compare(Comparison),
}

fn is_word(token: Token<'_>, keyword: &str) -> bool {
    matches!(token, Token::Word(word) if word.eq_ignore_ascii_case(keyword))
}

fn single(mut list: Vec<Expr>, several: fn(Vec<Expr>) -> Expr) -> Expr {
    match list.pop() {
        Some(only) if list.is_empty() => only,
        Some(last) => {
            list.push(last);
            several(list)
        }
        None => several(list),
    }
}

fn subject(at: usize, word: &str) -> Result<Subject, ParseError> {
    if let Some(name) = word.strip_prefix("attribute:") {
        if name.is_empty() {
            return Err(error(at + word.len(), "the attribute's name is missing: `attribute:NAME`"));
        }
        return Ok(Subject::Attribute(name.to_owned()));
    }
    match word {
        "task:group" => Ok(Subject::TaskGroup),
        "ec2InstanceId" | "host" => Ok(Subject::Host),
        "agentConnected" | "agentVersion" => {
            Err(error(at, format!("`{word}` has no meaning here: hosts run no agent; use a label, `attribute:NAME`")))
        }
        "registeredAt" | "runningTasksCount" => Err(error(
            at,
            format!("`{word}` cannot place tasks; use a label, `attribute:NAME`, or a placement strategy"),
        )),
        _ => Err(error(
            at,
            format!("unknown subject `{word}`: write `attribute:{word}` for a host's label, `task:group` or `host`"),
        )),
    }
}

fn pattern(at: usize, text: &str) -> Result<Pattern, ParseError> {
    let compile = |text: &str| {
        regex_lite::RegexBuilder::new(text).size_limit(MAX_PATTERN_SIZE).nest_limit(MAX_DEPTH as u32).build()
    };
    // By itself first: `a)|(b` is whole only inside the parentheses added below.
    let wrong = |e: regex_lite::Error| {
        error(at, format!("`{text}` is not a pattern: {e}; a pattern with spaces or brackets goes in quotes"))
    };
    compile(text).map_err(wrong)?;
    let regex = compile(&format!("^(?:{text})$")).map_err(wrong)?;
    Ok(Pattern { text: text.to_owned(), regex })
}
