//! A run: batches of workloads are generated, decided by both sides and compared; what disagrees is made small.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::compare::Answer;
use super::dice::Dice;
use super::generate::{self, Keys, Shared, Sizes};
use super::oracle::{self, Answers, Oracle, Question};
use super::ours::Engine;
use super::report;
use super::scene::{Call, Reserved};
use super::shrink;

/// Workloads that one Envoy holds at a time.
const BATCH: usize = 150;
/// Requests to each.
const REQUESTS: usize = 50;
/// How many workloads with a disagreement are made small in a run; one wrong line can cause thousands of them.
const SHRUNK: usize = 12;
/// How long that may take, and how long for one of them.
const SHRINKING: Duration = Duration::from_secs(150);
const SHRINKING_ONE: Duration = Duration::from_secs(50);

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// At least this many requests are decided.
    pub cases: usize,
    /// What the cases are generated from.
    pub seed: u64,
}

/// What came out.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Requests that both sides decided.
    pub cases: usize,
    /// Requests on which they disagreed.
    pub disagreements: usize,
    /// The seed.
    pub seed: u64,
    /// How the cases were decided, by Envoy's answer.
    pub outcomes: std::collections::BTreeMap<String, usize>,
    /// Where the time went.
    pub times: Times,
    /// Workloads with a disagreement, of which the first are printed.
    pub workloads: usize,
}

/// Where the time of a run went.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    /// Making up cases.
    pub generate: Duration,
    /// Waiting for Envoy.
    pub envoy: Duration,
    /// Waiting for the engine.
    pub ours: Duration,
    /// Making disagreements small.
    pub shrink: Duration,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} cases, {} disagreements, seed {}", self.cases, self.disagreements, self.seed)
    }
}

/// One request on which the two sides disagree.
pub(super) struct Disagreement {
    pub(super) question: Question,
    pub(super) envoy: Answer,
    pub(super) ours: Answer,
}

/// Decides cases until there are enough; reproducers and progress go to `print`.
///
/// # Errors
/// When Envoy does not start, refuses a configuration or stops answering.
pub fn run(binary: &Path, options: Options, print: &mut dyn FnMut(&str)) -> Result<Summary> {
    let mut oracle = Oracle::start(binary)?;
    let sizes = Sizes { requests: REQUESTS, v6: Reserved::has_v6() };
    let shared = Shared { keys: Keys::new()?, providers: oracle::providers(), sizes };
    let mut summary = Summary { seed: options.seed, ..Summary::default() };
    let mut part = 0;
    while summary.cases < options.cases {
        let begin = Instant::now();
        let left = (options.cases - summary.cases).div_ceil(REQUESTS * 4 / 5);
        let questions = (0..BATCH.min(left.max(1)))
            .map(|_| {
                part += 1;
                generate::question(&mut Dice::new(options.seed, part), &shared)
            })
            .collect::<Result<Vec<_>>>()?;
        let generated = Instant::now();
        let answers = oracle.ask(&questions)?;
        let answered = Instant::now();
        let disagreements = compare(&questions, &answers, &mut summary);
        summary.times.generate += generated - begin;
        summary.times.envoy += answered - generated;
        summary.times.ours += answered.elapsed();
        for (found, more) in disagreements {
            summary.disagreements += more + 1;
            summary.workloads += 1;
            if summary.workloads <= SHRUNK && summary.times.shrink < SHRINKING {
                let begin = Instant::now();
                let small = shrink::shrink(&mut oracle, &shared.keys, found, begin + SHRINKING_ONE)?;
                summary.times.shrink += begin.elapsed();
                print(&report::reproducer(&small, more));
            }
        }
    }
    Ok(summary)
}

/// The first disagreement about each workload, and how many more there are about it.
fn compare(questions: &[Question], answers: &Answers, summary: &mut Summary) -> Vec<(Disagreement, usize)> {
    let mut all = Vec::new();
    for (question, calls) in questions.iter().zip(answers) {
        let mut found = compare_one(question, calls, summary).into_iter();
        if let Some(first) = found.next() {
            all.push((first, found.count()));
        }
    }
    all
}

fn compare_one(question: &Question, calls: &[Vec<Answer>], summary: &mut Summary) -> Vec<Disagreement> {
    let mut found = Vec::new();
    let engine = Engine::new(&question.scene);
    for (call, heard) in question.calls.iter().zip(calls) {
        for (ask, envoy) in call.asks.iter().zip(heard) {
            let ours = engine.answer_or_panic(call, ask);
            summary.cases += 1;
            let kind = format!("{:?} {} {}", question.scene.chain, envoy.status, envoy.phase.unwrap_or("?"));
            *summary.outcomes.entry(kind).or_default() += 1;
            if !envoy.differences(&ours).is_empty() {
                let call = Call { asks: vec![ask.clone()], ..call.clone() };
                let question = Question { scene: question.scene.clone(), calls: vec![call] };
                found.push(Disagreement { question, envoy: envoy.clone(), ours });
            }
        }
    }
    found
}
