//! One caller that asks a hundred thousand times, and everybody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rcgen::KeyPair;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::caller::{Ca, Caller, csr};

const REQUESTS: usize = 100_000;
/// Tight enough that the slowest build of the server could serve more.
const ADMISSION: &str = "admission: {rate: 10, burst: 100}\n";
/// Of everybody else, who stay within it.
const ROUNDS: usize = 90;
const CONNECTIONS: usize = 2;
/// Of each connection.
const IN_FLIGHT: usize = 64;

#[derive(Default)]
struct Flood {
    asked: AtomicUsize,
    served: AtomicUsize,
    refused: AtomicUsize,
}

impl Flood {
    async fn run(self: Arc<Self>, mut caller: Caller, csr: Arc<str>) {
        while self.asked.fetch_add(1, Ordering::Relaxed) < REQUESTS {
            match caller.ask(&csr, None).await {
                Ok(_) => self.served.fetch_add(1, Ordering::Relaxed),
                Err(status) => {
                    assert!(pause(&status).is_some(), "{status:?}");
                    self.refused.fetch_add(1, Ordering::Relaxed)
                }
            };
        }
    }
}

/// When to come back, in milliseconds, as gRPC clients and ours read it.
fn pause(status: &Status) -> Option<u64> {
    let number = |name: &str| status.metadata().get(name)?.to_str().ok()?.parse::<u64>().ok();
    let pause = number("retry-after-ms").filter(|pause| Some(*pause) == number("grpc-retry-pushback-ms"))?;
    let said = status.message() == format!("rate-limited: try again in {pause} ms");
    (status.code() == Code::ResourceExhausted && said && (1..=1_000).contains(&pause)).then_some(pause)
}

/// Renews as three who are not the flood, and enrols new ones, until it is over: all of it must succeed.
async fn everybody_else(ca: &Ca, over: &AtomicBool) -> usize {
    let mut all = Vec::new();
    for account in ["web", "cart", "bank"] {
        all.push(ca.well_behaved(account).await);
    }
    let mut rounds = 0;
    while rounds < ROUNDS && !over.load(Ordering::Relaxed) {
        for one in &mut all {
            one.renew().await;
        }
        ca.enrol(&format!("new-{rounds}")).await;
        rounds += 1;
    }
    rounds
}

#[tokio::test(flavor = "multi_thread")]
async fn one_caller_asks_a_hundred_thousand_times_and_everybody_else_is_served() {
    let mut ca = Ca::start(|mesh| {
        let settings = std::fs::read_to_string(mesh.path().join("config/ca.yaml")).unwrap();
        mesh.write_config("ca.yaml", &format!("{settings}{ADMISSION}")).unwrap();
    });
    let identity = ca.enrol("flood").await;
    let (flood, csr): (_, Arc<str>) = (Arc::new(Flood::default()), csr(&KeyPair::generate().unwrap(), &[]).into());
    let mut tasks = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let caller = ca.connect(Some(&identity));
        for _ in 0..IN_FLIGHT {
            tasks.spawn(Arc::clone(&flood).run(caller.clone(), Arc::clone(&csr)));
        }
    }
    let over = AtomicBool::new(false);
    let flooding = async {
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        over.store(true, Ordering::Relaxed);
    };
    let (rounds, ()) = tokio::join!(everybody_else(&ca, &over), flooding);
    let (served, refused) = (flood.served.load(Ordering::Relaxed), flood.refused.load(Ordering::Relaxed));
    eprintln!("{served} served, {refused} sent away, {rounds} rounds of everybody else");
    assert_eq!((served + refused, rounds > 0), (REQUESTS, true));
    assert_eq!(ca.refused("rate-limited"), u64::try_from(refused).unwrap());
    let log = ca.mesh.server().unwrap().log();
    let lines = log.lines().filter(|line| line.contains("certificate refused")).count();
    assert!((1..refused / 2).contains(&lines), "{lines} lines about {refused} refusals");
    assert_eq!(ca.page("/readyz").0, 200);
    let again = ca.connect(Some(&identity)).ask(&csr, None).await;
    assert!(again.as_ref().map_or_else(|status| pause(status).is_some(), |_| true), "{again:?}");
}
