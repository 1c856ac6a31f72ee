//! Istio's own fixtures of valid and invalid resources, where a checkout is at hand (`ISTIO_SRC`): what its API server
//! would accept is accepted, what it would refuse is refused.

#![expect(clippy::panic, reason = "tests")]

use std::{env, fs, path::PathBuf};

use palisade_policies::{Loaded, SourceText, load};
use palisade_tests::skip;

const TEST: &str = "istio_validation::resources_are_accepted_and_refused_as_istio_does";
const FIXTURES: &str = "pkg/config/validation/testdata/crds";

/// The documents of a fixture that hold something, each with the error that Istio gives (`_err`), which is no field of the resource.
fn documents(text: &str) -> Vec<(Option<String>, String)> {
    let mut documents = Vec::new();
    for document in text.split("\n---") {
        let error = document.lines().find_map(|line| line.strip_prefix("_err:")).map(str::trim);
        let lines: Vec<&str> = document.lines().filter(|line| !line.starts_with("_err:")).collect();
        if lines.iter().any(|line| line.starts_with("kind:")) {
            documents.push((error.map(str::to_owned), lines.join("\n") + "\n"));
        }
    }
    documents
}

fn loaded(text: &str) -> Loaded {
    load(&[SourceText::new("fixture.yaml", text)], "default")
}

/// Checks one file; returns how many documents it has.
fn check(directory: &std::path::Path, name: &str) -> usize {
    let text = fs::read_to_string(directory.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let documents = documents(&text);
    for (error, document) in &documents {
        let loaded = loaded(document);
        match error {
            Some(error) => assert_eq!((loaded.refused, loaded.resources.len()), (1, 0), "{name}, {error}:\n{document}"),
            None => {
                assert_eq!((loaded.refused, loaded.resources.len()), (0, 1), "{:?}\n{document}", loaded.diagnostics);
            }
        }
    }
    documents.len()
}

#[test]
fn resources_are_accepted_and_refused_as_istio_does() {
    let Some(checkout) = env::var_os("ISTIO_SRC") else {
        return skip(TEST, "ISTIO_SRC is not set: no checkout of istio/istio to compare with");
    };
    let directory = PathBuf::from(checkout).join(FIXTURES);
    let mut counts = Vec::new();
    for kind in ["authz", "peerauth", "reqauth"] {
        for wanted in ["valid", "invalid"] {
            counts.push(check(&directory, &format!("{kind}-{wanted}.yaml")));
        }
    }
    assert!(counts.iter().sum::<usize>() >= 32, "{counts:?}");
}

/// The reading of the fixtures itself: a checkout may be missing, a fault in it may not.
#[test]
fn expected_errors_are_cut_out_of_fixtures() {
    let kind = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p}\n";
    let text = format!("_err: some reason\n{kind}spec: {{mtls: {{mode: X}}}}\n---\n{kind}");
    let documents = documents(&text);
    let [(Some(error), bad), (None, good)] = &documents[..] else { panic!("{documents:?}") };
    assert_eq!(error, "some reason");
    assert_eq!((loaded(bad).refused, loaded(good).resources.len()), (1, 1));
    assert_eq!(loaded(bad).diagnostics[0].code, "PAL0106");
}
