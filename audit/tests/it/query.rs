//! Questions: filters, order, limits, windows, and values that try to be SQL.

use futures_util::StreamExt;
use palisade_audit::{AdminAudit, Event, NanoClock, PartyFilter, Query, Store};
use palisade_wire::admin::audit_answer::Item;
use palisade_wire::admin::{AuditQuery, Completeness};
use palisade_wire::audit::{Kind, Party, Verdict};
use tonic::Code;

use crate::support::{gap, numbered};

async fn store(dir: &tempfile::TempDir) -> Store {
    Store::open(dir.path().join("audit.db"), NanoClock::new(|| 5)).await.unwrap()
}

fn party(principal: &str, namespace: &str, workload: &str, ip: &str) -> Option<Party> {
    let [principal, namespace, workload, ip] = [principal, namespace, workload, ip].map(str::to_owned);
    Some(Party { principal, namespace, workload, ip, ..Party::default() })
}

/// Events between all sorts of parties.
fn mixed() -> Vec<Event> {
    let parties = [
        party("cluster.local/ns/web/sa/front", "web", "front-0", "10.0.0.7"),
        party("cluster.local/ns/shop/sa/cart", "shop", "cart-0", "10.0.0.9"),
        party("cluster.local/ns/shop2/sa/cart", "shop2", "cart-0", "10.0.0.90"),
        party("", "", "", "192.0.2.1"),
        party("", "", "", "2001:db8::1"),
        party("", "shop", "", ""),
        party("", "", "100%_", ""),
        party("", "", "", ""),
        None,
    ];
    let mut events = Vec::new();
    for source in &parties {
        for destination in &parties {
            let sequence = events.len() as u64 + 1;
            events.push(Event {
                source: source.clone(),
                destination: destination.clone(),
                ..numbered("a/b", 1, sequence)
            });
        }
    }
    events
}

const NAMES: [&str; 24] = [
    "cluster.local/ns/web/sa/front",
    "spiffe://cluster.local/ns/web/sa/front",
    "cluster.local/ns/shop*",
    "cluster.local/ns/shop/*",
    "shop",
    "shop*",
    "shop/cart-0",
    "shop2/*",
    "cart-0",
    "cart",
    "cart*",
    "10.0.0.9",
    "10.0.0.*",
    "::ffff:192.0.2.1",
    "2001:0db8::0001",
    "*",
    "/",
    "/*",
    "100%_",
    "100%*",
    "%",
    "_*",
    "' OR 1=1 --",
    "x'); DROP TABLE events; --*",
];

#[tokio::test]
async fn the_store_and_a_follower_read_every_filter_alike() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    let events = mixed();
    store.insert_batch(events.clone()).await.unwrap();
    let mut matched = 0;
    for name in NAMES {
        for (from, to) in [(true, false), (false, true), (true, true)] {
            for verdict in [None, Some(Verdict::Allow), Some(Verdict::Deny)] {
                let filter = |wanted: bool| wanted.then(|| PartyFilter::parse(name).unwrap());
                let query = Query { verdict, from: filter(from), to: filter(to), ..Query::default() };
                let answer: Vec<u64> =
                    store.query(&query).await.unwrap().events.iter().map(|event| event.sequence).collect();
                let expected: Vec<u64> =
                    events.iter().filter(|event| query.follows(event)).map(|event| event.sequence).collect();
                assert_eq!(answer, expected, "{query:?}");
                matched += answer.len();
            }
        }
    }
    assert!(matched > 500, "{matched}");
    assert_eq!(store.query(&Query::default()).await.unwrap().events.len(), events.len(), "the table is still there");
}

#[tokio::test]
async fn rows_come_by_time_and_the_newest_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    let at = |sequence: u64, time_ns: u64| Event { time_ns, ..numbered("a/b", 1, sequence) };
    store.insert_batch(vec![at(1, 300), at(2, 100), at(3, 200), at(4, 200), at(5, 400)]).await.unwrap();
    let ask = async |since, until, limit| {
        let answer = store.query(&Query { since, until, limit, ..Query::default() }).await.unwrap();
        answer.events.iter().map(|event| event.sequence).collect::<Vec<_>>()
    };
    assert_eq!(ask(0, 0, 0).await, [2, 3, 4, 1, 5]);
    assert_eq!(ask(0, 0, 2).await, [1, 5], "the newest, oldest first");
    assert_eq!(ask(0, 0, 3).await, [4, 1, 5], "equal times in order of arrival");
    assert_eq!(ask(200, 400, 0).await, [3, 4, 1], "from the beginning up to before the end");
    assert_eq!(ask(401, 0, 0).await, Vec::<u64>::new());
    assert_eq!(ask(u64::MAX, 0, 0).await, Vec::<u64>::new());
}

async fn asked(admin: &AdminAudit, query: AuditQuery) -> (usize, Completeness) {
    let items: Vec<_> = admin.query(query).await.unwrap().map(|item| item.unwrap().item.unwrap()).collect().await;
    let Some((Item::Completeness(completeness), rows)) = items.split_last() else { panic!("{items:?}") };
    assert!(rows.iter().all(|item| matches!(item, Item::Event(_))));
    (rows.len(), completeness.clone())
}

#[tokio::test]
async fn an_answer_says_what_is_missing_in_its_window() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    let at = |time_ns: u64, event: Event| Event { time_ns, ..event };
    store
        .insert_batch(vec![
            at(100, numbered("a/b", 1, 1)),
            at(200, numbered("a/b", 1, 2)),
            at(300, gap("a/b", 1, 3, 12, "overflow")),
            at(400, numbered("a/b", 1, 13)),
            at(500, numbered("a/b", 1, 14)),
            at(600, gap("a/b", 1, 15, 0, "crash")),
        ])
        .await
        .unwrap();
    let admin = AdminAudit::new(store);
    let overflow = "gap: a/b lost 10 events, numbers 3 to 12 (overflow)";
    let crash = "gap: a/b may have lost events from number 15 on (crash)";
    for (since_ns, until_ns, rows, reasons) in [
        (0, 0, 6, vec![crash, overflow]),
        (0, 150, 1, vec![]),
        (0, 250, 2, vec![overflow]),
        (250, 350, 1, vec![overflow]),
        (310, 450, 1, vec![]),
        (310, 550, 2, vec![crash]),
        (601, 0, 0, vec![]),
    ] {
        let (found, completeness) = asked(&admin, AuditQuery { since_ns, until_ns, ..AuditQuery::default() }).await;
        assert_eq!(
            (found, completeness.rows, &completeness.reasons),
            (rows, rows as u64, &reasons.iter().map(ToString::to_string).collect()),
            "{since_ns}..{until_ns}"
        );
        assert_eq!(completeness.complete, reasons.is_empty());
    }
    let (_, completeness) =
        asked(&admin, AuditQuery { since_ns: 310, until_ns: 550, limit: 1, ..AuditQuery::default() }).await;
    assert_eq!(completeness.reasons[0], "limit: only the newest 1 rows are given; narrow the window or ask for more");
    let (rows, completeness) = asked(&admin, AuditQuery { verdict: "deny".into(), ..AuditQuery::default() }).await;
    assert_eq!((rows, completeness.complete), (0, false), "what was lost might have matched");
}

#[tokio::test]
async fn a_question_that_cannot_be_asked_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let admin = AdminAudit::new(store(&dir).await);
    for (query, text) in [
        (AuditQuery { verdict: "no".into(), ..AuditQuery::default() }, "`no` is no verdict; use `allow` or `deny`"),
        (
            AuditQuery { from: "a*b".into(), ..AuditQuery::default() },
            "`a*b` has a `*` before its end; only a prefix can be asked for, as in `cluster.local/ns/shop/*`",
        ),
        (
            AuditQuery { to: "a\0b".into(), ..AuditQuery::default() },
            "`a\\0b` is no name; use a principal, namespace/workload, workload, namespace or address",
        ),
        (
            AuditQuery { since_ns: 9, until_ns: 3, ..AuditQuery::default() },
            "the window ends before it begins; give an end after the beginning",
        ),
    ] {
        for status in [admin.query(query.clone()).await.err().unwrap(), admin.follow(query).await.err().unwrap()] {
            assert_eq!((status.code(), status.message()), (Code::InvalidArgument, text));
        }
    }
}

#[tokio::test]
async fn an_event_reads_back_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    let mut full = numbered("a/b", 3, 1);
    full.kind = Kind::Connection.into();
    full.shadow_allow = Some(palisade_wire::audit::Shadow {
        result: "denied".into(),
        policy: "p".into(),
        policy_file: "f".into(),
        policy_line: 3,
    });
    full.sni = "x.shop".into();
    full.source_hint = "legacy".into();
    full.audited = true;
    let bare = Event {
        epoch: 3,
        sequence: 2,
        time_ns: u64::MAX >> 1,
        kind: 1,
        verdict: 2,
        enforcer: "a/b".into(),
        ..Event::default()
    };
    let mut odd = numbered("a/b", 3, 3);
    odd.time_ns = 2_000_000_000_000_000_000;
    odd.source.as_mut().unwrap().principal = "nul \0 inside, ünïcode, '\"".into();
    let events = vec![full, odd, bare];
    store.insert_batch(events.clone()).await.unwrap();
    let stored: Vec<Event> = events.into_iter().map(|event| Event { ingested_ns: 5, ..event }).collect();
    assert_eq!(store.query(&Query::default()).await.unwrap().events, stored);
}
