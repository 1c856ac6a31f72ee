//! py-spiffe, run from the pinned environment.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use palisade_identity::{CertificateDer, Identity};
use palisade_tests::skip;
use serde_json::{Value, json};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/interop/workload_client.py");

/// A Python with the pinned packages; `None` after a reported skip.
pub(crate) fn interpreter(test: &str) -> Option<Python> {
    let found =
        palisade_tests::envoy::environment().map(|home| home.join("bin/python")).filter(|python| python.exists());
    if found.is_none() {
        skip(test, "no Python environment with py-spiffe: `cargo xtask test` installs it");
    }
    found.map(Python)
}

/// What the script should print for this identity.
pub(crate) fn expected(identity: &Identity) -> Value {
    let sha256 = |certificate: &CertificateDer<'_>| -> String {
        digest(&SHA256, certificate).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let bundle = identity.bundles.get(identity.svid.id().trust_domain_name()).expect("own bundle");
    let mut roots: Vec<String> = bundle.authorities().iter().map(sha256).collect();
    roots.sort();
    json!({
        "id": identity.svid.id().as_str(),
        "serial": identity.svid.serial().trim_start_matches('0'),
        "chain": identity.svid.chain().iter().map(sha256).collect::<Vec<_>>(),
        "key_matches": true,
        "roots": roots,
        "bundles": 1,
    })
}

pub(crate) struct Python(PathBuf);

impl Python {
    pub(crate) fn once(&self, socket: &Path) -> Value {
        self.run(&["once", &address(socket)])
    }

    pub(crate) fn raw(&self, socket: &Path) -> Value {
        self.run(&["raw", &address(socket)])
    }

    pub(crate) fn as_uid(&self, socket: &Path, uid: u32) -> Value {
        self.run(&["as-uid", &address(socket), &uid.to_string()])
    }

    /// Follows the socket until [`Watch::stop`].
    pub(crate) fn watch(&self, socket: &Path) -> Watch {
        let mut child = Command::new(&self.0)
            .args([SCRIPT, "watch", &address(socket)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        let (input, output) = (child.stdin.take(), child.stdout.take().expect("stdout"));
        let (send, lines) = mpsc::channel();
        // Ends with the process, whose output it reads.
        thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| send.send(line))
        });
        Watch { child, input, lines }
    }

    fn run(&self, arguments: &[&str]) -> Value {
        let output = Command::new(&self.0).arg(SCRIPT).args(arguments).output().expect("python starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}; {errors}"))
    }
}

fn address(socket: &Path) -> String {
    format!("unix://{}", socket.display())
}

/// A following client; killed when dropped.
pub(crate) struct Watch {
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
}

impl Watch {
    /// The next update.
    pub(crate) fn next(&mut self) -> Value {
        let line = self.lines.recv_timeout(Duration::from_secs(30)).expect("an update within 30 s");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    pub(crate) fn stop(mut self) {
        drop(self.input.take());
        assert!(self.child.wait().expect("python ends").success());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Already ended is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
