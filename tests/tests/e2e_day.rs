//! A day compressed: certificates that live for seconds, roots that are replaced, the server and the agents killed in turn, and a
//! server that is away for longer than half a certificate's life; under load between Envoys and between our proxies. Every
//! handshake is counted, by the callers, by Envoy and by our proxies, and not one may fail.
//!
//! Each event waits for a state that somebody reports, never for a time; but certificates do end. The one deadline is that a
//! server which was away for half a certificate's life is back, and has been asked, before the other half has passed.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "e2e_day/cast.rs"]
mod cast;
#[path = "e2e_day/count.rs"]
mod count;
#[path = "e2e_day/load.rs"]
mod load;

use std::time::{Duration, Instant};

use cast::Cast;
use palisade_tests::{envoy, skip};

/// A renewal is due at half of it, give or take a tenth.
const LEAF: Duration = Duration::from_secs(32);
/// Calls that each caller must get through between two events.
const SHARE: u64 = 20;
/// For how long the events are repeated; not set, each comes once.
const MINUTES: &str = "PALISADE_DAY_MINUTES";

#[test]
fn a_day_of_new_roots_and_crashes_costs_no_handshake() {
    let Some(binary) = envoy::binary() else {
        skip("a_day_of_new_roots_and_crashes_costs_no_handshake", "no Envoy: `cargo xtask test` installs it");
        return;
    };
    let minutes = std::env::var(MINUTES).map_or(0, |text| text.parse::<u64>().unwrap());
    let began = Instant::now();
    let mut cast = Cast::start(&binary);
    loop {
        the_server_is_killed_while_a_root_is_new(&mut cast);
        an_agent_is_killed_and_misses_a_root(&mut cast);
        the_server_is_away_for_longer_than_half_a_leaf_s_life(&mut cast);
        cast.retire_roots();
        cast.load.pass(SHARE);
        if began.elapsed() >= Duration::from_secs(60 * minutes) {
            break;
        }
    }
    cast.end(began);
}

fn the_server_is_killed_while_a_root_is_new(cast: &mut Cast) {
    cast.order_root();
    cast.shop.mesh.server().unwrap().kill_9().unwrap();
    cast.load.pass(SHARE);
    cast.shop.mesh.start_server().unwrap();
    cast.use_root();
    cast.load.pass(SHARE);
}

/// A root that is new to an agent is new to the Envoy beside it, which has to find the agent first: nobody waits for it here but
/// the agent itself.
fn an_agent_is_killed_and_misses_a_root(cast: &mut Cast) {
    cast.east.kill_agent();
    cast.load.pass(SHARE);
    cast.east.start_agent();
    cast.west.kill_agent();
    cast.order_root();
    cast.load.pass(SHARE);
    cast.west.agent.start().unwrap();
    cast.use_root();
    cast.west.wait_for_envoy();
    cast.load.pass(SHARE);
}

/// An agent that is killed meanwhile comes back with what it kept.
fn the_server_is_away_for_longer_than_half_a_leaf_s_life(cast: &mut Cast) {
    cast.renew();
    let kept = cast.east.metric("palisade_cert_not_after_seconds");
    let mut failed = cast.renewals("unavailable");
    cast.shop.mesh.server().unwrap().kill_9().unwrap();
    let away = Instant::now();
    cast.east.kill_agent();
    cast.load.pass(SHARE);
    cast.east.start_agent();
    // Its metrics began anew with it.
    failed[0] = 0;
    assert_eq!(cast.east.metric("palisade_cert_not_after_seconds"), kept, "the certificate that it had");
    cast.wait_for_renewals("unavailable", &failed);
    cast.until("half a life to pass", || {
        let past = away.elapsed();
        if past > LEAF / 2 { Ok(()) } else { Err(format!("{past:?}")) }
    });
    let renewed = cast.renewals("renewed");
    cast.shop.mesh.start_server().unwrap();
    cast.wait_for_renewals("renewed", &renewed);
    cast.load.pass(SHARE);
}
