//! Network namespaces: ztunnel listens on fixed ports, and takes a pod's traffic inside the pod's own namespace.
//!
//! A test runs a copy of itself as root of a user namespace, so that nobody has to be root on the machine.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use palisade_tests::poll;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const INSIDE: &str = "PALISADE_TEST_NAMESPACE";

/// Whether this is the copy; outside, runs the copy of `test` to its end, which is the test's.
pub(crate) fn inside(test: &str) -> Result<bool> {
    if std::env::var_os(INSIDE).is_some() {
        command("ip", &["link", "set", "lo", "up"])?;
        return Ok(true);
    }
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--fork", "--kill-child"])
        .arg(std::env::current_exe()?)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .context("cannot run unshare")?;
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    ensure!(output.status.success() && out.contains("1 passed"), "in the namespace:\n{out}\n{err}");
    Ok(false)
}

/// Runs a program of the system to its end.
pub(crate) fn command(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("cannot run {program}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {arguments:?}: {error}");
    Ok(())
}

/// A namespace like a pod's: empty but for the loopback.
pub(crate) struct Pod {
    /// Holds the namespace until its stdin ends.
    holder: Child,
    pub(crate) namespace: File,
}

impl Pod {
    pub(crate) fn new() -> Result<Self> {
        let holder = Command::new("unshare").args(["--net", "cat"]).stdin(Stdio::piped()).spawn()?;
        let path = format!("/proc/{}/ns/net", holder.id());
        let own = std::fs::read_link("/proc/self/ns/net")?;
        poll("a namespace of its own", || match std::fs::read_link(&path) {
            Ok(link) if link != own => Ok(()),
            other => Err(format!("{other:?}")),
        });
        let pod = Self { holder, namespace: File::open(path)? };
        pod.run(|| command("ip", &["link", "set", "lo", "up"]))??;
        Ok(pod)
    }

    /// The process by which the namespace is named.
    pub(crate) fn holder(&self) -> String {
        self.holder.id().to_string()
    }

    /// Runs a function in the namespace; sockets that it opens stay there.
    pub(crate) fn run<T: Send>(&self, function: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(function())
            });
            inside.join().map_err(|_| anyhow::anyhow!("panicked in the namespace"))?
        })
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}
