//! What deciding needs beside policies and lives longer than one snapshot: compilers that remember, connections to
//! providers, the keys of issuers.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use palisade_authz::gate::Gate;
use palisade_authz::provider::{Dial, Providers};
use palisade_authz::{Authenticator, Compiler, JwksCache, JwksConfig, Semantics};
use palisade_policies::{AuthorizationPolicy, MeshConfig, RequestAuthentication};

use crate::dial::Dialler;

/// See the module.
pub(crate) struct Means {
    dialler: Arc<Dialler>,
    kept: Mutex<Kept>,
}

struct Kept {
    http: Compiler,
    tcp: Compiler,
    providers: Arc<Providers>,
    /// The addresses that may be asked for keys, and what was fetched under that rule.
    allow: Vec<IpNet>,
    keys: Arc<JwksCache>,
}

impl fmt::Debug for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Means").field("dialler", &self.dialler).finish_non_exhaustive()
    }
}

impl Default for Means {
    fn default() -> Means {
        let dialler = Arc::new(Dialler::default());
        let providers = Providers::new(&MeshConfig::default(), dialler.clone() as Arc<dyn Dial>);
        let kept = Kept {
            http: Compiler::new(Semantics::Http),
            tcp: Compiler::new(Semantics::Tcp),
            providers: Arc::new(providers),
            allow: Vec::new(),
            keys: Arc::new(JwksCache::new(JwksConfig::default())),
        };
        Means { dialler, kept: Mutex::new(kept) }
    }
}

/// What decides by one snapshot.
pub(crate) struct Gates {
    pub(crate) http: Gate,
    pub(crate) tcp: Gate,
    pub(crate) providers: Arc<Providers>,
    pub(crate) keys: Arc<JwksCache>,
}

impl Means {
    /// Compiles what applies to the workload. What did not change since the last time is taken over, connections and
    /// keys included; keys of new rules begin to be fetched, those of rules that are gone are forgotten with the
    /// snapshots that used them.
    pub(crate) fn gates(
        &self,
        policies: &[Arc<AuthorizationPolicy>],
        tokens: &[Arc<RequestAuthentication>],
        mesh: &MeshConfig,
    ) -> Gates {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.providers = Arc::new(kept.providers.renewed(mesh));
        if kept.allow != mesh.jwks_allow {
            kept.allow.clone_from(&mesh.jwks_allow);
            kept.keys = Arc::new(JwksCache::new(JwksConfig { allow: kept.allow.clone(), ..JwksConfig::default() }));
        }
        let authenticator = Arc::new(Authenticator::compile(tokens));
        if !authenticator.is_empty() {
            kept.keys.follow(&authenticator);
        }
        let (http, tcp) = (Arc::new(kept.http.compile(policies, mesh)), Arc::new(kept.tcp.compile(policies, mesh)));
        let (providers, keys) = (kept.providers.clone(), kept.keys.clone());
        let gate = |set, authenticator| Gate::new(set, authenticator, providers.clone(), keys.clone());
        // Request authentication is HTTP's alone.
        let (http, tcp) = (gate(http, authenticator), gate(tcp, Arc::new(Authenticator::compile(&[]))));
        Gates { http, tcp, providers, keys }
    }

    /// Opens the connections to providers.
    pub(crate) fn dialler(&self) -> &Dialler {
        &self.dialler
    }
}
