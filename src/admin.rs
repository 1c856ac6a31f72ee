//! The operator's door: the server's Unix socket, and how its errors read.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use palisade_wire::admin::admin_client::AdminClient;
use tonic::transport::Channel;

/// Where the server is.
#[derive(Args, Clone, Debug)]
pub(crate) struct AdminOptions {
    /// The server's administration socket: `admin.sock` in its data directory.
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/var/lib/palisade/server/admin.sock",
        env = "PALISADE_ADMIN_SOCKET"
    )]
    admin_socket: PathBuf,
}

impl AdminOptions {
    /// A client; it connects at its first call.
    pub(crate) fn client(&self) -> AdminClient<Channel> {
        AdminClient::new(palisade_wire::channel::unix(&self.admin_socket))
    }

    /// A status as a sentence: the server's message carries the reason; without a server the socket is named.
    pub(crate) fn error(&self, status: &tonic::Status) -> anyhow::Error {
        match status.code() {
            tonic::Code::InvalidArgument => crate::exit::usage(status.message()),
            tonic::Code::Unavailable => anyhow!(
                "cannot reach the server at {}: {}; is it running, and are you its user? Name its socket with --admin-socket",
                self.admin_socket.display(),
                status.message(),
            ),
            code => anyhow!("{} ({code:?})", status.message()),
        }
    }
}
