//! Who is behind a host name or an address: lookups over ServiceEntries and WorkloadEntries. A proxy asks it on
//! every new destination, so the maps are built once and read without locks.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use palisade_identity::{SpiffeId, TrustDomain};

use crate::{AppProtocol, MeshConfig, Resources, ServiceEntry, ServicePort, WorkloadEntry};

/// The lookups, over one immutable set of resources.
#[derive(Debug, Clone)]
pub struct Registry {
    routes: BTreeMap<String, BTreeMap<u16, Arc<ServiceRoute>>>,
    by_ip: BTreeMap<IpAddr, Vec<Arc<WorkloadEntry>>>,
    by_name: BTreeMap<(String, String), Arc<WorkloadEntry>>,
}

/// One port of a service, ready to be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRoute {
    /// The host, in lower case.
    pub host: String,
    /// The service's port.
    pub port: u16,
    /// What is spoken on it.
    pub protocol: AppProtocol,
    /// Where to go; empty if the service has no endpoint at present.
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The workload's address and port.
    pub address: SocketAddr,
    /// Namespace and name of the workload: the WorkloadEntry's, or for an inline endpoint the ServiceEntry's.
    pub workload: (String, String),
    /// The identity that has to answer: mutual TLS is opened if there is one, plaintext if there is none.
    pub identity: Option<SpiffeId>,
    /// The share of traffic, at least 1.
    pub weight: u32,
}

impl Registry {
    /// Builds the lookups. Where two ServiceEntries name the same host and port the older one wins (creation
    /// timestamp, then name, then namespace), whole: endpoints are never merged from strangers.
    #[must_use]
    pub fn new(resources: Arc<Resources>, mesh: &MeshConfig) -> Self {
        let mut registry = Self { routes: BTreeMap::new(), by_ip: BTreeMap::new(), by_name: BTreeMap::new() };
        for entry in &resources.workload_entries {
            registry.add_workload(entry);
        }
        let mut services: Vec<_> = resources.service_entries.iter().collect();
        services.sort_by(|a, b| a.meta.age_key().cmp(&b.meta.age_key()));
        for service in services {
            registry.add_service(service, &resources.workload_entries, &mesh.trust_domain);
        }
        registry
    }

    /// The route for a host (compared case-insensitively, one trailing dot ignored) and a port of the service.
    #[must_use]
    pub fn service(&self, host: &str, port: u16) -> Option<&Arc<ServiceRoute>> {
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            self.routes.get(&host.to_ascii_lowercase())?.get(&port)
        } else {
            self.routes.get(host)?.get(&port)
        }
    }

    /// All hosts and ports that can be called.
    pub fn services(&self) -> impl Iterator<Item = &Arc<ServiceRoute>> {
        self.routes.values().flat_map(BTreeMap::values)
    }

    /// The workloads at an address: several where a machine runs several. An IPv4 address inside IPv6
    /// (`::ffff:10.0.0.1`) is looked up as IPv4.
    #[must_use]
    pub fn workload_by_ip(&self, ip: IpAddr) -> &[Arc<WorkloadEntry>] {
        self.by_ip.get(&ip.to_canonical()).map_or(&[], Vec::as_slice)
    }

    /// The WorkloadEntry of a namespace and name.
    #[must_use]
    pub fn workload(&self, namespace: &str, name: &str) -> Option<&Arc<WorkloadEntry>> {
        self.by_name.get(&(namespace.to_owned(), name.to_owned()))
    }

    fn add_workload(&mut self, entry: &Arc<WorkloadEntry>) {
        let key = (entry.meta.namespace.clone(), entry.meta.name.clone());
        self.by_name.insert(key, Arc::clone(entry));
        if let Some(ip) = entry.ip() {
            let at = self.by_ip.entry(ip.to_canonical()).or_default();
            at.push(Arc::clone(entry));
        }
    }

    fn add_service(&mut self, service: &ServiceEntry, workloads: &[Arc<WorkloadEntry>], domain: &TrustDomain) {
        let members: Vec<&WorkloadEntry> = match &service.workload_selector {
            Some(selector) => workloads
                .iter()
                .filter(|entry| entry.meta.namespace == service.meta.namespace)
                .filter(|entry| selector.matches(&entry.labels))
                .map(Arc::as_ref)
                .collect(),
            None => service.endpoints.iter().collect(),
        };
        for port in &service.ports {
            let endpoints: Vec<_> = members.iter().filter_map(|entry| endpoint(entry, port, service, domain)).collect();
            for host in &service.hosts {
                let host = host.to_ascii_lowercase();
                let ports = self.routes.entry(host.clone()).or_default();
                ports.entry(port.number).or_insert_with(|| {
                    Arc::new(ServiceRoute {
                        host,
                        port: port.number,
                        protocol: port.protocol,
                        endpoints: endpoints.clone(),
                    })
                });
            }
        }
    }
}

/// An endpoint's port is its own for the service port's name, else the target port, else the service's number.
fn endpoint(
    entry: &WorkloadEntry,
    port: &ServicePort,
    service: &ServiceEntry,
    domain: &TrustDomain,
) -> Option<Endpoint> {
    let number = entry.ports.get(&port.name).copied();
    let number = number.or(port.target_port).unwrap_or(port.number);
    let namespace = &service.meta.namespace;
    let identity = if entry.mtls() && service.location == crate::Location::Internal {
        // The loader has checked both names; one that could not be an identity must not become plaintext.
        Some(SpiffeId::workload(domain, namespace, &entry.service_account).ok()?)
    } else {
        None
    };
    Some(Endpoint {
        address: SocketAddr::new(entry.ip()?, number),
        workload: (namespace.clone(), entry.meta.name.clone()),
        identity,
        weight: entry.weight.max(1),
    })
}
