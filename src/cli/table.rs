//! Tables without borders, as kubectl prints them.

use comfy_table::{
    Attribute, Cell as TableCell, Color, ColumnConstraint, ContentArrangement, Table as Comfy, Width, presets,
};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{
    printer::{Printer, Tone},
    text::one_line,
};

/// One column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub title: &'static str,
    /// Only with `-o wide`.
    pub wide: bool,
    /// Left out when it would be empty.
    pub sparse: bool,
}

/// A column that is always there.
pub(super) const fn column(title: &'static str) -> Column {
    Column { title, wide: false, sparse: false }
}

/// A column of `-o wide`.
pub(super) const fn wide(title: &'static str) -> Column {
    Column { title, wide: true, sparse: false }
}

/// A column that is there when it says anything.
pub(super) const fn sparse(title: &'static str) -> Column {
    Column { title, wide: false, sparse: true }
}

/// One cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    pub text: String,
    pub tone: Tone,
}

impl Cell {
    pub fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

/// Between two columns.
const GAP: u16 = 3;
/// A last column is not cut to less.
const SHORTEST: u16 = 12;

/// Prints rows, and later more rows under them in the same columns.
pub(super) struct Table {
    columns: Vec<Column>,
    shown: Vec<bool>,
    widths: Vec<u16>,
}

impl Table {
    pub fn new(columns: &[Column], show_wide: bool) -> Self {
        let shown = columns.iter().map(|column| show_wide || !column.wide).collect();
        Self { columns: columns.to_vec(), shown, widths: vec![0; columns.len()] }
    }

    /// A table to which nothing is added.
    pub fn whole(columns: &[Column], show_wide: bool, rows: &[Vec<Cell>], printer: &Printer) -> String {
        let mut table = Self::new(columns, show_wide);
        for (index, (column, shown)) in columns.iter().zip(&mut table.shown).enumerate() {
            let empty = rows.iter().all(|row| row.get(index).is_none_or(|cell| cell.text.is_empty()));
            *shown &= !(column.sparse && empty);
        }
        table.with_header(rows, printer)
    }

    /// The header and the rows; the last column, the one with words, is cut to a terminal's width.
    pub fn with_header(&mut self, rows: &[Vec<Cell>], printer: &Printer) -> String {
        let header = self.columns.iter().map(|column| Cell::toned(column.title, Tone::Strong)).collect();
        let all: Vec<Vec<Cell>> = std::iter::once(header).chain(rows.iter().cloned()).collect();
        self.render(&all, printer)
    }

    /// Rows only.
    pub fn rows(&mut self, rows: &[Vec<Cell>], printer: &Printer) -> String {
        self.render(rows, printer)
    }

    fn render(&mut self, rows: &[Vec<Cell>], printer: &Printer) -> String {
        let mut rows: Vec<Vec<Cell>> = rows.iter().map(|row| self.visible(row)).collect();
        let columns = self.shown.iter().filter(|shown| **shown).count();
        let last = columns.saturating_sub(1);
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(u16::try_from(cell.text.width()).unwrap_or(u16::MAX));
            }
        }
        let before_last: u16 =
            self.widths.iter().take(last).fold(0, |sum, width| sum.saturating_add(*width).saturating_add(GAP));
        let room = printer.width().map(|width| width.saturating_sub(before_last)).filter(|room| *room >= SHORTEST);
        if let Some(room) = room {
            rows.iter_mut().filter_map(|row| row.get_mut(last)).for_each(|cell| cut(&mut cell.text, usize::from(room)));
        }
        let mut table = Comfy::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        match printer.colour() {
            true => table.enforce_styling(),
            false => table.force_no_tty(),
        };
        table.add_rows(rows.iter().map(|row| row.iter().map(table_cell).collect::<Vec<_>>()));
        for (index, column) in table.column_iter_mut().enumerate() {
            if index == last {
                column.set_padding((0, 0));
                continue;
            }
            // Later rows stand under the first ones.
            let width = self.widths.get(index).copied().unwrap_or_default().saturating_add(GAP);
            column.set_padding((0, GAP)).set_constraint(ColumnConstraint::Absolute(Width::Fixed(width)));
        }
        let text: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        text.join("\n")
    }

    fn visible(&self, row: &[Cell]) -> Vec<Cell> {
        let cells = row.iter().zip(&self.shown).filter(|(_, shown)| **shown);
        cells.map(|(cell, _)| Cell::toned(shown_text(&cell.text), cell.tone)).collect()
    }
}

/// Fit for a terminal; what is empty is a dash.
fn shown_text(text: &str) -> String {
    match one_line(text) {
        text if text.is_empty() => "-".to_owned(),
        text => text,
    }
}

/// Cuts a text to so many columns of the terminal.
fn cut(text: &mut String, room: usize) {
    if text.width() <= room {
        return;
    }
    let mut used = 1;
    text.retain(|c| {
        used += c.width().unwrap_or(0);
        used <= room
    });
    text.push('…');
}

fn table_cell(cell: &Cell) -> TableCell {
    let out = TableCell::new(&cell.text);
    match cell.tone {
        Tone::Plain => out,
        Tone::Good => out.fg(Color::DarkGreen),
        Tone::Change => out.fg(Color::DarkYellow),
        Tone::Bad => out.fg(Color::DarkRed),
        Tone::Faint => out.add_attribute(Attribute::Dim),
        Tone::Strong => out.add_attribute(Attribute::Bold),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_by_what_a_terminal_shows() {
        for (text, room, shown) in [
            ("abcdef", 6, "abcdef"),
            ("abcdef", 5, "abcd…"),
            ("漢字漢字", 5, "漢字…"),
            ("漢字漢字", 6, "漢字…"),
            ("", 3, ""),
        ] {
            let mut text = text.to_owned();
            cut(&mut text, room);
            assert_eq!(text, shown);
            assert!(text.width() <= room);
        }
    }
}
