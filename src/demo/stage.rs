//! The scenery: directories, configuration files, processes, and the wait until everything is ready.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use palisade_wire::admin::admin_client::AdminClient;
use palisade_wire::admin::{AuditQuery, CreateJoinTokenRequest, audit_answer};
use palisade_wire::audit::Event;
use tonic::transport::Channel;

use super::call::Caller;
use super::children::Children;
use super::report::{Report, Role};
use super::{memory, proxies};
use crate::runtime::Addresses;

/// Longest wait for anything that should happen at once.
const BOUND: Duration = Duration::from_secs(20);

pub(super) const WEB: &str = "127.0.0.11";
pub(super) const PAYMENTS: &str = "127.0.0.12";
pub(super) const LEGACY: &str = "127.0.0.13";

/// The running mesh.
pub(super) struct Stage {
    pub(super) directory: PathBuf,
    pub(super) children: Children,
    pub(super) caller: Caller,
    pub(super) ready_seconds: f64,
    addresses: BTreeMap<&'static str, BTreeMap<String, SocketAddr>>,
}

impl Stage {
    /// Starts everything and returns when every probe says ready.
    pub(super) async fn set(directory: &Path, remove: bool, report: &Report) -> Result<Self> {
        let start = Instant::now();
        prepare(directory)?;
        let children = Children::new(&directory.join("logs"), remove.then_some(directory))?;
        let mut stage = Self {
            directory: directory.to_path_buf(),
            children,
            caller: Caller::new(),
            ready_seconds: 0.0,
            addresses: BTreeMap::new(),
        };
        report.progress("starting the server and three workloads");
        stage.start_server()?;
        stage.start_apps()?;
        stage.learn("server").await?;
        for app in ["web-app", "payments-app", "legacy-app"] {
            stage.learn(app).await?;
        }
        report.progress("enrolling web and payments with join tokens");
        for name in ["web", "payments"] {
            let token = stage.join_token(name).await?;
            proxies::write(&stage, name, &token)?;
            let config = stage.path(&format!("{name}/proxy.yaml"));
            stage.children.start(name, &["proxy", "--config", &config])?;
        }
        stage.learn("web").await?;
        stage.learn("payments").await?;
        stage.register()?;
        stage.wait_ready().await?;
        stage.ready_seconds = start.elapsed().as_secs_f64();
        Ok(stage)
    }

    fn start_server(&mut self) -> Result<()> {
        let (config, data) = (self.path("config"), self.path("server"));
        let listen = "127.0.0.1:0";
        let doors = ["--listen", "--metrics-listen", "--ext-authz-listen", "--http-listen", "--bundle-listen"];
        let mut arguments = vec!["server", "--config-dir", &config, "--data-dir", &data];
        arguments.extend(doors.into_iter().flat_map(|door| [door, listen]));
        self.children.start("server", &arguments)
    }

    fn start_apps(&mut self) -> Result<()> {
        for (name, directory, address, upstream) in [
            ("payments", "payments-app", PAYMENTS, None),
            ("web", "web-app", WEB, Some(self.path("web-app/upstream"))),
            ("legacy", "legacy-app", LEGACY, Some(self.path("legacy-app/upstream"))),
        ] {
            let state = self.path(directory);
            let mut arguments = vec!["demo-app", "--name", name, "--address", address, "--state-dir", &state];
            if let Some(upstream) = &upstream {
                arguments.extend(["--upstream-file", upstream]);
            }
            self.children.start(directory, &arguments)?;
        }
        Ok(())
    }

    /// Tells everybody where the listeners are: with port 0 nobody could know before.
    fn register(&self) -> Result<()> {
        let outbound = self.address("web", "outbound/0")?;
        std::fs::write(self.directory.join("web-app/upstream"), outbound.to_string())?;
        let inbound = self.address("payments", "inbound/0")?;
        std::fs::write(self.directory.join("legacy-app/upstream"), inbound.to_string())?;
        let address = format!("address: {PAYMENTS}\n");
        let with_port = format!("{address}  ports:\n    http: {}\n", inbound.port());
        self.write_config("workloads.yaml", &include_str!("files/workloads.yaml").replace(&address, &with_port))
    }

    /// Writes a file of the configuration directory.
    pub(super) fn write_config(&self, name: &str, text: &str) -> Result<()> {
        let path = self.directory.join("config").join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    async fn join_token(&self, workload: &str) -> Result<String> {
        let spiffe_id = format!("spiffe://cluster.local/ns/shop/sa/{workload}");
        let answer = self.admin().create_join_token(CreateJoinTokenRequest { spiffe_id, ttl_seconds: 0 }).await?;
        Ok(answer.into_inner().token)
    }

    fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(palisade_wire::channel::unix(self.directory.join("server/admin.sock")))
    }

    /// Rows that match, oldest first.
    pub(super) async fn audit(&self, query: AuditQuery) -> Result<Vec<Event>> {
        let mut answers = self.admin().query_audit(query).await?.into_inner();
        let mut events = Vec::new();
        while let Some(answer) = answers.message().await? {
            if let Some(audit_answer::Item::Event(event)) = answer.item {
                events.push(event);
            }
        }
        Ok(events)
    }

    /// Repeats `probe` until it answers with a value, bounded.
    pub(super) async fn until<T>(&self, what: &str, mut probe: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
        let deadline = Instant::now() + BOUND;
        loop {
            let state = match probe().await {
                Ok(Some(value)) => return Ok(value),
                Ok(None) => "not yet".to_owned(),
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() >= deadline {
                bail!("waited for {what} in vain; last state: {state}; logs in {}", self.path("logs"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn learn(&mut self, name: &'static str) -> Result<()> {
        let path = Addresses::path(&self.directory.join(name));
        let deadline = Instant::now() + BOUND;
        loop {
            if let Ok(text) = std::fs::read(&path) {
                self.addresses.insert(name, serde_json::from_slice(&text)?);
                return Ok(());
            }
            self.children.check()?;
            if Instant::now() >= deadline {
                bail!("{name} did not come up; logs in {}", self.path("logs"));
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    async fn wait_ready(&mut self) -> Result<()> {
        for (name, role) in [("server", "metrics"), ("web", "readiness"), ("payments", "readiness")] {
            self.children.check()?;
            let address = self.address(name, role)?;
            self.until(&format!("{name} to be ready"), async || {
                let answer = self.caller.get(address, "/readyz").await?;
                if answer.status == 200 { Ok(Some(())) } else { bail!("{}", answer.body.trim()) }
            })
            .await?;
        }
        // Ready proxies have a snapshot; the one with payments' port is the one the story needs.
        let web = self.address("web-app", "http")?;
        self.until("web to reach payments", async || {
            let answer = self.caller.get(web, "/call/balance").await?;
            if answer.status == 200 { Ok(Some(())) } else { bail!("{} {}", answer.status, answer.body) }
        })
        .await
    }

    /// Where `role` of process `name` listens.
    pub(super) fn address(&self, name: &str, role: &str) -> Result<SocketAddr> {
        let found = self.addresses.get(name).and_then(|roles| roles.get(role));
        found.copied().with_context(|| format!("{name} did not say where its `{role}` listens"))
    }

    /// A path below the demo's directory as text.
    pub(super) fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// Who plays.
    pub(super) fn cast(&self) -> Result<Vec<Role>> {
        let role = |workload: &'static str, proxy: &'static str| {
            let identity =
                if proxy == "mTLS" { format!("spiffe://cluster.local/ns/shop/sa/{workload}") } else { String::new() };
            let address = self.address(&format!("{workload}-app"), "http")?.to_string();
            anyhow::Ok(Role { workload, address, identity, proxy })
        };
        Ok(vec![role("web", "mTLS")?, role("payments", "mTLS")?, role("legacy", "none")?])
    }

    /// Megabytes resident in all processes, this one included, and their number.
    pub(super) fn memory(&self) -> Result<(f64, usize)> {
        let (mut sum, mut count) = (memory::resident_mb(std::process::id())?, 1);
        for (_, pid) in self.children.pids() {
            sum += memory::resident_mb(pid)?;
            count += 1;
        }
        Ok((sum, count))
    }
}

fn prepare(directory: &Path) -> Result<()> {
    for name in ["config", "server", "logs", "web", "payments", "web-app", "payments-app", "legacy-app"] {
        let path = directory.join(name);
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make {}: choose another --data-dir", path.display()))?;
    }
    let config = directory.join("config");
    for (name, text) in [
        ("mesh.yaml", include_str!("files/mesh.yaml")),
        ("workloads.yaml", include_str!("files/workloads.yaml")),
        ("policies.yaml", include_str!("files/policies.yaml")),
        ("peer-authentication.yaml", include_str!("files/peer-authentication.yaml")),
    ] {
        let path = config.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
