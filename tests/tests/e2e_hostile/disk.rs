//! A disk that takes nothing more. The limit on the size of files stands in for it: every write fails, that of the log too, from one
//! moment to the next and back, without any right that a test might not have.

use palisade_tests::mesh::Agent;
use palisade_tests::{Palisade, http, poll};
use rcgen::KeyPair;
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use tonic::{Code, Status};

use crate::caller::{Ca, csr};

/// A shell that has the process ignore the signal that comes with the limit, as on a full disk there is none.
fn command() -> Vec<String> {
    ["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""].map(str::to_owned).into()
}

fn limit(server: &Palisade, bytes: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(server.pid()).unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

/// What an application gets from the agent.
fn fetched(ca: &Ca, agent: &Agent) -> String {
    let socket = agent.socket.display().to_string();
    let output = ca.mesh.palisade(&["identity", "fetch", "--socket", &socket]).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn wait_for_readiness(ca: &Ca, expected: (u16, &str)) {
    poll(&format!("readiness to be {expected:?}"), || match ca.page("/readyz") {
        (status, text) if (status, text.as_str()) == expected => Ok(()),
        other => Err(other),
    });
}

fn agent_refusals(agent: &Agent) -> String {
    let page = http::request(agent.addresses["metrics"], "GET", "/metrics", "localhost").unwrap().body;
    page.lines().filter(|line| line.contains("renew") && line.contains("unavailable")).collect()
}

fn said(refused: Result<impl std::fmt::Debug, Status>) {
    let status = refused.unwrap_err();
    let expected = (Code::Unavailable, "issuance cannot be recorded now, try again");
    assert_eq!((status.code(), status.message()), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_recorded_is_not_issued_and_what_was_issued_stays_in_use() {
    let mut ca = Ca::start(|mesh| mesh.start_by = command());
    let mut agent = ca.mesh.start_agent("shop", "node").unwrap();
    poll("the agent's identity", || std::fs::metadata(agent.directory.join("identity.json")));
    let web = ca.enrol("web").await;
    let (mut caller, mut stranger, request) =
        (ca.connect(Some(&web)), ca.connect(None), csr(&KeyPair::generate().unwrap(), &[]));
    let token = ca.token(&Ca::claims("cart", 0));
    let (held, before) = (fetched(&ca, &agent), rows(&ca));

    limit(ca.mesh.server().unwrap(), Some(0));
    said(caller.ask(&request, None).await);
    said(stranger.ask(&request, Some(&token)).await);
    let token_for = ["ca", "join-token", "--spiffe-id", "spiffe://cluster.local/ns/shop/sa/late"];
    let (code, text) = ended(&ca.mesh.palisade(&token_for).unwrap());
    assert!(code == Some(1) && text.contains("its disk not full"), "{code:?}: {text}");
    wait_for_readiness(&ca, (503, "not ready: certificate authority\n"));
    assert_eq!(ca.page("/livez").0, 200);
    assert!(ca.refused("store-unavailable") >= 2 && ca.count("palisade_ca_store_failures_total") >= 3);
    agent.process().unwrap().signal(Signal::HUP).unwrap();
    poll("the agent to have asked in vain", || Some(agent_refusals(&agent)).filter(|text| !text.is_empty()).ok_or(()));
    assert_eq!(fetched(&ca, &agent), held, "the last good identity stays");
    assert_eq!(ca.bundle().authorities().len(), 1, "and so does what needs no record");

    limit(ca.mesh.server().unwrap(), None);
    wait_for_readiness(&ca, (200, "ok\n"));
    caller.ask(&request, None).await.unwrap();
    stranger.ask(&request, Some(&token)).await.unwrap();
    poll("the agent's new identity", || Some(()).filter(|()| fetched(&ca, &agent) != held).ok_or(held.clone()));
    assert!(rows(&ca) >= before + 3, "what was answered is recorded");
}

fn ended(output: &std::process::Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn rows(ca: &Ca) -> usize {
    let output = ca.mesh.palisade(&["ca", "issued", "-o", "json"]).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    document["issued"].as_array().unwrap().len()
}
