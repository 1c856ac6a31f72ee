//! What the verbs that decide requests share: their flags, the policies, and a runtime with the world around them.

use std::sync::Arc;

use anyhow::Result;
use clap::{Args, ValueEnum};
use palisade_authz::Semantics;
use palisade_policies::{Loaded, MeshConfig, load};
use palisade_workbench::eval;
use tokio::runtime::{Builder, Runtime};

use super::input::{DEFAULT_NAMESPACE, Files};
use super::world::Network;

/// Policies, and how to read requests.
#[derive(Args, Debug)]
pub(super) struct Flags {
    #[command(flatten)]
    pub(super) files: Files,
    /// Decide every request so, whatever its `protocol` says.
    #[arg(long, value_enum)]
    semantics: Option<SemanticsFlag>,
    /// Verify the tokens of the headers by RequestAuthentication (fetching keys where that is needed) instead of trusting `jwt`.
    #[arg(long)]
    authenticate: bool,
    /// Namespace of resources that name none.
    #[arg(short, long, value_name = "NAMESPACE", default_value = DEFAULT_NAMESPACE)]
    namespace: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SemanticsFlag {
    /// Envoy's HTTP filter.
    Http,
    /// Envoy's network filter.
    Tcp,
    /// What ztunnel does with the same policy.
    L4,
}

/// Everything that deciding takes.
pub(super) struct Prepared {
    pub(super) loaded: Loaded,
    pub(super) mesh: MeshConfig,
    pub(super) options: eval::Options,
    pub(super) world: Arc<Network>,
    pub(super) runtime: Runtime,
}

impl Flags {
    /// Reads the policies and reports what is wrong with them on stderr; `None` if the mesh configuration was refused:
    /// nothing can be decided then.
    pub(super) fn prepare(&self) -> Result<Option<Prepared>> {
        let texts = self.files.read()?;
        let (mesh, mut diagnostics) = match &texts.mesh {
            Some(text) => MeshConfig::parse(text),
            None => (Some(MeshConfig::default()), Vec::new()),
        };
        let mut loaded = load(&texts.resources, &self.namespace);
        loaded.refused += texts.refused.len();
        loaded.diagnostics.splice(..0, texts.refused);
        diagnostics.extend(loaded.diagnostics.iter().cloned());
        for diagnostic in &diagnostics {
            eprintln!("{diagnostic}");
        }
        let Some(mesh) = mesh else { return Ok(None) };
        let options = eval::Options { semantics: self.semantics.map(Into::into), authenticate: self.authenticate };
        // Key sets are fetched by a thread of their own while this one reads requests.
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let world = Arc::new(Network::new(&loaded.resources, &mesh));
        Ok(Some(Prepared { loaded, mesh, options, world, runtime }))
    }
}

impl From<SemanticsFlag> for Semantics {
    fn from(flag: SemanticsFlag) -> Self {
        match flag {
            SemanticsFlag::Http => Self::Http,
            SemanticsFlag::Tcp => Self::Tcp,
            SemanticsFlag::L4 => Self::L4,
        }
    }
}
