//! Whatever is read, loading ends with an answer: no panic, no lost document, no finding without a place.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use palisade_policies::{Loaded, MeshConfig, SourceText, load};
use proptest::prelude::*;

fn sound(text: &str) -> Loaded {
    let lines = u32::try_from(text.split('\n').count()).unwrap();
    let loaded = load(&[SourceText::new("f", text)], "default");
    for found in &loaded.diagnostics {
        assert!(found.line >= 1 && found.column >= 1 && found.line <= lines, "{found} of {lines} lines");
        assert!(!found.to_string().contains('\n'), "{found:?}");
    }
    let errors = loaded.diagnostics.iter().any(|found| found.is_error());
    assert_eq!(errors, loaded.refused > 0, "{:?}", loaded.diagnostics);
    assert_eq!(loaded.documents.len(), loaded.resources.len());
    for document in &loaded.documents {
        let again = load(std::slice::from_ref(&document.text), "default");
        assert_eq!((again.resources.len(), again.refused), (1, 0), "{document:?}");
    }
    let _ = MeshConfig::parse(&SourceText::new("f", text));
    loaded
}

/// Pieces that YAML gives a meaning to, and pieces of our resources.
const KNOWN: &[&str] = &[
    "---\n",
    "...\n",
    "- ",
    "? ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    ",",
    "&a ",
    "*a",
    "!!str ",
    "|\n",
    ">-\n",
    "'",
    "\"",
    "\t",
    "\r",
    "\n",
    "\n  ",
    "\n    ",
    "# ",
    "<<: ",
    "%YAML 1.2\n",
    "null",
    "8080",
    "yes",
    "apiVersion: security.istio.io/v1\n",
    "kind: AuthorizationPolicy\n",
    "kind: List\nitems:\n",
    "metadata: {name: a}\n",
    "spec:\n",
    "rules:\n",
    "ä",
    "\u{feff}",
    "\u{0}",
    "\u{2028}",
];

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![4 => proptest::sample::select(KNOWN).prop_map(str::to_owned), 1 => "\\PC{0,4}"]
}

fn samples() -> String {
    [include_str!("../samples/shop.yaml"), include_str!("../samples/dry-run.yaml")].join("---\n")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_answered(text in any::<String>()) {
        sound(&text);
    }

    #[test]
    fn any_yaml_like_text_is_answered(pieces in proptest::collection::vec(piece(), 0..60)) {
        sound(&pieces.concat());
    }

    #[test]
    fn any_damaged_sample_is_answered(cuts in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..12, piece()), 1..6)) {
        let mut text: Vec<char> = samples().chars().collect();
        for (at, length, insert) in cuts {
            let at = at.index(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, insert.chars());
        }
        sound(&text.into_iter().collect::<String>());
    }
}

#[test]
fn the_samples_are_good() {
    let loaded = sound(&samples());
    assert_eq!((loaded.resources.len(), loaded.diagnostics.len()), (7, 0), "{:?}", loaded.diagnostics);
    assert!(sound(include_str!("../samples/default-deny.yaml")).diagnostics.is_empty());
}
