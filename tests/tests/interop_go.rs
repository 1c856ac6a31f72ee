//! go-spiffe, the strictest client there is, on the Workload API of real agents: what it verifies and refuses by itself.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

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
