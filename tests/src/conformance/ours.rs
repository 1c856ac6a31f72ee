//! The engine's answers, asked for as the product asks: paths normalised first, CUSTOM, tokens, then the policies.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::SystemTime;

use palisade_authz::{
    Accepted, Authenticator, Authn, CompiledSet, Compiler, Custom, Destination, Evaluation, Headers, HttpRequest,
    KeySet, KeySource, Known, Outcome, Peer, Request, Semantics, Shadow, ShadowResult, TokenRequest, is_joined_header,
    normalize, remote_ip, remote_ip_behind,
};
use palisade_policies::{Action, AuthorizationPolicy, JwtRule};
use serde_json::{Value, json};

use super::compare::{Answer, ShadowAnswer};
use super::oracle::watched;
use super::scene::{self, Ask, Call, METADATA, Scene};
use super::translate::Chain;

/// A provider that refuses everything; all others that exist allow.
pub(super) const REFUSING: &str = "refuse";

/// The status of a request whose provider fails.
pub(super) const FAILING: u16 = 500;

/// The compiled policies of a scene.
pub(super) struct Engine<'a> {
    scene: &'a Scene,
    set: CompiledSet,
    /// The set as it is once a provider has allowed.
    approved: CompiledSet,
    authenticator: Authenticator,
    watched: Vec<String>,
}

/// All keys are inline.
struct NoKeys;

impl KeySource for NoKeys {
    fn keys(&self, _rule: &JwtRule) -> Option<Arc<KeySet>> {
        None
    }
}

impl<'a> Engine<'a> {
    pub(super) fn new(scene: &'a Scene) -> Self {
        let semantics = match scene.chain {
            Chain::Http => Semantics::Http,
            Chain::Tcp => Semantics::Tcp,
        };
        // Policies change while the product runs: the set is compiled from an earlier one, not afresh.
        let mut compiler = Compiler::new(semantics);
        let earlier = scene.policies.get(..scene.policies.len() / 2).unwrap_or_default();
        drop(compiler.compile(earlier, &scene.mesh));
        let set = compiler.compile(&scene.policies, &scene.mesh);
        let custom = |policy: &Arc<AuthorizationPolicy>| matches!(policy.action, Action::Custom { .. });
        let others: Vec<_> = scene.policies.iter().filter(|policy| !custom(policy)).map(Arc::clone).collect();
        Self {
            scene,
            set,
            approved: CompiledSet::compile(&others, &scene.mesh, semantics),
            authenticator: Authenticator::compile(&scene.authentications),
            watched: watched(scene).into_iter().collect(),
        }
    }

    /// What the engine decides. A panic is an answer, too: a wrong one.
    pub(super) fn answer_or_panic(&self, call: &Call, ask: &Ask) -> Answer {
        let answer = catch_unwind(AssertUnwindSafe(|| self.answer(call, ask)));
        answer.unwrap_or_else(|_| Answer { phase: Some("panicked"), ..Answer::default() })
    }

    fn answer(&self, call: &Call, ask: &Ask) -> Answer {
        let headers: Vec<(&str, &[u8])> =
            ask.headers.iter().map(|(name, value)| (name.as_str(), trimmed(value))).collect();
        let raw = ask.target.as_deref().filter(|_| self.scene.chain == Chain::Http);
        let target = match raw.map(|raw| normalize::path(raw, self.scene.mesh.path_normalization)).transpose() {
            Ok(target) => target,
            Err(_) => return Answer { status: 400, phase: Some("codec"), ..Answer::default() },
        };
        let metadata = scene::metadata(call, ask).map(|value| json!({ METADATA.0: { METADATA.1: value } }));
        let request = self.request(call, ask, &headers, target.as_deref(), metadata.as_ref());
        if self.scene.chain == Chain::Tcp {
            // The provider of these scenes speaks HTTP: it is not asked about connections.
            return answer(&self.set.evaluate(&request, Known::ALL));
        }
        let asked = match self.set.custom(&request, Known::ALL) {
            Custom::Pass => "",
            // Envoy asks an HTTP provider about CONNECT by a CONNECT of its own, which comes to no answer.
            Custom::Ask { policy, .. } if ask.target.is_none() => {
                return Answer { status: FAILING, ..refused(policy.id(), policy.id()) };
            }
            Custom::Ask { provider, policy } if provider == REFUSING => return refused(policy.id(), policy.id()),
            Custom::Ask { policy, .. } => policy.id(),
            Custom::Deny(policy) => return refused(policy.id(), ""),
            Custom::Undecided => return Answer { phase: Some("undecided"), ..Answer::default() },
        };
        let mut answer = self.past_custom(&request, target.as_deref(), &headers, ask.claims.as_ref());
        answer.asked = Some(asked.to_owned());
        answer
    }

    fn past_custom(
        &self,
        request: &Request<'_>,
        target: Option<&str>,
        headers: &dyn Headers,
        given: Option<&Value>,
    ) -> Answer {
        let authn = if self.scene.trusts_claims() {
            Authn::Accepted(Accepted::default())
        } else {
            self.verify(request, target)
        };
        let accepted = match authn {
            Authn::Accepted(accepted) => accepted,
            Authn::Refused(refusal) => {
                let policy = Some(String::new());
                return Answer { status: refusal.status, phase: Some("authn"), policy, ..Answer::default() };
            }
        };
        let edited = accepted.edits.over(headers);
        let target = accepted.edits.target.as_deref().or(target);
        let mut request = *request;
        request.claims = given.or(accepted.claims.as_deref());
        if let Some(http) = &mut request.http {
            http.headers = &edited;
            http.path = target.map(normalize::without_query);
            http.raw_target = target;
        }
        let mut answer = answer(&self.approved.evaluate(&request, Known::ALL));
        answer.target = target.map(|target| self.scene.comparable(target).to_owned());
        let shown = |name: &String| (name.clone(), shown(&edited, name));
        answer.headers = self.watched.iter().map(shown).collect::<BTreeMap<_, _>>();
        answer
    }

    fn verify(&self, request: &Request<'_>, target: Option<&str>) -> Authn {
        let Some(http) = &request.http else { return Authn::Accepted(Accepted::default()) };
        let asked =
            TokenRequest { method: http.method, target, scheme: http.scheme, host: http.host, headers: http.headers };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        self.authenticator.authenticate(&asked, &NoKeys, now)
    }

    fn request<'r>(
        &self,
        call: &'r Call,
        ask: &'r Ask,
        headers: &'r dyn Headers,
        target: Option<&'r str>,
        metadata: Option<&'r Value>,
    ) -> Request<'r> {
        let destination = self.scene.destination(call);
        let http = (self.scene.chain == Chain::Http).then(|| HttpRequest {
            method: Some(&ask.method),
            path: target.map(normalize::without_query),
            host: Some(&ask.host),
            scheme: Some(if self.scene.door.tls == scene::Tls::Ended { "https" } else { "http" }),
            headers,
            raw_target: target,
        });
        Request {
            source: Peer {
                principal: scene::principal(self.scene, call, ask),
                ip: Some(call.source),
                remote_ip: remote(self.scene, call, headers),
            },
            destination: Destination { ip: destination.map(|at| at.ip()), port: destination.map(|at| at.port()) },
            sni: call.sni.as_deref(),
            http,
            claims: ask.claims.as_ref().filter(|_| self.scene.trusts_claims()),
            metadata,
        }
    }
}

/// The address behind `remote.ip`.
pub(super) fn remote(scene: &Scene, call: &Call, headers: &dyn Headers) -> Option<IpAddr> {
    let client = Some(Scene::client(call));
    match (scene.chain, scene.trusted_hops) {
        (Chain::Tcp, _) => client,
        (Chain::Http, None) => remote_ip(client, headers),
        (Chain::Http, Some(hops)) => remote_ip_behind(hops, client, headers),
    }
}

/// The codec takes outer blanks away.
pub(super) fn trimmed(value: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    value.get(start..end).unwrap_or_default()
}

/// A header as Envoy's formatter shows it: the first instance, or all of one whose instances it joins.
fn shown(headers: &dyn Headers, name: &str) -> String {
    let mut values = Vec::new();
    headers.for_each(name, &mut |value| values.push(value.to_vec()));
    if is_joined_header(name) {
        values.retain(|value| !value.is_empty());
        return scene::text(&values.join(&b','));
    }
    scene::text(values.first().map(Vec::as_slice).unwrap_or_default())
}

fn refused(policy: &str, asked: &str) -> Answer {
    Answer {
        status: 403,
        phase: Some("custom"),
        policy: Some(policy.to_owned()),
        asked: Some(asked.to_owned()),
        ..Answer::default()
    }
}

fn answer(evaluation: &Evaluation) -> Answer {
    let Evaluation { outcome, phase, policy, shadow: Shadow { allow, deny }, audited } = evaluation;
    Answer {
        status: match outcome {
            Outcome::Allow => 200,
            Outcome::Deny => 403,
            Outcome::Undecided => 0,
        },
        phase: Some(phase.as_str()),
        policy: Some(policy.as_ref().map(|policy| policy.id().to_owned()).unwrap_or_default()),
        asked: None,
        shadow_deny: Some(shadow(deny.as_ref())),
        shadow_allow: Some(shadow(allow.as_ref())),
        audited: Some(*audited),
        ..Answer::default()
    }
}

fn shadow(result: Option<&ShadowResult>) -> ShadowAnswer {
    let policy =
        |result: &ShadowResult| result.policy.as_ref().map(|policy| policy.id().to_owned()).unwrap_or_default();
    result.map(|result| (result.as_str(), policy(result)))
}
