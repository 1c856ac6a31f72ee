//! The authority's settings (`ca.yaml`), read once at the start, become what its service is made of.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use palisade_ca::attest::kubernetes::{Bound, KeySource, KubernetesTokens, OfflineConfig, OfflineTokens};
use palisade_ca::attest::x509pop::{Machines, X509Pop};
use palisade_ca::{Admission, AdmissionLimits, CaService, ExtraKeys, Impersonation, NodeWorkloads};
use palisade_identity::TrustDomain;
use palisade_policies::{
    AdmissionSettings, CA_FILE, CaSettings, ExtraKey, KubernetesSettings, SettingsSource, read_paths,
};
use palisade_watch::State;
use tokio::sync::watch;

use crate::exit;

/// The label by which a WorkloadEntry says on which node its workload runs: Kubernetes' own label of nodes.
const NODE_LABEL: &str = "kubernetes.io/hostname";

/// The settings, and where they stand.
pub(super) struct Settings {
    pub(super) settings: CaSettings,
    config_dir: PathBuf,
}

impl Settings {
    /// Reads `ca.yaml` of the configuration directory; without one the defaults hold.
    pub(super) fn read(config_dir: &Path) -> Result<Self> {
        let path = config_dir.join(CA_FILE);
        let config_dir = config_dir.to_path_buf();
        if !path.exists() {
            return Ok(Self { settings: CaSettings::default(), config_dir });
        }
        let texts = read_paths(&[path]).map_err(|error| exit::usage(exit::chain(&error)))?;
        let (settings, diagnostics) = texts.first().map(CaSettings::parse).unwrap_or_default();
        let settings = settings.ok_or_else(|| {
            let lines: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
            exit::usage(lines.join("\n"))
        })?;
        Ok(Self { settings, config_dir })
    }

    pub(super) fn extra_keys(&self) -> ExtraKeys {
        let has = |key| self.settings.extra_keys.contains(&key);
        ExtraKeys { ed25519: has(ExtraKey::Ed25519), p521: has(ExtraKey::P521) }
    }

    /// What is served when more is asked for than can be done.
    pub(super) fn admission(&self) -> Admission {
        let AdmissionSettings { rate, burst, waiting } = self.settings.admission;
        Admission::new(AdmissionLimits { rate: rate.get(), burst: burst.get(), waiting: waiting.get() })
    }

    /// Adds what the settings ask for to the authority's service.
    pub(super) async fn configure(
        &self,
        service: CaService,
        domain: &TrustDomain,
        machines: Option<&Arc<Machines>>,
        states: watch::Receiver<State>,
    ) -> CaService {
        let service = match machines {
            Some(machines) => service.with_attestor(Box::new(X509Pop::new(domain.clone(), Arc::clone(machines)))),
            None => service,
        };
        let Some(kubernetes) = &self.settings.kubernetes else { return service };
        let offline = OfflineTokens::start(self.offline(kubernetes)).await;
        let service = service.with_attestor(Box::new(KubernetesTokens::new(domain.clone(), offline)));
        if kubernetes.trusted_node_accounts.is_empty() {
            return service;
        }
        let accounts = kubernetes.trusted_node_accounts.iter().cloned();
        service.with_impersonation(Impersonation::new(accounts, Arc::new(DirectoryWorkloads(states))))
    }

    /// The authorities of machines, where they are believed.
    pub(super) fn machines(&self) -> Result<Option<Arc<Machines>>> {
        let Some(pop) = &self.settings.x509pop else { return Ok(None) };
        let path = self.config_dir.join(&pop.ca);
        let refused = |error: &(dyn std::error::Error + 'static)| {
            let (file, reason) = (path.display(), exit::chain(error));
            exit::usage(format!("{CA_FILE}: attestors.x509pop.ca: `{file}` cannot be used: {reason}"))
        };
        let text = std::fs::read(&path).map_err(|error| refused(&error))?;
        Machines::from_pem(&text).map(|machines| Some(Arc::new(machines))).map_err(|error| refused(&error))
    }

    fn offline(&self, kubernetes: &KubernetesSettings) -> OfflineConfig {
        let keys = match &kubernetes.jwks {
            SettingsSource::File(path) => KeySource::File(self.config_dir.join(path)),
            SettingsSource::Url(url) => KeySource::Url(url.clone()),
        };
        OfflineConfig { issuer: kubernetes.issuer.clone(), audiences: kubernetes.audiences.clone(), keys }
    }
}

/// Who runs where, as the WorkloadEntries of the configuration directory say.
#[derive(Debug)]
struct DirectoryWorkloads(watch::Receiver<State>);

impl NodeWorkloads for DirectoryWorkloads {
    /// A directory knows no pods: that the agent's own lives is for its token to say.
    fn runs(&self, node: &Bound, _agent: &Bound, namespace: &str, service_account: &str) -> bool {
        let good = self.0.borrow().good.clone();
        good.is_some_and(|configuration| {
            configuration.resources.workload_entries.iter().any(|entry| {
                entry.meta.namespace == namespace
                    && entry.service_account == service_account
                    && entry.labels.get(NODE_LABEL) == Some(&node.name)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use palisade_watch::{Directory, DirectoryConfig};

    use super::*;

    #[test]
    fn workload_entries_say_who_runs_where() {
        let dir = tempfile::tempdir().unwrap();
        let entry = "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: web-0, namespace: shop}\n\
                     spec: {address: 10.0.0.1, serviceAccount: web, labels: {kubernetes.io/hostname: worker-1}}\n";
        std::fs::write(dir.path().join("web.yaml"), entry).unwrap();
        let directory = Directory::open(DirectoryConfig::new(dir.path()));
        let workloads = DirectoryWorkloads(directory.subscribe());
        let bound = |name: &str| Bound { name: name.into(), uid: "u".into() };
        let runs =
            |node: &str, namespace: &str, account: &str| workloads.runs(&bound(node), &bound("z"), namespace, account);
        assert!(runs("worker-1", "shop", "web"));
        assert!(
            !runs("worker-2", "shop", "web")
                && !runs("worker-1", "bank", "web")
                && !runs("worker-1", "shop", "default")
        );
    }

    #[test]
    fn authorities_of_machines_are_read_and_named_when_they_cannot_be() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.yaml"), "attestors: {x509pop: {ca: machines.pem}}\n").unwrap();
        let machines = || Settings::read(dir.path()).unwrap().machines();
        let error = machines().unwrap_err().to_string();
        assert!(error.contains("attestors.x509pop.ca") && error.contains("machines.pem"), "{error}");
        std::fs::write(dir.path().join("machines.pem"), "").unwrap();
        assert!(machines().unwrap_err().to_string().contains("holds no certificate"));
    }

    #[test]
    fn settings_are_read_beside_the_mesh_and_refused_with_their_place() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Settings::read(dir.path()).unwrap().settings, CaSettings::default());
        std::fs::write(
            dir.path().join("ca.yaml"),
            "extraKeys: [Ed25519]\nattestors: {kubernetes: {issuer: i, jwks: k.json}}\n",
        )
        .unwrap();
        let read = Settings::read(dir.path()).unwrap();
        assert_eq!(read.extra_keys(), ExtraKeys { ed25519: true, p521: false });
        let keys = read.offline(read.settings.kubernetes.as_ref().unwrap()).keys;
        assert_eq!(keys, KeySource::File(dir.path().join("k.json")));
        std::fs::write(dir.path().join("ca.yaml"), "attestors: {kubernets: {}}\n").unwrap();
        let error = Settings::read(dir.path()).map(|_| ()).unwrap_err().to_string();
        assert!(
            error.contains("ca.yaml:1:13: error[PAL0101] attestors.kubernets") && error.contains("did you mean"),
            "{error}"
        );
    }
}
