//! From a process to its selectors.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;

use palisade_identity::error_chain;
use palisade_wire::UnixCaller;

use super::binary::Binaries;
use super::process::{Process, ProcessError};
use super::{Evidence, cgroup, users};

/// Reads everything about the process that connected; it is checked to be the same before and after.
pub(super) fn collect(caller: UnixCaller, binaries: &Binaries) -> Result<Evidence, ProcessError> {
    let process = Process::open(caller)?;
    let mut found = Found::default();
    found.user(&process)?;
    found.binary(&process, binaries);
    match process.read("cgroup") {
        Ok(text) => found.groups(&text),
        Err(error) => found.miss("systemd, k8s", error_chain(&error)),
    }
    process.check()?;
    Ok(Evidence { caller, selectors: found.selectors, unknown: found.unknown })
}

#[derive(Default)]
struct Found {
    selectors: BTreeSet<String>,
    unknown: Vec<(&'static str, String)>,
}

impl Found {
    fn add(&mut self, kind: &str, value: impl std::fmt::Display) {
        self.selectors.insert(format!("{kind}:{value}"));
    }

    fn miss(&mut self, kind: &'static str, why: impl Into<String>) {
        self.unknown.push((kind, why.into()));
    }

    fn user(&mut self, process: &Process) -> Result<(), ProcessError> {
        let UnixCaller { uid, gid, .. } = process.caller;
        self.add("unix:uid", uid);
        self.add("unix:gid", gid);
        match users::user_name(uid) {
            Some(name) => self.add("unix:user", name),
            None => self.miss("unix:user", format!("user {uid} has no name in /etc/passwd")),
        }
        match users::group_name(gid) {
            Some(name) => self.add("unix:group", name),
            None => self.miss("unix:group", format!("group {gid} has no name in /etc/group")),
        }
        for group in process.status_numbers("Groups:")? {
            self.add("unix:supplementary_gid", group);
            if let Some(name) = users::group_name(group) {
                self.add("unix:supplementary_group", name);
            }
        }
        Ok(())
    }

    fn binary(&mut self, process: &Process, binaries: &Binaries) {
        match path(process) {
            Ok(path) => self.add("unix:path", path),
            Err(why) => self.miss("unix:path", why),
        }
        match process.file("exe").map_err(|error| error.to_string()).and_then(|file| binaries.sha256(file)) {
            Ok(hash) => self.add("unix:sha256", hash),
            Err(why) => self.miss("unix:sha256", why),
        }
    }

    fn groups(&mut self, text: &str) {
        match cgroup::systemd_unit(text) {
            Some(unit) => self.add("systemd:id", unit),
            None => self.miss("systemd:id", "it is in the control group of no unit"),
        }
        match cgroup::pod(text) {
            Ok(Some(pod)) => {
                self.add("k8s:pod-uid", pod.uid);
                if let Some(container) = pod.container {
                    self.add("k8s:container-id", container);
                }
            }
            Ok(None) => self.miss("k8s:pod-uid", "it is in the control group of no pod"),
            Err(why) => self.miss("k8s:pod-uid", why),
        }
    }
}

/// The path of the binary, if it says anything.
fn path(process: &Process) -> Result<String, String> {
    // Who has a user namespace may mount whatever it likes wherever it likes, and call anything `/usr/bin/app`.
    if !process.shares("ns/user") {
        return Err("its user namespace is not the agent's, or hidden from it: it may have put any binary at any path"
            .to_owned());
    }
    let path = process.link("exe").map_err(|error| error.to_string())?;
    let text = path.to_str().ok_or("the path of its binary is not UTF-8")?;
    if path.as_os_str().as_bytes().ends_with(b" (deleted)") {
        return Err(format!("its binary is not at its path any more: `{text}`"));
    }
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err(format!("`{text}` is not a path seen from here")) }
}
