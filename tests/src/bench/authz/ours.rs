//! The product's engine, called as the proxy calls it.

use std::process;

use anyhow::Result;
use palisade_authz::{CompiledSet, Compiler, HttpRequest, Peer, Request, Semantics};
use palisade_policies::MeshConfig;

use super::scene::{self, HEADER, Sample, Scene};
use super::{Engine, MOST, Row, timing};
use crate::bench::cpu;

/// The compiled set.
pub(crate) struct Ours(CompiledSet);

/// A request whose strings it owns.
pub(crate) struct Prepared {
    sample: Sample,
    headers: [(&'static str, String); 1],
}

impl Engine for Ours {
    const NAME: &'static str = "palisade";
    type Prepared = Prepared;

    fn compile(scene: &Scene) -> Result<Self> {
        Ok(Self(CompiledSet::compile(&scene.policies, &MeshConfig::default(), Semantics::Http)))
    }

    fn prepare(&self, sample: &Sample) -> Result<Prepared> {
        Ok(Prepared { sample: sample.clone(), headers: [(HEADER, sample.header.clone())] })
    }

    fn decide(&self, prepared: &Prepared) -> bool {
        let Prepared { sample, headers } = prepared;
        let request = Request {
            source: Peer { principal: Some(&sample.principal), ..Peer::default() },
            http: Some(HttpRequest {
                method: Some(sample.method),
                path: Some(&sample.path),
                host: Some(&sample.host),
                scheme: Some("https"),
                headers: &&headers[..],
                raw_target: Some(&sample.path),
            }),
            ..Request::default()
        };
        self.0.decide(&request).is_allow()
    }
}

/// All rows of one size.
pub(crate) fn rows(rules: usize, print: &mut dyn FnMut(&Row) -> Result<()>) -> Result<()> {
    super::rows::<Ours>(rules, print)?;
    let scene = Scene::selective(rules);
    let mesh = MeshConfig::default();
    let mut compiler = Compiler::new(Semantics::Http);
    let mut last = compiler.compile(&scene.policies, &mesh);
    let (mut round, mut policies) = (0, scene.policies.clone());
    let edit = || {
        round += 1;
        scene::edit(&mut policies, round);
        policies.clone()
    };
    // The set that is replaced is dropped on the clock, as in a proxy.
    let (ns_p50, ns_p99) = timing::few_prepared(edit, |policies| last = compiler.compile(policies, &mesh));
    drop(last);
    print(&Row { bench: "apply", engine: Ours::NAME, rules, ns_p50, ns_p99 })
}

/// What a rule costs in memory, said beside the rows. To be asked first, while nothing freed can be used again.
pub(crate) fn memory() -> Result<()> {
    let scene = Scene::selective(MOST);
    let before = cpu::resident_mb(process::id())?;
    let kept = Ours::compile(&scene)?;
    let grown = (cpu::resident_mb(process::id())? - before).max(0.0);
    eprintln!(
        "memory: {:.0} bytes a rule at {MOST} rules (growth of resident memory, what compiling left behind included)",
        grown * 1e6 / MOST as f64
    );
    drop(kept);
    Ok(())
}
