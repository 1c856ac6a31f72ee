//! What is recorded arrives, once, whatever dies on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use palisade_audit::{Account, NanoClock, Query, RecorderConfig, Store};
use palisade_wire::audit::audit_ingest_server::{AuditIngest, AuditIngestServer};
use palisade_wire::audit::{Ack, Batch};
use tonic::{Request, Response, Status, Streaming};

use crate::support::{Enforcer, Server, anybody, decision, eventually, free_address, metric, serve};

async fn accounts(store: &Store) -> Vec<Account> {
    store.accounts().await.unwrap()
}

fn spool_files(config: &RecorderConfig) -> usize {
    let names = std::fs::read_dir(&config.dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".spool")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives_and_the_counters_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("audit.db"), free_address(), anybody()).await;
    let config = RecorderConfig::new(dir.path().join("spool"), "shop/payments");
    let enforcer = Enforcer::start(&config, server.address);
    for number in 1..=5000 {
        enforcer.recorder.room().await;
        enforcer.recorder.record(decision(number));
    }
    let metrics = enforcer.stop().await;
    for outcome in ["recorded", "spooled", "forwarded", "acknowledged"] {
        assert_eq!(
            metric(&metrics, &format!("palisade_audit_events_total{{outcome=\"{outcome}\"}}")),
            5000,
            "{outcome}"
        );
    }
    for stage in ["ring", "spool", "stop"] {
        assert_eq!(metric(&metrics, &format!("palisade_audit_lost_total{{stage=\"{stage}\"}}")), 0, "{stage}");
    }
    assert_eq!(metric(&metrics, "palisade_audit_spool_bytes"), 0);
    assert_eq!(metric(&server.metrics, "palisade_audit_ingested_total"), 5000);
    assert_eq!(metric(&server.metrics, "palisade_audit_duplicates_total"), 0);
    assert_eq!(spool_files(&config), 0, "all is acknowledged, the end too");
    let accounts = accounts(&server.store).await;
    assert_eq!(accounts.len(), 1);
    assert_eq!((accounts[0].high, accounts[0].rows, accounts[0].closed), (5000, 5000, true));
    let answer = server.store.query(&Query::default()).await.unwrap();
    assert_eq!((answer.events.len(), answer.completeness.reasons.as_slice()), (5000, &[][..]));
    let first = &answer.events[0];
    let expected = palisade_audit::Event {
        enforcer: "shop/payments".into(),
        epoch: accounts[0].epoch,
        sequence: 1,
        ingested_ns: first.ingested_ns,
        ..decision(1)
    };
    assert_eq!(first, &expected, "nothing of an event is changed by the way");
    assert!(first.ingested_ns > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_and_killed_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (file, address) = (dir.path().join("audit.db"), free_address());
    let config = RecorderConfig::new(dir.path().join("spool"), "shop/payments");
    let enforcer = Enforcer::start(&config, address);
    let mut number = 0;
    let mut record = |count: u64| {
        for _ in 0..count {
            number += 1;
            enforcer.recorder.record(decision(number));
        }
    };
    record(1000);
    for _ in 0..3 {
        let server = Server::start(&file, address, anybody()).await;
        record(1000);
        eventually(
            "some rows",
            async || accounts(&server.store).await,
            |found| found.iter().any(|account| account.rows > 0),
        )
        .await;
        server.kill();
        record(500);
    }
    let server = Server::start(&file, address, anybody()).await;
    let metrics = enforcer.stop().await;
    assert_eq!(metric(&metrics, "palisade_audit_events_total{outcome=\"acknowledged\"}"), number);
    let accounts = accounts(&server.store).await;
    assert_eq!(accounts.len(), 1);
    assert_eq!((accounts[0].high, accounts[0].rows, accounts[0].missing), (number, number, 0));
    assert_eq!(spool_files(&config), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_enforcer_loses_no_spooled_event_and_says_that_it_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("audit.db"), free_address(), anybody()).await;
    let config = RecorderConfig::new(dir.path().join("spool"), "shop/payments");
    let mut spooled = Vec::new();
    for _ in 0..3 {
        let enforcer = Enforcer::start(&config, server.address);
        for number in 1..=2000 {
            enforcer.recorder.record(decision(number));
        }
        let line = "palisade_audit_events_total{outcome=\"spooled\"}";
        spooled.push(eventually("spooled", async || metric(&enforcer.metrics, line), |spooled| *spooled > 0).await);
        enforcer.kill();
    }
    Enforcer::start(&config, server.address).stop().await;
    let accounts = accounts(&server.store).await;
    assert_eq!(accounts.len(), 3, "{accounts:?}");
    for (account, spooled) in accounts.iter().zip(spooled) {
        assert!(account.rows >= spooled, "{account:?} {spooled}");
        assert_eq!((account.unknown, account.closed, account.missing), (1, true, 0));
        assert_eq!(account.high, account.rows + account.unknown);
    }
    let answer = server.store.query(&Query::default()).await.unwrap();
    let reasons: Vec<String> = answer.completeness.reasons.iter().map(ToString::to_string).collect();
    assert_eq!(reasons.len(), 3);
    for reason in reasons {
        assert!(reason.starts_with("gap: shop/payments may have lost events from number "), "{reason}");
        assert!(reason.ends_with(" on (crash)"), "{reason}");
    }
}

/// Stores every batch, and drops the stream instead of acknowledging the first few.
#[derive(Clone)]
struct Forgetful {
    store: Store,
    failures: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl AuditIngest for Forgetful {
    type PushStream = futures_util::stream::BoxStream<'static, Result<Ack, Status>>;

    async fn push(&self, request: Request<Streaming<Batch>>) -> Result<Response<Self::PushStream>, Status> {
        let server = self.clone();
        let acks = request.into_inner().filter_map(move |batch| {
            let server = server.clone();
            async move {
                let batch = match batch {
                    Ok(batch) if batch.events.is_empty() && batch.closed_epoch == 0 => return None,
                    Ok(batch) => batch,
                    Err(status) => return Some(Err(status)),
                };
                let last = batch.events.last().map_or(0, |event| event.sequence);
                let epoch = batch.events.first().map_or(batch.closed_epoch, |event| event.epoch);
                server.store.insert_batch(batch.events).await.unwrap();
                let forget =
                    server.failures.try_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok();
                let sequence = if batch.closed_epoch == 0 { last } else { u64::MAX };
                Some(if forget { Err(Status::unavailable("lost")) } else { Ok(Ack { epoch, sequence }) })
            }
        });
        Ok(Response::new(acks.boxed()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_acknowledgement_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("audit.db"), NanoClock::system()).await.unwrap();
    let forgetful = Forgetful { store: store.clone(), failures: Arc::new(AtomicUsize::new(5)) };
    let address = serve(AuditIngestServer::new(forgetful.clone()), free_address()).await;
    let config = RecorderConfig::new(dir.path().join("spool"), "shop/payments");
    let enforcer = Enforcer::start(&config, address);
    (1..=3000).for_each(|number| enforcer.recorder.record(decision(number)));
    let metrics = enforcer.stop().await;
    assert_eq!(forgetful.failures.load(Ordering::Acquire), 0, "acknowledgements were lost");
    assert!(metric(&metrics, "palisade_audit_events_total{outcome=\"forwarded\"}") > 3000, "some were sent again");
    assert_eq!(metric(&metrics, "palisade_audit_events_total{outcome=\"acknowledged\"}"), 3000);
    let accounts = accounts(&store).await;
    assert_eq!((accounts[0].high, accounts[0].rows, accounts[0].missing), (3000, 3000, 0));
    assert_eq!(spool_files(&config), 0);
}

/// Acknowledges what was never sent.
struct Liar;

#[tonic::async_trait]
impl AuditIngest for Liar {
    type PushStream = futures_util::stream::BoxStream<'static, Result<Ack, Status>>;

    async fn push(&self, request: Request<Streaming<Batch>>) -> Result<Response<Self::PushStream>, Status> {
        let acks = request.into_inner().map(|batch| batch.map(|_| Ack { epoch: u64::MAX, sequence: u64::MAX }));
        Ok(Response::new(acks.boxed()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_of_what_was_not_sent_deletes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let config = RecorderConfig::new(dir.path().join("spool"), "shop/payments");
    let liar = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    liar.spawn(serve(AuditIngestServer::new(Liar), address)).await.unwrap();
    let enforcer = Enforcer::start(&config, address);
    (1..=100).for_each(|number| enforcer.recorder.record(decision(number)));
    let line = "palisade_audit_events_total{outcome=\"forwarded\"}";
    eventually("sent to the liar", async || metric(&enforcer.metrics, line), |sent| *sent >= 100).await;
    liar.shutdown_background();
    let server = Server::start(&dir.path().join("audit.db"), address, anybody()).await;
    enforcer.stop().await;
    assert_eq!(accounts(&server.store).await[0].rows, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_enforcers_share_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("audit.db"), free_address(), anybody()).await;
    let enforcers: Vec<Enforcer> = (0..4)
        .map(|index| {
            let config = RecorderConfig::new(dir.path().join(format!("spool-{index}")), format!("shop/w{index}"));
            Enforcer::start(&config, server.address)
        })
        .collect();
    for number in 1..=500 {
        enforcers.iter().for_each(|enforcer| enforcer.recorder.record(decision(number)));
    }
    for enforcer in enforcers {
        enforcer.stop().await;
    }
    let accounts = accounts(&server.store).await;
    let counts: Vec<_> =
        accounts.iter().map(|account| (account.enforcer.as_str(), account.rows, account.high)).collect();
    assert_eq!(counts, [("shop/w0", 500, 500), ("shop/w1", 500, 500), ("shop/w2", 500, 500), ("shop/w3", 500, 500)]);
}
