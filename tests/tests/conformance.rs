//! The engine decides as a real Envoy does that istiod would have configured: random policies and requests, a fresh seed
//! each time.

use palisade_tests::conformance::dice::Dice;
use palisade_tests::conformance::run::{Options, run};
use palisade_tests::{envoy, skip};

/// What every run of the tests decides.
const CASES: usize = 20_000;

#[test]
fn envoy_decides_as_we_do() {
    let Some(binary) = envoy::binary() else {
        return skip("envoy_decides_as_we_do", "no Envoy: `cargo xtask test` installs it");
    };
    let seed = Dice::fresh_seed();
    // Seen also when the run does not end by itself.
    eprintln!("conformance seed {seed}");
    let summary = run(&binary, Options { cases: CASES, seed }, &mut |text| eprintln!("{text}")).expect("a run");
    eprintln!("{summary}");
    assert!(summary.cases >= CASES, "{summary}");
    assert_eq!(summary.disagreements, 0, "{summary}: `cargo xtask conformance --cases {CASES} --seed {seed}`");
    // A generator that no longer meets what it is for would agree about nothing.
    for outcome in
        ["Http 200 allow", "Http 403 deny", "Http 403 default", "Http 401 authn", "Http 403 custom", "Tcp 403 deny"]
    {
        assert!(summary.outcomes.get(outcome).is_some_and(|count| *count > 50), "{outcome}: {:?}", summary.outcomes);
    }
}
