//! Diagnostics as a compiler prints them.

use annotate_snippets::{Annotation, AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet};

use crate::model::diagnostic::{Diagnostic, Place, Severity};

/// Draws diagnostics in the order given, each followed by an empty line. They carry their lines, so no source is needed.
pub fn render(diagnostics: &[Diagnostic], color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    diagnostics.iter().map(|diagnostic| format!("{}\n\n", renderer.render(&[group(diagnostic)]))).collect()
}

/// `2 errors, 1 warning`; nothing of what there is none of.
pub fn summary(diagnostics: &[Diagnostic]) -> String {
    let counted = [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Notice, "notice")].map(
        |(severity, word)| {
            let number = diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count();
            match number {
                0 => None,
                1 => Some(format!("1 {word}")),
                _ => Some(format!("{number} {word}s")),
            }
        },
    );
    let told: Vec<String> = counted.into_iter().flatten().collect();
    if told.is_empty() { "no findings".to_owned() } else { told.join(", ") }
}

fn group(diagnostic: &Diagnostic) -> Group<'_> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Notice => Level::INFO.with_name("notice"),
    };
    let primary = &diagnostic.place;
    let same_line = |place: &&Place| {
        place.file == primary.file && place.line == primary.line && place.snippet_offset == primary.snippet_offset
    };
    let (beside, apart): (Vec<&Place>, Vec<&Place>) = diagnostic.also.iter().partition(same_line);
    let first: Vec<&Place> = std::iter::once(primary).chain(beside).collect();
    let mut elements = Vec::new();
    show(&mut elements, primary, &first);
    for place in apart {
        show(&mut elements, place, &[place]);
    }
    elements.extend(diagnostic.help.as_deref().map(|help| Level::HELP.message(help).into()));
    level.primary_title(diagnostic.message.as_str()).id(diagnostic.code.as_ref()).elements(elements)
}

/// One line with what is said under it; the first of `places` is the primary one.
fn show<'a>(elements: &mut Vec<Element<'a>>, first: &'a Place, places: &[&'a Place]) {
    let origin = Origin::path(first.file.as_str()).line(first.line as usize).char_column(first.column as usize);
    if first.snippet.is_empty() {
        elements.push(origin.into());
        return;
    }
    let mut snippet = Snippet::source(first.snippet.as_str()).line_start(first.line as usize);
    for (index, place) in places.iter().enumerate() {
        let kind = if index == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
        let annotation: Annotation<'a> = kind.span(bytes(place));
        snippet = snippet.annotation(if place.label.is_empty() {
            annotation
        } else {
            annotation.label(place.label.as_str())
        });
    }
    // Of a cut line the columns are not those of the snippet.
    if first.snippet_offset > 0 {
        elements.extend([origin.into(), snippet.into()]);
    } else {
        elements.push(snippet.path(first.file.as_str()).into());
    }
}

/// The word's place in the snippet, in bytes, inside it whatever the numbers say.
fn bytes(place: &Place) -> std::ops::Range<usize> {
    let at = |chars: usize| place.snippet.char_indices().nth(chars).map_or(place.snippet.len(), |(byte, _)| byte);
    let start = place.column.saturating_sub(1).saturating_sub(place.snippet_offset) as usize;
    at(start)..at(start.saturating_add(place.length as usize))
}
