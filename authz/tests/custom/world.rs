//! A workload's policies, providers and token rules behind a gate, and the calls made to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use palisade_authz::gate::{Ask, BodySource, Gate, Judgement, NoBody};
use palisade_authz::provider::{CheckRequest, Providers, TcpDial};
use palisade_authz::{
    Authenticator, CompiledSet, HttpRequest, KeySet, KeySource, Known, Outcome, Request, Semantics, normalize,
};
use palisade_policies::{AuthorizationPolicy, JwtRule, MeshConfig, ProviderKind, Severity, SourceText, load};
use palisade_wire::envoy::envoy::service::auth::v3::{CheckResponse, OkHttpResponse};
use palisade_wire::envoy::google::protobuf::value::Kind;
use palisade_wire::envoy::google::protobuf::{Struct, Value};

use crate::support::{mesh, yes};

/// An AuthorizationPolicy of one rule, named after its action.
pub(crate) fn policy(action: &str, rule: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    resource(&format!("{}-{number}", action.to_lowercase()), &format!("action: {action}"), rule)
}

/// A CUSTOM policy of one rule.
pub(crate) fn custom(provider: &str, rule: &str) -> String {
    resource(&format!("custom-{provider}"), &format!("action: CUSTOM\n  provider: {{name: {provider}}}"), rule)
}

fn resource(name: &str, head: &str, rule: &str) -> String {
    let rule = if rule.is_empty() { "{}" } else { rule };
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  {head}\n  rules:\n  - {rule}\n"
    )
}

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// A RequestAuthentication of issuer `iss` with the key of [`token`].
pub(crate) fn token_rules(more: &str) -> String {
    let key = r#"{"keys":[{"kty":"oct","alg":"HS256","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}]}"#;
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
         metadata: {{name: tokens, namespace: shop}}\n\
         spec:\n  jwtRules:\n  - {{issuer: iss, jwks: '{key}'{more}}}\n"
    )
}

/// A good token of `iss` about `alice`.
pub(crate) fn token() -> String {
    let claims = serde_json::json!({"iss": "iss", "sub": "alice", "exp": 4_000_000_000_u64});
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET);
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

/// A yes with dynamic metadata.
pub(crate) fn with_metadata(name: &str, value: &str) -> CheckResponse {
    let value = Value { kind: Some(Kind::StringValue(value.into())) };
    let metadata = Struct { fields: [(name.to_owned(), value)].into() };
    CheckResponse { dynamic_metadata: Some(metadata), ..yes(OkHttpResponse::default()) }
}

/// Keys of remote rules: none.
struct NoKeys;

impl KeySource for NoKeys {
    fn keys(&self, _: &JwtRule) -> Option<Arc<KeySet>> {
        None
    }
}

pub(crate) struct World {
    pub(crate) gate: Gate,
}

impl World {
    /// The gate of HTTP requests to a workload with these policies.
    pub(crate) fn new(text: &str, providers: Vec<(&str, ProviderKind)>) -> Self {
        Self::edited(text, providers, |_| {})
    }

    /// With policies changed past validation.
    pub(crate) fn edited(
        text: &str,
        providers: Vec<(&str, ProviderKind)>,
        edit: impl Fn(&mut AuthorizationPolicy),
    ) -> Self {
        Self::of(text, mesh(providers), Semantics::Http, edit)
    }

    /// The gate of connections.
    pub(crate) fn tcp(text: &str, providers: Vec<(&str, ProviderKind)>) -> Self {
        Self::of(text, mesh(providers), Semantics::Tcp, |_| {})
    }

    fn of(text: &str, mesh: MeshConfig, semantics: Semantics, edit: impl Fn(&mut AuthorizationPolicy)) -> Self {
        let loaded = load(&[SourceText::new("test.yaml", text)], "shop");
        assert!(loaded.diagnostics.iter().all(|one| one.severity != Severity::Error), "{:?}", loaded.diagnostics);
        let mut policies = loaded.resources.authorization_policies;
        policies.iter_mut().for_each(|policy| edit(Arc::make_mut(policy)));
        let set = CompiledSet::compile(&policies, &mesh, semantics);
        let authenticator = Authenticator::compile(&loaded.resources.request_authentications);
        let providers = Providers::new(&mesh, Arc::new(TcpDial::default()));
        let gate = Gate::new(Arc::new(set), Arc::new(authenticator), Arc::new(providers), Arc::new(NoKeys));
        Self { gate }
    }

    pub(crate) async fn judge(&self, call: &Call) -> Judgement {
        self.judge_with(call, &mut NoBody).await
    }

    pub(crate) async fn judge_with(&self, call: &Call, body: &mut dyn BodySource) -> Judgement {
        self.judge_known(call, Known::ALL, body).await
    }

    pub(crate) async fn judge_known(&self, call: &Call, known: Known, body: &mut dyn BodySource) -> Judgement {
        let check = || call.check();
        let ask = Ask { known, ..Ask::new(call.request(), &check) };
        self.gate.judge(&ask, body, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).await
    }

    /// [`status`] of a call.
    pub(crate) async fn status(&self, call: &Call) -> String {
        status(&self.judge(call).await)
    }

    /// The same without the body.
    pub(crate) async fn short(&self, call: &Call) -> String {
        self.status(call).await.splitn(4, ' ').take(3).collect::<Vec<_>>().join(" ")
    }
}

/// Status, phase, reason, and the body of a refusal.
pub(crate) fn status(judgement: &Judgement) -> String {
    let phase = judgement.evaluation().phase.as_str();
    match judgement {
        Judgement::Forward { permit, .. } => {
            assert_eq!(permit.evaluation().outcome, Outcome::Allow);
            format!("200 {phase} {}", permit.evaluation().reason())
        }
        Judgement::Refuse { denial, response, .. } => {
            let body = String::from_utf8_lossy(&response.body);
            format!("{} {phase} {} {body}", response.status, denial.reason())
        }
    }
}

/// One request to host `web`.
pub(crate) struct Call {
    target: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

impl Call {
    pub(crate) fn get(target: &str) -> Self {
        Self { target: target.to_owned(), headers: Vec::new() }
    }

    pub(crate) fn with(mut self, headers: &[(&str, &str)]) -> Self {
        self.headers.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())));
        self
    }

    fn request(&self) -> Request<'_> {
        Request {
            http: Some(HttpRequest {
                method: Some("GET"),
                path: Some(normalize::without_query(&self.target)),
                raw_target: Some(&self.target),
                host: Some("web"),
                scheme: Some("http"),
                headers: &self.headers,
            }),
            ..Request::default()
        }
    }

    /// Shows the request as it came.
    pub(crate) fn ask<T>(&self, f: impl FnOnce(&Request<'_>) -> T) -> T {
        f(&self.request())
    }

    fn check(&self) -> CheckRequest {
        CheckRequest {
            method: Some("GET".into()),
            target: Some(self.target.clone()),
            host: Some("web".into()),
            scheme: Some("http".into()),
            protocol: "HTTP/1.1".into(),
            headers: self.headers.clone(),
            ..CheckRequest::default()
        }
    }
}
