//! `palisade demo`: the story as told, and nothing left behind however it ends.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use palisade_tests::{Palisade, binary, poll};
use rustix::process::Signal;
use serde_json::Value;

/// A demo in a temporary directory of its own, its story in a file.
struct Demo {
    process: Palisade,
    temporary: tempfile::TempDir,
}

impl Demo {
    fn start(flags: &[&str]) -> Self {
        let temporary = tempfile::Builder::new().prefix("demo-test-").tempdir().unwrap();
        let (story, log) = (temporary.path().join("story"), temporary.path().join("log"));
        // The demo makes its directory in TMPDIR: ours, so that what it leaves is found.
        let shared = temporary.path().join("tmp");
        fs::create_dir(&shared).unwrap();
        let arguments = [&["demo", "-o", "json"], flags].concat();
        let process = Palisade::start_in(&arguments, &log, &story, &[("TMPDIR", shared.as_path())]).unwrap();
        Self { process, temporary }
    }

    /// Lines of the story that are complete.
    fn story(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.temporary.path().join("story")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn wait_for(&mut self, what: &str, wanted: impl Fn(&[Value]) -> bool) {
        poll(what, || {
            let story = self.story();
            if wanted(&story) { Ok(()) } else { Err(format!("{story:?}\n{}", self.process.log())) }
        });
    }

    /// Processes that carry this demo's directory in their arguments or environment, the demo itself left out.
    fn others(&self) -> BTreeSet<u32> {
        let mut found = processes_of(self.temporary.path());
        found.remove(&self.process.pid());
        found
    }

    /// No process is left and the demo's directory is gone.
    fn nothing_is_left(&self) {
        poll("the demo's processes to end", || {
            let left: Vec<_> = self.others().into_iter().map(|pid| (pid, command_line(pid))).collect();
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
        let left: Vec<PathBuf> =
            fs::read_dir(self.temporary.path().join("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

fn read(pid: u32, what: &str) -> String {
    let bytes = fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

fn command_line(pid: u32) -> String {
    read(pid, "cmdline")
}

fn processes_of(directory: &Path) -> BTreeSet<u32> {
    let directory = directory.display().to_string();
    let all = fs::read_dir("/proc").unwrap().flatten();
    let all = all.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    all.filter(|pid| read(*pid, "environ").contains(&directory) || command_line(*pid).contains(&directory)).collect()
}

/// Where these processes listen, from the kernel: the inodes of their sockets in its tables.
fn listens(pids: &BTreeSet<u32>) -> Vec<IpAddr> {
    let mut inodes = BTreeSet::new();
    for pid in pids {
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            if let Some(target) = fs::read_link(entry.path()).ok().and_then(|target| target.to_str().map(str::to_owned))
            {
                inodes
                    .extend(target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')).map(str::to_owned));
            }
        }
    }
    let tables = ["/proc/net/tcp", "/proc/net/tcp6", "/proc/net/udp", "/proc/net/udp6"];
    let mut found = Vec::new();
    for line in tables.iter().filter_map(|table| fs::read_to_string(table).ok()).collect::<String>().lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // Listening TCP sockets are in state 0A, unconnected UDP sockets in state 07.
        if fields.len() > 9 && ["0A", "07"].contains(&fields[3]) && inodes.contains(fields[9]) {
            found.push(address(fields[1].split(':').next().unwrap()));
        }
    }
    found
}

/// The kernel writes addresses as words in the machine's order.
fn address(hex: &str) -> IpAddr {
    let words: Vec<u8> = (0..hex.len() / 8)
        .flat_map(|word| u32::from_str_radix(&hex[word * 8..word * 8 + 8], 16).unwrap().to_ne_bytes())
        .collect();
    match <[u8; 4]>::try_from(words.as_slice()) {
        Ok(four) => four.into(),
        Err(_) => <[u8; 16]>::try_from(words.as_slice()).unwrap().into(),
    }
}

#[test]
fn two_demos_tell_their_stories_side_by_side() {
    let mut demos = [Demo::start(&[]), Demo::start(&[])];
    for demo in &mut demos {
        let ended = demo.process.ended();
        let story = demo.story();
        assert_eq!(ended.code(), Some(0), "{story:?}\n{}", demo.process.log());
        let (start, end) = (&story[0], &story[story.len() - 1]);
        assert_eq!((start["kind"].as_str(), end["kind"].as_str()), (Some("start"), Some("end")));
        assert_eq!((end["steps"].as_u64(), end["failed"].as_u64()), (u64::try_from(story.len() - 2).ok(), Some(0)));
        assert!(story.len() >= 8, "{story:?}");
        for (number, step) in story[1..story.len() - 1].iter().enumerate() {
            assert_eq!(
                (step["step"].as_u64(), &step["ok"]),
                (u64::try_from(number + 1).ok(), &Value::Bool(true)),
                "{step}"
            );
        }
        eprintln!(
            "ready in {} s, {} MB in {} processes",
            start["ready_seconds"], start["memory_mb"], start["processes"]
        );
        demo.nothing_is_left();
    }
}

#[test]
fn a_demo_that_is_terminated_in_the_middle_leaves_nothing() {
    for steps in [0, 3] {
        let mut demo = Demo::start(&[]);
        if steps == 0 {
            poll("its first processes", || if demo.others().len() > 2 { Ok(()) } else { Err(demo.others()) });
        } else {
            demo.wait_for("the middle of the story", |story| story.len() > steps);
        }
        let ended = demo.process.stop().unwrap();
        assert!(!ended.success(), "a story that was broken off is no success");
        demo.nothing_is_left();
    }
}

#[test]
fn a_kept_demo_runs_until_it_is_interrupted_and_listens_on_loopback_only() {
    let mut demo = Demo::start(&["--keep"]);
    demo.wait_for("the end of the story", |story| story.last().is_some_and(|last| last["kind"] == "end"));
    assert_eq!(demo.story().last().unwrap()["failed"], 0, "{:?}", demo.story());
    let all = demo.others();
    assert!(all.len() >= 7, "server, two proxies, three applications, the janitor: {all:?}");
    let listening = listens(&all);
    assert!(listening.len() >= 13, "{listening:?}");
    assert!(listening.iter().all(IpAddr::is_loopback), "{listening:?}");
    poll("its hints", || if demo.process.log().contains("audit follow") { Ok(()) } else { Err(demo.process.log()) });
    demo.process.signal(Signal::INT).unwrap();
    assert_eq!(demo.process.ended().code(), Some(0));
    demo.nothing_is_left();
}

#[test]
fn a_demo_that_is_killed_is_swept_up_after() {
    let mut demo = Demo::start(&["--keep"]);
    demo.wait_for("the middle of the story", |story| story.len() > 2);
    demo.process.kill_9().unwrap();
    demo.nothing_is_left();
}

#[test]
fn a_data_directory_of_the_users_is_kept() {
    let mut demo = Demo::start(&["--data-dir", "kept"]);
    assert_eq!(demo.process.ended().code(), Some(0), "{}", demo.process.log());
    let kept = demo.temporary.path().join("kept");
    assert!(kept.join("server/audit.db").exists() && kept.join("config/policies.yaml").exists());
    demo.nothing_is_left();
    assert!(binary().exists());
}
