//! Where requests are judged: the gate of each workload that they name, made when the first of them comes.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use palisade_authz::gate::{Ask, Gate, Judgement, NoBody};
use palisade_authz::{Authenticator, CompiledSet, Request, Semantics};
use palisade_policies::{AuthorizationPolicy, MeshConfig, RequestAuthentication, Resources, Workload, select};

use super::answer::Answer;
use crate::input::{self, Input, Service};
use crate::world::World;

/// Gates kept at once; distinct workloads beyond that are compiled again.
const CACHE: usize = 4096;

type Key = (Semantics, String, BTreeMap<String, String>, Option<Service>);

/// Policies in force, and the world around them.
pub(crate) struct Court {
    pub(crate) resources: Arc<Resources>,
    pub(crate) mesh: MeshConfig,
    authenticate: bool,
    world: Arc<dyn World>,
    gates: HashMap<Key, Arc<Gate>>,
}

/// What became of a request.
pub(crate) enum Ruling<'a> {
    /// Envoy's codec answers with this status before any policy is asked.
    Codec(u16),
    /// It was judged.
    Judged(Box<Judged<'a>>),
}

/// A request with its judgement.
pub(crate) struct Judged<'a> {
    pub(crate) judgement: Judgement,
    pub(crate) gate: Arc<Gate>,
    /// The target as the policies compared it, with its query.
    pub(crate) target: Option<Cow<'a, str>>,
}

impl Court {
    pub(crate) fn new(resources: Arc<Resources>, mesh: MeshConfig, authenticate: bool, world: Arc<dyn World>) -> Self {
        Self { resources, mesh, authenticate, world, gates: HashMap::new() }
    }

    pub(crate) async fn answer(&mut self, input: &Input) -> Answer {
        match self.judge(input).await {
            Ruling::Codec(status) => Answer::refused_by_the_codec(input, status),
            Ruling::Judged(judged) => Answer::of(input, &judged.judgement),
        }
    }

    pub(crate) async fn judge<'i>(&mut self, input: &'i Input) -> Ruling<'i> {
        let target = match input.normalise(&self.mesh) {
            Ok(target) => target,
            Err(status) => return Ruling::Codec(status),
        };
        let gate = self.gate(input).await;
        let now = self.world.now();
        let (request, known) = input.view(target.as_deref());
        let claims = request.claims.filter(|_| !self.authenticate);
        let check = || input.to_check(target.as_deref(), now);
        let ask = Ask { request: Request { claims, ..request }, target: target.as_deref(), check: &check, known };
        let judgement = gate.judge(&ask, &mut NoBody, now).await;
        Ruling::Judged(Box::new(Judged { judgement, gate, target }))
    }

    async fn gate(&mut self, input: &Input) -> Arc<Gate> {
        let Workload { namespace, labels, .. } = input.workload.clone();
        let key = (input.semantics, namespace, labels, input.service.clone());
        if let Some(gate) = self.gates.get(&key) {
            return Arc::clone(gate);
        }
        if self.gates.len() >= CACHE {
            self.gates.clear();
        }
        let policies = self.attached(input, input.semantics);
        let set = Arc::new(CompiledSet::compile(&policies, &self.mesh, input.semantics));
        let authenticator = Arc::new(self.authenticator(input));
        self.world.prepare(&authenticator).await;
        let gate = Arc::new(Gate::new(set, authenticator, self.world.providers(), self.world.keys()));
        self.gates.insert(key, Arc::clone(&gate));
        gate
    }

    /// Tokens are looked at where that was asked for, and there is HTTP.
    fn authenticator(&self, input: &Input) -> Authenticator {
        if !self.authenticate || input.semantics != Semantics::Http {
            return Authenticator::compile(&[]);
        }
        Authenticator::compile(&self.tokens(input))
    }

    /// The policies in force for what a request names, as the kind of proxy gets them.
    pub(crate) fn attached(&self, input: &Input, semantics: Semantics) -> Vec<Arc<AuthorizationPolicy>> {
        attached(&self.resources, &self.mesh, (&input.workload, input.service.as_ref()), semantics)
    }

    /// The token rules in force for what a request names.
    pub(crate) fn tokens(&self, input: &Input) -> Vec<Arc<RequestAuthentication>> {
        input::tokens(&self.resources, &self.mesh, &input.workload, input.service.as_ref())
    }
}

/// The policies in force for a workload, as the kind of proxy gets them.
pub(crate) fn attached(
    resources: &Resources,
    mesh: &MeshConfig,
    (workload, service): (&Workload, Option<&Service>),
    semantics: Semantics,
) -> Vec<Arc<AuthorizationPolicy>> {
    match semantics {
        Semantics::Http | Semantics::Tcp => input::policies(resources, mesh, workload, service),
        Semantics::L4 => select::ambient_authorization_policies(resources, mesh, workload),
    }
}
