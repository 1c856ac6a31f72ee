use std::process::{Child, Command, Stdio};

use tonic::Code;

use super::*;

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap()
}

/// A child that waits until its input is closed; dropped with it.
struct Waiting(Child);

impl Waiting {
    fn start(program: &str) -> Self {
        Self(Command::new(program).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
    }

    /// What the kernel says of it, as the socket would.
    fn caller(&self) -> UnixCaller {
        let pid = i32::try_from(self.0.id()).unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let started = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().ok();
        let id = rustix::process::geteuid().as_raw();
        UnixCaller { pid, uid: id, gid: rustix::process::getegid().as_raw(), started }
    }

    fn end(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.end();
    }
}

async fn refused(caller: UnixCaller) -> ProcessError {
    match Attestor::new().look(Some(caller)).await.unwrap_err() {
        AttestError::Process(error) => error,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_process_has_its_user_its_binary_and_its_groups() {
    let child = Waiting::start("cat");
    let caller = child.caller();
    let evidence = Attestor::new().look(Some(caller)).await.unwrap();
    let path = std::fs::read_link(format!("/proc/{}/exe", caller.pid)).unwrap();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &std::fs::read(&path).unwrap());
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    for expected in [
        format!("unix:uid:{}", caller.uid),
        format!("unix:gid:{}", caller.gid),
        format!("unix:path:{}", path.display()),
        format!("unix:sha256:{hash}"),
    ] {
        assert!(evidence.selectors.contains(&expected), "{expected} not in {evidence:?}");
    }
    if caller.uid == 0 {
        assert!(evidence.selectors.contains("unix:user:root") && evidence.selectors.contains("unix:group:root"));
    }
    let pods = evidence.selectors.iter().any(|selector| selector.starts_with("k8s:"));
    assert!(pods || evidence.unknown.iter().any(|(kind, _)| *kind == "k8s:pod-uid"), "{evidence:?}");
}

/// Trap 34: a number alone is no process.
#[tokio::test]
async fn trap_34_a_recycled_process_id_is_refused() {
    let child = Waiting::start("cat");
    let caller = child.caller();
    let later = UnixCaller { started: caller.started.map(|ticks| ticks - 1), ..caller };
    assert!(matches!(refused(later).await, ProcessError::Recycled(pid) if pid == caller.pid));
}

#[tokio::test]
async fn trap_34_a_process_that_is_not_visible_is_refused() {
    let hidden = UnixCaller { uid: 0, gid: 0, pid: 0, started: Some(1) };
    assert!(matches!(refused(hidden).await, ProcessError::Hidden));
    let never_held = UnixCaller { pid: own_pid(), started: None, ..hidden };
    assert!(matches!(refused(never_held).await, ProcessError::Gone(_)));
}

#[tokio::test]
async fn a_process_that_ended_is_refused_before_and_after_it_is_reaped() {
    let mut child = Waiting::start("cat");
    let caller = child.caller();
    drop(child.0.stdin.take());
    while !std::fs::read_to_string(format!("/proc/{}/stat", caller.pid)).unwrap().contains(") Z ") {
        tokio::task::yield_now().await;
    }
    assert!(matches!(refused(caller).await, ProcessError::Gone(_)), "a zombie");
    child.end();
    assert!(matches!(refused(caller).await, ProcessError::Gone(_)));
}

#[tokio::test]
async fn a_process_that_has_become_somebody_else_is_refused() {
    let child = Waiting::start("cat");
    let other = UnixCaller { uid: child.caller().uid + 1, ..child.caller() };
    assert!(matches!(refused(other).await, ProcessError::UserChanged { .. }));
}

#[tokio::test]
async fn a_binary_that_was_replaced_has_a_hash_and_no_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app");
    std::fs::copy("/bin/cat", &path).unwrap();
    let child = Waiting::start(path.to_str().unwrap());
    std::fs::remove_file(&path).unwrap();
    let evidence = Attestor::new().look(Some(child.caller())).await.unwrap();
    assert!(!evidence.selectors.iter().any(|selector| selector.starts_with("unix:path:")), "{evidence:?}");
    assert!(evidence.selectors.iter().any(|selector| selector.starts_with("unix:sha256:")), "{evidence:?}");
    let why = evidence.unknown.iter().find(|(kind, _)| *kind == "unix:path").unwrap();
    assert!(why.1.contains("not at its path any more"), "{}", why.1);
}

/// With a user namespace anybody may mount anything over `/usr/bin/app`.
#[tokio::test]
async fn a_path_of_another_user_namespace_says_nothing() {
    let started = Command::new("unshare").args(["-U", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut started) = started else { return eprintln!("skipped: no unshare on this machine") };
    use std::io::{Read, Write};
    started.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    if started.stdout.as_mut().unwrap().read(&mut [0]).unwrap_or(0) == 0 {
        return eprintln!("skipped: no user namespaces on this machine");
    }
    let child = Waiting(started);
    let evidence = Attestor::new().look(Some(child.caller())).await;
    // Seen from inside a namespace without a map the user is another; what matters is that no path comes out.
    if let Ok(evidence) = evidence {
        assert!(!evidence.selectors.iter().any(|selector| selector.starts_with("unix:path:")), "{evidence:?}");
    }
}

#[tokio::test]
async fn a_request_without_credentials_is_denied_with_a_constant_text() {
    let status = Attestor::new().admit(&Request::new(())).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, DENIED));
}
