//! How a provider's connection is opened: by whoever knows the services and holds the identity.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A byte stream to a provider.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// What opening a connection gives.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send + 'a>>;

/// Opens connections to services.
pub trait Dial: Send + Sync {
    /// A connection to `port` of the service `host` (its namespace, where one was written, is left off).
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialing<'a>;
}

/// Plain TCP: to the endpoints of services that it was told of, else to an IP address, else by DNS.
#[derive(Debug, Clone, Default)]
pub struct TcpDial {
    services: BTreeMap<(String, u16), Vec<SocketAddr>>,
}

impl TcpDial {
    /// Knows the endpoints of services by host (lower case) and service port.
    #[must_use]
    pub fn new(services: BTreeMap<(String, u16), Vec<SocketAddr>>) -> Self {
        Self { services }
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if let Some(endpoints) = self.services.get(&(bare.to_ascii_lowercase(), port)) {
            return Ok(endpoints.clone());
        }
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        Ok(tokio::net::lookup_host((bare, port)).await?.collect())
    }
}

impl Dial for TcpDial {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialing<'a> {
        Box::pin(async move {
            let mut failure = io::Error::new(io::ErrorKind::NotFound, format!("`{host}` has no endpoint"));
            for address in self.resolve(host, port).await? {
                match TcpStream::connect(address).await {
                    Ok(stream) => {
                        stream.set_nodelay(true)?;
                        return Ok(Box::new(stream) as Box<dyn Io>);
                    }
                    Err(error) => failure = error,
                }
            }
            Err(failure)
        })
    }
}
