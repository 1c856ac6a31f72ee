//! From raw snapshots to the compiled one in use: the `apply` that decides between ACK and NACK.

use std::sync::Arc;

use palisade_policies::Workload;
use tokio::sync::watch;

use crate::config::ProxyConfig;
use crate::control_client::{Apply, RawSnapshot};
use crate::means::Means;
use crate::snapshot::{BuildError, ProxySnapshot};

/// Compiles raw snapshots for one workload and publishes those that compile.
#[derive(Debug, Clone)]
pub struct Snapshots {
    workload: Workload,
    ports: Vec<u16>,
    means: Arc<Means>,
    current: Arc<watch::Sender<Option<Arc<ProxySnapshot>>>>,
}

impl Snapshots {
    /// For the workload and the ports of a configuration.
    #[must_use]
    pub fn new(config: &ProxyConfig) -> Snapshots {
        Snapshots {
            workload: config.workload.clone(),
            ports: config.inbound.iter().map(|one| one.forward.port()).collect(),
            means: Arc::default(),
            current: Arc::new(watch::Sender::new(None)),
        }
    }

    /// Compiles a raw snapshot and takes it into use. Blocking: call it where that is fine, and on a Tokio runtime, which
    /// then fetches the keys of its token rules.
    ///
    /// # Errors
    /// Every mistake in it; the snapshot in use stays.
    pub fn apply(&self, raw: &RawSnapshot) -> Result<(), BuildError> {
        let built = ProxySnapshot::build(raw, &self.workload, &self.ports, &self.means)?;
        self.current.send_replace(Some(Arc::new(built)));
        Ok(())
    }

    /// [`Snapshots::apply`] as the control client and the directory source call it.
    #[must_use]
    pub fn callback(&self) -> Apply {
        let this = self.clone();
        Arc::new(move |raw| this.apply(raw).map_err(|error| error.to_string()))
    }

    /// The snapshot in use, for [`crate::Proxy::new`].
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<ProxySnapshot>>> {
        self.current.subscribe()
    }
}
