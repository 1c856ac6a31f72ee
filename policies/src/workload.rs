//! Workloads outside a cluster: Istio's WorkloadEntry, alone or as an endpoint of a ServiceEntry; and the facts
//! about a proxy's own workload by which policies are selected.

use std::{collections::BTreeMap, net::IpAddr};

use crate::Meta;

/// The label by which a workload says whether it speaks mutual TLS.
pub const TLS_MODE_LABEL: &str = "security.istio.io/tlsMode";

/// An accepted WorkloadEntry (`networking.istio.io/v1`), or one endpoint of a ServiceEntry (whose `meta` is the
/// ServiceEntry's, with the endpoint's line).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadEntry {
    /// Name, namespace, labels, annotations and position.
    pub meta: Meta,
    /// The address as written: an IP address (names and Unix sockets are refused by the loader).
    pub address: String,
    /// The workload's own port for a service port's name.
    pub ports: BTreeMap<String, u16>,
    /// The workload's labels (`spec.labels`), which selectors match.
    pub labels: BTreeMap<String, String>,
    /// The service account in the entry's namespace; `default` where none is written.
    pub service_account: String,
    /// Whether `serviceAccount` was written: Istio then takes the workload for a mesh one, see [`Self::mtls`].
    pub service_account_given: bool,
    /// The share of traffic among the endpoints of a service; 0 where none is written, which counts as 1.
    pub weight: u32,
}

impl WorkloadEntry {
    /// The address, parsed.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.address.parse().ok()
    }

    /// Whether callers open mutual TLS to it, as Istio decides (`getTLSModeFromWorkloadEntry`): the label
    /// `security.istio.io/tlsMode` where present (`istio` means yes), else whether a service account is written.
    #[must_use]
    pub fn mtls(&self) -> bool {
        match self.labels.get(TLS_MODE_LABEL) {
            Some(mode) => mode == "istio",
            None => self.service_account_given,
        }
    }
}

/// A workload whose policies are asked for: the one a proxy stands before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Workload {
    /// The name of the Gateway for which the Gateway API made it (label `gateway.networking.k8s.io/gateway-name`):
    /// `targetRefs` apply to such proxies only.
    #[must_use]
    pub fn gateway_name(&self) -> Option<&str> {
        self.labels.get("gateway.networking.k8s.io/gateway-name").map(String::as_str)
    }

    /// Whether its labels are those of a waypoint that Istio made: of a Gateway, and managed by the mesh controller
    /// (`gateway.istio.io/managed: istio.io-mesh-controller`). For dry-runs, which know nothing but labels: whoever enforces
    /// knows what it is and must not ask, for a label must not take a sidecar's policies away.
    #[must_use]
    pub fn says_waypoint(&self) -> bool {
        self.is_gateway_api()
            && self.labels.get("gateway.istio.io/managed").is_some_and(|by| by == "istio.io-mesh-controller")
    }

    /// Whether the Gateway API made it.
    #[must_use]
    pub fn is_gateway_api(&self) -> bool {
        self.gateway_name().is_some()
    }
}
