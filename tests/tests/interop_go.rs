//! go-spiffe, the strictest client there is, on the Workload API of real agents: what it verifies and refuses by itself.

#![expect(clippy::indexing_slicing, reason = "tests")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use palisade_tests::mesh::{Agent, Mesh};
use palisade_tests::{poll, skip};
use serde_json::Value;

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

/// The program around go-spiffe; `None` after a reported skip.
fn program(test: &str) -> Option<Program> {
    let path = std::env::var_os("PALISADE_INTEROP_GO").map(PathBuf::from).filter(|path| path.exists());
    if path.is_none() {
        skip(test, "no go-spiffe program: `cargo xtask test` builds it");
    }
    path.map(Program)
}

struct Program(PathBuf);

impl Program {
    fn run(&self, verb: &str, socket: &Path, more: &[&str]) -> Result<Output> {
        Ok(Command::new(&self.0).arg(verb).arg(socket).args(more).output()?)
    }

    fn answer(&self, verb: &str, socket: &Path, more: &[&str]) -> Result<Value> {
        let output = self.run(verb, socket, more)?;
        ensure!(output.status.success(), "{verb}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// An echo server behind go-spiffe's mTLS, and its address.
    fn serve(&self, socket: &Path) -> Result<(Running, String)> {
        let mut child = Command::new(&self.0).arg("serve").arg(socket).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("stdout")?).read_line(&mut line)?;
        let running = Running(child);
        let address: Value = serde_json::from_str(&line)?;
        Ok((running, address["address"].as_str().context("no address")?.to_owned()))
    }
}

/// Killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until the agent has its identity, as go-spiffe sees it.
fn served(program: &Program, agent: &Agent) -> Value {
    poll("the agent to serve", || program.answer("x509", &agent.socket, &[]))
}

#[test]
fn go_spiffe_verifies_what_the_agent_serves() -> Result<()> {
    let Some(program) = program("go_spiffe_verifies_what_the_agent_serves") else { return Ok(()) };
    let mut mesh = Mesh::new(&[])?;
    mesh.start_server()?;
    let agent = mesh.start_agent("shop", "cart")?;
    let state = served(&program, &agent);
    assert_eq!(state["identities"][0]["id"], CART);
    assert_eq!(state["identities"][0]["chain"], 2, "leaf and intermediate, no root");
    let roots = state["roots"].as_object().expect("roots");
    assert_eq!(roots.keys().collect::<Vec<_>>(), ["cluster.local"]);
    assert_eq!(roots["cluster.local"].as_array().expect("a list").len(), 1);
    Ok(())
}

#[test]
fn go_spiffe_authenticates_both_ways_and_by_id() -> Result<()> {
    let Some(program) = program("go_spiffe_authenticates_both_ways_and_by_id") else { return Ok(()) };
    let mut mesh = Mesh::new(&[])?;
    mesh.start_server()?;
    let (cart, front) = (mesh.start_agent("shop", "cart")?, mesh.start_agent("web", "front")?);
    let shown = served(&program, &cart)["identities"][0]["serial"].clone();
    served(&program, &front);
    let (_server, address) = program.serve(&cart.socket)?;
    let answer = program.answer("dial", &front.socket, &[&address, CART])?;
    assert_eq!((&answer["answer"], &answer["serial"]), (&"hello\n".into(), &shown));
    let other = program.run("dial", &front.socket, &[&address, "spiffe://cluster.local/ns/shop/sa/other"])?;
    assert!(!other.status.success() && String::from_utf8_lossy(&other.stderr).contains("unexpected ID"));

    let mut elsewhere = Mesh::new(&[])?;
    elsewhere.start_server()?;
    let stranger = elsewhere.start_agent("web", "front")?;
    served(&program, &stranger);
    let refused = program.run("dial", &stranger.socket, &[&address, CART])?;
    assert!(!refused.status.success(), "an identity of the same name, of another authority");
    Ok(())
}

/// The roots of the server's own directory, as an operator would hand them to somebody.
fn root_file(mesh: &Mesh) -> Result<PathBuf> {
    let journal: Value = serde_json::from_slice(&std::fs::read(mesh.path().join("server/ca/authorities.json"))?)?;
    let roots = journal["authorities"][0]["roots"].as_array().context("roots")?;
    let path = mesh.path().join("roots.pem");
    std::fs::write(&path, roots.iter().filter_map(Value::as_str).collect::<String>())?;
    Ok(path)
}

#[test]
fn go_spiffe_fetches_the_bundle_and_sees_a_rotation() -> Result<()> {
    let Some(program) = program("go_spiffe_fetches_the_bundle_and_sees_a_rotation") else { return Ok(()) };
    let mut mesh = Mesh::new(&[])?;
    mesh.start_server()?;
    let url = format!("https://{}/bundle", mesh.server_address("bundle")?);
    let roots = root_file(&mesh)?;
    let server = "spiffe://cluster.local/ns/palisade-system/sa/palisade";
    let more = ["cluster.local", server, roots.to_str().context("a path")?];
    let fetch = || program.answer("bundle", Path::new(&url), &more);
    let before = fetch()?;
    let count = |bundle: &Value, what: &str| bundle[what].as_array().map_or(0, Vec::len);
    assert_eq!((count(&before, "roots"), count(&before, "keys"), &before["refresh_hint"]), (1, 1, &300.into()));
    let prepared = mesh.palisade(&["ca", "rotate", "--prepare"])?;
    assert!(prepared.status.success(), "{}", String::from_utf8_lossy(&prepared.stderr));
    let after = poll("the next root in the bundle", || {
        let bundle = fetch().map_err(|error| error.to_string())?;
        if count(&bundle, "roots") == 2 { Ok(bundle) } else { Err(bundle.to_string()) }
    });
    assert!(after["sequence"].as_u64() > before["sequence"].as_u64());
    Ok(())
}

/// A token from the agent, validated by go-spiffe with the agent's bundles and by the agent itself.
#[test]
fn go_spiffe_fetches_and_validates_tokens() -> Result<()> {
    let Some(program) = program("go_spiffe_fetches_and_validates_tokens") else { return Ok(()) };
    let mut mesh = Mesh::new(&[])?;
    mesh.server_flags = ["--jwt-issuer", "https://idp.example"].map(str::to_owned).into();
    mesh.start_server()?;
    let agent = mesh.start_agent("shop", "cart")?;
    served(&program, &agent);
    let token = poll("a token", || program.answer("jwt", &agent.socket, &["db"]));
    assert_eq!((&token["id"], &token["there"]), (&CART.into(), &CART.into()));
    assert_eq!(
        (&token["audience"], &token["claims"]["iss"]),
        (&serde_json::json!(["db"]), &"https://idp.example".into())
    );
    let other = program.run("jwt", &agent.socket, &["db", "spiffe://cluster.local/ns/shop/sa/other"])?;
    assert!(!other.status.success() && String::from_utf8_lossy(&other.stderr).contains("PermissionDenied"));
    Ok(())
}

/// Identities by registration entry: one file away, and gone with it.
#[test]
fn go_spiffe_sees_entries_come_and_go() -> Result<()> {
    let Some(program) = program("go_spiffe_sees_entries_come_and_go") else { return Ok(()) };
    let mut mesh = Mesh::new(&[])?;
    mesh.start_server()?;
    let agent = mesh.start_agent("infra", "node")?;
    served(&program, &agent);
    let uid = rustix::process::geteuid().as_raw();
    let entry = |name: &str, hint: &str| {
        format!(
            "apiVersion: palisade.dev/v1\nkind: RegistrationEntry\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{spiffeId: 'spiffe://cluster.local/ns/shop/sa/{name}',\
             parentId: 'spiffe://cluster.local/ns/infra/sa/node', selectors: ['unix:uid:{uid}'], hint: {hint}}}\n"
        )
    };
    mesh.write_config("entries.yaml", &format!("{}---\n{}", entry("cart", "first"), entry("bank", "second")))?;
    let names = |state: &Value| -> Vec<String> {
        let identities = state["identities"].as_array().cloned().unwrap_or_default();
        let mut ids: Vec<String> = identities.iter().filter_map(|one| one["id"].as_str().map(str::to_owned)).collect();
        ids.sort();
        ids
    };
    let both = ["bank", "cart"].map(|name| format!("spiffe://cluster.local/ns/shop/sa/{name}"));
    poll("both identities", || {
        let found = names(&program.answer("x509", &agent.socket, &[]).map_err(|error| error.to_string())?);
        if found == both { Ok(()) } else { Err(format!("{found:?}")) }
    });
    mesh.write_config("entries.yaml", &entry("bank", "second"))?;
    poll("one identity", || {
        let found = names(&program.answer("x509", &agent.socket, &[]).map_err(|error| error.to_string())?);
        if found == both[..1] { Ok(()) } else { Err(format!("{found:?}")) }
    });
    Ok(())
}
