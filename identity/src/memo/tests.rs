//! The memory is bounded, keeps what is used, and knows when an answer ends.

use std::time::Duration;

use super::*;
use crate::SpiffeId;

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn chain(number: usize) -> ChainHash {
    hash(&[CertificateDer::from(number.to_be_bytes().to_vec())])
}

const ALWAYS: Window = Window {
    from: UnixTime::since_unix_epoch(Duration::ZERO),
    until: UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX)),
};

fn peer() -> VerifiedPeer {
    VerifiedPeer::for_memo_tests(SpiffeId::parse("spiffe://a.test/x").unwrap())
}

#[test]
fn an_answer_holds_within_its_window_only() {
    let memo = Memo::default();
    memo.put(chain(1), peer(), Window { from: at(10), until: at(20) });
    let known = |now| memo.get(&chain(1), at(now)).is_some();
    assert_eq!([9, 10, 20, 21, 15].map(known), [false, true, true, false, true]);
    assert!(memo.get(&chain(2), at(15)).is_none());
}

#[test]
fn certificates_are_not_run_together() {
    let certificate = |bytes: &[u8]| CertificateDer::from(bytes.to_vec());
    assert_ne!(hash(&[certificate(b"ab"), certificate(b"c")]), hash(&[certificate(b"a"), certificate(b"bc")]));
    assert_ne!(hash(&[certificate(b"")]), hash(&[]));
}

#[test]
fn what_is_used_stays_and_the_rest_is_forgotten() {
    let memo = Memo::default();
    for number in 0..10 * GENERATION {
        memo.put(chain(number), peer(), ALWAYS);
        assert!(memo.get(&chain(0), at(1)).is_some(), "asked for all the time, at {number}");
    }
    let generations = memo.0.lock().unwrap();
    assert!(generations.0.len() <= GENERATION && generations.1.len() <= GENERATION);
    drop(generations);
    assert!(memo.get(&chain(1), at(1)).is_none());
}
