//! The files that the policy verbs share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use palisade_policies::{CA_FILE, Diagnostic, SourceText, read_each, read_paths};

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
    /// The authority's settings, where a directory has them.
    pub(super) ca: Option<SourceText>,
}

impl Files {
    /// Reads everything; what cannot be opened is named with its path, what is no text is a refused document.
    pub(super) fn read(&self) -> Result<Texts> {
        let failed = |error| exit::bad_input(exit::chain(&error));
        let palisade_policies::Texts { texts: mut resources, refused } = read_each(&self.filename).map_err(failed)?;
        let ca = self.of_directory(CA_FILE).and_then(|path| take(&mut resources, &path));
        let mesh_path = self.mesh.clone().or_else(|| self.of_directory(palisade_watch::MESH_FILE));
        let Some(path) = mesh_path else { return Ok(Texts { resources, refused, mesh: None, ca }) };
        let mesh = read_paths(std::slice::from_ref(&path)).map_err(failed)?.into_iter().next();
        let mesh_file: Arc<str> = mesh.as_ref().map_or_else(|| "".into(), |mesh| Arc::clone(&mesh.file));
        resources.retain(|text| !same(&text.file, &mesh_file));
        Ok(Texts { resources, refused, mesh, ca })
    }

    /// Whether standard input is one of the files.
    pub(super) fn reads_stdin(&self) -> bool {
        self.filename.iter().any(|path| path.as_os_str() == "-")
    }

    /// A file of settings at the top of a directory.
    fn of_directory(&self, name: &str) -> Option<PathBuf> {
        self.filename.iter().map(|path| path.join(name)).find(|path| path.is_file())
    }
}

/// The text of a file, which is then no resource.
fn take(texts: &mut Vec<SourceText>, path: &Path) -> Option<SourceText> {
    let file = path.to_string_lossy();
    let index = texts.iter().position(|text| same(&text.file, &file))?;
    Some(texts.remove(index))
}

fn same(one: &str, other: &str) -> bool {
    let canonical = |path: &str| Path::new(path).canonicalize().ok();
    one == other || canonical(one).is_some_and(|one| canonical(other) == Some(one))
}
