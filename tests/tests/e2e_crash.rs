//! Every process is killed under load, and then everything is counted: no acknowledged audit row lost or doubled, nothing let
//! through that policy denies, and between live proxies not one failure while the server is away.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "e2e_crash/ledger.rs"]
mod ledger;
#[path = "e2e_crash/load.rs"]
mod load;
#[path = "e2e_crash/rotation.rs"]
mod rotation;

use ledger::Ledger;
use load::Load;
use palisade_identity::{PrivateKey, TrustBundle, TrustDomain};
use palisade_tests::mesh::Agent;
use palisade_tests::poll;
use palisade_tests::shop::Shop;
use palisade_wire::workload::X509svidRequest;
use palisade_wire::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;

const POLICIES: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-secrets, namespace: shop}
spec:
  selector: {matchLabels: {app: payments}}
  action: DENY
  rules:
  - to:
    - operation: {paths: [\"/denied/*\"]}
";

/// Requests that each caller must get through before and after every event.
const SHARE: usize = 100;

#[test]
fn every_process_is_killed_under_load_and_the_books_balance() {
    let mut shop = Shop::start(POLICIES).unwrap();
    let load = Load::start(shop.outbound().unwrap());
    let mut ledger = Ledger::default();
    load.pass(SHARE);

    // The server is away; both kinds of proxies are killed and come back meanwhile, from their disks.
    ledger.note(&shop);
    shop.mesh.server().unwrap().kill_9().unwrap();
    load.pass(SHARE);
    load.passing_may_fail(|| restart_web(&mut shop));
    load.pass(SHARE);
    load.passing_may_fail(|| restart_payments(&mut shop));
    load.pass(SHARE);
    shop.mesh.start_server().unwrap();
    load.pass(SHARE);
    ledger.check(&shop);

    // With the server there: what was acknowledged before each kill is still there after it.
    ledger.note(&shop);
    load.passing_may_fail(|| restart_payments(&mut shop));
    load.pass(SHARE);
    ledger.check(&shop);
    ledger.note(&shop);
    load.passing_may_fail(|| restart_web(&mut shop));
    load.pass(SHARE);
    ledger.check(&shop);
    ledger.note(&shop);
    shop.mesh.server().unwrap().kill_9().unwrap();
    shop.mesh.start_server().unwrap();
    load.pass(SHARE);
    let requests = load.stop();
    ledger.check(&shop);
    let rows = ledger::settle(&shop, &requests);
    ledger::balance(&shop, &requests, &rows);
}

fn restart_web(shop: &mut Shop) {
    shop.web.process().unwrap().kill_9().unwrap();
    shop.web.start().unwrap();
    shop.web.wait_ready().unwrap();
    shop.wait_until_passing().unwrap();
}

fn restart_payments(shop: &mut Shop) {
    shop.payments.process().unwrap().kill_9().unwrap();
    shop.payments.start().unwrap();
    shop.payments.wait_ready().unwrap();
    shop.wait_until_passing().unwrap();
}

#[test]
fn a_killed_agent_serves_the_same_identity_from_disk_without_a_server() {
    let mut shop = Shop::start("# nothing\n").unwrap();
    let mut agent = shop.mesh.start_agent("shop", "node").unwrap();
    let before = fetch(&agent);
    assert_eq!(before.0, "spiffe://cluster.local/ns/shop/sa/node");
    agent.process().unwrap().kill_9().unwrap();
    shop.mesh.server().unwrap().kill_9().unwrap();
    assert!(agent.socket.exists(), "kill -9 cannot tidy up");
    agent.start().unwrap();
    assert_eq!(fetch(&agent), before, "the same certificate, key and bundle");
    let metrics = agent.addresses["metrics"];
    poll("the agent to be ready", || match palisade_tests::http::request(metrics, "GET", "/readyz", "localhost") {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // A server that comes back renews it.
    shop.mesh.start_server().unwrap();
    agent.process().unwrap().signal(rustix::process::Signal::HUP).unwrap();
    poll("a renewed certificate", || {
        let now = fetch(&agent);
        if now.0 == before.0 && now.1 != before.1 && now.3 == before.3 { Ok(()) } else { Err("the old one") }
    });
    assert!(agent.process().unwrap().stop().unwrap().success());
    assert!(!agent.socket.exists(), "a graceful end leaves no socket");
}

/// SPIFFE ID, chain, key and bundle, as a workload gets them.
fn fetch(agent: &Agent) -> (String, Vec<u8>, Vec<u8>, Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let svid = poll("the Workload API", || {
        runtime.block_on(async {
            let channel = palisade_wire::channel::unix(&agent.socket);
            let mut request = tonic::Request::new(X509svidRequest {});
            request.metadata_mut().insert("workload.spiffe.io", "true".parse().map_err(|_| "header".to_owned())?);
            let answers = SpiffeWorkloadApiClient::new(channel).fetch_x509svid(request).await;
            let answer = answers.map_err(|status| status.to_string())?.into_inner().message().await;
            let answer = answer.map_err(|status| status.to_string())?.ok_or("the stream ended")?;
            answer.svids.into_iter().next().ok_or_else(|| "no SVID".to_owned())
        })
    });
    PrivateKey::from_pkcs8_der(svid.x509_svid_key.clone()).unwrap();
    let domain = TrustDomain::parse("cluster.local").unwrap();
    TrustBundle::new(domain, vec![svid.bundle.clone().into()]).unwrap();
    (svid.spiffe_id, svid.x509_svid, svid.x509_svid_key, svid.bundle)
}
