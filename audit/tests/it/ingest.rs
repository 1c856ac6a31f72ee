//! The server's door: who may write what, and what is done with nonsense.

use std::sync::Arc;

use palisade_audit::{Account, Authorizer, Event, IngestService, NanoClock, Query, Store};
use palisade_wire::audit::audit_ingest_client::AuditIngestClient;
use palisade_wire::audit::{Ack, Batch, Http, Verdict};
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Status, Streaming};

use crate::support::{Server, anybody, eventually, free_address, gap, numbered};

const NOW: u64 = 1_700_000_000_000_000_000;

struct Door {
    sender: mpsc::Sender<Batch>,
    acks: Streaming<Ack>,
}

impl Door {
    async fn open(server: &Server) -> Self {
        let mut client = AuditIngestClient::connect(format!("http://{}", server.address)).await.unwrap();
        let (sender, batches) = mpsc::channel(4);
        let acks = client.push(ReceiverStream::new(batches)).await.unwrap().into_inner();
        Self { sender, acks }
    }

    async fn send(&mut self, batch: Batch) -> Result<Ack, Status> {
        self.sender.send(batch).await.unwrap();
        self.acks.message().await.map(Option::unwrap)
    }
}

fn batch(events: Vec<Event>) -> Batch {
    Batch { events, ..Batch::default() }
}

async fn rows(store: &Store) -> Vec<Event> {
    store.query(&Query::default()).await.unwrap().events
}

#[tokio::test(flavor = "multi_thread")]
async fn the_peer_decides_whose_record_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let authorize: Authorizer = Arc::new(|_, claimed| match claimed {
        "shop/payments" => Ok("proven/payments".to_owned()),
        other => Err(Status::permission_denied(format!("not yours: {other}"))),
    });
    let server = Server::start(&dir.path().join("audit.db"), free_address(), authorize).await;
    let mut door = Door::open(&server).await;
    let ack = door.send(batch(vec![numbered("shop/payments", 1, 1)])).await.unwrap();
    assert_eq!((ack.epoch, ack.sequence), (1, 1));
    // The batch's claim is what counts; an event's own is written over.
    let claim = Batch { enforcer: "shop/payments".into(), ..batch(vec![numbered("other/one", 1, 2)]) };
    door.send(claim).await.unwrap();
    let enforcers: Vec<String> = rows(&server.store).await.into_iter().map(|event| event.enforcer).collect();
    assert_eq!(enforcers, ["proven/payments", "proven/payments"]);
    for stranger in [
        batch(vec![numbered("other/one", 1, 3)]),
        Batch { enforcer: "other/one".into(), ..Batch::default() },
        Batch::default(),
    ] {
        let status = Door::open(&server).await.send(stranger).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
    }
    assert_eq!(rows(&server.store).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_authenticated_connection_nothing_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("audit.db"), NanoClock::system()).await.unwrap();
    let service = IngestService::new(store, anybody(), NanoClock::system(), &mut Registry::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder().add_service(service.into_server());
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let mut client = AuditIngestClient::connect(format!("http://{address}")).await.unwrap();
    let status = client.push(tokio_stream::once(batch(vec![numbered("a/b", 1, 1)]))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_refused_by_name_and_nothing_of_it_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("audit.db"), free_address(), anybody()).await;
    let good = numbered("a/b", 1, 1);
    for (bad, text) in [
        (batch(vec![good.clone(), numbered("a/b", 0, 2)]), "event 1: a batch is of one epoch"),
        (batch(vec![numbered("a/b", 0, 1)]), "event 0: epoch and sequence must be between 1 and 2^63"),
        (batch(vec![good.clone(), numbered("a/b", 1, 0)]), "event 1: epoch and sequence must be between 1 and 2^63"),
        (batch(vec![numbered("a/b", 1, u64::MAX)]), "event 0: epoch and sequence must be between 1 and 2^63"),
        (batch(vec![Event { kind: 0, ..good.clone() }]), "event 0: kind is not set"),
        (batch(vec![Event { verdict: 0, ..good.clone() }]), "event 0: verdict is not set"),
        (batch(vec![gap("a/b", 1, 5, 4, "x")]), "event 0: the gap does not fit its event"),
        (batch(vec![good.clone(); 4097]), "4097 events in a batch; at most 4096"),
        (Batch { closed_epoch: 2, ..batch(vec![good.clone()]) }, "the closed epoch is not the batch's"),
        (
            Batch { closed_epoch: u64::MAX, enforcer: "a/b".into(), ..Batch::default() },
            "the closed epoch is beyond 2^63",
        ),
        (Batch { enforcer: "a".repeat(513), ..Batch::default() }, "the enforcer's name is longer than 512 bytes"),
    ] {
        let status = Door::open(&server).await.send(bad).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, text));
    }
    assert_eq!(rows(&server.store).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_field_is_cut_and_an_impossible_time_is_settled() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("audit.db"), free_address(), anybody()).await;
    let mut large = numbered("a/b", 1, 1);
    large.http = Some(Http { path: "/x".repeat(1_000_000), ..Http::default() });
    let future = Event { time_ns: u64::MAX, ..numbered("a/b", 1, 2) };
    let newer = Event { kind: 77, ..numbered("a/b", 1, 3) };
    Door::open(&server).await.send(batch(vec![large, future, newer])).await.unwrap();
    let mut rows = rows(&server.store).await;
    rows.sort_by_key(|event| event.sequence);
    assert_eq!(rows[0].http.as_ref().unwrap().path.len(), 4096);
    assert_eq!(rows[0].altered, ["http.path"]);
    assert_eq!(rows[1].altered, ["time_ns"]);
    assert!(rows[1].time_ns > NOW && rows[1].time_ns <= rows[1].ingested_ns, "{rows:?}");
    assert_eq!(rows[2].kind, 77, "a kind from a newer enforcer is kept");
    let status = {
        let mut huge = numbered("a/b", 1, 4);
        huge.http = Some(Http { path: "/x".repeat(5_000_000), ..Http::default() });
        Door::open(&server).await.send(batch(vec![huge])).await.unwrap_err()
    };
    assert_eq!(status.code(), Code::OutOfRange, "a batch has a limit before it is read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_batch_is_acknowledged_and_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("audit.db"), free_address(), anybody()).await;
    let events: Vec<Event> = (1..=200).map(|sequence| numbered("a/b", 1, sequence)).collect();
    let mut door = Door::open(&server).await;
    let first = door.send(batch(events.clone())).await.unwrap();
    let forged: Vec<Event> =
        events.into_iter().map(|event| Event { verdict: Verdict::Allow.into(), status: 500, ..event }).collect();
    let again = door.send(batch(forged)).await.unwrap();
    assert_eq!((first, again), (Ack { epoch: 1, sequence: 200 }, Ack { epoch: 1, sequence: 200 }));
    let rows = rows(&server.store).await;
    assert_eq!(rows.len(), 200);
    assert!(rows.iter().all(|event| event.status == 200), "the first record stands");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_knows_who_is_away_and_what_is_on_its_way() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("audit.db"), free_address(), anybody()).await;
    let reasons = async || {
        let answer = server.store.query(&Query::default()).await.unwrap();
        answer.completeness.reasons.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let mut door = Door::open(&server).await;
    let greeting = Batch { enforcer: "a/b".into(), spooled_epoch: 1, spooled_sequence: 12, ..Batch::default() };
    door.sender.send(greeting.clone()).await.unwrap();
    let on_its_way = |count: u64| vec![format!("pending: {count} events of a/b are on their way")];
    eventually("greeted", reasons, |found| *found == on_its_way(12)).await;
    let ten = (1..=10).map(|sequence| numbered("a/b", 1, sequence)).collect();
    door.send(Batch { events: ten, ..greeting.clone() }).await.unwrap();
    assert_eq!(reasons().await, on_its_way(2));
    door.send(Batch { events: vec![numbered("a/b", 1, 11), numbered("a/b", 1, 12)], ..greeting }).await.unwrap();
    assert_eq!(reasons().await, Vec::<String>::new());
    drop(door);
    let away = "pending: a/b is not connected and may hold events after 2023-11-14T22:13:20.000Z";
    eventually("away", reasons, |found| *found == [away]).await;
    let mut door = Door::open(&server).await;
    let ack = door.send(Batch { enforcer: "a/b".into(), closed_epoch: 1, ..Batch::default() }).await.unwrap();
    assert_eq!(ack, Ack { epoch: 1, sequence: u64::MAX });
    drop(door);
    eventually("closed", reasons, Vec::is_empty).await;
    let account =
        Account { enforcer: "a/b".into(), epoch: 1, high: 12, rows: 12, lost: 0, unknown: 0, missing: 0, closed: true };
    assert_eq!(server.store.accounts().await.unwrap(), [account]);
}
