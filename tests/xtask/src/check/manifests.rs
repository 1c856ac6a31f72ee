//! Lints and versions come from the workspace, in every crate.

use std::fs;

use anyhow::{Context, Result};
use cargo_metadata::Metadata;

/// Crates without the workspace lints, and dependencies with a version of their own.
pub(crate) fn findings(metadata: &Metadata) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for package in metadata.workspace_packages() {
        let path = package.manifest_path.as_std_path();
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        findings.extend(judge(package.name.as_str(), &text));
    }
    Ok(findings)
}

fn judge(name: &str, manifest: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let (mut section, mut lints) = (String::new(), false);
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']').to_owned();
            if let Some(dependency) = section.rsplit_once("dependencies.").map(|(_, dependency)| dependency) {
                findings.push(format!(
                    "`{name}` gives `{dependency}` a table of its own: write `{dependency}.workspace = true`"
                ));
            }
            continue;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        lints |= section == "lints" && line.replace(' ', "") == "workspace=true";
        let inherited = line.contains(".workspace = true") || line.contains("workspace = true");
        if is_dependency_table(&section) && !inherited {
            let dependency = line.split(['=', '.']).next().unwrap_or(line).trim();
            findings.push(format!(
                "`{name}` takes `{dependency}` with a version of its own: put it into [workspace.dependencies]"
            ));
        }
    }
    if !lints {
        findings.push(format!("`{name}` does not inherit the workspace lints: add `[lints] workspace = true`"));
    }
    findings
}

fn is_dependency_table(section: &str) -> bool {
    matches!(section, "dependencies" | "dev-dependencies" | "build-dependencies")
        || (section.starts_with("target.") && section.ends_with("dependencies"))
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn an_inheriting_manifest_is_in_order() {
        assert!(judge("a", "[dependencies]\nserde.workspace = true\n[lints]\nworkspace = true\n").is_empty());
    }

    #[test]
    fn a_version_of_its_own_names_the_dependency() {
        let found = judge("a", "[dev-dependencies]\nserde = \"1\"\n[lints]\nworkspace = true\n");
        assert!(found.iter().any(|finding| finding.contains("`serde`")), "{found:?}");
        let table = judge("a", "[dependencies.serde]\nversion = \"1\"\n[lints]\nworkspace = true\n");
        assert!(table.iter().any(|finding| finding.contains("`serde`")), "{table:?}");
    }

    #[test]
    fn missing_lints_are_a_finding() {
        let found = judge("a", "[dependencies]\n");
        assert!(found.iter().any(|finding| finding.contains("lints")), "{found:?}");
    }
}
