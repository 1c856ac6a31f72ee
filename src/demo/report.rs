//! What the demo prints: a short table and one line a step on stdout, for eyes or for machines.

use std::io::IsTerminal as _;

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

use crate::output::print;

/// Output format of the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table and one line a step.
    Table,
    /// One JSON object a line: `start`, one `step` each, `end`.
    Json,
}

/// A workload of the cast.
#[derive(Serialize)]
pub(super) struct Role {
    pub(super) workload: &'static str,
    pub(super) address: String,
    /// Empty without a proxy.
    pub(super) identity: String,
    pub(super) proxy: &'static str,
}

/// A step that was told and checked.
#[derive(Serialize)]
pub(super) struct Step {
    pub(super) step: usize,
    pub(super) ok: bool,
    pub(super) title: String,
    pub(super) detail: String,
}

/// Writes the story as it happens.
pub(super) struct Report {
    format: Format,
    colour: bool,
}

impl Report {
    pub(super) fn new(format: Format) -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { format, colour }
    }

    /// Progress, for eyes only.
    pub(super) fn progress(&self, line: &str) {
        eprintln!("demo: {line}");
    }

    pub(super) fn start(&self, seconds: f64, megabytes: f64, processes: usize, cast: &[Role]) -> Result<()> {
        if self.format == Format::Json {
            return print_json(&serde_json::json!({
                "kind": "start", "ready_seconds": seconds, "memory_mb": megabytes, "processes": processes, "workloads": cast,
            }));
        }
        line(&format!("A mesh of {processes} processes, ready in {seconds:.2} s with {megabytes:.0} MB in all\n"))?;
        line(&format!("{:<10} {:<18} {:<7} IDENTITY", "WORKLOAD", "ADDRESS", "PROXY"))?;
        for role in cast {
            let identity = if role.identity.is_empty() { "-" } else { &role.identity };
            line(&format!("{:<10} {:<18} {:<7} {identity}", role.workload, role.address, role.proxy))?;
        }
        line("")
    }

    pub(super) fn step(&self, step: &Step) -> Result<()> {
        if self.format == Format::Json {
            let mut value = serde_json::to_value(step)?;
            if let Some(object) = value.as_object_mut() {
                object.insert("kind".to_owned(), "step".into());
            }
            return print_json(&value);
        }
        let mark = match (step.ok, self.colour) {
            (true, true) => "\u{1b}[32m✓\u{1b}[0m",
            (true, false) => "✓",
            (false, true) => "\u{1b}[31m✗\u{1b}[0m",
            (false, false) => "✗",
        };
        line(&format!("{mark} {}. {:<44} {}", step.step, step.title, step.detail))
    }

    /// Text below the steps: the audit table, the hints of `--keep`.
    pub(super) fn text(&self, text: &str) -> Result<()> {
        match self.format {
            Format::Table => line(&format!("\n{}", text.trim_end())),
            Format::Json => {
                eprintln!("{}", text.trim_end());
                Ok(())
            }
        }
    }

    pub(super) fn end(&self, steps: usize, failed: usize) -> Result<()> {
        if self.format == Format::Json {
            return print_json(&serde_json::json!({ "kind": "end", "steps": steps, "failed": failed }));
        }
        match failed {
            0 => line(&format!("\nAll {steps} steps were as told.")),
            _ => line(&format!("\n{failed} of {steps} steps were not as told.")),
        }
    }
}

fn print_json(value: &serde_json::Value) -> Result<()> {
    line(&serde_json::to_string(value)?)
}

/// A reader that went away does not end the story: its exit code still counts.
fn line(text: &str) -> Result<()> {
    print(&format!("{text}\n")).map(drop)
}
