//! The log in which Envoy says what it cannot say in a response: what became of connections that carry no HTTP, and what
//! the dry-run policies of a filter say that refused the request.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

/// The log and what was read of it.
#[derive(Debug)]
pub(super) struct DecisionLog {
    path: PathBuf,
    read: Mutex<Read>,
}

#[derive(Debug, Default)]
struct Read {
    offset: u64,
    /// In the order of the log: the kernel gives a client's port away again as soon as Envoy has closed.
    lines: HashMap<(String, String), VecDeque<Value>>,
}

impl DecisionLog {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, read: Mutex::default() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Drops the lines that nobody asked for.
    pub(super) fn forget(&self) {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).lines.clear();
    }

    /// The line of a connection to a listener, by its peer, or of a request, by its number. It comes after the end.
    ///
    /// # Errors
    /// When it does not come.
    pub(super) fn wait_for(&self, listener: &str, which: &str) -> Result<Value> {
        let key = (listener.to_owned(), which.to_owned());
        let begin = Instant::now();
        loop {
            let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            read.more(&self.path)?;
            if let Some(line) = read.lines.get_mut(&key).and_then(VecDeque::pop_front) {
                return Ok(line);
            }
            drop(read);
            if begin.elapsed() > PATIENCE {
                bail!("Envoy has not logged {key:?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Read {
    fn more(&mut self, path: &Path) -> Result<()> {
        let Ok(mut file) = std::fs::File::open(path) else { return Ok(()) };
        file.seek(SeekFrom::Start(self.offset))?;
        let mut reader = BufReader::new(file);
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 && line.ends_with('\n') {
            self.offset += u64::try_from(line.len())?;
            let entry: Value = serde_json::from_str(&line)?;
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            self.lines.entry((text("listener"), text("which"))).or_default().push_back(entry);
            line.clear();
        }
        Ok(())
    }
}
