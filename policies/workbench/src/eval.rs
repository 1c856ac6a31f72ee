//! `policy eval`: one answer per request line, by the same compiled sets that enforce.
//!
//! What a line leaves out is missing on the request where a request may lack it (no `principal` is plaintext,
//! no `jwt` no token, no `sni`, no `headers`, no `metadata`). What every request has and the line leaves out is
//! unknown, and the answer is `undecided` where it would decide: `source.ip`, `destination.ip`,
//! `destination.port`; of `http` lines `method`, `host`, `scheme`, and `path` unless the method is CONNECT.
//! `remoteIp` left out is what a sidecar would find: the last X-Forwarded-For entry, else `source.ip`.

use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::time::SystemTime;

use palisade_authz::{Outcome, Semantics};
use palisade_policies::{Loaded, MeshConfig};

pub(crate) mod answer;
pub(crate) mod court;

use answer::Answer;
use court::Court;

pub use crate::input::InputError;
use crate::input::{Input, Line, Lines};
use crate::world::{Alone, World, at_once};

/// How requests are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Decides every request so, whatever its `protocol` says.
    pub semantics: Option<Semantics>,
    /// Verifies the tokens of the headers by RequestAuthentication, instead of trusting `jwt`.
    pub authenticate: bool,
}

/// Evaluates request lines against loaded policies.
pub struct Evaluator {
    court: Court,
    options: Options,
    summary: Summary,
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
    /// Of those, with a `jwt` that was not looked at because tokens are verified.
    pub unread_claims: u64,
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

/// Evaluates a whole text of request lines without any world around: claims are trusted, and no provider is asked, so
/// that what a CUSTOM policy matches is denied. `semantics` overrides each line's `protocol`.
#[must_use]
pub fn eval(loaded: &Loaded, mesh: &MeshConfig, requests: &str, semantics: Option<Semantics>) -> Report {
    let options = Options { semantics, authenticate: false };
    let mut evaluator = Evaluator::new(loaded, mesh, options, Arc::new(Alone(SystemTime::UNIX_EPOCH)));
    let mut report = Report::default();
    for (number, line) in (1..).zip(requests.lines()) {
        match at_once(evaluator.line(number, line)).flatten() {
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
    pub fn new(loaded: &Loaded, mesh: &MeshConfig, options: Options, world: Arc<dyn World>) -> Self {
        Self {
            court: Court::new(Arc::new(loaded.resources.clone()), mesh.clone(), options.authenticate, world),
            options,
            summary: Summary { refused: loaded.refused, ..Summary::default() },
        }
    }

    /// Counts so far.
    #[must_use]
    pub const fn summary(&self) -> Summary {
        self.summary
    }

    /// Answers one line with one JSON object; `None` for a blank line.
    pub async fn line(&mut self, number: u64, line: &str) -> Option<Result<String, InputError>> {
        if line.trim().is_empty() {
            return None;
        }
        let answer = match Input::parse(line, self.options.semantics) {
            Ok(input) => self.answer(number, &input).await,
            Err(problem) => Err(InputError::at(number, problem)),
        };
        self.summary.bad += u64::from(answer.is_err());
        Some(answer)
    }

    async fn answer(&mut self, number: u64, input: &Input) -> Result<String, InputError> {
        let answer = self.court.answer(input).await;
        let text = serde_json::to_string(&answer).map_err(|error| InputError {
            line: number,
            field: String::new(),
            message: format!("the answer cannot be written: {error}"),
            fix: "report this as a defect".to_owned(),
        })?;
        self.count(&answer, input);
        Ok(text)
    }

    fn count(&mut self, answer: &Answer, input: &Input) {
        self.summary.answered += 1;
        self.summary.denied += u64::from(answer.outcome() == Outcome::Deny);
        self.summary.undecided += u64::from(answer.outcome() == Outcome::Undecided);
        self.summary.unread_claims += u64::from(self.options.authenticate && input.claims.is_some());
    }

    /// Reads lines to the end; answers go to `out` in order, what cannot be answered to `on_error`. The counts are in
    /// [`Self::summary`], also after an error.
    ///
    /// # Errors
    /// [`RunError`] says whether the input or the output failed.
    pub async fn run(
        &mut self,
        input: impl BufRead,
        out: &mut impl Write,
        on_error: &mut dyn FnMut(&InputError),
    ) -> Result<(), RunError> {
        for line in Lines::new(input) {
            let (number, line) = line.map_err(RunError::Read)?;
            let answer = match line {
                Line::Text(text) => self.line(number, &text).await,
                unreadable => {
                    self.summary.bad += 1;
                    Some(Err(unreadable.error(number)))
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
}
