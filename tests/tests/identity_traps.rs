//! Traps of identity into which only whole processes fall.

use std::path::Path;
use std::process::Command;

use palisade_tests::mesh::Mesh;
use palisade_tests::{Palisade, binary, poll, skip};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Trap 36: keys stand in memory, and a crash must not write them anywhere, however much its starter allows.
#[test]
fn trap_36_no_process_leaves_an_image_of_its_memory() {
    let maximum = getrlimit(Resource::Core).maximum;
    if maximum.is_some_and(|most| most <= 1) {
        return skip("trap_36_no_process_leaves_an_image_of_its_memory", "nobody may leave one here");
    }
    setrlimit(Resource::Core, Rlimit { current: maximum, maximum }).unwrap();
    let mut mesh = Mesh::new(&[]).unwrap();
    mesh.start_server().unwrap();
    let mut agent = mesh.start_agent("shop", "node").unwrap();
    let proxy = "outbound:\n- {listen: '127.0.0.1:0', service: 'cart:80'}";
    let mut proxy = mesh.start_proxy("shop", "web", proxy).unwrap();
    for process in [mesh.server().unwrap(), agent.process().unwrap(), proxy.process().unwrap()] {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.pid())).unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
        assert_eq!(line.split_ascii_whitespace().next(), Some("1"), "{line}");
    }
}

/// The signing authorities, as a server says that answers on `socket`.
fn authorities(socket: &Path) -> Result<Vec<String>, String> {
    let mut status = Command::new(binary());
    status.args(["ca", "status", "-o", "json"]).env("PALISADE_ADMIN_SOCKET", socket);
    let output = status.output().map_err(|error| error.to_string())?;
    let status: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))?;
    let all = status.get("authorities").and_then(serde_json::Value::as_array).ok_or("no authorities")?;
    Ok(all.iter().filter_map(|one| one.get("id")?.as_str().map(str::to_owned)).collect())
}

/// Trap 49: of several that find no root, each makes one.
#[test]
fn trap_49_processes_that_start_at_once_on_one_directory_have_one_root() {
    for _ in 0..4 {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        std::fs::create_dir(at("config")).unwrap();
        let start = |name: &str| {
            let (config, data, socket) = (at("config"), at("data"), at(&format!("{name}.sock")));
            let mut arguments = vec!["server", "--config-dir", &config, "--data-dir", &data, "--admin-socket", &socket];
            for flag in ["--listen", "--metrics-listen", "--ext-authz-listen", "--http-listen", "--bundle-listen"] {
                arguments.extend([flag, "127.0.0.1:0"]);
            }
            Palisade::start(&arguments, Path::new(&at(name))).unwrap()
        };
        let servers = ["one", "two", "three"].map(start);
        let said = ["one", "two", "three"].map(|name| {
            let socket = directory.path().join(format!("{name}.sock"));
            poll("a server to answer", || {
                authorities(&socket).map_err(|error| format!("{error}\n{}", std::fs::read_to_string(at(name)).unwrap()))
            })
        });
        assert_eq!((said[0].len(), &said[0], &said[0]), (1, &said[1], &said[2]));
        drop(servers);
    }
}
