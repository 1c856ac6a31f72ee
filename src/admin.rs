//! The operator's door: the server's Unix socket, and how its errors read.

use std::error::Error as _;
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

    /// A status as a sentence: the server's message carries the reason; without a server the socket is named. Only a status that was
    /// made here has a cause: one that the server sent, `Unavailable` too, is its answer.
    pub(crate) fn error(&self, status: &tonic::Status) -> anyhow::Error {
        match status.code() {
            tonic::Code::InvalidArgument => crate::exit::usage(status.message()),
            tonic::Code::Unavailable if status.source().is_some() => anyhow!(
                "cannot reach the server at {}: {}; is it running, and are you its user? Name its socket with --admin-socket",
                self.admin_socket.display(),
                status.message(),
            ),
            code => anyhow!("{} ({code:?})", status.message()),
        }
    }
}

#[cfg(test)]
mod tests {
    use palisade_wire::admin::GetAuthoritiesRequest;

    use super::*;

    #[tokio::test]
    async fn a_server_that_answers_is_not_taken_for_one_that_is_away() {
        let dir = tempfile::tempdir().unwrap();
        let options = AdminOptions { admin_socket: dir.path().join("admin.sock") };
        let away = options.client().get_authorities(GetAuthoritiesRequest {}).await.unwrap_err();
        let text = options.error(&away).to_string();
        assert!(text.contains("cannot reach the server at") && text.contains("admin.sock"), "{text}");
        let answered = tonic::Status::unavailable("`/data/ca.db` cannot be used: disk I/O error");
        let text = options.error(&answered).to_string();
        assert_eq!(text, "`/data/ca.db` cannot be used: disk I/O error (Unavailable)");
    }
}
