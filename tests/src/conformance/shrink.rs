//! Makes a disagreement small: whatever can go without the two sides agreeing goes. The same Envoy is asked again, with
//! one listener for each smaller question.

mod message;
mod policies;
mod setting;
mod text;

use std::time::Instant;

use anyhow::Result;

use super::generate::Keys;
use super::oracle::{Oracle, Question};
use super::ours::Engine;
use super::run::Disagreement;

/// Smaller questions that Envoy is asked at a time, and the rules that they may have together.
const AT_A_TIME: usize = 80;
const RULES: usize = 1_500;

/// The smallest question found that the two sides still answer differently, in the same way as far as the status goes:
/// the smallest of all, unless `deadline` comes first.
///
/// # Errors
/// When Envoy does not answer.
pub(super) fn shrink(oracle: &mut Oracle, keys: &Keys, found: Disagreement, deadline: Instant) -> Result<Disagreement> {
    let (mut smallest, mut start) = (found, 0);
    while Instant::now() < deadline {
        match smaller(oracle, keys, &smallest, start)? {
            Some((next, at)) => (smallest, start) = (next, at),
            None => break,
        }
    }
    Ok(smallest)
}

/// The first smaller question that will do and its place among the candidates. The search begins at `start`, where the last
/// one ended: what could not go before can hardly go now.
fn smaller(
    oracle: &mut Oracle,
    keys: &Keys,
    found: &Disagreement,
    start: usize,
) -> Result<Option<(Disagreement, usize)>> {
    let decided = found.envoy.status != found.ours.status;
    let mut candidates: Vec<_> = candidates(&found.question, keys).into_iter().enumerate().collect();
    let skipped = start.min(candidates.len());
    candidates.rotate_left(skipped);
    let rules: usize = found.question.scene.policies.iter().map(|policy| policy.rules.len() + 1).sum();
    for chunk in candidates.chunks((RULES / rules.max(1)).clamp(2, AT_A_TIME)) {
        let questions = chunk.iter().map(|(_, question)| setting::elsewhere(question)).collect::<Result<Vec<_>>>()?;
        let answers = oracle.ask(&questions)?;
        for (((at, _), question), calls) in chunk.iter().zip(&questions).zip(answers) {
            let (Some(call), Some(envoy)) = (question.calls.first(), calls.into_iter().flatten().next()) else {
                continue;
            };
            let Some(ask) = call.asks.first() else { continue };
            let ours = Engine::new(&question.scene).answer_or_panic(call, ask);
            let persists = !envoy.differences(&ours).is_empty() && (envoy.status != ours.status || !decided);
            if persists {
                return Ok(Some((Disagreement { question: question.clone(), envoy, ours }, *at)));
            }
        }
    }
    Ok(None)
}

/// Every question that lacks one thing, those that lack most first.
fn candidates(question: &Question, keys: &Keys) -> Vec<Question> {
    let mut candidates = Vec::new();
    let scenes = policies::without_policies(&question.scene)
        .into_iter()
        .chain(setting::plainer(&question.scene))
        .chain(policies::without_parts(&question.scene));
    for scene in scenes {
        let mut smaller = question.clone();
        smaller.scene = scene;
        setting::fit(&mut smaller, &question.scene);
        candidates.push(smaller);
    }
    candidates.extend(message::plainer(question, keys));
    candidates
}
