//! Small rooms: a file that grew past its limit is named, with the limit.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Lines of a source file; integration tests and their helpers may be longer than product code.
const FILE_LINES: usize = 400;
const TEST_FILE_LINES: usize = 600;
const MAIN_LINES: usize = 60;

/// Files over their limit.
pub(crate) fn findings(root: &Path) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for path in sources(root)? {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let shown = path.strip_prefix(root).unwrap_or(&path);
        let lines = text.lines().count();
        let limit = limit(shown);
        if lines > limit {
            findings.push(format!(
                "{} has {lines} lines, the limit is {limit}: name a part and move it out",
                shown.display()
            ));
        }
    }
    Ok(findings)
}

fn limit(path: &Path) -> usize {
    let is_test = path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs");
    match is_test {
        _ if path.ends_with("src/main.rs") => MAIN_LINES,
        true => TEST_FILE_LINES,
        false => FILE_LINES,
    }
}

fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            found.extend(sources(&path)?);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::limit;
    use std::path::Path;

    #[test]
    fn limits_depend_on_the_kind_of_file() {
        assert_eq!(limit(Path::new("src/main.rs")), 60);
        assert_eq!(limit(Path::new("ca/tests/enrolment/main.rs")), 600);
        assert_eq!(limit(Path::new("proxy/src/tls.rs")), 400);
        assert_eq!(limit(Path::new("proxy/tests/tls.rs")), 600);
    }
}
