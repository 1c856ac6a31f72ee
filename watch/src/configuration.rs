//! From the texts of a directory to a configuration that passed every check, or to the reason why it did not.

use std::collections::HashSet;
use std::fmt;

use palisade_identity::TrustDomain;
use palisade_policies::{Diagnostic, Document, MeshConfig, Resources, SourceText, foreign_registrations, load};

use crate::snapshot::{Snapshot, digest, hex};
use crate::{DEFAULT_NAMESPACE, MESH_FILE};

/// A whole directory that passed every check.
#[derive(Debug)]
pub struct Configuration {
    /// SHA-256 of all texts, lower-case hex: names this state of the directory.
    pub revision: String,
    /// Number of files that were read, the mesh configuration not counted.
    pub files: usize,
    /// The resources, checked.
    pub resources: Resources,
    /// The same resources as text, one document each, ordered by file and line.
    pub documents: Vec<Document>,
    /// The mesh configuration in force.
    pub mesh: MeshConfig,
    /// Its text; `None` where Istio's defaults hold.
    pub mesh_text: Option<SourceText>,
    /// What the checks warn about.
    pub warnings: Vec<Diagnostic>,
    /// Documents of other API groups, which are not ours to read.
    pub skipped: usize,
}

impl Configuration {
    /// All of it as one snapshot: what a standalone proxy decides by.
    pub fn snapshot(&self) -> Snapshot {
        let documents = self.documents.iter().map(|document| document.text.clone()).collect();
        Snapshot::new(documents, self.mesh_text.clone())
    }
}

/// Why the state of the directory is not in force. While one stands, the last good configuration stays for everybody.
#[derive(Debug)]
pub enum Problem {
    /// The directory or a file of it cannot be read: missing, no permission, too large.
    Unreadable {
        /// What cannot be read and why.
        reason: String,
    },
    /// The directory held resources and now holds no YAML file at all: far more often a volume that went away than an edit.
    Emptied,
    /// Files have been changing for seconds without a pause long enough to read them whole.
    Unsettled,
    /// Resources or the mesh configuration were refused.
    Refused {
        /// Each with file, line, field and fix; at least one is an error.
        diagnostics: Vec<Diagnostic>,
    },
    /// The mesh configuration is of another trust domain than the one certificates are issued in.
    TrustDomain {
        /// File of the mesh configuration.
        file: String,
        /// What the file says, or leaves at Istio's default.
        found: TrustDomain,
        /// What certificates are issued in.
        issued: TrustDomain,
    },
    /// The check itself failed: a defect of this program, not of the files.
    Check {
        /// What is known about it.
        reason: String,
    },
}

impl Problem {
    /// The refusals, where there are any.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Self::Refused { diagnostics } => diagnostics,
            _ => &[],
        }
    }

    /// The errors among them: warnings must not crowd out what stands in the way.
    pub fn blockers(&self) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics().iter().filter(|one| one.is_error())
    }

    /// How many errors stand between the directory and being in force; at least 1.
    pub fn errors(&self) -> usize {
        self.blockers().count().max(1)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { reason } => write!(out, "configuration cannot be read: {reason}"),
            Self::Emptied => write!(
                out,
                "configuration directory has become empty, its last content stays in force; \
                 fix: bring the files back, or to remove every resource leave one file with nothing but a comment"
            ),
            Self::Unsettled => write!(
                out,
                "configuration directory keeps changing and cannot be read whole, its last content stays in force; \
                 fix: write files less often, or elsewhere until they are finished"
            ),
            Self::Refused { diagnostics } => {
                let errors = diagnostics.iter().filter(|one| one.is_error());
                let mut separator = "";
                for diagnostic in errors {
                    write!(out, "{separator}{diagnostic}")?;
                    separator = "\n";
                }
                Ok(())
            }
            Self::TrustDomain { file, found, issued } => write!(
                out,
                "{file}: trustDomain is `{}` but certificates are issued in `{}`; fix: write `trustDomain: {}`",
                found.as_str(),
                issued.as_str(),
                issued.as_str()
            ),
            Self::Check { reason } => write!(out, "configuration cannot be checked: {reason}"),
        }
    }
}

/// Checks a directory's texts as a whole: one error refuses all of them, because a DENY policy that is left out allows.
pub(crate) fn check(
    texts: &[SourceText],
    mesh_text: Option<SourceText>,
    issued: Option<&TrustDomain>,
) -> Result<Configuration, Problem> {
    let revision = hex(&digest(texts, mesh_text.as_ref()));
    let (mesh, mesh_text, mut diagnostics) = check_mesh(mesh_text, issued)?;
    let loaded = load(texts, DEFAULT_NAMESPACE);
    if let Some(mesh) = &mesh {
        diagnostics.extend(foreign_registrations(&loaded.resources, &loaded.documents, &mesh.trust_domain));
    }
    let refused = loaded.has_errors() || diagnostics.iter().any(Diagnostic::is_error);
    diagnostics.extend(loaded.diagnostics);
    let mesh = match mesh {
        Some(mesh) if !refused => mesh,
        _ => return Err(Problem::Refused { diagnostics }),
    };
    let mut documents = loaded.documents;
    documents.sort_by(|a, b| (&a.text.file, a.text.first_line).cmp(&(&b.text.file, b.text.first_line)));
    let files = texts.iter().map(|text| &text.file).collect::<HashSet<_>>().len();
    Ok(Configuration {
        revision,
        files,
        resources: loaded.resources,
        documents,
        mesh,
        mesh_text,
        warnings: diagnostics,
        skipped: loaded.skipped,
    })
}

type CheckedMesh = (Option<MeshConfig>, Option<SourceText>, Vec<Diagnostic>);

/// The mesh configuration, which must agree with what certificates are issued in. Where there is no file and the trust
/// domain is not Istio's default, the one line that says so is written here, so that proxies hear it too.
fn check_mesh(text: Option<SourceText>, issued: Option<&TrustDomain>) -> Result<CheckedMesh, Problem> {
    let defaults = MeshConfig::default();
    let text = match (text, issued) {
        (None, Some(issued)) if *issued != defaults.trust_domain => Some(SourceText {
            file: MESH_FILE.into(),
            first_line: 1,
            text: format!("trustDomain: {}\n", issued.as_str()).into(),
        }),
        (text, _) => text,
    };
    let Some(text) = text else {
        return Ok((Some(defaults), None, Vec::new()));
    };
    let (mesh, diagnostics) = MeshConfig::parse(&text);
    if let (Some(mesh), Some(issued)) = (&mesh, issued)
        && mesh.trust_domain != *issued
    {
        let found = mesh.trust_domain.clone();
        return Err(Problem::TrustDomain { file: text.file.to_string(), found, issued: issued.clone() });
    }
    Ok((mesh, Some(text), diagnostics))
}

#[cfg(test)]
mod tests {
    use palisade_policies::{SourceText, load};

    use super::Problem;

    #[test]
    fn the_one_error_is_found_among_many_warnings() {
        let policy = |name: &str, action: &str| {
            format!(
                "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: a}}\n\
                 spec: {{action: {action}, rules: [{{to: [{{operation: {{methods: [GET]}}}}]}}]}}\n---\n"
            )
        };
        let text: String = (0..25).map(|index| policy(&format!("warns-{index}"), "DENY")).collect();
        let loaded = load(&[SourceText::new("a.yaml", text + &policy("broken", "DENIED"))], "default");
        assert!(loaded.diagnostics.len() > 25);
        let problem = Problem::Refused { diagnostics: loaded.diagnostics };
        let blockers: Vec<&str> = problem.blockers().map(|one| one.field.as_str()).collect();
        assert_eq!(blockers, ["spec.action"]);
    }
}
