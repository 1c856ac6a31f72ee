//! `cargo xtask bench authz`: one decision, a compilation and one change, ours beside three others, in one run.
//!
//! Every engine gets the same policies and the same requests. Ours comes first, because it is what a change here is measured
//! by; then a plain linear evaluator, Cedar's authorizer on the policies translated, and a real Envoy, whose figure is the time
//! that its RBAC filters add to a request. One core each. Calls are timed one by one; what the clock itself costs is taken off.

pub mod cedar;
pub mod envoy;
pub mod linear;
pub mod ours;
pub mod scene;
pub mod timing;

use anyhow::Result;
use serde::Serialize;

use scene::Scene;

/// Rules attached, for every engine; ours is asked with [`MOST`], too.
pub const SIZES: [usize; 4] = [10, 1_000, 10_000, 100_000];
/// What only ours is asked with.
pub const MOST: usize = 100_000;

/// One measured row.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// `decide` (some rule matches), `decide-miss` (none does), `unselective` (every attribute holds for half of the rules),
    /// `compile` (all policies), `apply` (one changed policy).
    pub bench: &'static str,
    /// `palisade`, `linear`, `cedar` or `envoy`.
    pub engine: &'static str,
    /// Rules attached, one a policy.
    pub rules: usize,
    /// Median, nanoseconds.
    pub ns_p50: u64,
    /// 99th percentile, nanoseconds.
    pub ns_p99: u64,
}

/// An engine that decides; what it was compiled from stays with it.
pub(crate) trait Engine {
    /// Its name in the rows.
    const NAME: &'static str;
    /// What a request is turned into before the clock starts.
    type Prepared;

    /// Compiles the scene's policies.
    fn compile(scene: &Scene) -> Result<Self>
    where
        Self: Sized;

    /// Prepares a request.
    fn prepare(&self, sample: &scene::Sample) -> Result<Self::Prepared>;

    /// Decides; true for allow.
    fn decide(&self, prepared: &Self::Prepared) -> bool;
}

/// Measures and hands each row to `print` as it is known.
///
/// # Errors
/// When an engine cannot be started, or two engines decide one request differently: a comparison of different answers has no
/// result.
pub fn run(print: &mut dyn FnMut(&Row) -> Result<()>) -> Result<()> {
    ours::memory()?;
    for rules in SIZES {
        ours::rows(rules, print)?;
    }
    for rules in SIZES.into_iter().filter(|rules| *rules < MOST) {
        rows::<linear::Linear>(rules, print)?;
    }
    for rules in SIZES.into_iter().filter(|rules| *rules < MOST) {
        rows::<cedar::Cedar>(rules, print)?;
    }
    for rules in SIZES.into_iter().filter(|rules| *rules < MOST) {
        envoy::rows(rules, print)?;
    }
    Ok(())
}

/// The rows of deciding and compiling, of one engine at one size.
pub(crate) fn rows<E: Engine>(rules: usize, print: &mut dyn FnMut(&Row) -> Result<()>) -> Result<()> {
    let row = |bench, (ns_p50, ns_p99)| Row { bench, engine: E::NAME, rules, ns_p50, ns_p99 };
    let selective = Scene::selective(rules);
    let engine = E::compile(&selective)?;
    for (bench, samples, allowed) in [
        ("decide", &selective.hits, &selective.hits_allowed),
        ("decide-miss", &selective.misses, &selective.misses_allowed),
    ] {
        print(&row(bench, decide(&engine, samples, allowed)?))?;
    }
    let unselective = Scene::unselective(rules);
    let engine = E::compile(&unselective)?;
    print(&row("unselective", decide(&engine, &unselective.misses, &unselective.misses_allowed)?))?;
    drop(engine);
    let mut failed = None;
    let figures = timing::few(|| match E::compile(&selective) {
        Ok(engine) => Some(engine),
        Err(error) => {
            failed = Some(error);
            None
        }
    });
    match failed {
        Some(error) => Err(error),
        None => print(&row("compile", figures)),
    }
}

/// Checks every answer once, then takes the time.
fn decide<E: Engine>(engine: &E, samples: &[scene::Sample], allowed: &[bool]) -> Result<(u64, u64)> {
    let prepared = samples.iter().map(|sample| engine.prepare(sample)).collect::<Result<Vec<_>>>()?;
    for ((prepared, allowed), sample) in prepared.iter().zip(allowed).zip(samples) {
        anyhow::ensure!(engine.decide(prepared) == *allowed, "{}: another answer to {sample:?}", E::NAME);
    }
    Ok(timing::many(&prepared, |prepared| engine.decide(prepared)))
}
