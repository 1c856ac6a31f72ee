//! PEM as it is found in files: keys and trust bundles.
//!
//! The input is read as it is, and also as changes to a small good key put under each label, which reaches the code behind the PEM.
#![no_main]

use der::pem::{LineEnding, encode_string};
use libfuzzer_sys::fuzz_target;
use palisade_identity::{PrivateKey, TrustBundle, TrustDomain};

/// A PKCS#8 P-256 key without its public half, up to the 32 bytes of the secret number.
const PKCS8_HEAD: &[u8] =
    b"\x30\x41\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\
    \x04\x27\x30\x25\x02\x01\x01\x04\x20";

const LABELS: [&str; 4] = ["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY", "CERTIFICATE"];

fn read(text: &[u8]) {
    if let Ok(key) = PrivateKey::from_pem(text) {
        let again = PrivateKey::from_pem(key.to_pem().as_bytes()).expect("our own PEM");
        assert_eq!(again.as_pkcs8_der(), key.as_pkcs8_der());
        assert!(!key.public_key_der().is_empty());
    }
    let domain = TrustDomain::parse("a.test").expect("a valid name");
    if let Ok(bundle) = TrustBundle::from_pem(domain.clone(), text) {
        assert_eq!(TrustBundle::from_pem(domain, bundle.to_pem().as_bytes()), Ok(bundle));
    }
}

fn patched(patches: &[u8]) -> Vec<u8> {
    let mut der = [PKCS8_HEAD, &[1; 32]].concat();
    for patch in patches.chunks_exact(3) {
        let at = usize::from(patch[1]) % der.len();
        match patch[0] & 3 {
            0 => der[at] = patch[2],
            1 => der.insert(at, patch[2]),
            2 if der.len() > 1 => drop(der.remove(at)),
            _ => der.push(patch[2]),
        }
    }
    der
}

fuzz_target!(|input: &[u8]| {
    read(input);
    for der in [input.to_vec(), patched(input)] {
        for label in LABELS {
            read(encode_string(label, LineEnding::LF, &der).expect("short enough").as_bytes());
        }
    }
});
