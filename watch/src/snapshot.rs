//! The unit a proxy swaps: documents and mesh configuration under one revision.
//!
//! The revision is a hash of the content and nothing else, so that it is the same after a restart and on every server, a
//! reconnecting proxy can say what it has, and a snapshot read from disk or the wire can be checked against its own name.

use aws_lc_rs::digest::{Context, SHA256};
use palisade_policies::SourceText;

/// Everything one proxy decides by, whole.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// SHA-256 of the content, lower-case hex (64 characters).
    pub revision: String,
    /// One Istio resource each, in the order of their files.
    pub documents: Vec<SourceText>,
    /// The mesh configuration; `None` means Istio's defaults.
    pub mesh: Option<SourceText>,
}

impl Snapshot {
    /// A snapshot of this content, its revision computed.
    pub fn new(documents: Vec<SourceText>, mesh: Option<SourceText>) -> Self {
        let revision = hex(&digest(&documents, mesh.as_ref()));
        Self { revision, documents, mesh }
    }

    /// Whether the revision is the one of the content: false after a torn write, a bad disk, or a sender that errs.
    pub fn is_intact(&self) -> bool {
        self.revision == hex(&digest(&self.documents, self.mesh.as_ref()))
    }
}

/// SHA-256 over documents and mesh. Every field is preceded by its length, so that no two contents read alike.
pub(crate) fn digest(documents: &[SourceText], mesh: Option<&SourceText>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(b"palisade snapshot 1\n");
    context.update(&(documents.len() as u64).to_be_bytes());
    for text in documents.iter().chain(mesh) {
        add(&mut context, text.file.as_bytes());
        context.update(&text.first_line.to_be_bytes());
        add(&mut context, text.text.as_bytes());
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

fn add(context: &mut Context, bytes: &[u8]) {
    context.update(&(bytes.len() as u64).to_be_bytes());
    context.update(bytes);
}

/// Lower-case hex of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(file: &str, first_line: u32, text: &str) -> SourceText {
        SourceText { file: file.into(), first_line, text: text.into() }
    }

    #[test]
    fn equal_content_has_equal_revisions_and_any_difference_shows() {
        let base = || vec![text("a.yaml", 1, "kind: A"), text("b.yaml", 1, "kind: B")];
        let one = Snapshot::new(base(), None).revision;
        assert_eq!(one, Snapshot::new(base(), None).revision);
        assert_eq!(one.len(), 64);
        let others = [
            Snapshot::new(vec![text("a.yaml", 2, "kind: A"), text("b.yaml", 1, "kind: B")], None),
            Snapshot::new(vec![text("a.yaml", 1, "kind: AB"), text("b.yaml", 1, "kind: ")], None),
            Snapshot::new(vec![text("a.yaml", 1, "kind: A")], Some(text("b.yaml", 1, "kind: B"))),
            Snapshot::new(vec![text("a.yamlk", 1, "ind: A"), text("b.yaml", 1, "kind: B")], None),
        ];
        for other in others {
            assert_ne!(one, other.revision);
        }
    }

    #[test]
    fn a_changed_text_is_no_longer_intact() {
        let mut snapshot = Snapshot::new(vec![text("a.yaml", 1, "action: DENY")], None);
        assert!(snapshot.is_intact());
        snapshot.documents[0].text = "action: AUDIT".into();
        assert!(!snapshot.is_intact());
    }
}
