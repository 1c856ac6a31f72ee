//! HTTP calls of the story-teller: to the workloads, and to the probes of the processes.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A client with a pool of its own. Cloning shares the pool.
#[derive(Clone)]
pub(super) struct Caller(Client<HttpConnector, Empty<Bytes>>);

/// An answer, read to its end.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

impl Answer {
    /// A string field of a JSON body, empty when there is none.
    pub(super) fn field(&self, name: &str) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        body.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
    }
}

impl Caller {
    pub(super) fn new() -> Self {
        Self(Client::builder(TokioExecutor::new()).build(HttpConnector::new()))
    }

    /// One request without a body.
    pub(super) async fn request(&self, method: Method, address: SocketAddr, path: &str) -> Result<Answer> {
        let request = Request::builder().method(method).uri(format!("http://{address}{path}")).body(Empty::new())?;
        let call = async {
            let (parts, body) = self.0.request(request).await?.into_parts();
            let bytes = body.collect().await?.to_bytes();
            anyhow::Ok(Answer { status: parts.status.as_u16(), body: String::from_utf8_lossy(&bytes).into_owned() })
        };
        let timed = tokio::time::timeout(TIMEOUT, call).await;
        timed.context("no answer in time")?.with_context(|| format!("{address}{path}"))
    }

    pub(super) async fn get(&self, address: SocketAddr, path: &str) -> Result<Answer> {
        self.request(Method::GET, address, path).await
    }
}
