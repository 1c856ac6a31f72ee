//! How providers of CUSTOM policies are reached: by the services of the configuration in force, else by DNS.

use std::io;
use std::sync::Arc;

use palisade_authz::provider::{Dial, Dialing, Io, TcpDial};
use tokio::net::TcpStream;

use crate::source::PolicySource;

/// Plain TCP to the endpoints of ServiceEntries, as they stand when a connection is opened.
///
/// An endpoint that has an identity is not dialled: it speaks mutual TLS, and a provider asked in plaintext instead could be
/// anybody.
pub(crate) struct RegistryDial {
    pub(crate) source: Arc<dyn PolicySource>,
    pub(crate) otherwise: TcpDial,
}

impl Dial for RegistryDial {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialing<'a> {
        let snapshot = self.source.current();
        let Some(route) = snapshot.and_then(|snapshot| snapshot.registry().service(host, port).cloned()) else {
            return self.otherwise.dial(host, port);
        };
        Box::pin(async move {
            let mut failure = io::Error::new(io::ErrorKind::NotFound, format!("service `{host}` has no endpoint"));
            for endpoint in &route.endpoints {
                if let Some(id) = &endpoint.identity {
                    let message = format!("`{}` of service `{host}` speaks mutual TLS as `{id}`", endpoint.address);
                    failure = io::Error::new(io::ErrorKind::Unsupported, message);
                    continue;
                }
                match TcpStream::connect(endpoint.address).await {
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
