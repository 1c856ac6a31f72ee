//! Path normalisation against what a real Envoy 1.40 answered, and against Istio's own table.

use palisade_authz::normalize::{PathError, path, split_query, without_query};
use palisade_policies::PathNormalization::{self, Base, DecodeAndMergeSlashes, MergeSlashes, None as Off};

const MODES: [PathNormalization; 4] = [Off, Base, MergeSlashes, DecodeAndMergeSlashes];

fn normal(raw: &str, mode: PathNormalization) -> String {
    path(raw, mode).map_or_else(|_| "400".to_owned(), std::borrow::Cow::into_owned)
}

#[test]
fn row_4_14_every_recorded_answer_of_envoy_is_reproduced() {
    let golden = include_str!("golden/normalisation.tsv");
    let mut checked = 0;
    for line in golden.lines().filter(|line| !line.starts_with("# ")) {
        let columns: Vec<&str> = line.split('\t').collect();
        for (mode, expected) in MODES.into_iter().zip(&columns[1..]) {
            assert_eq!(normal(columns[0], mode), *expected, "{} with {mode:?}", columns[0]);
            checked += 1;
        }
    }
    assert!(checked > 4000, "only {checked} answers read");
}

/// The fixed pairs of Istio's integration test; `;` on dot segments as Envoy 1.40 has it.
#[test]
fn row_4_14_istios_table() {
    for (raw, none, base, merge, decode) in [
        ("/", "/", "/", "/", "/"),
        ("/app#foo", "/app", "/app", "/app", "/app"),
        ("/app/../admin", "/app/../admin", "/admin", "/admin", "/admin"),
        ("/app//", "/app//", "/app//", "/app/", "/app/"),
        ("/app/%2f", "/app/%2f", "/app/%2f", "/app/%2f", "/app/"),
        ("/app%2f/", "/app%2f/", "/app%2f/", "/app%2f/", "/app/"),
        ("/xyz%30..//abc", "/xyz%30..//abc", "/xyz0..//abc", "/xyz0../abc", "/xyz0../abc"),
        ("/app/%2E./admin", "/app/%2E./admin", "/admin", "/admin", "/admin"),
        ("/app\\admin", "/app\\admin", "/app/admin", "/app/admin", "/app/admin"),
        ("/app/\\/\\/\\admin", "/app/\\/\\/\\admin", "/app//////admin", "/app/admin", "/app/admin"),
        (
            "/%2Fapp%5cadmin%5Cabc",
            "/%2Fapp%5cadmin%5Cabc",
            "/%2Fapp%5cadmin%5Cabc",
            "/%2Fapp%5cadmin%5Cabc",
            "/app/admin/abc",
        ),
        ("/app//../admin", "/app//../admin", "/app/admin", "/app/admin", "/app/admin"),
        ("/app//../../admin", "/app//../../admin", "/admin", "/admin", "/admin"),
        ("/%c0%2e%c0%2e/admin", "/%c0%2e%c0%2e/admin", "/%c0.%c0./admin", "/%c0.%c0./admin", "/%c0.%c0./admin"),
        ("/%252e%252e/admin", "/%252e%252e/admin", "/%252e%252e/admin", "/%252e%252e/admin", "/%252e%252e/admin"),
        ("/..;/admin", "/..;/admin", "/admin", "/admin", "/admin"),
        ("/admin;a=b/xyz", "/admin;a=b/xyz", "/admin;a=b/xyz", "/admin;a=b/xyz", "/admin;a=b/xyz"),
    ] {
        for (mode, expected) in MODES.into_iter().zip([none, base, merge, decode]) {
            assert_eq!(normal(raw, mode), expected, "{raw} with {mode:?}");
        }
    }
}

#[test]
fn an_encoded_nul_is_refused_and_the_query_is_untouched() {
    assert_eq!(path("/admin%00", Base), Err(PathError::Nul));
    assert_eq!(normal("/a?x=%00/../b", Base), "/a?x=%00/../b");
    assert_eq!(normal("/a/../b?q#f", DecodeAndMergeSlashes), "/b?q");
}

/// HTTP/2 lets such bytes through; observed there.
#[test]
fn bytes_beyond_ascii_are_escaped_in_upper_case() {
    assert_eq!(normal("/é", Base), "/%C3%A9");
    assert_eq!(normal("/é", Off), "/é");
    assert_eq!(normal("/%c3%a9", Base), "/%c3%a9");
}

#[test]
fn an_escape_never_appears_by_decoding_another() {
    for raw in ["/%%300", "/%%30%30", "/%3%30", "/%%32e", "/%%34%31"] {
        let once = normal(raw, Base);
        assert_eq!(normal(&once, Base), once, "{raw}");
    }
}

#[test]
fn query_helpers() {
    assert_eq!(split_query("/a?b?c"), ("/a", "?b?c"));
    assert_eq!(split_query("/a"), ("/a", ""));
    assert_eq!(without_query("/a#f?x"), "/a");
}

proptest::proptest! {
    #[test]
    fn normal_forms_are_stable_and_never_escape_the_root(raw in "/[/.;%2eEfF5cC\\\\a-c?#0-4\"]{0,24}") {
        for mode in [Base, MergeSlashes, DecodeAndMergeSlashes] {
            let Ok(once) = path(&raw, mode) else { continue };
            proptest::prop_assert!(once.starts_with('/'));
            let (path_only, _) = split_query(&once);
            proptest::prop_assert!(!path_only.split('/').any(|segment| segment == ".." || segment == "."), "{once}");
        }
    }
}
