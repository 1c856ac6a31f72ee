//! The files that the policy verbs share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use palisade_policies::{Diagnostic, SourceText, read_each, read_paths};

use crate::exit;

/// Namespace of a resource that names none, as the server and kubectl have it.
pub(super) const DEFAULT_NAMESPACE: &str = "default";

/// Which resources.
#[derive(Args, Debug)]
pub(super) struct Files {
    /// File, directory (*.yaml and *.yml, recursively) or - for standard input; may be repeated.
    #[arg(short, long = "filename", value_name = "PATH", required = true, num_args = 1..)]
    filename: Vec<PathBuf>,
    /// Istio's MeshConfig as plain YAML. Default: `mesh.yaml` of a directory given by -f, as the server takes it.
    #[arg(long, value_name = "FILE")]
    mesh: Option<PathBuf>,
}

/// Texts of resources, and of the mesh configuration where there is one.
pub(super) struct Texts {
    pub(super) resources: Vec<SourceText>,
    /// Files that are no text: a refused document each.
    pub(super) refused: Vec<Diagnostic>,
    pub(super) mesh: Option<SourceText>,
}

impl Files {
    /// Reads everything; what cannot be opened is named with its path, what is no text is a refused document.
    pub(super) fn read(&self) -> Result<Texts> {
        let failed = |error| exit::bad_input(exit::chain(&error));
        let palisade_policies::Texts { texts: mut resources, refused } = read_each(&self.filename).map_err(failed)?;
        let mesh_path = self.mesh.clone().or_else(|| self.mesh_of_directory());
        let Some(path) = mesh_path else { return Ok(Texts { resources, refused, mesh: None }) };
        let mesh = read_paths(std::slice::from_ref(&path)).map_err(failed)?.into_iter().next();
        let mesh_file: Arc<str> = mesh.as_ref().map_or_else(|| "".into(), |mesh| Arc::clone(&mesh.file));
        resources.retain(|text| !same(&text.file, &mesh_file));
        Ok(Texts { resources, refused, mesh })
    }

    /// Whether standard input is one of the files.
    pub(super) fn reads_stdin(&self) -> bool {
        self.filename.iter().any(|path| path.as_os_str() == "-")
    }

    fn mesh_of_directory(&self) -> Option<PathBuf> {
        self.filename.iter().map(|path| path.join(palisade_watch::MESH_FILE)).find(|path| path.is_file())
    }
}

fn same(one: &str, other: &str) -> bool {
    let canonical = |path: &str| Path::new(path).canonicalize().ok();
    one == other || canonical(one).is_some_and(|one| canonical(other) == Some(one))
}
