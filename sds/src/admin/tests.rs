use super::*;
use crate::fixtures::{self, Authority, TestClock, TestSource, entry, register};
use crate::roster::Roster;

struct Quiet;

impl Agent for Quiet {
    fn last_error(&self) -> Option<String> {
        None
    }

    fn following(&self) -> bool {
        true
    }
}

fn service() -> (NodeService<Quiet>, Arc<Roster>, Authority) {
    let authority = Authority::new("a");
    let source = TestSource::new(Some(authority.identity("spiffe://a.test/agent")));
    let (feed, roster) = fixtures::feed(&source, &TestClock::new());
    (NodeService { agent: Quiet, feed, attestor: Attestor::new() }, roster, authority)
}

async fn why(service: &NodeService<Quiet>, pid: i32) -> WhyResponse {
    service.why(Request::new(WhyRequest { pid })).await.unwrap().into_inner()
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap()
}

fn own_user() -> String {
    format!("unix:uid:{}", rustix::process::geteuid().as_raw())
}

#[tokio::test]
async fn a_process_without_an_identity_is_told_the_nearest_entries_and_what_they_want() {
    let (service, roster, authority) = service();
    let user = own_user();
    register(
        &roster,
        &authority,
        vec![
            entry("far", &[&user, "unix:path:/a", "x:y"]),
            entry("near", &[&user, "unix:path:/opt/app"]),
            entry("stranger", &["unix:uid:none"]),
        ],
    );
    let answer = why(&service, own_pid()).await;
    let near: Vec<&str> = answer.near.iter().map(|near| near.entry_id.as_str()).collect();
    assert_eq!(near, ["near", "far"]);
    assert_eq!(answer.near[0].missing, ["unix:path:/opt/app"]);
    assert!(answer.selectors.contains(&user) && answer.identities.is_empty());
    assert!(answer.verdict.contains("`near`") && answer.verdict.contains("unix:path:/opt/app"), "{}", answer.verdict);
    register(&roster, &authority, vec![entry("stranger", &["unix:uid:none"])]);
    let answer = why(&service, own_pid()).await;
    assert!(answer.verdict.contains("no entry of this agent has a selector that it shows"), "{}", answer.verdict);
}

#[tokio::test]
async fn a_process_with_identities_is_told_them_with_what_is_wrong_with_them() {
    let (service, roster, authority) = service();
    let answer = why(&service, own_pid()).await;
    assert_eq!(answer.identities[0].spiffe_id, "spiffe://a.test/agent", "without entries the own one");
    register(&roster, &authority, vec![entry("web", &[&own_user()])]);
    let answer = why(&service, own_pid()).await;
    assert_eq!((answer.identities.len(), answer.identities[0].entry_id.as_str()), (1, "web"));
    assert!(answer.identities[0].problem.is_empty() && answer.verdict.contains("has 1 identities"));
    roster.update(|state| state.svids = Arc::default());
    let answer = why(&service, own_pid()).await;
    assert!(answer.verdict.contains("not served: its certificate has not been issued yet"), "{}", answer.verdict);
    roster.update(|state| state.entries = None);
    assert!(why(&service, own_pid()).await.verdict.contains("has not said yet"));
}

#[tokio::test]
async fn a_process_that_is_not_there_is_named() {
    let (service, _, _) = service();
    for pid in [0, -1] {
        let answer = why(&service, pid).await;
        assert!(!answer.refused.is_empty() && answer.selectors.is_empty(), "{answer:?}");
    }
}

#[tokio::test]
async fn a_process_that_has_ended_is_no_process_without_an_identity() {
    let (service, _, _) = service();
    // It has ended, and its number is not given away before it is waited for.
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let stat = format!("/proc/{}/stat", child.id());
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while !std::fs::read_to_string(&stat).unwrap().contains(") Z ") {
        assert!(tokio::time::Instant::now() < deadline, "it does not end");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    for pid in [i32::try_from(child.id()).unwrap(), i32::MAX] {
        let status = service.why(Request::new(WhyRequest { pid })).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::NotFound);
        assert!(status.message().contains(&format!("no process {pid}: it has ended")), "{status:?}");
    }
    child.wait().unwrap();
}

#[tokio::test]
async fn the_list_shows_certificates_and_never_keys() {
    let (service, roster, authority) = service();
    register(&roster, &authority, vec![entry("web", &["a:b"])]);
    let answer = service.list(Request::new(ListRequest {})).await.unwrap().into_inner();
    let ids: Vec<&str> = answer.identities.iter().map(|identity| identity.spiffe_id.as_str()).collect();
    assert_eq!(ids, ["spiffe://a.test/agent", "spiffe://a.test/web"]);
    assert!(answer.identities.iter().all(|one| one.not_after > one.not_before && !one.serial.is_empty()));
    assert_eq!((answer.trust_domains[0].name.as_str(), answer.trust_domains[0].authorities), ("a.test", 1));
    assert!(!format!("{answer:?}").contains("PRIVATE"));
}
