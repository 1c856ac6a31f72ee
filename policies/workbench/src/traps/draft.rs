//! A request that is still being written: the evaluation input as a value, so that what a finding shows is a line that
//! `policy eval` reads.

use std::collections::BTreeMap;
use std::net::IpAddr;

use palisade_authz::Semantics;
use palisade_policies::Workload;
use serde::Serialize;
use serde_json::{Map, Value};

/// The caller of a draft that no rule asks about.
pub(super) const CALLER: &str = "default/sa/caller";

/// One line of evaluation input.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Draft {
    id: &'static str,
    protocol: &'static str,
    #[serde(skip)]
    pub(super) semantics: Semantics,
    pub(super) source: Caller,
    pub(super) destination: Called,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<Connection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) http: Option<Head>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt: Option<Token>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Value>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Caller {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) principal: Option<String>,
    pub(super) ip: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remote_ip: Option<IpAddr>,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Called {
    namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    pub(super) ip: IpAddr,
    pub(super) port: u16,
}

#[derive(Debug, Clone, Serialize)]
struct Connection {
    sni: String,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Head {
    pub(super) method: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<String>,
    pub(super) host: String,
    scheme: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, String)>,
}

#[derive(Debug, Clone, Serialize)]
struct Token {
    claims: Value,
}

impl Draft {
    /// An ordinary request to a workload, by a caller with an identity of `domain`.
    pub(super) fn new(code: &'static str, workload: &Workload, domain: &str, semantics: Semantics) -> Self {
        let mut draft = Self {
            id: code,
            protocol: "http",
            semantics,
            source: Caller {
                principal: Some(format!("{domain}/ns/{CALLER}")),
                ip: IpAddr::from([10, 0, 0, 7]),
                remote_ip: None,
            },
            destination: Called {
                namespace: workload.namespace.clone(),
                name: workload.name.clone(),
                labels: workload.labels.clone(),
                ip: IpAddr::from([10, 0, 0, 9]),
                port: 8080,
            },
            connection: None,
            http: Some(Head {
                method: "GET".to_owned(),
                path: Some("/".to_owned()),
                host: format!("app.{}:8080", workload.namespace),
                scheme: "http",
                headers: Vec::new(),
            }),
            jwt: None,
            metadata: None,
        };
        draft.speak(semantics);
        draft
    }

    /// Turns it into a connection of another kind; there is no HTTP on it then.
    pub(super) fn speak(&mut self, semantics: Semantics) {
        self.semantics = semantics;
        self.protocol = match semantics {
            Semantics::Http => "http",
            Semantics::Tcp => "tcp",
            Semantics::L4 => "l4",
        };
        if semantics != Semantics::Http {
            self.http = None;
            self.jwt = None;
        }
    }

    /// The request as one JSON value.
    pub(crate) fn json(&self) -> Option<Value> {
        serde_json::to_value(self).ok()
    }

    pub(super) fn plaintext(&mut self) {
        self.source.principal = None;
        self.connection = None;
    }

    pub(super) fn sni(&mut self, name: &str) {
        self.connection = Some(Connection { sni: name.to_owned() });
    }

    pub(super) fn path(&mut self, path: &str) {
        self.head(|head| head.path = Some(path.to_owned()));
    }

    /// CONNECT has no path.
    pub(super) fn connect(&mut self) {
        self.head(|head| {
            "CONNECT".clone_into(&mut head.method);
            head.path = None;
        });
    }

    pub(super) fn host(&mut self, host: &str) {
        self.head(|head| host.clone_into(&mut head.host));
    }

    /// Sets a header, or what a pseudo header stands for.
    pub(super) fn header(&mut self, name: &str, value: &str) {
        self.head(|head| match name.to_ascii_lowercase().as_str() {
            "host" | ":authority" => value.clone_into(&mut head.host),
            ":method" => value.clone_into(&mut head.method),
            ":path" => head.path = Some(value.to_owned()),
            ":scheme" => {}
            name => {
                head.headers.retain(|(other, _)| other != name);
                head.headers.push((name.to_owned(), value.to_owned()));
            }
        });
    }

    /// Sends a header once for each value.
    pub(super) fn repeat_header(&mut self, name: &str, values: &[&str]) {
        self.without_header(name);
        let lines = values.iter().map(|value| (name.to_owned(), (*value).to_owned()));
        self.head(|head| head.headers.extend(lines));
    }

    pub(super) fn without_header(&mut self, name: &str) {
        self.head(|head| head.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name)));
    }

    /// Sets a claim by its path; there is a verified token then.
    pub(super) fn claim(&mut self, path: &[&str], value: Value) {
        if self.http.is_none() {
            return;
        }
        let token = self.jwt.get_or_insert_with(|| Token { claims: Value::Object(Map::new()) });
        let mut at = &mut token.claims;
        for name in path {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            let Value::Object(object) = at else { return };
            at = object.entry(*name).or_insert(Value::Null);
        }
        *at = value;
    }

    pub(super) fn without_token(&mut self) {
        self.jwt = None;
    }

    /// Sets dynamic metadata of a filter.
    pub(super) fn metadata(&mut self, filter: &str, key: &str, value: Value) {
        let metadata = self.metadata.get_or_insert_with(|| Value::Object(Map::new()));
        let Value::Object(filters) = metadata else { return };
        let filter = filters.entry(filter).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(keys) = filter {
            keys.insert(key.to_owned(), value);
        }
    }

    fn head(&mut self, edit: impl FnOnce(&mut Head)) {
        if let Some(head) = &mut self.http {
            edit(head);
        }
    }
}
