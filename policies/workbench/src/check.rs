//! `policy check`: what loading found and what is a trap, for people and for machines.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use palisade_policies::{
    CaSettings, Diagnostic, Document, Loaded, MeshConfig, Places, Severity, SourceText, explain, foreign_registrations,
    load,
};
use serde::Serialize;

mod sarif;

pub use crate::traps::Example;
use crate::traps::{self, Trap};

/// The outcome of a check. Serialises to `{"diagnostics":[{..,"why":"..","example":{..}}],"summary":{..}}`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Findings in all files, in the order of the files as they were given, then of their text.
    pub diagnostics: Vec<Finding>,
    /// Counts.
    pub summary: Summary,
}

/// One finding; a trap comes with a request that shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What is wrong, and where.
    #[serde(flatten)]
    pub diagnostic: Diagnostic,
    /// Why it matters, as the code's explanation has it.
    pub why: &'static str,
    /// What shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub example: Option<Example>,
}

/// Counts of documents, and of warnings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Resources accepted.
    pub ok: usize,
    /// Documents refused.
    pub refused: usize,
    /// Warnings, traps included; they change nothing.
    pub warnings: usize,
    /// Resources of other API groups.
    pub skipped: usize,
}

/// Checks texts as one set of resources, and a mesh configuration where one is given. Traps are looked for in what was
/// accepted, unless the mesh configuration was refused: what requests come to is then not known.
#[must_use]
pub fn check(texts: &[SourceText], mesh: Option<&SourceText>, default_namespace: &str) -> Report {
    let (config, found) = mesh.map(MeshConfig::parse).unwrap_or_default();
    let loaded = load(texts, default_namespace);
    let refused = mesh.is_some() && config.is_none();
    // Without a mesh configuration nobody knows the trust domain.
    let foreign = config.as_ref().map(|mesh| mesh.trust_domain.clone());
    let foreign = foreign.map(|domain| foreign_registrations(&loaded.resources, &loaded.documents, &domain));
    let foreign = foreign.unwrap_or_default();
    let found = found.into_iter().chain(loaded.diagnostics.iter().cloned()).chain(foreign.iter().cloned());
    let mut findings: Vec<Finding> = found.map(bare).collect();
    if !refused {
        let config = config.unwrap_or_default();
        let search = traps::find(&loaded.resources, &config, mesh.is_some());
        add(&mut findings, search.traps, &loaded);
        findings.extend(search.more.then(|| more(texts)).flatten());
    }
    let files: HashMap<&str, usize> =
        mesh.into_iter().chain(texts).enumerate().map(|(order, text)| (&*text.file, order)).collect();
    let place = |found: &Finding| {
        let Diagnostic { file, line, column, .. } = &found.diagnostic;
        (files.get(&**file).copied(), *line, *column)
    };
    findings.sort_by_key(place);
    let summary = Summary {
        ok: loaded.resources.len().saturating_sub(foreign.len()),
        refused: loaded.refused + usize::from(refused) + foreign.len(),
        warnings: findings.iter().filter(|found| found.diagnostic.severity == Severity::Warning).count(),
        skipped: loaded.skipped,
    };
    Report { diagnostics: findings, summary }
}

/// Says that not all traps are shown.
fn more(texts: &[SourceText]) -> Option<Finding> {
    let explanation = explain("PAL0738")?;
    let last = texts.last()?;
    let lines = u32::try_from(last.text.lines().count()).unwrap_or(u32::MAX);
    Some(bare(Diagnostic {
        code: explanation.code,
        severity: explanation.severity,
        file: last.file.clone(),
        line: last.first_line.saturating_add(lines).saturating_sub(1).max(1),
        column: 1,
        field: String::new(),
        message: "not all traps are shown".to_owned(),
        fix: explanation.fix.to_owned(),
    }))
}

fn bare(diagnostic: Diagnostic) -> Finding {
    // A finding is made of an entry of the catalogue: there is always one.
    let why = explain(diagnostic.code).map_or("", |explanation| explanation.why);
    Finding { diagnostic, why, example: None }
}

/// What the loader warns of, and a trap of ours shows: (the trap's code, the loader's).
const WARNED: &[(&str, &str)] = &[("PAL0724", "PAL0225"), ("PAL0204", "PAL0204"), ("PAL0227", "PAL0227")];

/// Adds traps at their places; the request of one that the loader warns of goes to that warning.
fn add(findings: &mut Vec<Finding>, traps: Vec<Trap>, loaded: &Loaded) {
    let documents: HashMap<_, &Document> = loaded
        .documents
        .iter()
        .map(|document| ((document.kind, document.namespace.as_str(), document.name.as_str()), document))
        .collect();
    let mut places: HashMap<*const Document, Places> = HashMap::new();
    for mut trap in traps {
        let (kind, namespace, name) = &trap.resource;
        let Some(document) = documents.get(&(*kind, namespace.as_str(), name.as_str())) else { continue };
        let of = places.entry(std::ptr::from_ref(*document)).or_insert_with(|| Places::of(&document.text));
        let place = of.place(&trap.field);
        if let Some(warning) = warned(findings, &trap, document) {
            trap.example.rename(warning.diagnostic.code);
            warning.example = Some(trap.example);
            continue;
        }
        // A code without an explanation cannot be printed; a test holds the two together.
        let Some(explanation) = explain(trap.code) else { continue };
        let diagnostic = Diagnostic {
            code: explanation.code,
            severity: explanation.severity,
            file: document.text.file.clone(),
            line: place.0,
            column: place.1,
            field: trap.field,
            message: trap.message,
            fix: explanation.fix.to_owned(),
        };
        findings.push(Finding { diagnostic, why: explanation.why, example: Some(trap.example) });
    }
}

/// The loader's own warning of the same thing.
fn warned<'f>(findings: &'f mut [Finding], trap: &Trap, document: &Document) -> Option<&'f mut Finding> {
    let (_, code) = WARNED.iter().find(|(ours, _)| *ours == trap.code)?;
    let lines = u32::try_from(document.text.text.lines().count()).unwrap_or(u32::MAX);
    let end = document.text.first_line.saturating_add(lines);
    findings.iter_mut().find(|found| {
        let Diagnostic { file, line, field, .. } = &found.diagnostic;
        found.diagnostic.code == *code
            && *file == document.text.file
            && (document.text.first_line..end).contains(line)
            && (trap.code == *code || *field == trap.field)
    })
}

impl Report {
    /// Adds findings about files that could not be read as text, each of them one refused document, before the others.
    pub fn refuse_files(&mut self, found: Vec<Diagnostic>) {
        self.summary.refused += found.len();
        self.diagnostics.splice(..0, found.into_iter().map(bare));
    }

    /// Adds what is wrong with the authority's settings (`ca.yaml`).
    pub fn add_settings(&mut self, text: &SourceText) {
        let (settings, found) = CaSettings::parse(text);
        self.summary.refused += usize::from(settings.is_none());
        self.diagnostics.splice(..0, found.into_iter().map(bare));
    }

    /// 3 if something was refused, else 0.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let errors = self.diagnostics.iter().any(|found| found.diagnostic.is_error());
        if errors || self.summary.refused > 0 { 3 } else { 0 }
    }

    /// The table for a terminal: one row a finding, with what is wrong, the fix and the request that shows it under it,
    /// and for the first of a code why it matters; then the counts.
    #[must_use]
    pub fn table(&self) -> String {
        let rows: Vec<[String; 4]> = self.diagnostics.iter().map(|found| row(&found.diagnostic)).collect();
        let mut text = String::new();
        if !rows.is_empty() {
            let header = ["SEVERITY", "CODE", "LOCATION", "FIELD"].map(str::to_owned);
            let widths = widths(std::iter::once(&header).chain(&rows));
            line(&mut text, &header, &widths);
            let mut told = HashSet::new();
            for (row, found) in rows.iter().zip(&self.diagnostics) {
                line(&mut text, row, &widths);
                // Writing to a string cannot fail.
                let _ = writeln!(text, "    {}", found.diagnostic.message);
                if told.insert(found.diagnostic.code) {
                    let _ = writeln!(text, "    why: {}", found.why);
                }
                let _ = writeln!(text, "    fix: {}", found.diagnostic.fix);
                if let Some(example) = &found.example {
                    let _ = writeln!(text, "    example: {} -> {}", example.request, short(example));
                }
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

    /// One SARIF 2.1.0 log with one run.
    ///
    /// # Errors
    /// Never for this type; the serialiser's signature has one.
    pub fn sarif(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(&sarif::log(&self.diagnostics))
    }
}

/// The decision of an example in a few words: `allow 200 ns[a]-policy[b]-rule[0]`.
fn short(example: &Example) -> String {
    let get = |name: &str| example.decision.get(name).filter(|value| !value.is_null());
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut parts: Vec<String> =
        [get("decision"), get("status"), get("policy")].into_iter().flatten().map(text).collect();
    for (action, shadow) in get("shadow").and_then(|shadow| shadow.as_object()).into_iter().flatten() {
        parts.extend(shadow.get("result").map(|result| format!("(dry-run {action}: {})", text(result))));
    }
    let mode = get("mtls").and_then(|mtls| mtls.get("mode"));
    parts.extend(mode.map(|mode| format!("(the port is {})", text(mode))));
    parts.join(" ")
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
