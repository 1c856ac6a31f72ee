//! Services outside a cluster: Istio's ServiceEntry, and what a port speaks.

use std::fmt;

use crate::{Meta, Selector, WorkloadEntry};

/// An accepted ServiceEntry (`networking.istio.io/v1`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEntry {
    /// Name, namespace, labels, annotations and position.
    pub meta: Meta,
    /// The host names, lower case as compared; no wildcards.
    pub hosts: Vec<String>,
    /// Virtual addresses or prefixes by which captured traffic is recognised.
    pub addresses: Vec<String>,
    /// The ports; numbers and names are unique.
    pub ports: Vec<ServicePort>,
    /// Inline endpoints.
    pub endpoints: Vec<WorkloadEntry>,
    /// Or: the WorkloadEntries of the same namespace with these labels.
    pub workload_selector: Option<Selector>,
    /// How endpoints are found.
    pub resolution: Resolution,
    /// Whether the service belongs to the mesh.
    pub location: Location,
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// The port by which callers know it.
    pub number: u16,
    /// Its name, which endpoints refer to.
    pub name: String,
    /// What is spoken on it.
    pub protocol: AppProtocol,
    /// The endpoints' port where it differs from `number`.
    pub target_port: Option<u16>,
}

/// How a service's endpoints are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// They are written down, inline or as WorkloadEntries.
    Static,
}

/// Whether a service belongs to the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Location {
    /// Outside: Istio's default. Its endpoints are called in plaintext.
    External,
    /// Inside: endpoints with an identity are called with mutual TLS.
    Internal,
}

/// What the application speaks on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AppProtocol {
    /// HTTP; the application is spoken to as the client spoke (HTTP/1.1 or h2c).
    Http,
    /// HTTP; the application is always spoken to in HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// gRPC, which is HTTP/2 with trailers that matter.
    Grpc,
    /// Opaque bytes; nothing is sniffed.
    Tcp,
    /// Nothing was declared: the first bytes decide.
    Detect,
}

impl AppProtocol {
    /// The protocol that a text names, case-insensitively: Istio's `protocol` field (`protocol.Parse`) and the
    /// proxy's `HTTP1`. Protocols that Istio carries as bytes (`TLS`, `HTTPS`, `MONGO`, `REDIS`, `MYSQL`) are
    /// [`AppProtocol::Tcp`]; `None` for a text that names no protocol, and for `UDP` and `HTTP_PROXY`, which are not carried.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "http" => Some(Self::Http),
            "http1" => Some(Self::Http1),
            "http2" => Some(Self::Http2),
            "grpc" | "grpc-web" => Some(Self::Grpc),
            "tcp" | "tls" | "https" | "mongo" | "redis" | "mysql" => Some(Self::Tcp),
            _ => None,
        }
    }

    /// The protocol that a port's name declares by its prefix (`http-web`, `grpc`), as Kubernetes Services do;
    /// [`AppProtocol::Detect`] where it declares none. `grpc-web-x` is gRPC-Web.
    #[must_use]
    pub fn from_port_name(name: &str) -> Self {
        let prefix = name.split_once('-').map_or(name, |(prefix, _)| prefix);
        Self::parse(prefix).unwrap_or(Self::Detect)
    }

    /// Whether the port carries HTTP for certain.
    #[must_use]
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http1 | Self::Http2 | Self::Grpc)
    }

    /// The text of the configuration: `HTTP`, `HTTP1`, `HTTP2`, `GRPC`, `TCP`; empty for [`AppProtocol::Detect`].
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Http1 => "HTTP1",
            Self::Http2 => "HTTP2",
            Self::Grpc => "GRPC",
            Self::Tcp => "TCP",
            Self::Detect => "",
        }
    }
}

impl fmt::Display for AppProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Detect => "detected",
            other => other.as_str(),
        })
    }
}
