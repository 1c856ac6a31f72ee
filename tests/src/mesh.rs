//! A mesh on loopback from the real binary: one server, any number of proxies, every process restartable in place.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

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
    /// Flags for every process from its next start on, behind the verb's own.
    pub flags: Vec<String>,
    /// Command by which the server and agents are started from now on (see [`Palisade::start_by`]); none by default.
    pub start_by: Vec<String>,
    /// Address of the server and of the proxies' administration ports. An address of its own keeps a port free over a
    /// restart: outgoing connections of this machine take theirs at 127.0.0.1.
    pub host: String,
}

/// A proxy of the mesh: its process, its addresses, and what to start it with again.
#[derive(Debug)]
pub struct Proxy {
    /// `<namespace>/<workload>`.
    pub name: String,
    /// Bound addresses by role: `inbound/0`, `outbound/0`, `admin`, `metrics`, `readiness`.
    pub addresses: BTreeMap<String, SocketAddr>,
    directory: PathBuf,
    flags: Vec<String>,
    process: Option<Palisade>,
}

/// A standalone `palisade agent` of the mesh.
#[derive(Debug)]
pub struct Agent {
    /// The Workload API and SDS.
    pub socket: PathBuf,
    /// Bound addresses by role: `metrics`.
    pub addresses: BTreeMap<String, SocketAddr>,
    /// Its state directory, with its log beside.
    pub directory: PathBuf,
    /// Command by which it is started from its next start on.
    pub start_by: Vec<String>,
    arguments: Vec<String>,
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
        let mesh = Self {
            directory,
            server: None,
            server_addresses: BTreeMap::new(),
            server_flags: Vec::new(),
            flags: Vec::new(),
            start_by: Vec::new(),
            host: "127.0.0.1".to_owned(),
        };
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
        let any = format!("{}:0", self.host);
        let at = |role: &str| self.server_addresses.get(role).map_or(any.clone(), ToString::to_string);
        let (listen, metrics) = (at("grpc"), at("metrics"));
        let own = ["--config-dir", &config, "--data-dir", &data, "--listen", &listen, "--metrics-listen", &metrics];
        let (ext_authz, http, bundle) = (at("ext-authz"), at("http"), at("bundle"));
        let doors = ["--ext-authz-listen", &ext_authz, "--http-listen", &http, "--bundle-listen", &bundle];
        let mut arguments = [&["server"][..], &doors].concat();
        arguments.extend(own);
        arguments.extend(self.flags.iter().map(String::as_str));
        arguments.extend(self.server_flags.iter().map(String::as_str));
        let mut server = Palisade::start_by(&self.start_by, &arguments, &self.path().join("server.log"))?;
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

    /// Where the server listens: roles `grpc`, `metrics`, `ext-authz`, `http` and `bundle`.
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

    /// Rows of `palisade audit query -o json` with more flags, oldest first.
    ///
    /// # Errors
    /// When the query fails.
    pub fn audit(&self, flags: &[&str]) -> Result<Vec<Value>> {
        let output = self.palisade(&[&["audit", "query", "-o", "json"], flags].concat())?;
        ensure!(output.status.success(), "audit query: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// Every row there is, oldest first, in as many queries as it takes.
    ///
    /// # Errors
    /// When a query fails, or one answer names a row twice.
    pub fn audit_all(&self) -> Result<Vec<Value>> {
        let (mut rows, mut seen, mut until) = (Vec::<Value>::new(), BTreeSet::new(), None::<String>);
        loop {
            let mut flags = vec!["--limit", "10000"];
            flags.extend(until.iter().flat_map(|until| ["--until", until.as_str()]));
            let page = self.audit(&flags)?;
            let ids: BTreeSet<&str> = page.iter().filter_map(|row| row["id"].as_str()).collect();
            ensure!(ids.len() == page.len(), "{} rows, but {} ids", page.len(), ids.len());
            let next = page.iter().filter_map(|row| row["time"].as_str());
            let next = next.skip_while(|time| Some(*time) == page.first().and_then(|row| row["time"].as_str())).nth(1);
            let (full, next) = (page.len() == 10_000, next.map(str::to_owned));
            let fresh = page.into_iter().filter(|row| seen.insert(row["id"].to_string()));
            rows.splice(0..0, fresh.collect::<Vec<_>>());
            if !full {
                return Ok(rows);
            }
            until = next;
        }
    }

    /// Starts an agent for `spiffe://cluster.local/ns/<namespace>/sa/<account>`, enrolled by a join token.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_agent(&self, namespace: &str, account: &str) -> Result<Agent> {
        let directory = self.path().join(format!("agent-{account}"));
        fs::create_dir_all(&directory)?;
        let (socket, token) = (directory.join("run/workload.sock"), directory.join("join-token"));
        write_secret(&token, &self.join_token(namespace, account)?)?;
        let server = self.server_address("grpc")?.to_string();
        let (state, token, path, listen) =
            (shown(&directory), shown(&token), shown(&socket), format!("{}:0", self.host));
        let own = [
            "agent",
            "--server",
            &server,
            "--server-name",
            "localhost",
            "--join-token-file",
            &token,
            "--data-dir",
            &state,
            "--socket",
            &path,
            "--metrics-listen",
            &listen,
        ];
        // Right behind the verb: the last one is the address, which the next start replaces.
        let mut arguments: Vec<String> = own.map(str::to_owned).into();
        arguments.splice(1..1, self.flags.iter().cloned());
        let start_by = self.start_by.clone();
        let mut agent = Agent { socket, addresses: BTreeMap::new(), directory, start_by, arguments, process: None };
        agent.start()?;
        Ok(agent)
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
        write_secret(&token, &self.join_token(namespace, workload)?)?;
        let text = format!(
            "workload: {{namespace: {namespace}, name: {workload}, labels: {{app: {workload}}}}}\n\
             server: {{address: '{server}', name: localhost}}\n\
             identity: {{trustDomain: {TRUST_DOMAIN}, agent: {{joinToken: {token}}}}}\nstateDir: {state}\n\
             admin: {host}:0\nmetrics: {host}:0\nreadiness: {host}:0\n{listeners}\n",
            host = self.host,
            server = self.server_address("grpc")?,
            token = shown(&token),
            state = shown(&directory),
        );
        fs::write(directory.join("proxy.yaml"), text)?;
        let name = format!("{namespace}/{workload}");
        let mut proxy = Proxy { name, addresses: BTreeMap::new(), directory, flags: self.flags.clone(), process: None };
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
        // Listeners in the order of the file, inbound before outbound: their roles are named by their position.
        for (role, address) in &self.addresses {
            let key = if role.contains('/') { "listen" } else { role.as_str() };
            for quote in ["", "'"] {
                let open = format!("{key}: {quote}{}:0", address.ip());
                text = text.replacen(&open, &format!("{key}: {quote}{address}"), 1);
            }
        }
        fs::write(&config, text)?;
        let _ = fs::remove_file(self.directory.join("addresses.json"));
        let config = shown(&config);
        let mut arguments = vec!["proxy", "--config", &config];
        arguments.extend(self.flags.iter().map(String::as_str));
        let mut process = Palisade::start(&arguments, &self.directory.join("proxy.log"))?;
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

    /// Its state directory, with its configuration, log and join token.
    pub fn directory(&self) -> &Path {
        &self.directory
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

impl Agent {
    /// Starts it, the second time on the ports of the first, and waits until it has bound them.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self) -> Result<()> {
        let _ = fs::remove_file(self.directory.join("addresses.json"));
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let mut process = Palisade::start_by(&self.start_by, &arguments, &self.directory.join("agent.log"))?;
        self.addresses = process.addresses(&self.directory);
        if let (Some(listen), Some(address)) = (self.arguments.last_mut(), self.addresses.get("metrics")) {
            *listen = address.to_string();
        }
        self.process = Some(process);
        Ok(())
    }

    /// The running process.
    ///
    /// # Errors
    /// When it is not running.
    pub fn process(&mut self) -> Result<&mut Palisade> {
        self.process.as_mut().context("the agent is not running")
    }
}

fn write_secret(path: &Path, secret: &str) -> Result<()> {
    fs::write(path, secret)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o600))?)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
