//! Broken inputs and the diagnostics they give, word for word. `UPDATE_GOLDEN=1` rewrites the expected texts.

#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests")]

use std::{env, fmt::Write, fs, path::Path};

use palisade_identity::TrustDomain;
use palisade_policies::{CaSettings, Diagnostic, MeshConfig, SourceText, codes, explain, foreign_registrations, load};

fn lines(out: &mut String, diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        let explanation = explain(diagnostic.code).unwrap_or_else(|| panic!("{} is not explained", diagnostic.code));
        assert_eq!(explanation.severity, diagnostic.severity, "{diagnostic}");
        writeln!(out, "{diagnostic}").unwrap();
    }
}

fn rendered(path: &Path) -> String {
    let name = path.file_name().unwrap().to_str().unwrap();
    let text = SourceText::new(name, fs::read_to_string(path).unwrap());
    let mut out = String::new();
    if name.starts_with("mesh-") {
        let (config, diagnostics) = MeshConfig::parse(&text);
        lines(&mut out, &diagnostics);
        writeln!(out, "accepted {}", config.is_some()).unwrap();
    } else if name.starts_with("ca-") {
        let (settings, diagnostics) = CaSettings::parse(&text);
        lines(&mut out, &diagnostics);
        writeln!(out, "accepted {}", settings.is_some()).unwrap();
    } else {
        let loaded = load(&[text], "default");
        lines(&mut out, &loaded.diagnostics);
        let other = TrustDomain::parse("mesh.example").unwrap();
        lines(&mut out, &foreign_registrations(&loaded.resources, &loaded.documents, &other));
        let accepted = loaded.resources.len();
        assert_eq!(accepted, loaded.documents.len());
        writeln!(out, "accepted {accepted}, refused {}, skipped {}", loaded.refused, loaded.skipped).unwrap();
    }
    out
}

#[test]
fn broken_inputs_give_the_diagnostics_written_beside_them() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut inputs: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    inputs.sort();
    assert!(inputs.len() >= 8, "{inputs:?}");
    let mut all = String::new();
    for input in inputs {
        let expected = input.with_extension("txt");
        let found = rendered(&input);
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected, &found).unwrap();
        }
        let expected = fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(found, expected, "{}: run with UPDATE_GOLDEN=1 and read the difference", input.display());
        all += &found;
    }
    // The bounds on size are tried where loading is tested, and traps (PAL07..) where they are found.
    let bounds = ["PAL0002", "PAL0003", "PAL0005", "PAL0010", "PAL0011", "PAL0012", "PAL0013", "PAL0112"];
    let elsewhere = |code: &str| bounds.contains(&code) || code.starts_with("PAL07");
    let untried = codes().filter(|entry| !elsewhere(entry.code) && !all.contains(entry.code));
    assert_eq!(untried.map(|entry| entry.code).collect::<Vec<_>>(), [""; 0]);
}
