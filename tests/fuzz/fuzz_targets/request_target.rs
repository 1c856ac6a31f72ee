//! The target of a request line: no dot segment is left, and normalising again changes nothing, so that the next hop reads what
//! was decided. Parameters after `;` are the exception that Envoy makes: it looks for them before it turns `\` into `/`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use palisade_authz::normalize;
use palisade_policies::PathNormalization::{self, Base, DecodeAndMergeSlashes, MergeSlashes, None};

const ALL: [PathNormalization; 4] = [None, Base, MergeSlashes, DecodeAndMergeSlashes];

fuzz_target!(|raw: &str| {
    // What the codecs refuse before anything is normalised.
    if !raw.starts_with('/') || raw.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return;
    }
    for mode in ALL {
        let Ok(once) = normalize::path(raw, mode) else { continue };
        let path = normalize::without_query(&once);
        assert!(!path.contains(['?', '#']), "{mode}: `{raw}` becomes `{once}`");
        let dots = |segment: &str| segment == "." || segment == "..";
        assert!(mode == None || !path.split('/').any(dots), "{mode}: `{raw}` becomes `{once}`");
        if raw.contains(';') {
            continue;
        }
        match normalize::path(&once, mode) {
            Ok(twice) => assert_eq!(once, twice, "{mode}: `{raw}`"),
            Err(_) => panic!("{mode}: `{raw}` becomes `{once}`, which is refused"),
        }
    }
});
