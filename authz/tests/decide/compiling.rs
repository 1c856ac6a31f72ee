//! A compiler that is used again and again, and sets that are swapped while others decide.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::thread;

use palisade_authz::{CompiledSet, Compiler, Evaluation, Known, Semantics};
use palisade_policies::{AuthorizationPolicy, MeshConfig, PathNormalization};
use serde_json::{Value, json};

use crate::ask::{Ask, policy};
use crate::large::{Dice, ask, policies};
use crate::providers::mesh_with_grpc;

type Policies = Vec<Arc<AuthorizationPolicy>>;

const ACTIONS: &[&str] = &["ALLOW", "DENY", "AUDIT", "CUSTOM"];

fn some(dice: &mut Dice, rules: usize) -> Policies {
    policies(dice, rules, ACTIONS).iter().map(policy).collect()
}

/// One edit: change, remove, insert, move, copy (equal, but another allocation), or replace everything.
fn edit(dice: &mut Dice, list: &mut Policies) {
    let at = dice.below(list.len().max(1) as u64) as usize;
    match dice.below(7) {
        0 if !list.is_empty() => drop(list.splice(at..=at, some(dice, 1))),
        1 if !list.is_empty() => drop(list.remove(at)),
        2 if !list.is_empty() => list.swap(0, at),
        3 if !list.is_empty() => {
            let one = list.remove(at);
            list.push(one);
        }
        4 => *list = list.iter().map(|one| Arc::new(one.as_ref().clone())).collect(),
        5 if dice.chance(4) => *list = some(dice, 60),
        _ => list.insert(at.min(list.len()), some(dice, 1).remove(0)),
    }
}

fn meshes() -> [MeshConfig; 3] {
    [
        MeshConfig::default(),
        mesh_with_grpc("ext"),
        MeshConfig {
            trust_domain_aliases: vec!["td".to_owned()],
            path_normalization: PathNormalization::MergeSlashes,
            ..mesh_with_grpc("ext")
        },
    ]
}

fn edits(seed: u64) {
    let mut dice = Dice::new(seed);
    let semantics = *dice.one(&[Semantics::Http, Semantics::Tcp, Semantics::L4]);
    let meshes = meshes();
    let mut compiler = Compiler::new(semantics);
    let mut list = some(&mut dice, 80);
    let mut mesh = dice.one(&meshes);
    for round in 0..15 {
        let compiled = compiler.compile(&list, mesh);
        let fresh = CompiledSet::compile(&list, mesh, semantics);
        assert_eq!(compiled.headers_read(), fresh.headers_read());
        assert_eq!((compiled.is_empty(), compiled.has_custom()), (fresh.is_empty(), fresh.has_custom()));
        for _ in 0..6 {
            ask(&mut dice).view(mesh, |request| {
                let what = format!("seed {seed}, round {round}");
                assert_eq!(compiled.evaluate(request, Known::ALL), fresh.evaluate(request, Known::ALL), "{what}");
                assert_eq!(compiled.custom(request, Known::ALL), fresh.custom(request, Known::ALL), "{what}");
                assert_eq!(compiled.explain(request, Known::ALL), fresh.explain(request, Known::ALL), "{what}");
            });
        }
        edit(&mut dice, &mut list);
        if dice.chance(4) {
            mesh = dice.one(&meshes);
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 12, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_compiler_after_edits_equals_a_fresh_one(seed in proptest::prelude::any::<u64>()) {
        edits(seed);
    }
}

/// The values of policies that are gone do not pile up, and do not matter.
#[test]
fn a_compiler_outlives_thousands_of_edits() {
    let mut compiler = Compiler::new(Semantics::Http);
    let one = |number: usize| {
        let values: Vec<String> = (0..20).map(|value| format!("/{number}/{value}*")).collect();
        policy(&json!({"name": format!("p{}", number % 40), "rules": [{"to": [{"operation": {"paths": values}}]}]}))
    };
    let mut list: Policies = (0..40).map(one).collect();
    for number in 40..400 {
        list[number % 40] = one(number);
        let set = compiler.compile(&list, &MeshConfig::default());
        for (path, passes) in [(format!("/{number}/7/x"), true), (format!("/{}/7/x", number - 40), false)] {
            Ask::get(&path).view(&MeshConfig::default(), |request| {
                assert_eq!(set.decide(request).is_allow(), passes, "{path}");
            });
        }
    }
}

/// Many threads decide while another swaps the set: each answer is that of one set as a whole.
#[test]
fn sets_are_swapped_while_others_decide() {
    let mut dice = Dice::new(7);
    let specs: Vec<Vec<Value>> = (0..4).map(|_| policies(&mut dice, 200, &["ALLOW", "DENY", "AUDIT"])).collect();
    let sets: Vec<Arc<CompiledSet>> = specs
        .iter()
        .map(|specs| Arc::new(crate::large::compile(specs, &MeshConfig::default(), Semantics::Http)))
        .collect();
    let asks: Vec<Ask> = (0..200).map(|_| ask(&mut dice)).collect();
    let evaluate =
        |set: &CompiledSet, ask: &Ask| ask.view(&MeshConfig::default(), |request| set.evaluate(request, Known::ALL));
    let expected: Vec<Vec<Evaluation>> =
        sets.iter().map(|set| asks.iter().map(|ask| evaluate(set, ask)).collect()).collect();
    let (current, done) = (RwLock::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let deciding: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    for (number, ask) in asks.iter().enumerate() {
                        let which = *current.read().unwrap();
                        let set = Arc::clone(&sets[which]);
                        assert_eq!(evaluate(&set, ask), expected[which][number]);
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut which = 0;
            while !done.load(Ordering::Relaxed) {
                which = (which + 1) % sets.len();
                *current.write().unwrap() = which;
                thread::yield_now();
            }
        });
        let results: Vec<_> = deciding.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        assert!(results.into_iter().all(|result| result.is_ok()));
    });
}
