//! The books: what the audit log acknowledged, against what callers and application saw.

use std::collections::{BTreeMap, BTreeSet};

use palisade_tests::poll;
use palisade_tests::shop::Shop;
use serde_json::Value;

use crate::load::Request;

/// Rows that were visible, and must be for ever.
#[derive(Default)]
pub(crate) struct Ledger(BTreeMap<String, Value>);

impl Ledger {
    /// Notes every row there is now: right before a kill.
    pub(crate) fn note(&mut self, shop: &Shop) {
        for row in shop.mesh.audit_all().unwrap() {
            self.0.insert(id(&row), row);
        }
        assert!(!self.0.is_empty());
        eprintln!("{} rows acknowledged", self.0.len());
    }

    /// Every noted row is there as it was, once ([`palisade_tests::mesh::Mesh::audit_all`] refuses an id that comes twice).
    pub(crate) fn check(&self, shop: &Shop) {
        let now: BTreeMap<String, Value> =
            shop.mesh.audit_all().unwrap().into_iter().map(|row| (id(&row), row)).collect();
        for (id, row) in &self.0 {
            assert_eq!(now.get(id), Some(row), "row {id} was acknowledged");
        }
    }
}

/// Waits until the last answered request of every caller is a row, and returns all rows.
pub(crate) fn settle(shop: &Shop, requests: &[Request]) -> Vec<Value> {
    let mut last = BTreeMap::new();
    for request in requests.iter().filter(|request| request.is_decided()) {
        last.insert(request.caller, request.path.as_str());
    }
    poll("the last requests to be rows", || {
        let rows = shop.mesh.audit_all().map_err(|error| format!("{error:#}"))?;
        let paths: BTreeSet<&str> = rows.iter().filter_map(|row| row["path"].as_str()).collect();
        let missing: Vec<_> = last.values().filter(|path| !paths.contains(**path)).collect();
        if missing.is_empty() { Ok(rows) } else { Err(format!("{} rows, without {missing:?}", rows.len())) }
    })
}

/// Numbers without holes, every answered request a row unless its epoch crashed, nothing passed that was denied.
pub(crate) fn balance(shop: &Shop, requests: &[Request], rows: &[Value]) {
    let epochs = epochs(rows);
    let crashed = epochs.values().filter(|epoch| epoch.crashed).count();
    // Payments and web were killed twice each. Web decides nothing, so its running epoch has no row.
    assert_eq!((epochs.len(), crashed), (5, 4), "{epochs:?}");
    counters(shop, epochs.iter().rev().find(|((enforcer, _), _)| enforcer == "shop/payments").unwrap().1);
    let gaps = rows.iter().filter(|row| row["kind"] == "audit.gap").count();
    assert_eq!(gaps, crashed, "no gap but those of the kills");
    for seen in shop.backend.seen() {
        assert!(!seen.path.starts_with("/denied/"), "{} reached the application", seen.path);
    }
    let mut verdicts = BTreeMap::<&str, Vec<&str>>::new();
    for row in rows.iter().filter(|row| row["kind"] == "authz.decision") {
        let (path, decision) = (row["path"].as_str().unwrap(), row["decision"].as_str().unwrap());
        verdicts.entry(path).or_default().push(decision);
    }
    for (path, seen) in &verdicts {
        let right = if path.starts_with("/denied/") { "deny" } else { "allow" };
        assert!(seen.iter().all(|decision| *decision == right), "{path}: {seen:?}");
    }
    let decided: Vec<&Request> = requests.iter().filter(|request| request.is_decided()).collect();
    let missing = missing(&decided, &verdicts);
    let failed = requests.len() - decided.len();
    let twice = verdicts.iter().filter(|(path, seen)| **path != "/warm" && seen.len() > 1).count();
    eprintln!(
        "{} requests: {} answered, {failed} failed while their proxy was down; {} rows in {} epochs, {gaps} gaps; \
         answered without a row (lost with the killed process): {missing}; asked again by the proxy: {twice}",
        requests.len(),
        decided.len(),
        rows.len(),
        epochs.len(),
    );
}

#[derive(Debug, Default)]
struct Epoch {
    events: u64,
    last: u64,
    crashed: bool,
}

/// Checks that the rows and counted gaps of each epoch are its numbers from 1 on, without a hole.
fn epochs(rows: &[Value]) -> BTreeMap<(String, u64), Epoch> {
    let mut numbers = BTreeMap::<(String, u64), BTreeMap<u64, &Value>>::new();
    for row in rows {
        let epoch = (row["pep"]["id"].as_str().unwrap().to_owned(), row["pep"]["epoch"].as_u64().unwrap());
        let before = numbers.entry(epoch).or_default().insert(row["pep"]["seq"].as_u64().unwrap(), row);
        assert!(before.is_none(), "two rows with one number: {row}");
    }
    let mut epochs = BTreeMap::new();
    for (name, rows) in numbers {
        let mut epoch = Epoch::default();
        for (sequence, row) in rows {
            assert!(!epoch.crashed, "{name:?}: {row} follows the end of its epoch");
            assert_eq!(sequence, epoch.last + 1, "{name:?} has a hole");
            epoch.events += 1;
            epoch.last = row["gap"]["to_seq"].as_u64().unwrap_or(sequence);
            epoch.crashed = row["gap"]["cause"] == "crash";
        }
        epochs.insert(name, epoch);
    }
    epochs
}

/// The counters of the running proxy say what its epoch's rows say, and that nothing was lost.
fn counters(shop: &Shop, epoch: &Epoch) {
    assert!(!epoch.crashed && epoch.last == epoch.events, "{epoch:?}");
    let metrics = shop.payments.address("metrics").unwrap();
    let page = palisade_tests::http::request(metrics, "GET", "/metrics", "localhost").unwrap().body;
    for outcome in ["recorded", "spooled"] {
        let line = format!("palisade_audit_events_total{{outcome=\"{outcome}\"}} {}", epoch.events);
        assert!(page.lines().any(|found| found == line), "no `{line}` in:\n{page}");
    }
    for line in page.lines().filter(|line| line.starts_with("palisade_audit_lost_total")) {
        assert!(line.ends_with(" 0"), "{line}");
    }
}

/// Counts answered requests without a row. Only a kill can lose them, and only the last ones before it: of each caller they are
/// consecutive, and no more runs of them than kills.
fn missing(decided: &[&Request], verdicts: &BTreeMap<&str, Vec<&str>>) -> usize {
    let mut count = 0;
    for caller in 0..4 {
        let kept: Vec<bool> = decided
            .iter()
            .filter(|request| request.caller == caller)
            .map(|request| verdicts.contains_key(request.path.as_str()))
            .collect();
        let runs = kept.windows(2).filter(|pair| pair[0] && !pair[1]).count();
        assert!(runs <= 2, "caller {caller} lost requests at {runs} times, payments was killed twice");
        assert_eq!((kept.first(), kept.last()), (Some(&true), Some(&true)));
        count += kept.iter().filter(|kept| !**kept).count();
    }
    count
}

fn id(row: &Value) -> String {
    row["id"].as_str().unwrap().to_owned()
}
