//! Certificate chains as a peer would present them.
//!
//! The first byte chooses: a chain made of the input alone (each certificate after its length in two bytes), or a good chain with
//! bytes of it changed, which reaches the code behind the first check.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use palisade_identity::{CertificateDer, TrustBundle, TrustBundles, TrustDomain, UnixTime, verify_peer};
use rustls_pki_types::pem::PemObject;

static TRUST: LazyLock<TrustBundles> = LazyLock::new(|| {
    let domain = TrustDomain::parse("a.test").expect("a valid name");
    TrustBundle::from_pem(domain, include_bytes!("../fixtures/root.pem")).into_iter().collect()
});

static GOOD: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    [&include_bytes!("../fixtures/leaf.pem")[..], include_bytes!("../fixtures/intermediate.pem")]
        .map(|pem| CertificateDer::from_pem_slice(pem).expect("a certificate").to_vec())
        .to_vec()
});

/// Within the dates of the fixtures: 2050-01-01.
const NOW: u64 = 2_524_608_000;

fn verify(chain: &[Vec<u8>]) -> bool {
    let chain: Vec<_> = chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let _ = TrustBundle::new(
        TrustDomain::parse("a.test").expect("a valid name"),
        chain.iter().map(|der| der.clone().into_owned()).collect(),
    );
    verify_peer(&chain, &TRUST, UnixTime::since_unix_epoch(Duration::from_secs(NOW))).is_ok()
}

fn from_scratch(mut input: &[u8]) -> Vec<Vec<u8>> {
    let mut chain = Vec::new();
    while let [high, low, rest @ ..] = input {
        let (der, after) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])).min(rest.len()));
        chain.push(der.to_vec());
        input = after;
    }
    chain
}

fn patched(patches: &[u8]) -> Vec<Vec<u8>> {
    let mut chain = GOOD.clone();
    for patch in patches.chunks_exact(4) {
        let der = &mut chain[usize::from(patch[0] & 1)];
        let at = usize::from(u16::from_be_bytes([patch[1], patch[2]])) % der.len();
        match patch[0] >> 1 & 3 {
            0 => der[at] = patch[3],
            1 => der[at] ^= patch[3],
            2 => der.insert(at, patch[3]),
            _ if der.len() > 1 => drop(der.remove(at)),
            _ => {}
        }
    }
    chain
}

fuzz_target!(|input: &[u8]| {
    assert!(!TRUST.is_empty() && verify(&GOOD));
    match input {
        [choice, rest @ ..] if choice & 1 == 0 => {
            let chain = from_scratch(rest);
            let accepted = verify(&chain);
            assert!(!accepted || chain.first() == GOOD.first(), "a leaf that nobody signed was accepted");
            verify(&[&GOOD[..1], &chain].concat());
        }
        [_, patches @ ..] => {
            let chain = patched(patches);
            assert!(!verify(&chain) || chain[0] == GOOD[0], "a leaf that nobody signed was accepted");
        }
        [] => {}
    }
});
