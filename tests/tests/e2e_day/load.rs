//! Calls without a pause, each on a connection and so on a handshake of its own, each counted.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, ensure};
use palisade_tests::http::{Connection, request};
use palisade_tests::poll;
use palisade_tests::shop::HOST;

/// Between two calls of a caller: the load is steady, whatever the machine can.
const PACE: Duration = Duration::from_millis(10);
const WORD: &[u8] = b"the same";

/// What a caller does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Call {
    /// A word that has to come back.
    Echo(SocketAddr),
    /// A request that has to be answered with 200.
    Get(SocketAddr),
}

impl Call {
    pub(crate) fn make(self) -> Result<()> {
        match self {
            Self::Echo(address) => {
                let answer = Connection::open(address)?.exchange(WORD)?;
                ensure!(answer == WORD, "{answer:?} came back");
            }
            Self::Get(address) => {
                let answer = request(address, "GET", "/open", HOST)?;
                ensure!(answer.status == 200, "{answer:?}");
            }
        }
        Ok(())
    }
}

/// Running callers, each with the number of its calls that were answered.
pub(crate) struct Load {
    callers: Vec<(Call, Arc<AtomicU64>, JoinHandle<()>)>,
    stop: Arc<AtomicBool>,
    /// What failed, in words.
    failed: Arc<Mutex<Vec<String>>>,
}

impl Load {
    pub(crate) fn start(calls: &[Call]) -> Self {
        let (stop, failed) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<String>>>::default());
        let caller = |call: &Call| {
            let (call, answered) = (*call, Arc::<AtomicU64>::default());
            let (counted, stop, failed) = (Arc::clone(&answered), Arc::clone(&stop), Arc::clone(&failed));
            let thread = std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    match call.make() {
                        Ok(()) => _ = counted.fetch_add(1, Ordering::SeqCst),
                        Err(error) => failed.lock().unwrap().push(format!("{call:?}: {error:#}")),
                    }
                    std::thread::sleep(PACE);
                }
            });
            (call, answered, thread)
        };
        Self { callers: calls.iter().map(caller).collect(), stop, failed }
    }

    /// Fails if a call has failed.
    pub(crate) fn check(&self) {
        // A copy: the callers go on writing.
        let failed = self.failed.lock().unwrap().clone();
        assert!(
            failed.is_empty(),
            "{} calls failed of {:?}; first: {:?}",
            failed.len(),
            self.answered(),
            failed.first()
        );
    }

    /// Waits until every caller got `share` more answers.
    pub(crate) fn pass(&self, share: u64) {
        let start = self.answered();
        poll("every caller to get its answers", || {
            self.check();
            let now = self.answered();
            let enough = now.iter().zip(&start).all(|(now, start)| now - start >= share);
            if enough { Ok(()) } else { Err(now) }
        });
    }

    /// Ends the load: how many calls were answered, by caller.
    pub(crate) fn stop(self) -> Vec<u64> {
        self.stop.store(true, Ordering::SeqCst);
        let answered = |(_, answered, thread): (Call, Arc<AtomicU64>, JoinHandle<()>)| {
            thread.join().unwrap();
            answered.load(Ordering::SeqCst)
        };
        let answered = self.callers.into_iter().map(answered).collect();
        let failed = self.failed.lock().unwrap();
        assert!(failed.is_empty(), "{} calls failed of {answered:?}; first: {:?}", failed.len(), failed.first());
        answered
    }

    fn answered(&self) -> Vec<u64> {
        self.callers.iter().map(|(_, answered, _)| answered.load(Ordering::SeqCst)).collect()
    }
}
