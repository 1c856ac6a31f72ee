//! The `spiffe` crate on the Workload API of real agents: what a Rust application would use.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::{Stream, StreamExt as _};
use palisade_tests::mesh::{Agent, Mesh, TRUST_DOMAIN};
use palisade_tests::poll_async;
use spiffe::{
    BundleSource as _, JwtSvid, SpiffeId, TrustDomain, WorkloadApiClient, WorkloadApiError, X509Context, X509Source,
};

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const PATIENCE: Duration = Duration::from_secs(30);

fn endpoint(agent: &Agent) -> String {
    format!("unix:{}", agent.socket.display())
}

/// A client, as soon as the agent has its identity.
async fn client(agent: &Agent) -> Result<WorkloadApiClient> {
    let client = WorkloadApiClient::connect_to(endpoint(agent)).await?;
    poll_async("the agent to serve", || client.fetch_x509_context()).await;
    Ok(client)
}

async fn next<T>(
    stream: &mut (impl Stream<Item = Result<T, WorkloadApiError>> + Unpin),
) -> Result<Result<T, WorkloadApiError>> {
    tokio::time::timeout(PATIENCE, stream.next()).await?.context("the stream has ended")
}

fn leaf(context: &X509Context) -> Result<Vec<u8>> {
    Ok(context.default_svid().context("no identity")?.leaf().as_bytes().to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_spiffe_crate_follows_renewals() -> Result<()> {
    let mut mesh = Mesh::new(&[])?;
    mesh.server_flags = ["--leaf-ttl", "6s", "--max-leaf-ttl", "6s"].map(str::to_owned).into();
    mesh.start_server()?;
    let agent = mesh.start_agent("shop", "cart")?;
    let client = client(&agent).await?;
    let mut stream = client.stream_x509_contexts().await?;
    let mut leaves = Vec::new();
    while leaves.len() < 3 {
        let context = next(&mut stream).await??;
        let svid = context.default_svid().context("no identity")?;
        assert_eq!(svid.spiffe_id().to_string(), CART);
        assert_eq!(svid.cert_chain().len(), 2, "leaf and intermediate, no root");
        let leaf = leaf(&context)?;
        assert!(!leaves.contains(&leaf), "the same state twice");
        leaves.push(leaf);
    }
    Ok(())
}

/// As an application does: one source that follows by itself.
#[tokio::test(flavor = "multi_thread")]
async fn the_spiffe_crate_learns_of_a_new_root_before_it_is_used() -> Result<()> {
    let mut mesh = Mesh::new(&[])?;
    mesh.start_server()?;
    let agent = mesh.start_agent("shop", "cart")?;
    client(&agent).await?;
    let source = X509Source::builder().endpoint(endpoint(&agent)).build().await?;
    let mut updates = source.updated();
    let domain = TrustDomain::new(TRUST_DOMAIN)?;
    let roots = || -> Result<usize> {
        Ok(source.bundle_for_trust_domain(&domain)?.context("no bundle of our own")?.authorities().len())
    };
    let (before, first) = (source.svid()?, roots()?);
    assert_eq!((before.spiffe_id().to_string().as_str(), first), (CART, 1));
    let prepared = mesh.palisade(&["ca", "rotate", "--prepare"])?;
    assert!(prepared.status.success(), "{}", String::from_utf8_lossy(&prepared.stderr));
    while roots()? == 1 {
        tokio::time::timeout(PATIENCE, updates.changed()).await??;
    }
    assert_eq!(roots()?, 2);
    assert_eq!(source.svid()?.leaf().as_bytes(), before.leaf().as_bytes(), "trust alone has changed");
    source.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_spiffe_crate_fetches_and_validates_tokens() -> Result<()> {
    let mut mesh = Mesh::new(&[])?;
    mesh.start_server()?;
    let agent = mesh.start_agent("shop", "cart")?;
    let client = client(&agent).await?;
    let svid = poll_async("a token", || client.fetch_jwt_svid(["db"], None)).await;
    assert_eq!((svid.spiffe_id().to_string().as_str(), svid.audience()), (CART, &["db".to_owned()][..]));
    let bundles = client.fetch_jwt_bundles().await?;
    let domain = TrustDomain::new(TRUST_DOMAIN)?;
    assert!(bundles.get(&domain).is_some_and(|bundle| bundle.find_jwt_authority(svid.key_id()).is_some()));
    assert_eq!(JwtSvid::parse_and_validate(svid.token(), &bundles, &["db"])?.spiffe_id(), svid.spiffe_id());
    assert_eq!(client.validate_jwt_token("db", svid.token()).await?.spiffe_id(), svid.spiffe_id());

    JwtSvid::parse_and_validate(svid.token(), &bundles, &["other"]).expect_err("another audience");
    let other = client.validate_jwt_token("other", svid.token()).await;
    assert!(other.is_err_and(|error| error.is_invalid_argument()), "another audience");
    let (head, _) = svid.token().rsplit_once('.').context("a token")?;
    let forged = client.validate_jwt_token("db", &format!("{head}.{}", "A".repeat(86))).await;
    assert!(forged.is_err_and(|error| error.is_invalid_argument()), "another signature");
    let stranger = SpiffeId::new("spiffe://cluster.local/ns/shop/sa/other")?;
    let refused = client.fetch_jwt_svid(["db"], Some(&stranger)).await;
    assert!(matches!(refused, Err(WorkloadApiError::NoIdentityIssued)), "{:?}", refused.map(|_| ()));
    Ok(())
}

/// Identities by entry, with the hints by which an application tells them apart; the stream says when the last one is withdrawn.
#[tokio::test(flavor = "multi_thread")]
async fn the_spiffe_crate_sees_entries_come_and_go() -> Result<()> {
    let mut mesh = Mesh::new(&[])?;
    mesh.start_server()?;
    let agent = mesh.start_agent("infra", "node")?;
    let client = client(&agent).await?;
    let mut stream = client.stream_x509_contexts().await?;
    next(&mut stream).await??;
    let uid = rustix::process::geteuid().as_raw();
    let entry = |name: &str, selector: &str| {
        format!(
            "apiVersion: palisade.dev/v1\nkind: RegistrationEntry\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{spiffeId: 'spiffe://cluster.local/ns/shop/sa/{name}', hint: {name}-hint,\
             parentId: 'spiffe://cluster.local/ns/infra/sa/node', selectors: ['{selector}']}}\n---\n"
        )
    };
    let mine = format!("unix:uid:{uid}");
    mesh.write_config("entries.yaml", &[entry("cart", &mine), entry("bank", &mine)].concat())?;
    let both = loop {
        let context = next(&mut stream).await??;
        if context.svids().len() == 2 {
            break context;
        }
    };
    let mut hints: Vec<&str> = both.svids().iter().filter_map(|svid: &Arc<_>| svid.hint()).collect();
    hints.sort_unstable();
    assert_eq!(hints, ["bank-hint", "cart-hint"]);

    mesh.write_config("entries.yaml", &entry("cart", "unix:uid:4294967294"))?;
    let end = loop {
        if let Err(error) = next(&mut stream).await? {
            break error;
        }
    };
    assert!(matches!(end, WorkloadApiError::NoIdentityIssued), "{end}");
    let again = client.fetch_x509_context().await;
    assert!(matches!(again, Err(WorkloadApiError::NoIdentityIssued)), "{:?}", again.map(|_| ()));
    Ok(())
}
