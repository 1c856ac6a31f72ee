//! A certificate that is revoked is worth nothing to the authority that made it, and everybody who follows hears of it.

use std::sync::Arc;
use std::time::Duration;

use palisade_ca::{Authority, RevokeError};
use palisade_identity::{
    CertificateDer, Clock as _, Identity, TrustBundles, UnixTime, VerifiedPeer, VerifyError, verify_peer,
};
use palisade_wire::agents::IssueX509Request;
use palisade_wire::serve::ServerTls;
use rcgen::KeyPair;
use rustls::ServerConfig;
use tonic::Code;

use crate::harness::{Server, WEB, csr, open, web};

/// Leaves connections open whose client is revoked: no call on them may depend on their being closed.
struct Patient(Arc<Authority>);

impl ServerTls for Patient {
    fn config(&self) -> Arc<ServerConfig> {
        ServerTls::config(&*self.0)
    }

    fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<VerifiedPeer, VerifyError> {
        self.0.verify(chain)
    }

    fn now(&self) -> UnixTime {
        ServerTls::now(&*self.0)
    }
}

#[tokio::test]
async fn the_doors_hear_who_must_go() {
    let server = Server::start().await;
    let (thief, other) = (server.enrol(&web()).await, server.enrol(&web()).await);
    let door: &dyn ServerTls = &*server.authority;
    let peer = |identity: &Identity| door.verify(identity.svid.chain()).unwrap();
    let (gone, kept) = (peer(&thief), peer(&other));
    let mut changes = door.changes().unwrap();
    assert!(!door.revokes(&gone));
    server.authority.revoke_serial(thief.svid.serial(), "").await.unwrap();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert!(door.revokes(&gone) && !door.revokes(&kept));
    server.stop().await;
}

#[tokio::test]
async fn a_revoked_certificate_renews_nothing_and_followers_hear_of_it() {
    let server = Server::start_behind(|service| service, |authority| Arc::new(Patient(authority))).await;
    let (thief, watcher) =
        (server.enrol(&web()).await, palisade_identity::SpiffeId::parse("spiffe://cluster.local/ns/a/sa/w").unwrap());
    let watcher = server.enrol(&watcher).await;
    // Connections that are open before the revocation.
    let (mut open_renewal, mut open_agent) = (server.connect(Some(&thief)), server.agents(&thief));
    let key = KeyPair::generate().unwrap();
    open_renewal.ask(&csr(&key, &[WEB]), 0, None).await.unwrap();
    open_agent.issue_x509(IssueX509Request::default()).await.unwrap();
    let mut thiefs_stream = server.follow(&thief).await;
    let mut follower = server.follow(&watcher).await;

    let revoked = server.authority.revoke_id(&web(), "key stolen").await.unwrap();
    assert_eq!(revoked.len(), 2, "the one enrolled and the one renewed");
    assert!(revoked.iter().all(|one| one.spiffe_id == WEB && one.reason == "key stolen"));
    let serial = thief.svid.serial().to_owned();
    assert!(follower.next().await.unwrap().denied_serials.contains(&serial));
    let told = thiefs_stream.next().await.unwrap_err();
    assert_eq!(palisade_wire::revoked_serial(&told), Some(&*serial), "no more state for it, but the reason");
    let status = open_renewal.ask(&csr(&key, &[WEB]), 0, None).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "attestation failed"));
    assert!(server.metric("palisade_ca_refused_total{reason=\"certificate-revoked\"} 1"));
    let status = open_agent.issue_x509(IssueX509Request::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    // A new connection does not get through the handshake.
    server.connect(Some(&thief)).ask(&csr(&key, &[WEB]), 0, None).await.unwrap_err();
    // The ID itself is not banned: who proves it anew gets it.
    let again = server.enrol(&web()).await;
    server.connect(Some(&again)).ask(&csr(&key, &[WEB]), 0, None).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn by_serial_number_only_that_one() {
    let server = Server::start().await;
    let (one, other) = (server.enrol(&web()).await, server.enrol(&web()).await);
    let spelled: String = one
        .svid
        .serial()
        .to_uppercase()
        .as_bytes()
        .chunks(2)
        .map(|pair| String::from_utf8_lossy(pair).into_owned())
        .collect::<Vec<_>>()
        .join(":");
    let revoked = server.authority.revoke_serial(&spelled, "").await.unwrap();
    assert_eq!((revoked.len(), revoked[0].serial.as_str()), (1, one.svid.serial()));
    let mut trust = TrustBundles::from_iter([(*server.authority.bundle()).clone()]);
    trust.with_denied(server.authority.revocations().await.unwrap().into_iter().map(|one| one.serial).collect());
    assert_eq!(verify_peer(one.svid.chain(), &trust, server.clock.now()).unwrap_err().code(), "revoked");
    verify_peer(other.svid.chain(), &trust, server.clock.now()).unwrap();
    for bad in ["", "xyz", "00", &"1".repeat(41)] {
        assert!(matches!(server.authority.revoke_serial(bad, "").await, Err(RevokeError::Serial(_))), "{bad}");
    }
    assert!(matches!(server.authority.revoke_serial("abcd", "").await, Err(RevokeError::Nothing(_))));
    let own = server.authority.server_identity();
    assert!(matches!(server.authority.revoke_id(own.svid.id(), "").await, Err(RevokeError::Reserved(_))));
    assert!(matches!(server.authority.revoke_serial(own.svid.serial(), "").await, Err(RevokeError::Reserved(_))));
    server.stop().await;
}

#[tokio::test]
async fn it_outlives_a_restart_and_ends_with_the_certificate() {
    let server = Server::start().await;
    let mine = server.enrol(&web()).await;
    server.authority.revoke_id(&web(), "").await.unwrap();
    let again = open(server.dir.path(), &server.clock).await.unwrap();
    assert!(again.server_identity().bundles.denies(mine.svid.serial()));
    server.clock.advance(Duration::from_secs(3_600 + 301));
    again.maintain().await;
    assert!(!again.server_identity().bundles.denies(mine.svid.serial()), "it has expired, there is nothing to say");
    assert!(again.revocations().await.unwrap().is_empty());
    drop(Arc::clone(&again));
    server.stop().await;
}
