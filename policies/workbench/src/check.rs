//! `policy check`: what loading found, for people and for machines.

use std::fmt::Write;

use palisade_policies::{Diagnostic, Loaded, MeshConfig, Severity, SourceText, load};
use serde::Serialize;

/// The outcome of a check. Serialises to `{"diagnostics":[..],"summary":{..}}`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Findings in all files, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
    /// Counts.
    pub summary: Summary,
}

/// Counts of documents, and of warnings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Resources accepted.
    pub ok: usize,
    /// Documents refused.
    pub refused: usize,
    /// Warnings; they change nothing.
    pub warnings: usize,
    /// Resources of other API groups.
    pub skipped: usize,
}

/// Checks texts as one set of resources, and a mesh configuration where one is given.
#[must_use]
pub fn check(texts: &[SourceText], mesh: Option<&SourceText>, default_namespace: &str) -> Report {
    let (config, found) = mesh.map(MeshConfig::parse).unwrap_or_default();
    let mut report = Report::new(&load(texts, default_namespace));
    let refused = mesh.is_some() && config.is_none();
    report.summary.refused += usize::from(refused);
    report.summary.warnings += warnings(&found);
    report.diagnostics.splice(0..0, found);
    report
}

impl Report {
    /// Of what has been loaded already.
    #[must_use]
    pub fn new(loaded: &Loaded) -> Self {
        Self {
            diagnostics: loaded.diagnostics.clone(),
            summary: Summary {
                ok: loaded.resources.len(),
                refused: loaded.refused,
                warnings: warnings(&loaded.diagnostics),
                skipped: loaded.skipped,
            },
        }
    }

    /// 3 if something was refused, else 0.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let errors = self.diagnostics.iter().any(Diagnostic::is_error);
        if errors || self.summary.refused > 0 { 3 } else { 0 }
    }

    /// The table for a terminal: one row a finding, with the reason and the fix under it, then the counts.
    #[must_use]
    pub fn table(&self) -> String {
        let rows: Vec<[String; 4]> = self.diagnostics.iter().map(row).collect();
        let mut text = String::new();
        if !rows.is_empty() {
            let header = ["SEVERITY", "CODE", "LOCATION", "FIELD"].map(str::to_owned);
            let widths = widths(std::iter::once(&header).chain(&rows));
            line(&mut text, &header, &widths);
            for (row, found) in rows.iter().zip(&self.diagnostics) {
                line(&mut text, row, &widths);
                // Writing to a string cannot fail.
                let _ = writeln!(text, "    {}\n    fix: {}", found.message, found.fix);
            }
            text.push('\n');
        }
        let Summary { ok, refused, warnings, skipped } = self.summary;
        let plural = if warnings == 1 { "" } else { "s" };
        let _ = writeln!(text, "{ok} ok, {refused} refused, {warnings} warning{plural}, {skipped} skipped");
        text
    }

    /// One JSON object.
    ///
    /// # Errors
    /// Never for this type; the serialiser's signature has one.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }
}

fn warnings(diagnostics: &[Diagnostic]) -> usize {
    diagnostics.iter().filter(|found| found.severity == Severity::Warning).count()
}

fn row(found: &Diagnostic) -> [String; 4] {
    let field = if found.field.is_empty() { "-" } else { found.field.as_str() };
    [
        found.severity.to_string(),
        found.code.to_owned(),
        format!("{}:{}:{}", found.file, found.line, found.column),
        field.to_owned(),
    ]
}

fn widths<'a>(rows: impl Iterator<Item = &'a [String; 4]>) -> [usize; 4] {
    rows.fold([0; 4], |mut widths, row| {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
        widths
    })
}

fn line(text: &mut String, row: &[String; 4], widths: &[usize; 4]) {
    let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
    let joined = cells.collect::<Vec<_>>().join("  ");
    text.push_str(joined.trim_end());
    text.push('\n');
}
