//! When there is no room: who waits, for how long, and that every loss is counted.

use std::time::{Duration, Instant};

use palisade_audit::{ForwarderConfig, NanoClock, OpenError, Query, Reason, Recorder, RecorderConfig};
use prometheus_client::registry::Registry;

use crate::support::{Enforcer, Server, anybody, decision, eventually, free_address, metric};

const RING_LOSS: &str = "palisade_audit_lost_total{stage=\"ring\"}";

/// Records while there is room, until there is none for good because the spool is full too.
async fn fill(enforcer: &Enforcer) -> u64 {
    let mut recorded = 0;
    let state = async || {
        while enforcer.recorder.has_room() {
            recorded += 1;
            enforcer.recorder.record(decision(recorded));
            tokio::task::yield_now().await;
        }
        metric(&enforcer.metrics, "palisade_audit_spool_bytes")
    };
    eventually("the spool fills", state, |bytes| *bytes > 50 * 1024).await;
    recorded
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_holds_back_then_counts_what_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let mut config = RecorderConfig::new(dir.path().join("spool"), "shop/payments");
    (config.ring, config.quota, config.pressure) = (64, 64 * 1024, Duration::from_secs(2));
    let enforcer = Enforcer::start(&config, address);
    let mut recorded = fill(&enforcer).await;
    assert_eq!(metric(&enforcer.metrics, RING_LOSS), 0, "the reserve takes what is under way");
    let begun = Instant::now();
    enforcer.recorder.room().await;
    assert!(begun.elapsed() < Duration::from_secs(10), "waiting has an end");
    for _ in 0..1000 {
        recorded += 1;
        enforcer.recorder.record(decision(recorded));
    }
    assert!(metric(&enforcer.metrics, RING_LOSS) > 400);
    let server = Server::start(&dir.path().join("audit.db"), address, anybody()).await;
    let metrics = enforcer.stop().await;
    let lost = metric(&metrics, RING_LOSS);
    let account = server.store.accounts().await.unwrap().remove(0);
    assert_eq!(metric(&metrics, "palisade_audit_events_total{outcome=\"recorded\"}"), recorded);
    assert_eq!((account.rows + account.lost, account.lost, account.high), (recorded, lost, recorded));
    assert_eq!((account.missing, account.unknown, account.closed), (0, 0, true));
    let answer = server.store.query(&Query::default()).await.unwrap();
    let counted = answer.completeness.reasons.iter().map(|reason| match reason {
        Reason::Gap { from, to, cause, .. } if cause == "overflow" => to - from + 1,
        other => panic!("{other}"),
    });
    assert_eq!(counted.sum::<u64>(), lost);
}

#[tokio::test(flavor = "multi_thread")]
async fn room_comes_back_with_the_server_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let mut config = RecorderConfig::new(dir.path().join("spool"), "shop/payments");
    (config.ring, config.quota, config.pressure) = (64, 64 * 1024, Duration::from_secs(3600));
    let enforcer = Enforcer::start(&config, address);
    let recorded = fill(&enforcer).await;
    let server = Server::start(&dir.path().join("audit.db"), address, anybody()).await;
    tokio::time::timeout(Duration::from_secs(30), enforcer.recorder.room()).await.unwrap();
    enforcer.stop().await;
    let account = server.store.accounts().await.unwrap().remove(0);
    assert_eq!((account.rows, account.lost, account.high), (recorded, 0, recorded));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_without_a_server_keeps_everything_for_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let mut config = RecorderConfig::new(dir.path().join("spool"), "shop/payments");
    (config.ring, config.quota) = (4096, 64 * 1024);
    let forwarding = ForwarderConfig { flush: Duration::from_millis(50), ..ForwarderConfig::default() };
    let enforcer = Enforcer::start_with(&config, forwarding, address);
    // More than the quota: at the stop it is no obstacle.
    (1..=1000).for_each(|number| enforcer.recorder.record(decision(number)));
    let metrics = enforcer.stop().await;
    assert_eq!(metric(&metrics, "palisade_audit_events_total{outcome=\"spooled\"}"), 1000);
    let server = Server::start(&dir.path().join("audit.db"), address, anybody()).await;
    Enforcer::start(&config, address).stop().await;
    let accounts = server.store.accounts().await.unwrap();
    assert_eq!((accounts.len(), accounts[0].rows, accounts[0].closed, accounts[0].unknown), (1, 1000, true, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_after_the_stop_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("audit.db"), free_address(), anybody()).await;
    let config = RecorderConfig::new(dir.path().join("spool"), "shop/payments");
    let enforcer = Enforcer::start(&config, server.address);
    let recorder = enforcer.recorder.clone();
    recorder.record(decision(1));
    let metrics = enforcer.stop().await;
    recorder.record(decision(2));
    assert_eq!(metric(&metrics, "palisade_audit_lost_total{stage=\"stop\"}"), 1);
    assert_eq!(metric(&metrics, "palisade_audit_events_total{outcome=\"recorded\"}"), 2);
}

#[test]
fn settings_that_cannot_work_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let good = RecorderConfig::new(dir.path(), "a/b");
    for (config, text) in [
        (RecorderConfig { ring: 7, ..good.clone() }, "ring is 7, at least 8 is needed"),
        (RecorderConfig { quota: 1000, ..good }, "quota is 1000, at least 65536 is needed"),
    ] {
        let error = Recorder::open(&config, NanoClock::system(), &mut Registry::default()).unwrap_err();
        assert!(matches!(error, OpenError::Setting { .. }));
        assert_eq!(error.to_string(), text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_deleted_under_the_spool_is_a_counted_loss_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let config = RecorderConfig::new(dir.path().join("spool"), "shop/payments");
    let enforcer = Enforcer::start(&config, address);
    let spooled = async || metric(&enforcer.metrics, "palisade_audit_events_total{outcome=\"spooled\"}");
    (1..=10).for_each(|number| enforcer.recorder.record(decision(number)));
    eventually("spooled", spooled, |count| *count == 10).await;
    std::fs::remove_dir_all(&config.dir).unwrap();
    (11..=20).for_each(|number| enforcer.recorder.record(decision(number)));
    let server = Server::start(&dir.path().join("audit.db"), address, anybody()).await;
    std::fs::create_dir(&config.dir).unwrap();
    eventually("spooled again", spooled, |count| *count == 20).await;
    let metrics = enforcer.stop().await;
    let account = server.store.accounts().await.unwrap().remove(0);
    assert_eq!((account.rows, account.lost, account.high, account.missing), (10, 10, 20, 0));
    assert_eq!(metric(&metrics, "palisade_audit_lost_total{stage=\"spool\"}"), 10);
}
