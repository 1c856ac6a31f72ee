//! A real Envoy as a child process: no fixed port, bounded waits, killed when dropped.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

pub mod sds;

/// How long Envoy may take to parse its configuration and to listen; ten thousand policies take seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// The Python environment that `cargo xtask test` installs: named in `PALISADE_PYENV`, else beside the test's binary.
#[must_use]
pub fn environment() -> Option<PathBuf> {
    if let Some(home) = std::env::var_os("PALISADE_PYENV") {
        return Some(home.into());
    }
    let exe = std::env::current_exe().ok()?;
    Some(exe.ancestors().nth(3)?.join("pyenv")).filter(|home| home.exists())
}

/// The Envoy of that environment.
#[must_use]
pub fn binary() -> Option<PathBuf> {
    Some(environment()?.join("bin/envoy")).filter(|envoy| envoy.exists())
}

/// A running Envoy with one worker.
#[derive(Debug)]
pub struct Envoy {
    child: Mutex<Child>,
    pid: u32,
    directory: tempfile::TempDir,
    admin: SocketAddr,
}

impl Envoy {
    /// Starts `binary` with a bootstrap that has an `admin` section on port 0; returns once the admin port answers.
    ///
    /// # Errors
    /// When Envoy does not start, with the end of its log: a bootstrap it refuses, for example.
    pub fn start(binary: &Path, bootstrap: &Value) -> Result<Self> {
        Self::start_with(binary, bootstrap, &[])
    }

    /// [`Envoy::start`] with more arguments.
    ///
    /// # Errors
    /// As [`Envoy::start`].
    pub fn start_with(binary: &Path, bootstrap: &Value, arguments: &[&str]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("envoy.json"), bootstrap.to_string())?;
        let child = Command::new(binary)
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning", "--config-path"])
            .arg(path("envoy.json"))
            .arg("--admin-address-path")
            .arg(path("admin"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(path("log"))?)
            .spawn()
            .context("cannot start Envoy")?;
        let (pid, child) = (child.id(), Mutex::new(child));
        let mut envoy = Self { child, pid, directory, admin: SocketAddr::from(([127, 0, 0, 1], 0)) };
        envoy.admin = envoy.wait("an admin port", |envoy| {
            std::fs::read_to_string(envoy.directory.path().join("admin")).ok()?.trim().parse().ok()
        })?;
        Ok(envoy)
    }

    /// The address of the listener called `name`, once it is open.
    ///
    /// # Errors
    /// When Envoy ends, or does not listen in time.
    pub fn listener(&self, name: &str) -> Result<SocketAddr> {
        self.wait(name, |envoy| {
            let listeners: Value = serde_json::from_str(&envoy.admin("/listeners?format=json").ok()?).ok()?;
            let one = listeners.get("listener_statuses")?.as_array()?.iter().find(|one| one["name"] == name)?;
            let socket = one.get("local_address")?.get("socket_address")?;
            format!("{}:{}", socket.get("address")?.as_str()?, socket.get("port_value")?).parse().ok()
        })
    }

    /// The process, for the kernel's accounting.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// The answer of the admin port to a GET.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn admin(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.admin)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer of the admin port")?;
        if head.contains("transfer-encoding: chunked") { unchunk(body) } else { Ok(body.to_owned()) }
    }

    /// The sum of the counters whose names end so; 0 if there are none.
    ///
    /// # Errors
    /// When it cannot be asked, or says something that is no counter.
    pub fn counted(&self, ending: &str) -> Result<u64> {
        let text = self.admin("/stats")?;
        let values = text.lines().filter_map(|line| line.split_once(": ")).filter(|(name, _)| name.ends_with(ending));
        values.map(|(name, value)| value.parse::<u64>().with_context(|| format!("{name}: {value}"))).sum()
    }

    fn wait<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> Result<T> {
        let begin = Instant::now();
        loop {
            if let Some(found) = look(self) {
                return Ok(found);
            }
            let ended = self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait()?;
            if let Some(status) = ended {
                bail!("Envoy ended with {status}: {}", self.log());
            }
            if begin.elapsed() > PATIENCE {
                bail!("Envoy has not shown {what}: {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The end of what Envoy logged.
    #[must_use]
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // Already gone is as good.
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn unchunk(mut body: &str) -> Result<String> {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).context("a malformed chunk")?;
        whole.push_str(rest.get(..size).context("a short chunk")?);
        body = rest.get(size + 2..).unwrap_or_default();
    }
    Ok(whole)
}
