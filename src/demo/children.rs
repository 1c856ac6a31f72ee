//! The demo's processes: one group, so that one janitor can end all of them whatever happens to the story-teller.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a process gets to end by itself before it is killed: longer than a proxy waits for its server to take the last
/// audit events.
const GRACE: Duration = Duration::from_secs(8);

struct Named {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

/// Everything that was started, in order.
pub(super) struct Children {
    binary: PathBuf,
    logs: PathBuf,
    group: Option<i32>,
    running: Vec<Named>,
    janitor: Child,
    janitor_input: Option<ChildStdin>,
}

impl Children {
    /// Starts the janitor; `remove` is deleted at the very end.
    pub(super) fn new(logs: &Path, remove: Option<&Path>) -> Result<Self> {
        let binary = std::env::current_exe().context("cannot find the running binary")?;
        let mut command = Command::new(&binary);
        command.arg("demo-janitor").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        if let Some(directory) = remove {
            command.arg("--remove").arg(directory);
        }
        let mut janitor = command.spawn().context("cannot start the janitor")?;
        let janitor_input = janitor.stdin.take();
        Ok(Self { binary, logs: logs.to_path_buf(), group: None, running: Vec::new(), janitor, janitor_input })
    }

    /// Starts `palisade` with `arguments`; its log goes to a file named after it.
    pub(super) fn start(&mut self, name: &'static str, arguments: &[&str]) -> Result<()> {
        let log = self.logs.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = Command::new(&self.binary)
            .args(arguments)
            .env_remove("PALISADE_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .process_group(self.group.unwrap_or(0))
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        if self.group.is_none() {
            let group = i32::try_from(child.id()).context("process id out of range")?;
            if let Some(input) = &mut self.janitor_input {
                writeln!(input, "{group}").context("the janitor is gone")?;
            }
            self.group = Some(group);
        }
        self.running.push(Named { name, child, log });
        Ok(())
    }

    /// Fails with the end of its log if a process ended by itself.
    pub(super) fn check(&mut self) -> Result<()> {
        for named in &mut self.running {
            if let Some(status) = named.child.try_wait()? {
                let log = std::fs::read_to_string(&named.log).unwrap_or_default();
                let start = log.len().saturating_sub(2000);
                let tail = log.get(start..).unwrap_or(&log);
                bail!("{} ended with {status}; the end of {}:\n{tail}", named.name, named.log.display());
            }
        }
        Ok(())
    }

    /// Process ids by name.
    pub(super) fn pids(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.running.iter().map(|named| (named.name, named.child.id()))
    }

    /// Sends a signal to one process.
    pub(super) fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        let named = self.running.iter().find(|named| named.name == name).context("no such process")?;
        kill_process(pid(&named.child)?, signal).with_context(|| format!("cannot signal {name}"))
    }

    /// Ends everything, the server last so that the proxies can deliver what they have, and lets the janitor sweep.
    pub(super) fn stop(mut self) -> Result<()> {
        let (servers, others): (Vec<_>, Vec<_>) = self.running.drain(..).partition(|named| named.name == "server");
        end(others)?;
        end(servers)?;
        drop(self.janitor_input.take());
        self.janitor.wait().context("the janitor is gone")?;
        Ok(())
    }
}

/// Asks all of them to end, waits, and kills those that do not.
fn end(mut running: Vec<Named>) -> Result<()> {
    for named in &running {
        // A process that is gone already is what we want.
        let _ = pid(&named.child).map(|pid| kill_process(pid, Signal::TERM));
    }
    let deadline = Instant::now() + GRACE;
    for named in &mut running {
        while named.child.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                eprintln!("demo: {} did not end in time and is killed", named.name);
                named.child.kill()?;
                named.child.wait()?;
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(())
}

fn pid(child: &Child) -> Result<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("process id out of range")
}
