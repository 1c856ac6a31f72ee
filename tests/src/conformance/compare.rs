//! Two answers side by side.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// What was decided, as either side says it. What Envoy does not say in a case is `None` on its side and not compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// The status of the response; on TCP 200 for a connection that lives and 403 for one that is closed.
    pub(super) status: u16,
    /// The phase: `custom`, `authn`, `deny`, `allow`, `default`, `codec`.
    pub(super) phase: Option<&'static str>,
    /// The id of the rule that decided, or the empty text.
    pub(super) policy: Option<String>,
    /// The CUSTOM rule because of which a provider was asked, or the empty text.
    pub(super) asked: Option<String>,
    pub(super) shadow_deny: Option<ShadowAnswer>,
    pub(super) shadow_allow: Option<ShadowAnswer>,
    pub(super) audited: Option<bool>,
    /// `:path` as policies see it and as it is forwarded.
    pub(super) target: Option<String>,
    /// Headers that token verification takes away or sets, by name; the empty text where there is none.
    pub(super) headers: BTreeMap<String, String>,
    /// Envoy's own words, which are not compared.
    pub(super) details: Option<String>,
}

/// What the dry-run policies of one action say; `None` where there are none.
pub(super) type ShadowAnswer = Option<(&'static str, String)>;

impl Answer {
    /// What `ours` says otherwise than `self`, field by field.
    pub(super) fn differences(&self, ours: &Self) -> Vec<String> {
        let mut found = Vec::new();
        if self.status != ours.status {
            found.push(format!("status: Envoy {}, ours {}", self.status, ours.status));
        }
        let mut compare = |field: &str, envoy: Option<String>, ours: Option<String>| {
            if let Some(envoy) = envoy
                && Some(&envoy) != ours.as_ref()
            {
                found.push(format!("{field}: Envoy {envoy}, ours {}", ours.unwrap_or_else(|| "nothing".to_owned())));
            }
        };
        compare("phase", self.phase.map(str::to_owned), ours.phase.map(str::to_owned));
        compare("policy", quoted(self.policy.as_ref()), quoted(ours.policy.as_ref()));
        compare("asked because of", quoted(self.asked.as_ref()), quoted(ours.asked.as_ref()));
        let shadow = |answer: &Option<ShadowAnswer>| answer.as_ref().map(|answer| format!("{answer:?}"));
        compare("shadow deny", shadow(&self.shadow_deny), shadow(&ours.shadow_deny));
        compare("shadow allow", shadow(&self.shadow_allow), shadow(&ours.shadow_allow));
        let text = |flag: Option<bool>| flag.map(|flag| flag.to_string());
        compare("audited", text(self.audited), text(ours.audited));
        compare("path", quoted(self.target.as_ref()), quoted(ours.target.as_ref()));
        // No header can carry a line's end. Envoy puts such a claim into one all the same; the engine leaves it out.
        let carried = self.headers.iter().filter(|(_, value)| !value.contains(['\n', '\r', '\0']));
        for (name, value) in carried {
            if !same_claim(value, ours.headers.get(name)) {
                compare(&format!("header {name}"), quoted(Some(value)), quoted(ours.headers.get(name)));
            }
        }
        found
    }

    /// One line.
    pub(super) fn line(&self) -> Value {
        let shadow = |answer: &Option<ShadowAnswer>| match answer {
            Some(Some((result, policy))) => json!({ "result": result, "policy": policy }),
            _ => Value::Null,
        };
        let mut line = json!({ "status": self.status });
        let fields = [
            ("phase", json!(self.phase)),
            ("policy", json!(self.policy)),
            ("asked", json!(self.asked)),
            ("shadowDeny", shadow(&self.shadow_deny)),
            ("shadowAllow", shadow(&self.shadow_allow)),
            ("audited", json!(self.audited)),
            ("path", json!(self.target)),
            ("details", json!(self.details)),
        ];
        for (name, value) in fields {
            if !value.is_null() {
                line[name] = value;
            }
        }
        if !self.headers.is_empty() {
            line["headers"] = json!(self.headers);
        }
        line
    }
}

/// An object in a header is JSON in Base64, and its fields have no order in Envoy.
fn same_claim(envoy: &str, ours: Option<&String>) -> bool {
    let json = |text: &str| STANDARD.decode(text).ok().and_then(|json| serde_json::from_slice::<Value>(&json).ok());
    json(envoy).is_some_and(|claim| ours.and_then(|ours| json(ours)) == Some(claim))
}

fn quoted(text: Option<&String>) -> Option<String> {
    text.map(|text| format!("{text:?}"))
}
