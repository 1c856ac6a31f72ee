//! The configuration files of the demo's two proxies.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{Context as _, Result};

use super::stage::{PAYMENTS, Stage};

/// Writes `<name>/proxy.yaml` and the join token beside it (0600: it is a secret until it is spent).
pub(super) fn write(stage: &Stage, name: &str, token: &str) -> Result<()> {
    let directory = stage.directory.join(name);
    let token_file = directory.join("join-token");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&token_file)?;
    file.write_all(token.as_bytes()).context("cannot write the join token")?;
    let listener = match name {
        "web" => "outbound:\n  - listen: 127.0.0.1:0\n    service: payments.shop.svc.cluster.local:80".to_owned(),
        _ => {
            let app = stage.address("payments-app", "http")?;
            format!("inbound:\n  - listen: {PAYMENTS}:0\n    forward: {app}")
        }
    };
    let server = stage.address("server", "grpc")?;
    let text = include_str!("files/proxy.yaml")
        .replace("NAME", name)
        .replace("SERVER", &server.to_string())
        .replace("TOKEN", &quoted(&token_file.display().to_string()))
        .replace("STATE", &quoted(&directory.display().to_string()))
        .replace("LISTENER", &listener);
    std::fs::write(directory.join("proxy.yaml"), text).context("cannot write the proxy's configuration")
}

/// A YAML double-quoted scalar: paths may hold anything.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
