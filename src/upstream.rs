//! Channels from a proxy to its server: mTLS with the certificate of the moment, the server known by the bundle of the moment.

use std::error::Error;
use std::sync::Arc;

use palisade_identity::{SvidSource, tls};
use palisade_wire::channel;
use tonic::transport::Channel;

type BoxError = Box<dyn Error + Send + Sync>;

/// Makes lazy channels; each connection attempt reads the identity anew.
pub(crate) type Channels = Arc<dyn Fn() -> Result<Channel, BoxError> + Send + Sync>;

/// Channels to `server` (`host:port`), whose certificate must carry `name` (default: the host).
pub(crate) fn channels(server: &str, name: Option<&str>, identity: &Arc<dyn SvidSource>) -> Channels {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host).trim_start_matches('[').trim_end_matches(']');
    let (server, name, identity) = (server.to_owned(), name.unwrap_or(host).to_owned(), Arc::clone(identity));
    Arc::new(move || {
        let identity = Arc::clone(&identity);
        let config = move || {
            let current = identity.current().ok_or("there is no certificate yet")?;
            let domain = current.svid.id().trust_domain();
            let bundle =
                current.bundles.get(domain.as_str()).ok_or("there is no bundle for the certificate's trust domain")?;
            Ok(Arc::new(tls::client_config_named(Some(&current), bundle, &[b"h2"])?))
        };
        Ok(channel::tls_with(&server, &name, config)?)
    })
}
