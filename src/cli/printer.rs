//! The one place that decides what goes to standard output (results) and standard error (progress, notices).

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use super::{
    failure::{Failure, Message},
    text::clean_lines,
};

/// `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    #[default]
    Table,
    /// For people with a wide terminal
    Wide,
    /// For scripts
    Json,
    /// The same as YAML
    Yaml,
    /// Only kind/name, one a line
    Name,
}

/// How a word looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    Good,
    Change,
    Bad,
    Faint,
    Strong,
}

impl Tone {
    pub fn style(self) -> Style {
        let colour = |colour: AnsiColor| Style::new().fg_color(Some(colour.into()));
        match self {
            Self::Plain => Style::new(),
            Self::Good => colour(AnsiColor::Green),
            Self::Change => colour(AnsiColor::Yellow),
            Self::Bad => colour(AnsiColor::Red),
            Self::Faint => Style::new().dimmed(),
            Self::Strong => Style::new().bold(),
        }
    }
}

/// Standard output and standard error.
#[derive(Clone, Debug)]
pub(super) struct Printer {
    pub format: Format,
    quiet: bool,
    colour: bool,
    error_colour: bool,
    /// Standard output is a terminal.
    pub terminal: bool,
}

impl Printer {
    pub fn new(format: Format, no_colour: bool, quiet: bool) -> Self {
        let colour = |choice: anstream::ColorChoice| !no_colour && choice != anstream::ColorChoice::Never;
        Self {
            format,
            quiet,
            colour: colour(anstream::AutoStream::choice(&io::stdout())),
            error_colour: colour(anstream::AutoStream::choice(&io::stderr())),
            terminal: io::stdout().is_terminal(),
        }
    }

    /// Whether results may have colour.
    pub fn colour(&self) -> bool {
        self.colour
    }

    /// Whether messages may have colour.
    pub fn error_colour(&self) -> bool {
        self.error_colour
    }

    /// The terminal's width; none when standard output is no terminal.
    pub fn width(&self) -> Option<u16> {
        let size = self.terminal.then(|| rustix::termios::tcgetwinsize(io::stdout()).ok()).flatten();
        size.map(|size| size.ws_col).filter(|columns| *columns > 0)
    }

    /// A result as it is, with an end of line.
    pub fn line(&self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")?;
        Ok(out.flush()?)
    }

    /// A result of several lines that ends its lines itself.
    pub fn text(&self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }

    /// A result as JSON or YAML.
    pub fn document(&self, value: &impl Serialize) -> Result<(), Failure> {
        match self.format {
            Format::Yaml => {
                let yaml = serde_yaml::to_string(value).map_err(Failure::failed)?;
                self.text(&format!("---\n{}", yaml.strip_prefix("---\n").unwrap_or(&yaml)))
            }
            Format::Json | Format::Table | Format::Wide | Format::Name => {
                self.line(&serde_json::to_string_pretty(value).map_err(Failure::failed)?)
            }
        }
    }

    /// Whether results are for programs.
    pub fn is_document(&self) -> bool {
        match self.format {
            Format::Json | Format::Yaml => true,
            Format::Table | Format::Wide | Format::Name => false,
        }
    }

    /// A word with its tone, for a result.
    pub fn tinted(&self, tone: Tone, text: &str) -> String {
        paint(self.colour, tone, text)
    }

    /// Progress that is drawn in place.
    pub fn live(&self) -> Live {
        let is_drawn = !self.quiet && io::stderr().is_terminal();
        let columns = rustix::termios::tcgetwinsize(io::stderr()).map_or(0, |size| size.ws_col);
        Live { columns: usize::from(if is_drawn { columns } else { 0 }), lines: 0 }
    }

    /// Progress, on standard error.
    pub fn notice(&self, text: &str) {
        if !self.quiet {
            complain(&clean_lines(text));
        }
    }

    /// Something a person should look at, on standard error.
    pub fn warning(&self, text: &str) {
        complain(&format!("{} {}", paint(self.error_colour, Tone::Change, "warning:"), clean_lines(text)));
    }

    /// The end of a command.
    pub fn failure(&self, failure: &Failure) {
        let Message { text, hint } = match failure {
            Failure::Failed(message) | Failure::NotTried(message) => message,
            Failure::Status(_) | Failure::OutputClosed => return,
        };
        complain(&format!("{} {}", paint(self.error_colour, Tone::Bad, "error:"), clean_lines(text)));
        if let Some(hint) = hint {
            complain(&format!("  {} {}", paint(self.error_colour, Tone::Strong, "hint:"), clean_lines(hint)));
        }
    }
}

/// Progress that is drawn in place, on a terminal at standard error.
#[derive(Debug)]
pub(super) struct Live {
    /// 0: it is no terminal.
    columns: usize,
    /// On the screen.
    lines: usize,
}

impl Live {
    /// Whether anything is drawn at all.
    pub fn is_drawn(&self) -> bool {
        self.columns > 0
    }

    /// Draws it in place of what was drawn before.
    pub fn draw(&mut self, text: &str) {
        self.clear();
        if self.is_drawn() {
            complain(text);
            let rows =
                |line: &str| anstream::adapter::strip_str(line).to_string().width().div_ceil(self.columns).max(1);
            self.lines = text.lines().map(rows).sum();
        }
    }

    /// Takes away what was drawn.
    pub fn clear(&mut self) {
        if self.lines > 0 {
            // Up, and everything from there on is erased.
            let _ = write!(io::stderr().lock(), "\x1b[{}A\x1b[J", self.lines);
            self.lines = 0;
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.clear();
    }
}

fn paint(colour: bool, tone: Tone, text: &str) -> String {
    match (colour, tone) {
        (false, _) | (true, Tone::Plain) => text.to_owned(),
        (true, tone) => format!("{}{text}{}", tone.style().render(), tone.style().render_reset()),
    }
}

/// Writes to standard error; nothing can be done when that fails.
fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
