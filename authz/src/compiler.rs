//! Compiling again after a change: what is unchanged is taken over.
//!
//! A mesh of ten thousand policies changes one at a time. The compiler keeps the compiled form of each policy and the
//! numbers of its predicates, so that a change compiles one policy and lays the rest out anew.

use std::collections::HashMap;
use std::sync::Arc;

use palisade_policies::{AuthorizationPolicy, MeshConfig};

use crate::compile::{self, Setting, Unit};
use crate::compiled::CompiledSet;
use crate::index::Cache;
use crate::link::link;
use crate::predicate::Interner;
use crate::request::Semantics;

/// Compiles the policies of one workload again and again. The result is always that of [`CompiledSet::compile`].
pub struct Compiler {
    semantics: Semantics,
    setting: Option<Setting>,
    interner: Interner,
    cache: Cache,
    /// How many predicates there were when everything was compiled last.
    first_predicates: usize,
    /// In the order of the last call.
    kept: Vec<Kept>,
}

/// A policy and what it was compiled to; nothing where it does not exist in these semantics.
#[derive(Clone)]
struct Kept {
    policy: Arc<AuthorizationPolicy>,
    unit: Option<Arc<Unit>>,
    /// Where its rules stood in the last set, about: what is nearly in order is sorted fast.
    rank: u32,
}

impl Compiler {
    /// Nothing compiled yet.
    #[must_use]
    pub fn new(semantics: Semantics) -> Self {
        Self {
            semantics,
            setting: None,
            interner: Interner::default(),
            cache: Cache::default(),
            first_predicates: 0,
            kept: Vec::new(),
        }
    }

    /// Compiles the policies that apply to the workload now, in any order. A policy is taken over from the last call
    /// where it is the same, or equal, and what steers compilation in `mesh` has not changed.
    pub fn compile(&mut self, policies: &[Arc<AuthorizationPolicy>], mesh: &MeshConfig) -> CompiledSet {
        let setting = Setting::new(policies, mesh, self.semantics);
        let afresh = self.setting.as_ref() != Some(&setting) || self.is_mostly_garbage();
        if afresh {
            self.kept.clear();
            self.interner = Interner::default();
            self.cache = Cache::default();
        }
        let mut kept = self.take_over(policies);
        for (slot, policy) in kept.iter_mut().zip(policies) {
            slot.get_or_insert_with(|| {
                let unit = compile::unit(policy, &setting, &mut self.interner).map(Arc::new);
                Kept { policy: Arc::clone(policy), unit, rank: u32::MAX }
            });
        }
        self.kept = kept.into_iter().flatten().collect();
        if afresh {
            self.first_predicates = self.interner.len();
        }
        let set = self.link(&setting);
        self.setting = Some(setting);
        set
    }

    fn link(&mut self, setting: &Setting) -> CompiledSet {
        let mut kept: Vec<&mut Kept> = self.kept.iter_mut().filter(|kept| kept.unit.is_some()).collect();
        kept.sort_by_key(|kept| kept.rank);
        let units: Vec<&Unit> = kept.iter().filter_map(|kept| kept.unit.as_deref()).collect();
        let (set, ranks) = link(&units, setting, &self.interner, &mut self.cache);
        kept.into_iter().zip(ranks).for_each(|(kept, rank)| kept.rank = rank);
        set
    }

    /// Finds each policy among those of the last call: at the same place, else by name.
    fn take_over(&self, policies: &[Arc<AuthorizationPolicy>]) -> Vec<Option<Kept>> {
        let mut found: Vec<Option<Kept>> = Vec::with_capacity(policies.len());
        let mut at_place = self.kept.iter();
        let mut elsewhere = Vec::new();
        for policy in policies {
            let kept = at_place.next();
            let same = kept.filter(|kept| same(&kept.policy, policy));
            elsewhere.extend(kept.filter(|_| same.is_none()));
            found.push(same.cloned());
        }
        if elsewhere.is_empty() && at_place.len() == 0 {
            return found;
        }
        let names = |policy: &AuthorizationPolicy| (policy.meta.namespace.clone(), policy.meta.name.clone());
        let by_name: HashMap<_, &Kept> =
            elsewhere.into_iter().chain(at_place).map(|kept| (names(&kept.policy), kept)).collect();
        for (slot, policy) in found.iter_mut().zip(policies).filter(|(slot, _)| slot.is_none()) {
            *slot = by_name.get(&names(policy)).filter(|kept| same(&kept.policy, policy)).map(|kept| (*kept).clone());
        }
        found
    }

    /// Whether it may be that more than half of the interned predicates belong to policies that are gone.
    fn is_mostly_garbage(&self) -> bool {
        self.interner.len() > 2 * self.first_predicates + 1024
    }
}

fn same(kept: &Arc<AuthorizationPolicy>, policy: &Arc<AuthorizationPolicy>) -> bool {
    Arc::ptr_eq(kept, policy) || kept == policy
}

impl std::fmt::Debug for Compiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiler")
            .field("semantics", &self.semantics)
            .field("policies", &self.kept.len())
            .field("predicates", &self.interner.len())
            .finish_non_exhaustive()
    }
}
