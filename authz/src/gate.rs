//! The one pipeline that everything which decides for a caller goes through: CUSTOM, request authentication, AUDIT,
//! DENY, ALLOW, in Envoy's order and with Envoy's sight.
//!
//! Envoy's filters share one header map: what a provider adds or authentication takes away, the filters behind them
//! see. Here the request stays as it came and the changes are laid over it, so that a request nobody edits costs
//! nothing, the record can say what came in, and an open request can be judged again later.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::Custom;
use crate::authn::{Authenticator, Authn, Refusal, TokenRequest};
use crate::compiled::CompiledSet;
use crate::edits::Edits;
use crate::evaluation::{Evaluation, Outcome, Phase, PolicyRef};
use crate::jwks::KeySource;
use crate::permit::{Approval, Decision, Denial, Permit};
use crate::provider::{CheckRequest, Providers, Response, ResponseEdits, Verdict};
use crate::record::reason;
use crate::request::{Attribute, Known, Request};

mod body;
mod judgement;
mod view;

pub use body::{BodySource, NoBody, Reading};
pub use judgement::{Ask, Judgement, Standing};

use view::Edited;

/// Decides for one workload: its policies, its token rules, and the means to ask providers.
pub struct Gate {
    set: Arc<CompiledSet>,
    authenticator: Arc<Authenticator>,
    providers: Arc<Providers>,
    keys: Arc<dyn KeySource>,
    plain: bool,
}

/// What the provider's phase left behind.
#[derive(Default)]
struct Passed {
    approval: Option<Approval>,
    edits: Edits,
    response_headers: ResponseEdits,
    metadata: Option<Arc<Value>>,
}

impl Gate {
    /// A gate of policies, token rules, providers and keys.
    #[must_use]
    pub fn new(
        set: Arc<CompiledSet>,
        authenticator: Arc<Authenticator>,
        providers: Arc<Providers>,
        keys: Arc<dyn KeySource>,
    ) -> Self {
        let plain = authenticator.is_empty() && !set.has_custom();
        Self { set, authenticator, providers, keys, plain }
    }

    /// Whether no CUSTOM policy and no RequestAuthentication is attached: [`Gate::decide`] is then the whole answer,
    /// and nothing is waited for.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        self.plain
    }

    /// The policies alone, at once: the whole answer of a plain gate. What a CUSTOM policy matches is denied.
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        self.set.decide(request)
    }

    /// The policies behind this gate.
    #[must_use]
    pub fn policies(&self) -> &Arc<CompiledSet> {
        &self.set
    }

    /// Judges one request; waits only for a provider, and for `body` if that provider wants to see it. `now` is the
    /// time by which tokens are valid.
    pub async fn judge(&self, ask: &Ask<'_>, body: &mut dyn BodySource, now: SystemTime) -> Judgement {
        if self.plain {
            return settle(self.set.decide_known(&ask.request, ask.known), Passed::default(), None);
        }
        let passed = match self.custom(ask, Some(body)).await {
            Ok(passed) => passed,
            Err(refused) => return *refused,
        };
        self.behind_custom(ask, passed, now).await
    }

    /// Judges a connection without HTTP: gRPC providers are asked (policies of others do not exist there), and there
    /// are no tokens.
    ///
    /// # Errors
    /// The connection is refused.
    pub async fn judge_connection(
        &self,
        request: &Request<'_>,
        check: &(dyn Fn() -> CheckRequest + Sync),
    ) -> Result<(Permit, Standing), Denial> {
        if self.plain {
            return decided(self.set.decide(request), Standing::default());
        }
        match self.custom(&Ask::new(*request, check), None).await {
            Ok(passed) => {
                let metadata = passed.metadata.as_deref().or(request.metadata);
                let decision = self.set.decide_past_custom(&Request { metadata, ..*request }, Known::ALL);
                let standing = Standing { approval: passed.approval, metadata: passed.metadata, ..Standing::default() };
                decided(decision, standing)
            }
            Err(refused) => match *refused {
                Judgement::Refuse { denial, .. } => Err(denial),
                Judgement::Forward { permit, standing, .. } => Ok((permit, standing)),
            },
        }
    }

    /// Judges an open request or connection again after a change of policy. `request` is as it came, before any edit;
    /// nobody is asked anew: what a provider approved stays approved while policy asks the same provider, and what
    /// would have to ask another one is denied.
    pub fn judge_again(&self, request: &Request<'_>, standing: &Standing) -> Decision {
        self.judge_again_known(request, standing, Known::ALL)
    }

    /// The same with attributes that may be unknown.
    pub fn judge_again_known(&self, request: &Request<'_>, standing: &Standing, known: Known) -> Decision {
        match self.set.custom(request, known) {
            Custom::Pass => {}
            Custom::Ask { provider, .. } if standing.provider() == Some(provider) => {}
            Custom::Ask { .. } | Custom::Deny(_) | Custom::Undecided => return self.set.decide_known(request, known),
        }
        let claims = standing.claims.as_deref().or(request.claims);
        let metadata = standing.metadata.as_deref().or(request.metadata);
        self.behind(&Request { claims, metadata, ..*request }, standing.edits.as_deref(), known)
    }

    /// The CUSTOM phase, on the request as it came.
    async fn custom(&self, ask: &Ask<'_>, body: Option<&mut dyn BodySource>) -> Result<Passed, Box<Judgement>> {
        match self.set.custom(&ask.request, ask.known) {
            Custom::Pass => Ok(Passed::default()),
            // On the heap, so that a task whose requests ask nobody stays small.
            Custom::Ask { provider, policy } => Box::pin(self.ask_provider(ask, body, provider, policy)).await,
            Custom::Deny(policy) => {
                let denial = Denial::by_provider(policy).with_reason(reason::NO_PROVIDER);
                Err(Box::new(Judgement::refused(denial, Response::denied())))
            }
            // Whether a provider is asked is not known, so neither is its answer.
            Custom::Undecided => {
                Err(Box::new(settle(self.set.decide_known(&ask.request, ask.known), Passed::default(), None)))
            }
        }
    }

    async fn ask_provider(
        &self,
        ask: &Ask<'_>,
        body: Option<&mut dyn BodySource>,
        provider: &str,
        policy: &PolicyRef,
    ) -> Result<Passed, Box<Judgement>> {
        let refuse = |response, why| {
            let denial = Denial::by_provider(policy).with_reason(why);
            Err(Box::new(Judgement::refused(denial, response)))
        };
        let mut check = (ask.check)();
        check.tcp = ask.request.http.is_none();
        if let (Some(wanted), Some(source)) = (self.providers.body_wanted(provider), body)
            && body::is_buffered(&ask.request)
        {
            match source.read(wanted.max_bytes).await {
                Ok((_, false)) if !wanted.allow_partial => {
                    return refuse(Response::text(413, "Payload Too Large"), reason::CUSTOM_DENIED);
                }
                Ok((bytes, true)) if bytes.is_empty() => {}
                Ok((bytes, complete)) => (check.body, check.body_partial) = (Some(bytes), !complete),
                Err(_) => return refuse(Response::text(400, ""), reason::CUSTOM_ERROR),
            }
        }
        match self.providers.check(provider, &check).await {
            Verdict::Approved { approval, edits, response_headers, metadata } => {
                let metadata = metadata.map(|made| Arc::new(with_metadata(&ask.request, &made)));
                Ok(Passed { approval: Some(approval), edits, response_headers, metadata })
            }
            Verdict::Refused { response, reason } => refuse(response, reason),
        }
    }

    /// Request authentication and the policies, on the request as the provider left it.
    async fn behind_custom(&self, ask: &Ask<'_>, mut passed: Passed, now: SystemTime) -> Judgement {
        let (mut known, mut claims, mut unseen) = (ask.known, None, false);
        if !self.authenticator.is_empty() && ask.request.claims.is_none() {
            if ![Attribute::Headers, Attribute::Path, Attribute::Method].into_iter().all(|one| known.has(one)) {
                (known, unseen) = (known.without(Attribute::Claims), true);
            }
            match self.authenticate(ask, &passed.edits, now).await {
                Authn::Accepted(accepted) => {
                    claims = accepted.claims;
                    passed.edits.merge(accepted.edits);
                }
                Authn::Refused(refusal) => return by_authentication(refusal, passed.edits),
            }
        }
        let request = Request {
            claims: claims.as_deref().or(ask.request.claims),
            metadata: passed.metadata.as_deref().or(ask.request.metadata),
            ..ask.request
        };
        let decision = match self.behind(&request, Some(&passed.edits), known) {
            // A token may be there, and may be refused.
            Decision::Allow(permit) if unseen => Decision::Deny(Denial::new(Evaluation {
                outcome: Outcome::Undecided,
                phase: Phase::Authn,
                policy: None,
                ..permit.evaluation().clone()
            })),
            decision => decision,
        };
        settle(decision, passed, claims)
    }

    /// The policies that see the edited request.
    fn behind(&self, request: &Request<'_>, edits: Option<&Edits>, known: Known) -> Decision {
        match edits.filter(|edits| !edits.is_empty()) {
            Some(edits) => Edited::new(request, edits).with(|request| self.set.decide_past_custom(request, known)),
            None => self.set.decide_past_custom(request, known),
        }
    }

    async fn authenticate(&self, ask: &Ask<'_>, edits: &Edits, now: SystemTime) -> Authn {
        let http = ask.request.http.unwrap_or_default();
        let edited = edits.over(http.headers);
        let request = TokenRequest {
            method: edits.method.as_deref().or(http.method),
            target: edits.target.as_deref().or(ask.target),
            scheme: http.scheme,
            host: edits.host.as_deref().or(http.host),
            headers: if edits.is_empty() { http.headers } else { &edited },
        };
        for rule in self.authenticator.presented(&request) {
            // Keys that are on their way for the first time are worth waiting for; the rule's timeout bounds it.
            if let Some(settled) = self.keys.first_outcome(rule) {
                settled.await;
            }
        }
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.authenticator.authenticate(&request, &*self.keys, now)
    }
}

/// The request's metadata with what a provider made, under the name of the filter that Envoy would have asked it with.
fn with_metadata(request: &Request<'_>, made: &Value) -> Value {
    let filter =
        if request.http.is_some() { "envoy.filters.http.ext_authz" } else { "envoy.filters.network.ext_authz" };
    let mut all = request.metadata.and_then(Value::as_object).cloned().unwrap_or_default();
    all.insert(filter.to_owned(), made.clone());
    Value::Object(all)
}

fn by_authentication(refusal: Refusal, edits: Edits) -> Judgement {
    let mut headers = vec![("content-type".to_owned(), b"text/plain".to_vec())];
    if let Some(challenge) = refusal.www_authenticate {
        headers.push(("www-authenticate".to_owned(), challenge.into_bytes()));
    }
    let response = Response { status: refusal.status, headers, body: refusal.body.into() };
    let denial = Denial::by_authentication().with_reason(refusal.reason);
    Judgement::Refuse { denial, response, edits, claims: None }
}

fn settle(decision: Decision, passed: Passed, claims: Option<Arc<Value>>) -> Judgement {
    match decision {
        Decision::Allow(permit) => {
            let edits = (!passed.edits.is_empty()).then(|| Arc::new(passed.edits.clone()));
            let standing = Standing { approval: passed.approval, claims, edits, metadata: passed.metadata };
            let Passed { edits, response_headers, .. } = passed;
            Judgement::Forward { permit, edits, response_headers, standing }
        }
        Decision::Deny(denial) => {
            Judgement::Refuse { denial, response: Response::denied(), edits: passed.edits, claims }
        }
    }
}

fn decided(decision: Decision, standing: Standing) -> Result<(Permit, Standing), Denial> {
    match decision {
        Decision::Allow(permit) => Ok((permit, standing)),
        Decision::Deny(denial) => Err(denial),
    }
}

#[cfg(test)]
mod tests;
