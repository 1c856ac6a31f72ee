//! Certificate requests as agents send them: PEM text, and DER behind a good PEM frame.
#![no_main]

use der::pem::{LineEnding, encode_string};
use libfuzzer_sys::fuzz_target;
use palisade_ca::{Csr, ExtraKeys};
use palisade_identity::SpiffeId;

fn read(pem: &str) {
    let id = SpiffeId::parse("spiffe://a.test/ns/x/sa/y").expect("a valid ID");
    if let Ok(csr) = Csr::parse(pem, ExtraKeys { ed25519: true, p521: true }) {
        // Whatever was accepted can be judged.
        let _ = csr.check_id(&id);
        assert_ne!(csr.key_sha256(), [0; 32]);
    }
}

fuzz_target!(|input: &[u8]| {
    if let Ok(text) = std::str::from_utf8(input) {
        read(text);
    }
    read(&encode_string("CERTIFICATE REQUEST", LineEnding::LF, input).expect("short enough"));
});
