//! Makes a disagreement small: whatever can go without the two sides agreeing goes. The same Envoy is asked again, with
//! one listener for each smaller question.

mod message;
mod policies;
mod setting;
mod text;

use anyhow::Result;

use super::generate::Keys;
use super::oracle::{Oracle, Question};
use super::ours::Engine;
use super::run::Disagreement;

/// Smaller questions that Envoy is asked at a time.
const AT_A_TIME: usize = 80;
/// Rounds after which a question is small enough.
const ROUNDS: usize = 120;

/// The smallest question found that the two sides still answer differently, in the same way as far as the status goes.
///
/// # Errors
/// When Envoy does not answer.
pub(super) fn shrink(oracle: &mut Oracle, keys: &Keys, found: Disagreement) -> Result<Disagreement> {
    let mut smallest = found;
    for _ in 0..ROUNDS {
        match smaller(oracle, keys, &smallest)? {
            Some(next) => smallest = next,
            None => break,
        }
    }
    Ok(smallest)
}

fn smaller(oracle: &mut Oracle, keys: &Keys, found: &Disagreement) -> Result<Option<Disagreement>> {
    let decided = found.envoy.status != found.ours.status;
    let candidates = candidates(&found.question, keys);
    for questions in candidates.chunks(AT_A_TIME) {
        let questions = questions.iter().map(setting::elsewhere).collect::<Result<Vec<_>>>()?;
        let answers = oracle.ask(&questions)?;
        for (question, calls) in questions.iter().zip(answers) {
            let (Some(call), Some(envoy)) = (question.calls.first(), calls.into_iter().flatten().next()) else {
                continue;
            };
            let Some(ask) = call.asks.first() else { continue };
            let ours = Engine::new(&question.scene).answer_or_panic(call, ask);
            let persists = !envoy.differences(&ours).is_empty() && (envoy.status != ours.status || !decided);
            if persists {
                return Ok(Some(Disagreement { question: question.clone(), envoy, ours }));
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
