//! Where traps are shown: the policies in force, the workloads that are known, and a way to ask what would be decided if
//! one policy said what its author probably meant.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use palisade_authz::{CompiledSet, Evaluation, Outcome, Semantics};
use palisade_policies::{
    Action, AuthorizationPolicy, MeshConfig, MtlsMode, RequestAuthentication, Resources, TargetRef, Workload, select,
};

use super::draft::Draft;
use super::slot::weight;
use crate::eval::answer::Answer;
use crate::eval::court::attached;
use crate::input::Input;

/// How many workloads a policy is tried on.
const STAGES: usize = 8;

/// What the search for traps may cost, in policies asked about a request: some seconds.
const BUDGET: usize = 3_000_000;

/// What compiling a rule costs beside that, and reading a request.
const COMPILED: usize = 4;
const READ: usize = 100;

/// So many policies are looked at for whether they concern a workload in the time in which one is asked.
const ATTACHED: usize = 10;

type Site = (Semantics, String, BTreeMap<String, String>);

/// Everything that findings are made from.
pub(super) struct Scene<'a> {
    pub(super) resources: &'a Resources,
    pub(super) mesh: &'a MeshConfig,
    /// Whether the mesh configuration was given: what it does not name does not exist only then.
    pub(super) mesh_given: bool,
    /// The workloads that the resources name, each set of labels of a namespace once.
    pub(super) workloads: Vec<Workload>,
    budget: Cell<usize>,
    alone: RefCell<HashMap<(usize, Semantics), Rc<CompiledSet>>>,
    together: RefCell<HashMap<Site, Rc<CompiledSet>>>,
    attached: RefCell<HashMap<Site, Rc<Vec<Arc<AuthorizationPolicy>>>>>,
}

/// A request that the evaluator has read.
pub(super) struct Asked {
    input: Input,
    target: Option<String>,
}

impl Asked {
    /// Reads a draft as `policy eval` would; `None` if it would be refused before any policy.
    pub(super) fn of(draft: &Draft, mesh: &MeshConfig) -> Option<Self> {
        let text = serde_json::to_string(&draft.json()?).ok()?;
        let input = Input::parse(&text, None).ok()?;
        let target = input.normalise(mesh).ok()?.map(std::borrow::Cow::into_owned);
        Some(Self { input, target })
    }

    fn evaluate(&self, set: &CompiledSet) -> Evaluation {
        let (request, known) = self.input.view(self.target.as_deref());
        set.evaluate(&request, known)
    }

    pub(super) const fn semantics(&self) -> Semantics {
        self.input.semantics
    }

    pub(super) const fn workload(&self) -> &Workload {
        &self.input.workload
    }
}

impl<'a> Scene<'a> {
    pub(super) fn new(resources: &'a Resources, mesh: &'a MeshConfig, mesh_given: bool) -> Self {
        let workloads = workloads(resources);
        Self {
            resources,
            mesh,
            mesh_given,
            workloads,
            budget: Cell::new(BUDGET),
            alone: RefCell::default(),
            together: RefCell::default(),
            attached: RefCell::default(),
        }
    }

    /// The workloads on which a policy is tried: known ones that it selects, else one made of its selector.
    pub(super) fn stages(&self, policy: &AuthorizationPolicy) -> Vec<Workload> {
        if !policy.target_refs.is_empty() {
            return self.gateways(policy);
        }
        let labels = policy.selector.as_ref().map(|selector| selector.labels().clone()).unwrap_or_default();
        let selected = |workload: &&Workload| {
            let selector = policy.selector.as_ref();
            self.reaches(&policy.meta.namespace, workload)
                && selector.is_none_or(|selector| selector.matches(&workload.labels))
        };
        let known: Vec<_> = self.workloads.iter().filter(selected).take(STAGES).cloned().collect();
        if known.is_empty() {
            vec![Workload { namespace: self.home(&policy.meta.namespace), name: String::new(), labels }]
        } else {
            known
        }
    }

    /// Whether policies of a namespace concern a workload at all.
    pub(super) fn reaches(&self, namespace: &str, workload: &Workload) -> bool {
        namespace == workload.namespace || namespace == self.mesh.root_namespace
    }

    /// A namespace with workloads that policies of this one concern: for the root namespace, one that some other
    /// resource is in.
    pub(super) fn home(&self, namespace: &str) -> String {
        if namespace != self.mesh.root_namespace {
            return namespace.to_owned();
        }
        let policies = self.resources.authorization_policies.iter().map(|policy| &policy.meta.namespace);
        let tokens = self.resources.request_authentications.iter().map(|policy| &policy.meta.namespace);
        let known = self.workloads.iter().map(|workload| &workload.namespace);
        let other = known.chain(policies).chain(tokens).find(|other| *other != namespace);
        other.cloned().unwrap_or_else(|| "default".to_owned())
    }

    /// Gateways of the Gateway API that a policy is attached to by name, and a waypoint where it is for all of them.
    fn gateways(&self, policy: &AuthorizationPolicy) -> Vec<Workload> {
        let own = &policy.meta.namespace;
        let gateway = |name: &str| ("gateway.networking.k8s.io/gateway-name".to_owned(), name.to_owned());
        let managed = || ("gateway.istio.io/managed".to_owned(), "istio.io-mesh-controller".to_owned());
        let labels = |target: &TargetRef| match target.kind.as_str() {
            "Gateway" => Some((own.clone(), [gateway(&target.name)].into())),
            "GatewayClass" => Some((self.home(own), [gateway("waypoint"), managed()].into())),
            _ => None,
        };
        let made = policy.target_refs.iter().filter_map(labels);
        let made = made.map(|(namespace, labels)| Workload { namespace, name: String::new(), labels });
        made.filter(|workload| select::attaches(policy, self.mesh, workload)).take(STAGES).collect()
    }

    /// The policies of a workload, as its kind of proxy gets them.
    pub(super) fn attached(&self, workload: &Workload, semantics: Semantics) -> Rc<Vec<Arc<AuthorizationPolicy>>> {
        let key = (semantics, workload.namespace.clone(), workload.labels.clone());
        if let Some(attached) = self.attached.borrow().get(&key) {
            return Rc::clone(attached);
        }
        self.spend(self.resources.authorization_policies.len() / ATTACHED);
        let attached = Rc::new(attached(self.resources, self.mesh, (workload, None), semantics));
        self.attached.borrow_mut().insert(key, Rc::clone(&attached));
        attached
    }

    /// The token rules of a workload.
    pub(super) fn token_rules(&self, workload: &Workload) -> Vec<Arc<RequestAuthentication>> {
        select::request_authentications(self.resources, self.mesh, workload)
    }

    /// Whether plaintext gets as far as the policies.
    pub(super) fn takes_plaintext(&self, workload: &Workload, port: u16) -> bool {
        select::mtls_mode(self.resources, self.mesh, workload, port).mode != MtlsMode::Strict
    }

    /// Takes from what the search may cost; false once it has been spent.
    pub(super) fn spend(&self, cost: usize) -> bool {
        let left = self.budget.get().saturating_sub(cost);
        self.budget.set(left);
        left > 0
    }

    /// Whether something was left out because the search cost too much.
    pub(super) fn is_spent(&self) -> bool {
        self.budget.get() == 0
    }

    /// Whether a request passes with `policy` exchanged for `other` (left out, if there is none). Of a policy that is
    /// not in force itself, dry-run or CUSTOM, it is what the policies of its kind say.
    pub(super) fn passes(
        &self,
        asked: &Asked,
        policy: &AuthorizationPolicy,
        other: Option<&AuthorizationPolicy>,
    ) -> bool {
        let own = other.filter(|other| self.attaches(other, asked));
        let matched = own.is_some_and(|own| {
            self.spend(COMPILED * weight(own));
            matches(&alone(own, self.mesh, asked.semantics()), asked)
        });
        let mut verdict = Verdict::default();
        if let Some(own) = own {
            verdict.add(&own.action, matched);
        }
        // What keeps requests out is asked first: it decides whatever the others say.
        for closing in [true, false] {
            for (index, one) in self.resources.authorization_policies.iter().enumerate() {
                if verdict.is_settled(closing) {
                    break;
                }
                let kind = (one.action != Action::Allow) == closing;
                if kind && one.meta != policy.meta && self.counts(one, policy, asked) {
                    self.spend(1);
                    verdict.add(&one.action, matches(&self.alone(index, one, asked), asked));
                }
            }
        }
        verdict.passes()
    }

    /// The same for the policies as they are, by the whole set at once.
    pub(super) fn passes_now(&self, asked: &Asked, policy: &AuthorizationPolicy) -> Option<(bool, Evaluation)> {
        let evaluation = self.evaluate(asked, Some(policy));
        let shadow = match policy.action {
            Action::Allow if policy.dry_run => evaluation.shadow.allow.as_ref(),
            Action::Deny if policy.dry_run => evaluation.shadow.deny.as_ref(),
            _ => {
                let passes = match evaluation.outcome {
                    Outcome::Allow => true,
                    Outcome::Deny => false,
                    Outcome::Undecided => return None,
                };
                return Some((passes, evaluation));
            }
        };
        let passes = shadow.map(|shadow| shadow.allowed)?;
        Some((passes, evaluation))
    }

    /// Whether `one` has a say in what is asked about `policy`, and is in force for the workload.
    fn counts(&self, one: &AuthorizationPolicy, policy: &AuthorizationPolicy, asked: &Asked) -> bool {
        let kind = |policy: &AuthorizationPolicy| matches!(policy.action, Action::Custom { .. });
        let in_force =
            |policy: &AuthorizationPolicy| !policy.dry_run && !kind(policy) && policy.action != Action::Audit;
        let same = if in_force(policy) {
            in_force(one)
        } else {
            one.dry_run == policy.dry_run && kind(one) == kind(policy) && (kind(one) || one.action == policy.action)
        };
        same && self.attaches(one, asked)
    }

    fn attaches(&self, one: &AuthorizationPolicy, asked: &Asked) -> bool {
        match asked.semantics() {
            Semantics::Http | Semantics::Tcp => select::attaches(one, self.mesh, asked.workload()),
            Semantics::L4 => select::ambient_attaches(one, self.mesh, asked.workload()),
        }
    }

    fn alone(&self, index: usize, policy: &AuthorizationPolicy, asked: &Asked) -> Rc<CompiledSet> {
        let key = (index, asked.semantics());
        if let Some(set) = self.alone.borrow().get(&key) {
            return Rc::clone(set);
        }
        let set = Rc::new(alone(policy, self.mesh, asked.semantics()));
        self.alone.borrow_mut().insert(key, Rc::clone(&set));
        set
    }

    /// What the whole set says, as if every provider had approved; of a CUSTOM policy, as if every provider had refused.
    pub(super) fn evaluate(&self, asked: &Asked, policy: Option<&AuthorizationPolicy>) -> Evaluation {
        let keep_custom = policy.is_some_and(|policy| matches!(policy.action, Action::Custom { .. }));
        self.spend(READ);
        if keep_custom {
            return asked.evaluate(&self.compile(asked, |_| true));
        }
        let (workload, semantics) = (asked.workload(), asked.semantics());
        let key = (semantics, workload.namespace.clone(), workload.labels.clone());
        let known = self.together.borrow().get(&key).map(Rc::clone);
        let set = known.unwrap_or_else(|| {
            let set = Rc::new(self.compile(asked, |policy| !matches!(policy.action, Action::Custom { .. })));
            self.together.borrow_mut().insert(key, Rc::clone(&set));
            set
        });
        asked.evaluate(&set)
    }

    fn compile(&self, asked: &Asked, keep: impl Fn(&AuthorizationPolicy) -> bool) -> CompiledSet {
        let attached = self.attached(asked.workload(), asked.semantics());
        let policies: Vec<_> = attached.iter().filter(|policy| keep(policy)).cloned().collect();
        self.spend(COMPILED * policies.iter().map(|policy| weight(policy)).sum::<usize>());
        CompiledSet::compile(&policies, self.mesh, asked.semantics())
    }

    /// The answer as `policy eval` prints it.
    pub(super) fn answer(&self, asked: &Asked, evaluation: &Evaluation) -> Option<serde_json::Value> {
        serde_json::to_value(Answer::new(&asked.input, evaluation)).ok()
    }
}

/// What policies come to, added up one by one.
#[derive(Default)]
struct Verdict {
    denied: bool,
    restricted: bool,
    allowed: bool,
}

impl Verdict {
    fn add(&mut self, action: &Action, matched: bool) {
        match action {
            Action::Allow => {
                self.restricted = true;
                self.allowed |= matched;
            }
            Action::Deny | Action::Custom { .. } => self.denied |= matched,
            Action::Audit => {}
        }
    }

    /// Whether no more policies of a kind, those that close or those that open, can change it.
    const fn is_settled(&self, closing: bool) -> bool {
        self.denied || (!closing && self.allowed)
    }

    const fn passes(&self) -> bool {
        !self.denied && (self.allowed || !self.restricted)
    }
}

/// One policy compiled by itself, in force whatever it says about that, and CUSTOM as what denies.
fn alone(policy: &AuthorizationPolicy, mesh: &MeshConfig, semantics: Semantics) -> CompiledSet {
    let mut policy = policy.clone();
    policy.dry_run = false;
    if matches!(policy.action, Action::Custom { .. }) {
        policy.action = Action::Deny;
    }
    CompiledSet::compile(&[Arc::new(policy)], mesh, semantics)
}

/// Whether the one policy of a set matches.
fn matches(set: &CompiledSet, asked: &Asked) -> bool {
    let evaluation = asked.evaluate(set);
    evaluation.policy.is_some() && evaluation.outcome != Outcome::Undecided
}

/// The workloads of the resources, each set of labels of a namespace once.
fn workloads(resources: &Resources) -> Vec<Workload> {
    let entries = resources.workload_entries.iter().map(Arc::as_ref);
    let endpoints = resources.service_entries.iter().flat_map(|service| &service.endpoints);
    let mut seen = std::collections::HashSet::new();
    entries
        .chain(endpoints)
        .filter(|entry| seen.insert((&entry.meta.namespace, &entry.labels)))
        .map(|entry| Workload {
            namespace: entry.meta.namespace.clone(),
            name: entry.meta.name.clone(),
            labels: entry.labels.clone(),
        })
        .collect()
}
