//! The load: blocking sockets on threads of their own, because a sleeping thread wakes within microseconds and a runtime's
//! timer does not. Open loop counts latency from the moment a request was *due*, so a stall is not forgiven.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// What to send, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where to.
    pub address: SocketAddr,
    /// Keep-alive connections, one thread each.
    pub connections: usize,
    /// The request, verbatim.
    pub request: Arc<[u8]>,
    /// Requests a second in all; `None` means as fast as they are answered.
    pub rate: Option<f64>,
    /// Not counted.
    pub warm_up: Duration,
    /// Counted.
    pub length: Duration,
}

/// What was seen in the counted time.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Latencies of answered requests, nanoseconds, sorted.
    pub latencies: Vec<u64>,
    /// Answers other than 200.
    pub refused: u64,
    /// Length of the counted time.
    pub seconds: f64,
}

impl Outcome {
    /// Answered requests a second.
    pub fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.seconds
    }

    /// The latency that the share `quantile` (0 to 1) of requests did not exceed, microseconds.
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let index = (last as f64 * quantile).round() as usize;
        self.latencies.get(index).map_or(0.0, |nanoseconds| *nanoseconds as f64 / 1e3)
    }
}

/// Runs the plan; `counting` is called when the warm-up is over and again at the end, to read CPU clocks.
///
/// # Errors
/// When a connection fails: a benchmark with failures has no result.
pub fn run(plan: &Plan, mut counting: impl FnMut() -> Result<()>) -> Result<Outcome> {
    let begin = Instant::now() + Duration::from_millis(50);
    let counted = begin + plan.warm_up;
    let end = counted + plan.length;
    let threads: Vec<_> = (0..plan.connections)
        .map(|index| {
            let plan = plan.clone();
            thread::spawn(move || connection(&plan, index, begin, counted, end))
        })
        .collect();
    thread::sleep(counted.saturating_duration_since(Instant::now()));
    counting()?;
    thread::sleep(end.saturating_duration_since(Instant::now()));
    counting()?;
    let mut outcome = Outcome { seconds: plan.length.as_secs_f64(), ..Outcome::default() };
    for thread in threads {
        let Ok(part) = thread.join() else { bail!("a load thread panicked") };
        let part = part?;
        outcome.latencies.extend(part.latencies);
        outcome.refused += part.refused;
    }
    outcome.latencies.sort_unstable();
    Ok(outcome)
}

fn connection(plan: &Plan, index: usize, begin: Instant, counted: Instant, end: Instant) -> Result<Outcome> {
    let mut stream = TcpStream::connect(plan.address).context("cannot connect")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let interval = plan.rate.map(|rate| Duration::from_secs_f64(plan.connections as f64 / rate));
    let offset = interval.map_or(Duration::ZERO, |interval| interval.mul_f64(index as f64 / plan.connections as f64));
    let (mut outcome, mut buffer) = (Outcome::default(), vec![0; 64 * 1024]);
    let mut due = begin + offset;
    loop {
        match interval {
            Some(_) => thread::sleep(due.saturating_duration_since(Instant::now())),
            None => due = Instant::now().max(begin),
        }
        if due >= end {
            return Ok(outcome);
        }
        stream.write_all(&plan.request).context("cannot send")?;
        let good = answer(&mut stream, &mut buffer)?;
        let now = Instant::now();
        if due >= counted && now <= end {
            outcome.refused += u64::from(!good);
            let nanoseconds = u64::try_from(now.saturating_duration_since(due).as_nanos()).unwrap_or(u64::MAX);
            outcome.latencies.push(nanoseconds);
        }
        due += interval.unwrap_or_default();
    }
}

/// Reads one answer with a Content-Length to its end; true means 200.
fn answer(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<bool> {
    let (mut filled, mut expected) = (0, None);
    loop {
        let free = buffer.get_mut(filled..).filter(|free| !free.is_empty()).context("the answer is too long")?;
        let read = stream.read(free).context("no answer")?;
        if read == 0 {
            bail!("the connection was closed in the middle of an answer");
        }
        filled += read;
        let seen = buffer.get(..filled).unwrap_or_default();
        if expected.is_none() {
            expected = head_length(seen)?;
        }
        if expected.is_some_and(|expected| filled >= expected) {
            return Ok(seen.get(9..12) == Some(b"200"));
        }
    }
}

/// Bytes of the whole answer, once its head is complete.
fn head_length(seen: &[u8]) -> Result<Option<usize>> {
    let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(seen.get(..end).unwrap_or_default()).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.context("an answer without Content-Length")?.trim().parse()?;
    Ok(Some(end + 4 + length))
}
