//! The operator's hand on the signing authorities: wire types to the authority's and back.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result as Outcome;
use clap::Args;
use palisade_ca::custody::Passphrase;
use palisade_ca::{
    Authority, AuthorityStatus, CaConfig, FollowerStatus, Origin, Revocation, RevokeError, RotateError, State,
};
use palisade_identity::SpiffeId;
use palisade_wire::admin;
use tonic::Status;

use crate::exit::{self, chain};

/// The longest passphrase, in bytes: a bound on what is read.
const LONGEST_PASSPHRASE: usize = 4_096;

/// Signing keys: where they come from, and how long they serve.
#[derive(Args, Debug)]
pub(super) struct KeyOptions {
    /// Directory with a signing certificate of your own PKI instead of roots made here: ca-cert.pem, ca-key.pem, cert-chain.pem
    /// and root-cert.pem, or tls.crt, tls.key and ca.crt. Other files put there take its place step by step.
    #[arg(long, value_name = "DIR")]
    cacerts: Option<PathBuf>,
    /// File with the passphrase that encrypts the signing keys on disk.
    #[arg(long, value_name = "FILE")]
    ca_passphrase_file: Option<PathBuf>,
    /// Lifetime of a root made here.
    #[arg(long, value_name = "DURATION", default_value = "3650d")]
    root_ttl: humantime::Duration,
    /// A root made here gets a successor after this long; default: three quarters of its lifetime.
    #[arg(long, value_name = "DURATION")]
    rotate_every: Option<humantime::Duration>,
    /// A successor signs after this long though an agent that follows has not acknowledged it; default: it waits as long as it can.
    #[arg(long, value_name = "DURATION")]
    activate_after: Option<humantime::Duration>,
}

impl KeyOptions {
    /// `config` with these settings.
    pub(super) fn apply(&self, config: CaConfig) -> Outcome<CaConfig> {
        let passphrase = self.ca_passphrase_file.as_deref().map(passphrase).transpose()?;
        Ok(CaConfig {
            cacerts: self.cacerts.clone(),
            root_ttl: self.root_ttl.into(),
            rotate_every: self.rotate_every.map(Into::into),
            activate_after: self.activate_after.map(Into::into),
            passphrase,
            ..config
        })
    }
}

/// The first line of the file.
fn passphrase(path: &std::path::Path) -> Outcome<Passphrase> {
    let bytes = std::fs::read(path).map_err(|error| {
        exit::usage(format!("--ca-passphrase-file {}: {error}; name a readable file", path.display()))
    })?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
    match line.len() {
        1..=LONGEST_PASSPHRASE => Ok(Passphrase::new(line.into())),
        _ => {
            Err(exit::usage(format!("--ca-passphrase-file {}: its first line must be the passphrase", path.display())))
        }
    }
}

/// The authorities as they are.
pub(super) async fn status(authority: &Authority) -> Result<admin::Authorities, Status> {
    let status = authority.status().await.map_err(|error| Status::unavailable(chain(&error)))?;
    Ok(admin::Authorities {
        trust_domain: status.trust_domain,
        sequence: status.sequence,
        bundle_digest: status.bundle_digest,
        authorities: status.authorities.into_iter().map(one).collect(),
        followers: status.followers.into_iter().map(follower).collect(),
        cacerts_refused: status.cacerts_refused.unwrap_or_default(),
    })
}

fn one(status: AuthorityStatus) -> admin::Authority {
    admin::Authority {
        id: status.id,
        state: match status.state {
            State::Prepared => "prepared",
            State::Active => "active",
            State::Old => "old",
        }
        .to_owned(),
        origin: match status.origin {
            Origin::Own => "own",
            Origin::Cacerts => "cacerts",
        }
        .to_owned(),
        tainted: status.tainted,
        not_before: status.not_before,
        not_after: status.not_after,
        prepared_at: status.prepared_at,
        activated_at: status.activated_at.unwrap_or_default(),
        replaced_at: status.replaced_at.unwrap_or_default(),
        activate_by: status.activate_by.unwrap_or_default(),
        leaves_until: status.leaves_until.unwrap_or_default(),
        unacknowledged: status.unacknowledged,
        next: status.next.what,
        next_at: status.next.at.unwrap_or_default(),
    }
}

fn follower(follower: FollowerStatus) -> admin::Follower {
    let FollowerStatus { id, address, bundle_digest, rejected } = follower;
    admin::Follower { spiffe_id: id, address, bundle_digest, rejected }
}

/// One step, and the authorities after it.
pub(super) async fn rotate(
    authority: &Authority,
    request: admin::RotateAuthoritiesRequest,
) -> Result<admin::Authorities, Status> {
    let after = request.activate_after.map(Duration::from_secs);
    let id = Some(request.authority.as_str()).filter(|id| !id.is_empty());
    let done = match (request.step.as_str(), id) {
        ("prepare", None) => authority.prepare(false, after).await,
        ("auto", None) => authority.prepare(true, after).await,
        ("activate", None) => authority.activate(after).await,
        ("retire", id) => authority.retire(id).await,
        ("taint", Some(id)) => authority.taint(id).await,
        _ => return Err(Status::invalid_argument("a step is prepare, auto, activate, retire [ID] or taint ID")),
    };
    done.map_err(|error| match error {
        RotateError::Open(_) | RotateError::Store(_) => Status::internal(chain(&error)),
        _ => Status::failed_precondition(chain(&error)),
    })?;
    status(authority).await
}

/// Revokes, and says what.
pub(super) async fn revoke(
    authority: &Authority,
    request: admin::RevokeCertificatesRequest,
) -> Result<admin::RevokedCertificates, Status> {
    let revoked = match (request.spiffe_id.as_str(), request.serial.as_str()) {
        (id, "") => {
            let parsed = SpiffeId::parse(id)
                .map_err(|error| Status::invalid_argument(format!("`{id}` is not a SPIFFE ID: {error}")))?;
            authority.revoke_id(&parsed, &request.reason).await
        }
        ("", serial) => authority.revoke_serial(serial, &request.reason).await,
        _ => return Err(Status::invalid_argument("name a SPIFFE ID or a serial number, not both")),
    };
    let revoked = revoked.map_err(|error| match error {
        RevokeError::Nothing(_) => Status::not_found(chain(&error)),
        RevokeError::Reserved(_) | RevokeError::Serial(_) => Status::invalid_argument(chain(&error)),
        _ => Status::internal(chain(&error)),
    })?;
    Ok(list(revoked))
}

/// What is revoked and has not expired.
pub(super) async fn revoked(authority: &Authority) -> Result<admin::RevokedCertificates, Status> {
    authority.revocations().await.map(list).map_err(|error| Status::unavailable(chain(&error)))
}

fn list(revoked: Vec<Revocation>) -> admin::RevokedCertificates {
    let one = |Revocation { serial, spiffe_id, not_after, reason, revoked_at }| admin::RevokedCertificate {
        serial,
        spiffe_id,
        not_after,
        reason,
        revoked_at,
    };
    admin::RevokedCertificates { certificates: revoked.into_iter().map(one).collect() }
}
