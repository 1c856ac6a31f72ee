//! Whatever is read, loading ends with an answer: no panic, no lost document, no finding without a place.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use palisade_policies::{Diagnostic, Loaded, MeshConfig, Places, SourceText, explain, load};
use proptest::prelude::*;

fn sound(text: &str) -> Loaded {
    let loaded = load(&[SourceText::new("f", text)], "default");
    placed(text, &loaded.diagnostics);
    let errors = loaded.diagnostics.iter().any(|found| found.is_error());
    assert_eq!(errors, loaded.refused > 0, "{:?}", loaded.diagnostics);
    assert_eq!(loaded.documents.len(), loaded.resources.len());
    for document in &loaded.documents {
        let again = load(std::slice::from_ref(&document.text), "default");
        assert_eq!((again.resources.len(), again.refused), (1, 0), "{document:?}");
    }
    let (config, found) = MeshConfig::parse(&SourceText::new("f", text));
    assert_eq!(config.is_none(), found.iter().any(|found| found.is_error()), "{found:?}");
    placed(text, &found);
    loaded
}

/// Every finding stands in the text, or right behind one of its lines, and is one line itself.
fn placed(text: &str, diagnostics: &[Diagnostic]) {
    let lines: Vec<u32> = text.split('\n').map(|line| u32::try_from(line.chars().count()).unwrap()).collect();
    for found in diagnostics {
        let line = found.line.checked_sub(1).and_then(|line| lines.get(line as usize));
        assert!(line.is_some_and(|length| (1..=length + 1).contains(&found.column)), "{found} of {text:?}");
        assert!(!found.to_string().contains('\n'), "{found:?}");
        assert!(explain(found.code).is_some_and(|explained| explained.severity == found.severity), "{found}");
    }
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
    "kind: RequestAuthentication\n",
    "kind: PeerAuthentication\n",
    "metadata: {name: a}\n",
    "spec:\n",
    "jwtRules:\n",
    "jwks: '{\"keys\": [",
    "jwksUri: ",
    "https://",
    "timeout: ",
    "1.5s",
    "portLevelMtls:\n",
    "extensionProviders:\n",
    "envoyExtAuthzHttp:\n",
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
    let texts = [
        include_str!("../samples/shop.yaml"),
        include_str!("../samples/dry-run.yaml"),
        include_str!("../samples/tokens.yaml"),
        include_str!("../samples/custom.yaml"),
    ];
    texts.join("---\n")
}

/// Cuts pieces out of a text and puts others in.
fn damaged(text: &str, cuts: Vec<(prop::sample::Index, usize, String)>) -> String {
    let mut text: Vec<char> = text.chars().collect();
    for (at, length, insert) in cuts {
        let at = at.index(text.len().max(1)).min(text.len());
        let end = (at + length).min(text.len());
        text.splice(at..end, insert.chars());
    }
    text.into_iter().collect()
}

fn cuts() -> impl Strategy<Value = Vec<(prop::sample::Index, usize, String)>> {
    proptest::collection::vec((any::<prop::sample::Index>(), 0usize..12, piece()), 1..6)
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
    fn any_damaged_sample_is_answered(cuts in cuts()) {
        sound(&damaged(&samples(), cuts));
    }

    #[test]
    fn any_damaged_mesh_configuration_is_answered(cuts in cuts()) {
        sound(&damaged(include_str!("../samples/mesh.yaml"), cuts));
    }

    #[test]
    fn any_place_is_found(text in any::<String>(), field in "[a-z.\\[\\]\"0-9]{0,20}") {
        let places = Places::of(&SourceText::new("f", text.as_str()));
        let (line, column) = places.place(&field);
        prop_assert!(line >= 1 && column >= 1);
    }
}

#[test]
fn the_samples_are_good() {
    let loaded = sound(&samples());
    assert_eq!((loaded.resources.len(), loaded.diagnostics.len()), (10, 0), "{:?}", loaded.diagnostics);
    assert!(sound(include_str!("../samples/default-deny.yaml")).diagnostics.is_empty());
}

#[test]
fn a_finding_in_a_directive_stands_in_its_line() {
    let loaded = sound("%\u{110f0}- \u{1ee00}\u{feff}---\n");
    assert_eq!((loaded.diagnostics[0].code, loaded.diagnostics[0].line), ("PAL0001", 1));
}
