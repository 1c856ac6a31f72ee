//! `policy eval`: one answer per request line, by the same compiled sets that enforce.
//!
//! What a line leaves out is missing on the request where a request may lack it (no `principal` is plaintext,
//! no `jwt` no token, no `sni`, no `headers`, no `metadata`). What every request has and the line leaves out is
//! unknown, and the answer is `undecided` where it would decide: `source.ip`, `destination.ip`,
//! `destination.port`; of `http` lines `method`, `host`, `scheme`, and `path` unless the method is CONNECT.
//! `remoteIp` left out is what a sidecar would find: the last X-Forwarded-For entry, else `source.ip`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{self, BufRead, Write};
use std::sync::Arc;

use palisade_authz::{CompiledSet, Outcome, Semantics};
use palisade_policies::{Loaded, MeshConfig, Resources, Workload, select};

mod answer;
mod fields;
mod input;
mod strict;

use answer::Answer;
use input::Input;

/// Compiled sets kept at once; distinct workloads beyond that are compiled again.
const CACHE: usize = 4096;

/// Evaluates request lines against loaded policies.
pub struct Evaluator {
    resources: Arc<Resources>,
    mesh: MeshConfig,
    semantics: Option<Semantics>,
    sets: HashMap<(Semantics, String, BTreeMap<String, String>), Arc<CompiledSet>>,
    summary: Summary,
}

/// A line that could not be answered. Displays as `line 3: http.path: what is wrong; fix: what to write`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct InputError {
    /// Line of the input, from 1.
    pub line: u64,
    /// Path of the field, for example `source.ip`; empty for the whole line.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub fix: String,
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: error", self.line)?;
        if !self.field.is_empty() {
            write!(f, " {}", self.field)?;
        }
        write!(f, ": {}; fix: {}", self.message, self.fix)
    }
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The requests cannot be read on.
    #[error("cannot read the requests to their end")]
    Read(#[source] io::Error),
    /// The answers cannot be written.
    #[error("cannot write the answers")]
    Write(#[source] io::Error),
}

/// What the exit code is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Documents that loading refused.
    pub refused: usize,
    /// Lines answered.
    pub answered: u64,
    /// Of those, denied.
    pub denied: u64,
    /// Of those, undecided.
    pub undecided: u64,
    /// Lines that could not be answered.
    pub bad: u64,
}

impl Summary {
    /// 3 if a policy was refused, else 65 if a line could not be read, else 4 if an answer is undecided, else
    /// 2 if one is deny, else 0.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        if self.refused > 0 {
            3
        } else if self.bad > 0 {
            65
        } else if self.undecided > 0 {
            4
        } else if self.denied > 0 {
            2
        } else {
            0
        }
    }
}

/// A whole run in memory.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The answers, one JSON object each, in input order.
    pub answers: Vec<String>,
    /// The lines that have none.
    pub errors: Vec<InputError>,
    /// Counts and exit code.
    pub summary: Summary,
}

/// Evaluates a whole text of request lines; `semantics` overrides each line's `protocol`.
#[must_use]
pub fn eval(loaded: &Loaded, mesh: &MeshConfig, requests: &str, semantics: Option<Semantics>) -> Report {
    let mut evaluator = Evaluator::new(loaded, mesh, semantics);
    let mut report = Report::default();
    for (number, line) in (1..).zip(requests.lines()) {
        match evaluator.line(number, line) {
            Some(Ok(answer)) => report.answers.push(answer),
            Some(Err(error)) => report.errors.push(error),
            None => {}
        }
    }
    report.summary = evaluator.summary();
    report
}

impl Evaluator {
    /// Over the accepted resources; what was refused counts in the summary.
    #[must_use]
    pub fn new(loaded: &Loaded, mesh: &MeshConfig, semantics: Option<Semantics>) -> Self {
        Self {
            resources: Arc::new(loaded.resources.clone()),
            mesh: mesh.clone(),
            semantics,
            sets: HashMap::new(),
            summary: Summary { refused: loaded.refused, ..Summary::default() },
        }
    }

    /// Counts so far.
    #[must_use]
    pub const fn summary(&self) -> Summary {
        self.summary
    }

    /// Answers one line with one JSON object; `None` for a blank line.
    pub fn line(&mut self, number: u64, line: &str) -> Option<Result<String, InputError>> {
        if line.trim().is_empty() {
            return None;
        }
        let answer = Input::parse(line, self.semantics).map_err(|problem| problem.at(number)).and_then(|input| {
            let answer = self.answer(&input);
            let text = serde_json::to_string(&answer);
            text.map(|text| (answer.outcome(), text)).map_err(|error| InputError {
                line: number,
                field: String::new(),
                message: format!("the answer cannot be written: {error}"),
                fix: "report this as a defect".to_owned(),
            })
        });
        match &answer {
            Ok((outcome, _)) => {
                self.summary.answered += 1;
                self.summary.denied += u64::from(*outcome == Outcome::Deny);
                self.summary.undecided += u64::from(*outcome == Outcome::Undecided);
            }
            Err(_) => self.summary.bad += 1,
        }
        Some(answer.map(|(_, text)| text))
    }

    /// Reads lines to the end; answers go to `out` in order, what cannot be answered to `on_error`. The counts are in
    /// [`Self::summary`], also after an error.
    ///
    /// # Errors
    /// [`RunError`] says whether the input or the output failed.
    pub fn run(
        &mut self,
        input: impl BufRead,
        out: &mut impl Write,
        on_error: &mut dyn FnMut(&InputError),
    ) -> Result<(), RunError> {
        for (number, line) in (1..).zip(input.split(b'\n')) {
            let line = line.map_err(RunError::Read)?;
            let answer = match std::str::from_utf8(&line) {
                Ok(text) => self.line(number, text),
                Err(_) => {
                    self.summary.bad += 1;
                    Some(Err(not_utf8(number)))
                }
            };
            match answer {
                Some(Ok(answer)) => writeln!(out, "{answer}").map_err(RunError::Write)?,
                Some(Err(error)) => on_error(&error),
                None => {}
            }
        }
        Ok(())
    }

    fn answer(&mut self, input: &Input) -> Answer {
        let target = match input.normalise(&self.mesh) {
            Ok(target) => target,
            Err(status) => return Answer::refused_by_the_codec(input, status),
        };
        let set = self.set(input);
        let evaluation = input.with_request(&target, |request, known| set.evaluate(request, known));
        Answer::new(input, &evaluation)
    }

    fn set(&mut self, input: &Input) -> Arc<CompiledSet> {
        let key = (input.semantics, input.workload.namespace.clone(), input.workload.labels.clone());
        if let Some(set) = self.sets.get(&key) {
            return Arc::clone(set);
        }
        if self.sets.len() >= CACHE {
            self.sets.clear();
        }
        let set = Arc::new(compile(&self.resources, &self.mesh, &input.workload, input.semantics));
        self.sets.insert(key, Arc::clone(&set));
        set
    }
}

fn compile(resources: &Resources, mesh: &MeshConfig, workload: &Workload, semantics: Semantics) -> CompiledSet {
    let policies = select::authorization_policies(resources, mesh, workload);
    CompiledSet::compile(&policies, mesh, semantics)
}

fn not_utf8(line: u64) -> InputError {
    InputError {
        line,
        field: String::new(),
        message: "the line is not UTF-8".to_owned(),
        fix: "write JSON in UTF-8, one object a line".to_owned(),
    }
}
