//! The architecture as a test: what `docs` and review would forget, `cargo metadata` does not.

mod layers;
mod manifests;
mod sizes;

use anyhow::{Result, bail};
use cargo_metadata::MetadataCommand;

use crate::run;

/// Every finding is printed before the command fails, so one run shows all of them.
pub(crate) fn run() -> Result<()> {
    let metadata = MetadataCommand::new().manifest_path(run::root().join("Cargo.toml")).exec()?;
    let mut findings = layers::findings(&metadata);
    findings.extend(manifests::findings(&metadata)?);
    findings.extend(sizes::findings(&run::root())?);
    for finding in &findings {
        eprintln!("check: {finding}");
    }
    if findings.is_empty() {
        eprintln!("check: layers, lints, dependency versions and sizes are in order");
        return Ok(());
    }
    bail!("{} finding(s)", findings.len())
}
