#![doc = include_str!("../README.md")]

mod changes;
mod configuration;
mod directory;
mod snapshot;

pub use configuration::{Configuration, Problem};
pub use directory::{Directory, DirectoryConfig, State};
pub use snapshot::Snapshot;

/// Namespace of a resource that names none: `default`, as kubectl has it. The server and every proxy must read a document
/// with the same one, or the two would disagree about what it applies to.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Name of the mesh configuration file inside a configuration directory, where no other file is named.
pub const MESH_FILE: &str = "mesh.yaml";
