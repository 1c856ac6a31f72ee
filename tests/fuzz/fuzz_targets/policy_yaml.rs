//! Policy files as a directory or an API would hand them over.
#![no_main]

use libfuzzer_sys::fuzz_target;
use palisade_policies::{SourceText, load};

fuzz_target!(|text: &str| {
    let source = SourceText { file: "fuzz.yaml".into(), first_line: 1, text: text.into() };
    let loaded = load(&[source], "default");
    for diagnostic in &loaded.diagnostics {
        assert!(diagnostic.line >= 1, "{diagnostic}");
    }
});
