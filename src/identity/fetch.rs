//! `palisade identity fetch`: the Workload API as an application sees it.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use palisade_identity::{CertificateDer, PrivateKey, SpiffeId, TrustBundle, X509Svid};
use palisade_wire::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use palisade_wire::workload::{JwtsvidRequest, X509svid, X509svidRequest};
use tonic::transport::Channel;

use super::{table, time};
use crate::exit::{self, Exit};
use crate::output::print;

/// No answer of a local agent takes longer.
const DEADLINE: Duration = Duration::from_secs(30);

/// What to fetch, and where to.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The Workload API's socket.
    #[arg(long, value_name = "PATH", default_value = "/run/palisade/workload.sock", env = "SPIFFE_ENDPOINT_SOCKET")]
    socket: String,
    /// Write certificate, key and bundle of the first identity (or of --spiffe-id) into this directory.
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    /// Only this identity.
    #[arg(long, value_name = "SPIFFE_ID")]
    spiffe_id: Option<String>,
    /// Fetch a JWT-SVID for this audience instead, and print it; may be repeated.
    #[arg(long, value_name = "NAME", conflicts_with = "write")]
    jwt: Vec<String>,
}

pub(super) async fn run(options: &Options) -> Result<Exit> {
    let path = options.socket.strip_prefix("unix://").unwrap_or(&options.socket);
    if !path.starts_with('/') {
        return Err(exit::usage(format!("--socket `{}` is neither a path nor unix:///path", options.socket)));
    }
    let client = SpiffeWorkloadApiClient::new(palisade_wire::channel::unix(path));
    let fetching = async {
        if options.jwt.is_empty() {
            certificates(options, client, path).await
        } else {
            token(options, client, path).await
        }
    };
    tokio::time::timeout(DEADLINE, fetching).await.map_err(|_| anyhow!("the agent at {path} does not answer"))?
}

fn call<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", tonic::metadata::MetadataValue::from_static("true"));
    request
}

fn refused(status: &tonic::Status, path: &str) -> anyhow::Error {
    match status.code() {
        tonic::Code::PermissionDenied => anyhow!(
            "{}: this process has no identity; `palisade identity why {}` says why (while it runs), the agent's log too",
            status.message(),
            std::process::id()
        ),
        code => anyhow!("the agent at {path} says: {} ({code:?})", status.message()),
    }
}

async fn token(options: &Options, mut client: SpiffeWorkloadApiClient<Channel>, path: &str) -> Result<Exit> {
    let spiffe_id = options.spiffe_id.clone().unwrap_or_default();
    let answer = client.fetch_jwtsvid(call(JwtsvidRequest { audience: options.jwt.clone(), spiffe_id })).await;
    for svid in answer.map_err(|status| refused(&status, path))?.into_inner().svids {
        eprintln!("{}", svid.spiffe_id);
        print(&format!("{}\n", svid.svid))?;
    }
    Ok(Exit::Done)
}

async fn certificates(options: &Options, mut client: SpiffeWorkloadApiClient<Channel>, path: &str) -> Result<Exit> {
    let answer = client.fetch_x509svid(call(X509svidRequest {})).await.map_err(|status| refused(&status, path))?;
    let first = answer.into_inner().message().await.map_err(|status| refused(&status, path))?;
    let svids = first.ok_or_else(|| anyhow!("the agent at {path} ended the call"))?.svids;
    let wanted = |svid: &X509svid| options.spiffe_id.as_ref().is_none_or(|id| *id == svid.spiffe_id);
    let found: Vec<X509svid> = svids.into_iter().filter(wanted).collect();
    let mut rows = vec![["SPIFFE ID", "HINT", "EXPIRES", "SERIAL"].map(str::to_owned).to_vec()];
    let mut read = Vec::new();
    for svid in &found {
        let (checked, bundle) = parse(svid).with_context(|| format!("identity `{}`", svid.spiffe_id))?;
        let expires = time(i64::try_from(checked.not_after().as_secs()).unwrap_or(i64::MAX));
        rows.push(vec![svid.spiffe_id.clone(), svid.hint.clone(), expires, checked.serial().to_owned()]);
        read.push((checked, bundle));
    }
    let Some((svid, bundle)) = read.first() else { bail!("this process does not have that identity") };
    if let Some(dir) = &options.write {
        write(dir, svid, bundle)?;
    }
    print(&table(&rows))?;
    Ok(Exit::Done)
}

/// What came is checked like a peer's: an application would do the same.
fn parse(message: &X509svid) -> Result<(X509Svid, TrustBundle)> {
    let key = PrivateKey::from_pkcs8_der(message.x509_svid_key.clone())?;
    let svid = X509Svid::new(certificates_of(&message.x509_svid)?, key)?;
    if SpiffeId::parse(&message.spiffe_id)? != *svid.id() {
        bail!("the certificate is that of `{}`", svid.id());
    }
    let bundle = TrustBundle::new(svid.id().trust_domain(), certificates_of(&message.bundle)?)?;
    Ok((svid, bundle))
}

/// Certificates that stand one after the other: each begins with its own length (DER).
fn certificates_of(mut bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let mut certificates = Vec::new();
    while !bytes.is_empty() {
        let length = match bytes {
            [0x30, short, ..] if *short < 0x80 => usize::from(*short) + 2,
            [0x30, 0x81, one, ..] => usize::from(*one) + 3,
            [0x30, 0x82, high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])) + 4,
            _ => bail!("it is not DER"),
        };
        let (one, rest) = bytes.split_at_checked(length).ok_or_else(|| anyhow!("its DER is cut off"))?;
        certificates.push(CertificateDer::from(one.to_vec()));
        bytes = rest;
    }
    Ok(certificates)
}

fn write(dir: &Path, svid: &X509Svid, bundle: &TrustBundle) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(|| dir.display().to_string())?;
    let (chain, key, bundle) = (svid.chain_pem(), svid.key().to_pem(), bundle.to_pem());
    let files = [
        (palisade_sds::CERTIFICATE_FILE, chain.as_str(), 0o644),
        (palisade_sds::KEY_FILE, key.as_str(), 0o600),
        (palisade_sds::BUNDLE_FILE, bundle.as_str(), 0o644),
    ];
    for (name, text, mode) in files {
        let (path, temporary) = (dir.join(name), dir.join(format!(".{name}.{}", std::process::id())));
        let written = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary);
        written
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| std::fs::rename(&temporary, &path))
            .with_context(|| path.display().to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::certificates_of;

    #[test]
    fn concatenated_der_is_taken_apart() {
        let (short, long) = (vec![0x30, 1, 0], [vec![0x30, 0x82, 1, 0], vec![7; 256]].concat());
        let both = certificates_of(&[short.clone(), long.clone()].concat()).unwrap();
        assert_eq!(both.iter().map(|der| der.len()).collect::<Vec<_>>(), [3, 260]);
        for bad in [&[0x31, 0][..], &[0x30, 0x80, 0], &[0x30], &[0x30, 5, 1]] {
            assert!(certificates_of(bad).is_err(), "{bad:?}");
        }
    }
}
