//! A root is replaced on a working day: published, acknowledged, used, retired, and nobody notices.

use std::sync::Arc;
use std::time::Duration;

use palisade_ca::{CaConfig, RotateError, State};
use palisade_identity::{Clock as _, UnixTime};
use rcgen::KeyPair;

use crate::harness::{Server, TestClock, WEB, csr, domain, explain, identity, open, open_with, until, web};

pub(crate) async fn states(server: &Server) -> Vec<State> {
    server.authority.status().await.unwrap().authorities.iter().map(|authority| authority.state).collect()
}

/// Trap 13: order is publish, acknowledge, activate, wait, retire. Trap 14: the key is another one. Trap 18: every answer
/// carries the whole bundle. Trap 28: nothing is reissued for a new root.
#[tokio::test]
async fn trap_13_14_18_28_a_root_is_replaced_step_by_step() {
    let server = Server::start_with(|config| config.leaf_ttl = Duration::from_secs(3_600)).await;
    let old = server.enrol(&web()).await;
    let mut follower = server.follow(&old).await;
    follower.acknowledge(&server.authority).await;
    let before = follower.last.bundle.as_ref().unwrap().sequence;
    server.authority.prepare(false, None).await.unwrap();
    assert_eq!(follower.next().await.unwrap().bundle.as_ref().unwrap().x509_authorities.len(), 2);
    assert!(follower.last.bundle.as_ref().unwrap().sequence > before);

    let status = server.authority.status().await.unwrap();
    assert_eq!(
        (status.authorities[1].state, &status.authorities[1].unacknowledged),
        (State::Prepared, &vec![WEB.to_owned()])
    );
    assert_ne!(status.authorities[0].id, status.authorities[1].id, "each is named by its key");
    assert!(status.authorities[1].next.what.contains("1 more agents"), "{:?}", status.authorities[1].next);
    let refused = server.authority.activate(None).await.unwrap_err();
    assert!(matches!(&refused, RotateError::NotAcknowledged(ids) if *ids == [WEB]), "{refused}");
    follower.acknowledge(&server.authority).await;
    server.authority.maintain().await;
    assert_eq!(states(&server).await, [State::Active, State::Prepared], "the operator says when");
    server.authority.activate(None).await.unwrap();
    assert_eq!(states(&server).await, [State::Old, State::Active]);

    let key = KeyPair::generate().unwrap();
    let answer = server.connect(Some(&old)).ask(&csr(&key, &[WEB]), 60, None).await.unwrap();
    let new = identity(&answer, &key);
    assert_eq!(new.bundles.get("cluster.local").unwrap().authorities().len(), 2);
    assert_ne!(new.svid.chain()[1], old.svid.chain()[1]);
    old.svid.usable(&new.bundles, UnixTime::now()).unwrap();
    let early = old.svid.usable(&old.bundles, UnixTime::now());
    early.expect("what was issued before is good where it was good");
    new.svid
        .usable(&old.bundles, UnixTime::now())
        .expect_err("who missed it would refuse it: hence the acknowledgements");

    let id = server.authority.status().await.unwrap().authorities[0].id.clone();
    assert!(matches!(server.authority.retire(Some(&id)).await, Err(RotateError::InUse { .. })));
    server.clock.advance(Duration::from_secs(3_700));
    server.authority.maintain().await;
    assert_eq!(states(&server).await, [State::Active]);
    assert_eq!(server.authority.bundle().authorities().len(), 1);
    server.stop().await;
}

/// Trap 22: an answer is no proof of use. The hash of what is installed is.
#[tokio::test]
async fn trap_22_an_acknowledgement_of_other_content_is_none() {
    let server = Server::start().await;
    let mine = server.enrol(&web()).await;
    let mut follower = server.follow(&mine).await;
    server.authority.prepare(true, None).await.unwrap();
    // It answers, and has the bundle of before.
    follower.acknowledge(&server.authority).await;
    server.authority.maintain().await;
    assert_eq!(states(&server).await, [State::Active, State::Prepared]);
    assert!(matches!(server.authority.activate(None).await, Err(RotateError::NotAcknowledged(_))));
    follower.next().await.unwrap();
    follower.acknowledge(&server.authority).await;
    server.authority.activate(None).await.unwrap();
    server.stop().await;
}

/// By the clock and the acknowledgements alone; and whoever does not follow has had to come back before.
#[tokio::test]
async fn a_rotation_goes_on_by_itself() {
    let server = Server::start_with(|config| {
        config.root_ttl = Duration::from_secs(1_000);
        config.rotate_every = Some(Duration::from_secs(400));
        config.leaf_ttl = Duration::from_secs(100);
    })
    .await;
    let mine = server.enrol(&web()).await;
    let stranger = palisade_identity::SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/stranger").unwrap();
    server.clock.advance(Duration::from_secs(350));
    server.authority.maintain().await;
    assert_eq!(states(&server).await, [State::Active]);
    let _stranger = server.enrol(&stranger).await;
    let mine = {
        drop(mine);
        server.enrol(&web()).await
    };
    let mut follower = server.follow(&mine).await;
    server.clock.advance(Duration::from_secs(51));
    server.authority.maintain().await;
    assert_eq!(states(&server).await, [State::Active, State::Prepared]);
    follower.next().await.unwrap();
    follower.acknowledge(&server.authority).await;
    server.authority.maintain().await;
    let next = server.authority.status().await.unwrap().authorities[1].next.clone();
    assert!(next.what.contains("do not follow"), "{next:?}: the stranger's certificate is older than the root");
    server.clock.advance(Duration::from_secs(100));
    server.authority.maintain().await;
    assert_eq!(states(&server).await, [State::Old, State::Active]);
    server.clock.advance(Duration::from_secs(113));
    server.authority.maintain().await;
    assert_eq!(states(&server).await, [State::Active]);
    server.stop().await;
}

/// Agents of one ID, as the pods of a deployment are: the one that follows does not speak for the one that is away.
#[tokio::test]
async fn a_root_waits_for_the_other_agent_of_the_same_id() {
    let server = Server::start().await;
    let (here, away) = (server.enrol(&web()).await, server.enrol(&web()).await);
    let mut follower = server.follow(&here).await;
    let leaving = server.follow(&away).await;
    drop(leaving);
    until(async || server.authority.status().await.unwrap().followers.len() == 1).await;
    server.authority.prepare(true, None).await.unwrap();
    follower.next().await.unwrap();
    follower.acknowledge(&server.authority).await;
    server.authority.maintain().await;
    assert_eq!(states(&server).await, [State::Active, State::Prepared], "one has never heard of the new root");
    let next = server.authority.status().await.unwrap().authorities[1].next.clone();
    assert!(next.what.contains("do not follow"), "{next:?}");
    let back = server.follow(&away).await;
    server.authority.maintain().await;
    assert_eq!(states(&server).await, [State::Active, State::Prepared], "it has not acknowledged");
    back.acknowledge(&server.authority).await;
    until(async || {
        server.authority.maintain().await;
        states(&server).await == [State::Old, State::Active]
    })
    .await;
    server.stop().await;
}

/// An agent that hangs cannot hold a rotation up past the operator's deadline.
#[tokio::test]
async fn a_deadline_passes_over_those_who_do_not_answer() {
    let server = Server::start().await;
    let mine = server.enrol(&web()).await;
    let _silent = server.follow(&mine).await;
    server.authority.prepare(true, Some(Duration::from_secs(600))).await.unwrap();
    server.clock.advance(Duration::from_secs(500));
    server.authority.maintain().await;
    assert_eq!(states(&server).await, [State::Active, State::Prepared]);
    server.clock.advance(Duration::from_secs(100));
    server.authority.maintain().await;
    assert_eq!(states(&server).await, [State::Old, State::Active]);
    // Told to at once.
    server.authority.prepare(false, None).await.unwrap();
    assert!(server.authority.activate(None).await.is_err());
    server.authority.activate(Some(Duration::ZERO)).await.unwrap();
    server.stop().await;
}

/// An agent that was away during the whole rotation still recognises the server, and so does the holder of an old token.
#[tokio::test]
async fn the_old_root_recognises_the_server_while_it_is_in_the_bundle() {
    let server = Server::start().await;
    let (before, token) = (server.authority.bundle(), server.token(&web()).await);
    for _ in 0..2 {
        server.authority.prepare(false, None).await.unwrap();
        server.authority.activate(None).await.unwrap();
    }
    let newest = server.token(&web()).await;
    for token in [&token, &newest] {
        let key = KeyPair::generate().unwrap();
        let answer = server.pinned(token).ask(&csr(&key, &[WEB]), 0, Some(token)).await.unwrap();
        let mine = identity(&answer, &key);
        mine.svid.usable(&mine.bundles, UnixTime::now()).unwrap();
        assert_eq!(mine.bundles.get("cluster.local").unwrap().authorities().len(), 3);
    }
    let own = server.authority.server_identity();
    own.svid.usable(&own.bundles, UnixTime::now()).unwrap();
    let away = palisade_identity::TrustBundles::from_iter([(*before).clone()]);
    own.svid.usable(&away, UnixTime::now()).unwrap();
    let unused = server.token(&web()).await;
    server.clock.advance(Duration::from_secs(2 * 86_400));
    server.authority.maintain().await;
    assert_eq!(server.authority.bundle().authorities().len(), 1);
    let key = KeyPair::generate().unwrap();
    let gone = server.pinned(&token).ask(&csr(&key, &[WEB]), 0, Some(&token)).await.unwrap_err();
    assert_eq!(gone.code(), tonic::Code::Unavailable, "its root is in nobody's bundle any more");
    let expired = server.pinned(&unused).ask(&csr(&key, &[WEB]), 0, Some(&unused)).await.unwrap_err();
    assert_eq!(expired.code(), tonic::Code::Unauthenticated, "the server is recognised, the token is too old");
    server.stop().await;
}

#[tokio::test]
async fn only_an_old_authority_is_tainted_and_then_it_may_go_at_once() {
    let server = Server::start().await;
    let mine = server.enrol(&web()).await;
    let mut follower = server.follow(&mine).await;
    let id = server.authority.status().await.unwrap().authorities[0].id.clone();
    assert!(matches!(server.authority.taint(&id).await, Err(RotateError::NotOld(_))));
    assert!(matches!(server.authority.taint("00").await, Err(RotateError::Unknown(_))));
    server.authority.prepare(false, Some(Duration::ZERO)).await.unwrap();
    follower.next().await.unwrap();
    server.authority.activate(None).await.unwrap();
    server.authority.taint(&id).await.unwrap();
    follower.next().await.unwrap();
    assert!(follower.last.tainted_authorities.contains(&id), "{:?}", follower.last.tainted_authorities);
    server.authority.retire(None).await.unwrap();
    follower.next().await.unwrap();
    assert!(follower.last.tainted_authorities.is_empty());
    assert_eq!(follower.bundle().authorities().len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_tainted_authority_goes_although_another_is_still_in_use() {
    let server = Server::start().await;
    for _ in 0..2 {
        server.enrol(&web()).await;
        server.authority.prepare(false, Some(Duration::ZERO)).await.unwrap();
        server.authority.activate(None).await.unwrap();
    }
    assert_eq!(states(&server).await, [State::Old, State::Old, State::Active]);
    let second = server.authority.status().await.unwrap().authorities[1].id.clone();
    server.authority.taint(&second).await.unwrap();
    server.authority.retire(None).await.unwrap();
    assert_eq!(states(&server).await, [State::Old, State::Active]);
    assert!(matches!(server.authority.retire(None).await, Err(RotateError::InUse { .. })), "the first has a leaf");
    server.stop().await;
}

/// The process knows nobody at first: that is no reason to sign with a root that agents on their way back do not know.
#[tokio::test]
async fn told_to_activate_right_after_a_start_it_waits_for_those_who_come_back() {
    let server = Server::start().await;
    let mine = server.enrol(&web()).await;
    server.authority.prepare(false, None).await.unwrap();
    let follower = server.follow(&mine).await;
    follower.acknowledge(&server.authority).await;
    let restarted = || open(server.dir.path(), &server.clock);
    let first = restarted().await.unwrap();
    let refused = first.activate(None).await.unwrap_err();
    assert!(matches!(refused, RotateError::ComingBack(1..=60)), "{refused}");
    assert!(refused.to_string().contains("--activate-after 0s"), "{refused}");
    // Whom it has seen itself it need not wait for.
    server.authority.activate(None).await.unwrap();
    first.activate(Some(Duration::ZERO)).await.expect("the operator's way out");
    server.stop().await;
}

#[tokio::test]
async fn a_minute_after_a_start_the_operators_word_counts() {
    let server = Server::start().await;
    server.enrol(&web()).await;
    server.authority.prepare(false, None).await.unwrap();
    let again = open(server.dir.path(), &server.clock).await.unwrap();
    server.clock.advance(Duration::from_secs(60));
    again.activate(None).await.unwrap();
    server.stop().await;
}

/// Each state of a rotation is there after a restart, as after kill -9: nothing is closed or flushed.
#[tokio::test]
async fn every_state_survives_a_restart() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(TestClock::default()));
    let mut running = vec![open(dir.path(), &clock).await.unwrap()];
    let seen = |status: palisade_ca::Status| {
        let all = status.authorities.into_iter().map(|one| (one.id, one.state, one.tainted));
        (status.sequence, status.bundle_digest, all.collect::<Vec<_>>())
    };
    for step in 0..4 {
        let authority = running.last().unwrap();
        match step {
            0 => authority.prepare(false, None).await.unwrap(),
            1 => authority.activate(None).await.unwrap(),
            2 => authority.taint(&authority.status().await.unwrap().authorities[0].id).await.unwrap(),
            _ => authority.retire(None).await.unwrap(),
        }
        let before = seen(authority.status().await.unwrap());
        let again = open(dir.path(), &clock).await.unwrap_or_else(|error| panic!("{step}: {}", explain(&error)));
        assert_eq!(seen(again.status().await.unwrap()), before, "step {step}");
        again.server_identity().svid.usable(&again.server_identity().bundles, clock.now()).unwrap();
        running.push(again);
    }
    let keys = std::fs::read_dir(dir.path())
        .unwrap()
        .filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().starts_with("key-"));
    assert_eq!(keys.count(), 2, "the keys of what is retired are gone");
}

/// Roots of ten minutes, replaced every three: no leaf is ever refused by a follower's bundle.
#[tokio::test]
async fn brief_roots_follow_each_other() {
    let server = Server::start_with(|config| {
        config.root_ttl = Duration::from_secs(600);
        config.rotate_every = Some(Duration::from_secs(200));
        config.leaf_ttl = Duration::from_secs(100);
        config.max_ttl = Duration::from_secs(100);
    })
    .await;
    let mut mine = server.enrol(&web()).await;
    let (mut roots, mut previous) = (std::collections::BTreeSet::new(), mine.clone());
    for _ in 0..60 {
        let mut follower = server.follow(&mine).await;
        follower.acknowledge(&server.authority).await;
        server.clock.advance(Duration::from_secs(30));
        server.authority.maintain().await;
        if server.authority.bundle().digest() != follower.bundle().digest() {
            follower.next().await.unwrap();
            follower.acknowledge(&server.authority).await;
            server.authority.maintain().await;
        }
        let key = KeyPair::generate().unwrap();
        let answer = server.connect(Some(&mine)).ask(&csr(&key, &[WEB]), 0, None).await.unwrap();
        mine = identity(&answer, &key);
        // A peer that has what it acknowledged, and one that has what it renewed with.
        let acknowledged = palisade_identity::TrustBundles::from_iter([follower.bundle()]);
        mine.svid.usable(&acknowledged, server.clock.now()).unwrap();
        previous.svid.usable(&acknowledged, server.clock.now()).unwrap();
        previous.svid.usable(&mine.bundles, server.clock.now()).unwrap();
        previous = mine.clone();
        roots.insert(server.authority.status().await.unwrap().authorities.last().unwrap().id.clone());
    }
    assert!(roots.len() >= 6, "{} roots in half an hour", roots.len());
    assert!(server.authority.bundle().authorities().len() <= 3);
    server.stop().await;
}

#[tokio::test]
async fn the_running_authority_does_all_of_it() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(TestClock::default()));
    let config = CaConfig {
        root_ttl: Duration::from_secs(3_600),
        rotate_every: Some(Duration::from_secs(1)),
        ..CaConfig::new(dir.path(), domain())
    };
    let authority = open_with(config, &clock).await.unwrap();
    let first = authority.status().await.unwrap().authorities[0].id.clone();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(Arc::clone(&authority).run(shutdown.clone()));
    until(async || {
        let status = authority.status().await.unwrap();
        status.authorities.iter().any(|one| one.state == State::Active && one.id != first)
    })
    .await;
    shutdown.cancel();
    running.await.unwrap();
}

/// Whom the server trusts does not wait for its records: a disk that takes none stops issuance, and no rotation.
#[tokio::test]
async fn a_store_that_is_down_holds_no_root_back() {
    let server = Server::start().await;
    let mine = server.enrol(&web()).await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(server.dir.path().join("ca.db"));
    let database = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::raw_sql("ALTER TABLE issuance RENAME TO away").execute(&database).await.unwrap();
    server.authority.prepare(false, None).await.unwrap();
    let serving = server.authority.server_identity();
    assert_eq!(serving.bundles.get("cluster.local"), Some(&*server.authority.bundle()));
    serving.svid.usable(&mine.bundles, server.clock.now()).unwrap();
    server.authority.maintain().await;
    assert!(!*server.authority.ready().borrow());
    sqlx::raw_sql("ALTER TABLE away RENAME TO issuance").execute(&database).await.unwrap();
    server.authority.maintain().await;
    assert!(*server.authority.ready().borrow());
    server.stop().await;
}

/// Trap 50: a process that is up and could not be used.
#[tokio::test]
async fn trap_50_readiness_ends_with_the_last_valid_signer() {
    let server = Server::start_with(|config| config.root_ttl = Duration::from_secs(3_600)).await;
    server.authority.maintain().await;
    assert!(*server.authority.ready().borrow());
    // Nobody maintains it: the clock jumps past everything.
    server.clock.advance(Duration::from_secs(4_000));
    server.authority.maintain().await;
    assert!(!*server.authority.ready().borrow(), "the root has ended");
    server.authority.maintain().await;
    assert!(*server.authority.ready().borrow(), "its successor signs: there is nobody left to wait for");
    server.stop().await;
}
