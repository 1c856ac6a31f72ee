//! A mesh on loopback from the real binary: one server, any number of proxies, every process restartable in place.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};

use crate::{Palisade, binary, http, poll};

/// The trust domain of every test mesh.
pub const TRUST_DOMAIN: &str = "cluster.local";

/// A server and its proxies in one temporary directory.
#[derive(Debug)]
pub struct Mesh {
    directory: tempfile::TempDir,
    server: Option<Palisade>,
    server_addresses: BTreeMap<String, SocketAddr>,
    /// More flags for the server, from its next start on.
    pub server_flags: Vec<String>,
}

/// A proxy of the mesh: its process, its addresses, and what to start it with again.
#[derive(Debug)]
pub struct Proxy {
    /// `<namespace>/<workload>`.
    pub name: String,
    /// Bound addresses by role: `inbound/0`, `outbound/0`, `admin`, `metrics`, `readiness`.
    pub addresses: BTreeMap<String, SocketAddr>,
    directory: PathBuf,
    process: Option<Palisade>,
}

impl Mesh {
    /// A directory with these files in the configuration directory; nothing runs yet.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn new(config: &[(&str, &str)]) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("palisade-").tempdir()?;
        fs::create_dir_all(directory.path().join("config"))?;
        let mesh = Self { directory, server: None, server_addresses: BTreeMap::new(), server_flags: Vec::new() };
        for (name, text) in config {
            mesh.write_config(name, text)?;
        }
        Ok(mesh)
    }

    /// The directory of everything.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file of the configuration directory in one step, as an editor does.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_config(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path().join("config").join(name);
        let temporary = path.with_extension("tmp");
        fs::write(&temporary, text)?;
        Ok(fs::rename(&temporary, &path)?)
    }

    /// Starts the server, the second time on the ports of the first, and waits until it has bound them.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_server(&mut self) -> Result<()> {
        let _ = fs::remove_file(self.path().join("server/addresses.json"));
        let (config, data) = (shown(&self.path().join("config")), shown(&self.path().join("server")));
        let at = |role: &str| self.server_addresses.get(role).map_or("127.0.0.1:0".to_owned(), ToString::to_string);
        let (listen, metrics) = (at("grpc"), at("metrics"));
        let mut arguments = vec![
            "server",
            "--config-dir",
            &config,
            "--data-dir",
            &data,
            "--listen",
            &listen,
            "--metrics-listen",
            &metrics,
        ];
        arguments.extend(self.server_flags.iter().map(String::as_str));
        let mut server = Palisade::start(&arguments, &self.path().join("server.log"))?;
        self.server_addresses = server.addresses(&self.path().join("server"));
        self.server = Some(server);
        Ok(())
    }

    /// The running server.
    ///
    /// # Errors
    /// When it is not running.
    pub fn server(&mut self) -> Result<&mut Palisade> {
        self.server.as_mut().context("the server is not running")
    }

    /// Where the server listens: roles `grpc` and `metrics`.
    ///
    /// # Errors
    /// Before its first start.
    pub fn server_address(&self, role: &str) -> Result<SocketAddr> {
        self.server_addresses.get(role).copied().with_context(|| format!("the server has no `{role}`"))
    }

    /// A fresh join token for `spiffe://cluster.local/ns/<namespace>/sa/<account>`, by the command line.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn join_token(&self, namespace: &str, account: &str) -> Result<String> {
        let id = format!("spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/{account}");
        let output = self.palisade(&["ca", "join-token", "--spiffe-id", &id])?;
        ensure!(output.status.success(), "join-token: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Runs a command-line verb against this server's administration socket.
    ///
    /// # Errors
    /// When the binary cannot be run.
    pub fn palisade(&self, arguments: &[&str]) -> Result<Output> {
        let socket = self.path().join("server/admin.sock");
        Ok(Command::new(binary()).args(arguments).env("PALISADE_ADMIN_SOCKET", socket).output()?)
    }

    /// Rows of `palisade audit query -o json` with more flags.
    ///
    /// # Errors
    /// When the query fails.
    pub fn audit(&self, flags: &[&str]) -> Result<Vec<serde_json::Value>> {
        let output = self.palisade(&[&["audit", "query", "-o", "json"], flags].concat())?;
        ensure!(output.status.success(), "audit query: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// Starts a proxy for `<namespace>/<workload>` (service account of the same name), enrolled by a join token.
    /// `listeners` is the YAML of its `inbound:` and `outbound:`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_proxy(&self, namespace: &str, workload: &str, listeners: &str) -> Result<Proxy> {
        let directory = self.path().join(workload);
        fs::create_dir_all(&directory)?;
        let token = directory.join("join-token");
        fs::write(&token, self.join_token(namespace, workload)?)?;
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600))?;
        let text = format!(
            "workload: {{namespace: {namespace}, name: {workload}, labels: {{app: {workload}}}}}\nserver: {server}\n\
             identity: {{trustDomain: {TRUST_DOMAIN}, agent: {{joinToken: {token}}}}}\nstateDir: {state}\n\
             admin: 127.0.0.1:0\nmetrics: 127.0.0.1:0\nreadiness: 127.0.0.1:0\n{listeners}\n",
            server = self.server_address("grpc")?,
            token = shown(&token),
            state = shown(&directory),
        );
        fs::write(directory.join("proxy.yaml"), text)?;
        let name = format!("{namespace}/{workload}");
        let mut proxy = Proxy { name, addresses: BTreeMap::new(), directory, process: None };
        proxy.start()?;
        Ok(proxy)
    }
}

impl Proxy {
    /// Starts it, the second time on the ports of the first, and waits until it has bound them.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self) -> Result<()> {
        let config = self.directory.join("proxy.yaml");
        let mut text = fs::read_to_string(&config)?;
        // In the order of the file: the roles are named by their position.
        for role in ["admin", "metrics", "readiness"] {
            if let Some(address) = self.addresses.get(role) {
                text = text.replace(&format!("{role}: 127.0.0.1:0"), &format!("{role}: {address}"));
            }
        }
        for role in ["inbound/0", "outbound/0"] {
            if let Some(address) = self.addresses.get(role) {
                let open = format!("listen: {}:0", address.ip());
                text = text.replacen(&open, &format!("listen: {address}"), 1);
            }
        }
        fs::write(&config, text)?;
        let _ = fs::remove_file(self.directory.join("addresses.json"));
        let mut process = Palisade::start(&["proxy", "--config", &shown(&config)], &self.directory.join("proxy.log"))?;
        self.addresses = process.addresses(&self.directory);
        self.process = Some(process);
        Ok(())
    }

    /// The running process.
    ///
    /// # Errors
    /// When it is not running.
    pub fn process(&mut self) -> Result<&mut Palisade> {
        self.process.as_mut().context("the proxy is not running")
    }

    /// Where a role listens.
    ///
    /// # Errors
    /// When there is no such role.
    pub fn address(&self, role: &str) -> Result<SocketAddr> {
        self.addresses.get(role).copied().with_context(|| format!("{} has no `{role}`", self.name))
    }

    /// Waits until the readiness probe says ready.
    ///
    /// # Errors
    /// When it has no readiness port.
    ///
    /// # Panics
    /// When it does not get ready.
    pub fn wait_ready(&self) -> Result<()> {
        let address = self.address("readiness")?;
        poll(&format!("{} to be ready", self.name), || match http::request(address, "GET", "/readyz", "localhost") {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        });
        Ok(())
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
