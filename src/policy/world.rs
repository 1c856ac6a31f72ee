//! The world around a decision on the command line: providers over plain TCP, key sets over HTTP, the system's clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use palisade_authz::provider::{Providers, TcpDial};
use palisade_authz::{Authenticator, JwksCache, JwksConfig, KeySource};
use palisade_policies::registry::Registry;
use palisade_policies::{MeshConfig, Resources};
use palisade_workbench::{Preparing, World};

/// Asks real providers and real issuers.
pub(super) struct Network {
    providers: Arc<Providers>,
    keys: Arc<JwksCache>,
}

impl Network {
    /// Providers are found by the ServiceEntries of the resources, else by address or DNS. They are called in plaintext:
    /// the command line has no identity.
    pub(super) fn new(resources: &Resources, mesh: &MeshConfig) -> Self {
        let registry = Registry::new(Arc::new(resources.clone()), mesh);
        let services: BTreeMap<_, _> = registry
            .services()
            .map(|route| {
                let endpoints = route.endpoints.iter().map(|endpoint| endpoint.address).collect();
                ((route.host.clone(), route.port), endpoints)
            })
            .collect();
        let keys = JwksConfig { allow: mesh.jwks_allow.clone(), ..JwksConfig::default() };
        Self {
            providers: Arc::new(Providers::new(mesh, Arc::new(TcpDial::new(services)))),
            keys: Arc::new(JwksCache::new(keys)),
        }
    }

    /// Says on stderr which key sets could not be had: every token of those issuers is refused.
    pub(super) fn report(&self) {
        for state in self.keys.states() {
            if let (Some(error), None) = (state.error, state.keys) {
                eprintln!("palisade: no keys from {}: {error}; tokens that need them get 401", state.source);
            }
        }
    }
}

impl World for Network {
    fn providers(&self) -> Arc<Providers> {
        Arc::clone(&self.providers)
    }

    fn keys(&self) -> Arc<dyn KeySource> {
        Arc::clone(&self.keys) as Arc<dyn KeySource>
    }

    fn prepare<'a>(&'a self, authenticator: &'a Authenticator) -> Preparing<'a> {
        Box::pin(async move {
            self.keys.follow(authenticator);
            self.keys.settle(authenticator).await;
        })
    }

    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}
