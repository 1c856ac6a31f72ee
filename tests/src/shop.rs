//! The mesh that most end-to-end tests need: `web` calls `payments`, both behind proxies, and `legacy` has none.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::Result;

use crate::backend::{Backend, echo};
use crate::http::{Answer, Connection, request};
use crate::mesh::{Mesh, Proxy};
use crate::poll;

/// The service that `web` calls over HTTP, on port 80.
pub const HOST: &str = "payments.shop.svc.cluster.local";

/// Counts the meshes of this test process: each gets loopback addresses of its own.
static MESHES: AtomicU8 = AtomicU8::new(0);

/// Three workloads, and an HTTP and an echo application behind `payments`.
#[derive(Debug)]
pub struct Shop {
    /// The server, and the directory of everything.
    pub mesh: Mesh,
    /// `outbound/0` is HTTP to [`HOST`], `outbound/1` is TCP to the echo.
    pub web: Proxy,
    /// `inbound/0` is HTTP, `inbound/1` is TCP to the echo.
    pub payments: Proxy,
    /// The HTTP application of `payments`.
    pub backend: Backend,
    /// The address of the workload without a proxy.
    pub legacy: IpAddr,
}

impl Shop {
    /// Starts everything; returns when a `GET /warm` from web to payments has passed.
    ///
    /// # Errors
    /// When something cannot be started.
    pub fn start(policies: &str) -> Result<Self> {
        Self::start_with(policies, &[])
    }

    /// [`Shop::start`] with flags for every process.
    ///
    /// # Errors
    /// As [`Shop::start`].
    pub fn start_with(policies: &str, flags: &[&str]) -> Result<Self> {
        Self::begin(policies, flags, &[])
    }

    /// [`Shop::start`] with flags for the server.
    ///
    /// # Errors
    /// As [`Shop::start`].
    pub fn start_served(policies: &str, flags: &[&str]) -> Result<Self> {
        Self::begin(policies, &[], flags)
    }

    fn begin(policies: &str, flags: &[&str], server_flags: &[&str]) -> Result<Self> {
        let own = Own::new();
        let mut mesh = Mesh::new(&[("policies.yaml", policies), ("workloads.yaml", &own.workloads(None, None))])?;
        mesh.host = own.address(1).to_string();
        mesh.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        mesh.server_flags = server_flags.iter().map(|flag| (*flag).to_owned()).collect();
        mesh.start_server()?;
        let (backend, echo) = (Backend::start()?, echo()?);
        let listen = own.address(12);
        let payments = mesh.start_proxy(
            "shop",
            "payments",
            &format!(
                "inbound:\n- {{listen: '{listen}:0', forward: '{}', protocol: HTTP}}\n\
                 - {{listen: '{listen}:0', forward: '{echo}', protocol: TCP}}",
                backend.address
            ),
        )?;
        let listen = own.address(11);
        let web = mesh.start_proxy(
            "shop",
            "web",
            &format!(
                "outbound:\n- {{listen: '{listen}:0', service: '{HOST}:80'}}\n- {{listen: '{listen}:0', service: '{HOST}:7000'}}"
            ),
        )?;
        let ports = (payments.address("inbound/0")?.port(), payments.address("inbound/1")?.port());
        mesh.write_config("workloads.yaml", &own.workloads(Some(ports.0), Some(ports.1)))?;
        let shop = Self { mesh, web, payments, backend, legacy: own.address(13).into() };
        shop.wait_until_passing()?;
        Ok(shop)
    }

    /// Waits until a `GET /warm` from web to payments passes.
    ///
    /// # Errors
    /// When web has no outbound port.
    ///
    /// # Panics
    /// When none passes.
    pub fn wait_until_passing(&self) -> Result<()> {
        let address = self.outbound()?;
        poll("web to reach payments", || match request(address, "GET", "/warm", HOST) {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        });
        Ok(())
    }

    /// One request from web, on a connection of its own.
    ///
    /// # Errors
    /// When it is not answered.
    pub fn call(&self, method: &str, path: &str) -> Result<Answer> {
        request(self.outbound()?, method, path, HOST)
    }

    /// A connection from the workload without a proxy to payments' HTTP port.
    ///
    /// # Errors
    /// When it is refused.
    pub fn from_legacy(&self) -> Result<Connection> {
        Connection::open_from(self.legacy, self.payments.address("inbound/0")?)
    }

    /// Where the application of web sends its HTTP requests.
    ///
    /// # Errors
    /// When web is not running.
    pub fn outbound(&self) -> Result<SocketAddr> {
        self.web.address("outbound/0")
    }
}

/// Loopback addresses of one mesh.
struct Own([u8; 2]);

impl Own {
    fn new() -> Self {
        let [.., high, low] = std::process::id().to_be_bytes();
        // 127.0.x.y belongs to everybody else.
        Self([1 + high % 254, low.wrapping_add(MESHES.fetch_add(1, Ordering::Relaxed).wrapping_mul(37))])
    }

    fn address(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.0[0], self.0[1], host)
    }

    /// The registry; with port 0 the ports are known only after the first start.
    fn workloads(&self, http: Option<u16>, tcp: Option<u16>) -> String {
        let ports = match (http, tcp) {
            (Some(http), Some(tcp)) => format!("\n  ports: {{http: {http}, tcp: {tcp}}}"),
            _ => String::new(),
        };
        let entry = |name: &str, host: u8, mtls: &str, ports: &str| {
            format!(
                "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
                 address: {}\n  labels: {{app: {name}{mtls}}}\n  serviceAccount: {name}{ports}\n---\n",
                self.address(host)
            )
        };
        let istio = ", security.istio.io/tlsMode: istio";
        format!(
            "{}{}{}apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: payments, namespace: shop}}\nspec:\n  \
             hosts: [{HOST}]\n  location: MESH_INTERNAL\n  resolution: STATIC\n  ports:\n  - {{number: 80, name: http, protocol: HTTP}}\n  \
             - {{number: 7000, name: tcp, protocol: TCP}}\n  workloadSelector: {{labels: {{app: payments}}}}\n",
            entry("web", 11, istio, ""),
            entry("payments", 12, istio, &ports),
            entry("legacy", 13, "", ""),
        )
    }
}
