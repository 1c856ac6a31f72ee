//! Constant load with a name for every request: two callers keep a connection, two open one for each request, and a fifth of
//! what they ask is denied by policy.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use palisade_tests::http::Connection;
use palisade_tests::poll;
use palisade_tests::shop::HOST;

const CALLERS: usize = 4;
/// Between two requests of a caller: the load is steady, whatever the machine can.
const PACE: Duration = Duration::from_millis(3);

/// Every request must be answered as policy says.
const MUST_PASS: u32 = 0;
/// A proxy of the pair is down: requests may fail, but what is denied must still never pass.
const MAY_FAIL: u32 = 1;

/// What became of one request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) caller: usize,
    pub(crate) path: String,
    /// The status, or why there is none.
    pub(crate) answer: Result<u16, String>,
}

impl Request {
    fn is_denied(&self) -> bool {
        self.path.starts_with("/denied/")
    }

    /// Answered by payments' proxy: web's own answers (502, 503) are no decisions.
    pub(crate) fn is_decided(&self) -> bool {
        matches!(self.answer, Ok(200 | 403))
    }
}

/// Running callers.
pub(crate) struct Load {
    shared: Arc<Shared>,
    callers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    phase: AtomicU32,
    requests: Mutex<Vec<Request>>,
    /// What must not happen, in words.
    wrong: Mutex<Vec<String>>,
}

impl Load {
    pub(crate) fn start(address: SocketAddr) -> Self {
        let shared = Arc::new(Shared::default());
        let call = |caller| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || call(caller, address, &shared))
        };
        let callers = (0..CALLERS).map(call).collect();
        Self { shared, callers }
    }

    /// Waits until every caller got `share` more right answers, and fails if anything went wrong.
    pub(crate) fn pass(&self, share: usize) {
        let start = self.right();
        poll("every caller to get its answers", || {
            self.check();
            let now = self.right();
            let slowest = now.iter().zip(&start).map(|(now, start)| now - start).min();
            if slowest >= Some(share) { Ok(()) } else { Err((now, self.last())) }
        });
    }

    /// While `event` runs requests may fail; afterwards every caller must have got through before it may not any more.
    pub(crate) fn passing_may_fail(&self, event: impl FnOnce()) {
        self.shared.phase.store(MAY_FAIL, Ordering::SeqCst);
        event();
        self.pass(1);
        self.shared.phase.store(MUST_PASS, Ordering::SeqCst);
    }

    /// Ends the load: every request in each caller's order.
    pub(crate) fn stop(self) -> Vec<Request> {
        self.shared.stop.store(true, Ordering::SeqCst);
        for caller in self.callers {
            caller.join().unwrap();
        }
        check(&self.shared);
        self.shared.requests.lock().unwrap().clone()
    }

    fn check(&self) {
        check(&self.shared);
    }

    fn right(&self) -> [usize; CALLERS] {
        let mut counts = [0; CALLERS];
        for request in self.shared.requests.lock().unwrap().iter().filter(|request| request.is_decided()) {
            counts[request.caller] += 1;
        }
        counts
    }

    fn last(&self) -> Option<Request> {
        self.shared.requests.lock().unwrap().last().cloned()
    }
}

fn check(shared: &Shared) {
    let wrong = shared.wrong.lock().unwrap();
    assert!(wrong.is_empty(), "{} wrong answers, first: {:?}", wrong.len(), wrong.first());
}

fn call(caller: usize, address: SocketAddr, shared: &Shared) {
    let mut kept: Option<Connection> = None;
    for number in 0.. {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let kind = if number % 5 == 4 { "denied" } else { "open" };
        let path = format!("/{kind}/{caller}/{number}");
        let before = shared.phase.load(Ordering::SeqCst);
        let answer = ask(kept.take(), address, &path);
        let (answer, connection) = match answer {
            Ok((status, connection)) => (Ok(status), Some(connection)),
            Err(error) => (Err(format!("{error:#}")), None),
        };
        // Even callers keep their connection, odd ones open one for each request.
        kept = connection.filter(|_| caller.is_multiple_of(2));
        let strict = before == MUST_PASS && shared.phase.load(Ordering::SeqCst) == MUST_PASS;
        let request = Request { caller, path, answer };
        let right = if request.is_denied() { Ok(403) } else { Ok(200) };
        let undecided = !request.is_decided();
        if request.answer != right && (strict || !undecided) {
            shared.wrong.lock().unwrap().push(format!("{request:?}"));
        }
        shared.requests.lock().unwrap().push(request);
        std::thread::sleep(PACE);
    }
}

fn ask(kept: Option<Connection>, address: SocketAddr, path: &str) -> anyhow::Result<(u16, Connection)> {
    let mut connection = kept.map_or_else(|| Connection::open(address), Ok)?;
    let status = connection.request("GET", path, HOST, "")?.status;
    Ok((status, connection))
}
