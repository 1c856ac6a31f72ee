//! A signing certificate from the operator's own PKI: taken, refused by name, and swapped under the running server.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use palisade_ca::{CaConfig, Origin, RotateError, State};
use palisade_identity::{Clock as _, TrustBundles, UnixTime};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256,
};
use time::OffsetDateTime;

use crate::harness::{Server, TestClock, WEB, csr, domain, explain, identity, open, open_with, web};

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn params(name: &str, bend: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Example Corp");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = OffsetDateTime::now_utc() - time::Duration::days(1);
    params.not_after = OffsetDateTime::now_utc() + time::Duration::days(365);
    bend(&mut params);
    params
}

fn root(name: &str) -> Issuer {
    CertifiedIssuer::self_signed(params(name, |_| {}), KeyPair::generate().unwrap()).unwrap()
}

fn below(issuer: &Issuer, name: &str, bend: impl FnOnce(&mut CertificateParams)) -> Issuer {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    CertifiedIssuer::signed_by(params(name, bend), key, issuer).unwrap()
}

/// Istio's four files.
fn write(dir: &Path, ca: &Issuer, chain: &[&Issuer], roots: &[&Issuer]) {
    let pem = |all: &[&Issuer]| all.iter().map(|one| one.pem()).collect::<String>();
    fs::write(dir.join("ca-cert.pem"), ca.pem()).unwrap();
    fs::write(dir.join("ca-key.pem"), ca.key().serialize_pem()).unwrap();
    fs::write(dir.join("cert-chain.pem"), pem(chain)).unwrap();
    fs::write(dir.join("root-cert.pem"), pem(roots)).unwrap();
}

async fn server(dir: &Path) -> Server {
    let dir = dir.to_owned();
    Server::start_with(move |config| config.cacerts = Some(dir)).await
}

async fn check_issuance(server: &Server, elements: usize) {
    let token = server.token(&web()).await;
    let key = KeyPair::generate().unwrap();
    let answer = server.pinned(&token).ask(&csr(&key, &[WEB]), 0, Some(&token)).await.unwrap();
    assert_eq!(answer.cert_chain.len(), elements);
    let mine = identity(&answer, &key);
    mine.svid.usable(&mine.bundles, UnixTime::now()).unwrap();
    server.connect(Some(&mine)).ask(&csr(&key, &[]), 0, None).await.unwrap();
}

#[tokio::test]
async fn an_intermediate_signs_with_its_whole_chain_and_without_its_root() {
    let (dir, root) = (tempfile::tempdir().unwrap(), root("root"));
    let policy = below(&root, "policy", |_| {});
    let issuing = below(&policy, "issuing", |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    // As Istio's file is: the chain begins with the certificate itself and ends with the root.
    write(dir.path(), &issuing, &[&issuing, &policy, &root], &[&root]);
    let server = server(dir.path()).await;
    check_issuance(&server, 4).await;
    let status = server.authority.status().await.unwrap();
    assert_eq!((status.authorities.len(), status.authorities[0].origin), (1, Origin::Cacerts));
    assert!(matches!(server.authority.prepare(false, None).await, Err(RotateError::Plugged)));
    let copies = fs::read_dir(server.dir.path())
        .unwrap()
        .filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().starts_with("key-"));
    assert_eq!(copies.count(), 0, "the key stays where the operator put it");
    server.stop().await;
}

/// Istio's own sample has no intermediate; and a certificate without key identifiers is one all the same.
#[tokio::test]
async fn a_root_may_sign_itself_and_need_no_identifiers() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ca-cert.pem"), include_str!("../testdata/plain-root.pem")).unwrap();
    fs::write(dir.path().join("ca-key.pem"), include_str!("../testdata/plain-root-key.pem")).unwrap();
    fs::write(dir.path().join("cert-chain.pem"), include_str!("../testdata/plain-root.pem")).unwrap();
    fs::write(dir.path().join("root-cert.pem"), include_str!("../testdata/plain-root.pem")).unwrap();
    let server = server(dir.path()).await;
    check_issuance(&server, 2).await;
    server.stop().await;
}

#[tokio::test]
async fn a_tls_secret_has_other_names() {
    let (dir, root) = (tempfile::tempdir().unwrap(), root("root"));
    let issuing = below(&root, "issuing", |_| {});
    fs::write(dir.path().join("tls.crt"), issuing.pem()).unwrap();
    fs::write(dir.path().join("tls.key"), issuing.key().serialize_pem()).unwrap();
    fs::write(dir.path().join("ca.crt"), root.pem()).unwrap();
    let server = server(dir.path()).await;
    check_issuance(&server, 3).await;
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_sign_is_refused_with_its_files_name() {
    let (clock, root) = (Arc::new(TestClock::default()), root("root"));
    let (issuing, other) = (below(&root, "issuing", |_| {}), self::root("other"));
    let expired =
        below(&root, "expired", |params| params.not_after = OffsetDateTime::now_utc() - time::Duration::hours(1));
    let leaf = below(&root, "leaf", |params| params.is_ca = IsCa::ExplicitNoCa);
    let deep = below(&below(&root, "policy", |_| {}), "deep", |_| {});
    type Bend<'a> = (&'a str, &'a str, &'a dyn Fn(&Path));
    let cases: [Bend<'_>; 8] = [
        ("ca-cert.pem", "is not valid now", &|dir| write(dir, &expired, &[&expired], &[&root])),
        ("ca-cert.pem", "not a certificate authority", &|dir| write(dir, &leaf, &[&leaf], &[&root])),
        ("ca-key.pem", "does not belong", &|dir| {
            fs::write(dir.join("ca-key.pem"), other.key().serialize_pem()).unwrap()
        }),
        ("ca-key.pem", "private key", &|dir| fs::write(dir.join("ca-key.pem"), "no key").unwrap()),
        ("root-cert.pem", "does not lead to", &|dir| fs::write(dir.join("root-cert.pem"), other.pem()).unwrap()),
        ("cert-chain.pem", "certificates between them", &|dir| write(dir, &deep, &[&deep], &[&root])),
        ("root-cert.pem", "is missing", &|dir| fs::remove_file(dir.join("root-cert.pem")).unwrap()),
        ("cert-chain.pem", "no PEM certificate", &|dir| fs::write(dir.join("cert-chain.pem"), "").unwrap()),
    ];
    for (file, text, bend) in cases {
        let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(dir.path(), &issuing, &[&issuing], &[&root]);
        bend(dir.path());
        let config = CaConfig { cacerts: Some(dir.path().to_owned()), ..CaConfig::new(state.path(), domain()) };
        let error = explain(&open_with(config, &clock).await.unwrap_err());
        assert!(error.contains(file) && error.contains(text), "{file}, {text}: {error}");
    }
}

fn link(mount: &Path, target: &Path) {
    for name in ["ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert.pem"] {
        if !mount.join(name).exists() {
            symlink(Path::new("..data").join(name), mount.join(name)).unwrap();
        }
    }
    symlink(target, mount.join("..next")).unwrap();
    fs::rename(mount.join("..next"), mount.join("..data")).unwrap();
}

/// As kubelet swaps a mounted secret: the files are links through one link. Traps 32 and 33: not only the first swap is seen,
/// and files that do not fit each other are not taken.
#[tokio::test]
async fn trap_32_33_swapped_files_go_through_the_same_steps() {
    let (mount, versions) = (tempfile::tempdir().unwrap(), [(); 3].map(|()| tempfile::tempdir().unwrap()));
    let (first, second) = (root("root"), root("next root"));
    let (one, two, three) =
        (below(&first, "one", |_| {}), below(&first, "two", |_| {}), below(&second, "three", |_| {}));
    write(versions[0].path(), &one, &[&one], &[&first]);
    write(versions[1].path(), &two, &[&two], &[&first]);
    write(versions[2].path(), &three, &[&three], &[&second]);
    link(mount.path(), versions[0].path());
    let server = server(mount.path()).await;
    let mine = server.enrol(&web()).await;
    let mut follower = server.follow(&mine).await;
    follower.acknowledge(&server.authority).await;

    // The same root: nobody needs to learn of it.
    link(mount.path(), versions[1].path());
    server.authority.maintain().await;
    let states = || crate::rotation::states(&server);
    assert_eq!(states().await, [State::Old, State::Active]);

    // Half of the next version: refused once, named, and the present one stays.
    fs::write(versions[1].path().join("ca-key.pem"), three.key().serialize_pem()).unwrap();
    server.authority.maintain().await;
    let refused = server.authority.status().await.unwrap().cacerts_refused.unwrap();
    assert!(refused.contains("ca-key.pem") && refused.contains("does not belong"), "{refused}");

    // Another root: published first.
    link(mount.path(), versions[2].path());
    server.authority.maintain().await;
    assert_eq!(states().await, [State::Old, State::Active, State::Prepared]);
    assert!(server.authority.status().await.unwrap().cacerts_refused.is_none());
    while follower.bundle().authorities().len() < 2 {
        follower.next().await.unwrap();
    }
    follower.acknowledge(&server.authority).await;
    server.authority.maintain().await;
    assert_eq!(states().await, [State::Old, State::Old, State::Active]);
    let key = KeyPair::generate().unwrap();
    let answer = server.connect(Some(&mine)).ask(&csr(&key, &[WEB]), 0, None).await.unwrap();
    identity(&answer, &key).svid.usable(&mine.bundles, server.clock.now()).unwrap_err();
    server.clock.advance(Duration::from_secs(2 * 3_600));
    server.authority.maintain().await;
    assert_eq!(states().await, [State::Active]);
    assert_eq!(server.authority.bundle().authorities().len(), 1);
    server.stop().await;
}

/// From a root made here to the operator's own: the same steps, and nobody is left behind.
#[tokio::test]
async fn an_own_root_gives_way_to_plugged_in_files() {
    let (state, clock) = (tempfile::tempdir().unwrap(), Arc::new(TestClock::default()));
    let own = CaConfig::new(state.path(), domain());
    let before = open_with(own.clone(), &clock).await.unwrap().bundle();
    let (dir, root) = (tempfile::tempdir().unwrap(), root("root"));
    let issuing = below(&root, "issuing", |_| {});
    write(dir.path(), &issuing, &[&issuing], &[&root]);
    let plugged = CaConfig { cacerts: Some(dir.path().to_owned()), ..own.clone() };
    let authority = open_with(plugged.clone(), &clock).await.unwrap();
    let states: Vec<_> =
        authority.status().await.unwrap().authorities.iter().map(|one| (one.origin, one.state)).collect();
    assert_eq!(states, [(Origin::Own, State::Active), (Origin::Cacerts, State::Prepared)]);
    authority.maintain().await;
    let bundle = authority.bundle();
    assert!(bundle.authorities().contains(&before.authorities()[0]) && bundle.authorities().len() == 2);
    // Killed here and started without the files: the key is nowhere.
    let text = explain(&open_with(own, &clock).await.unwrap_err());
    assert!(text.contains("--cacerts again"), "{text}");
    open_with(plugged, &clock).await.unwrap();
}

/// Who knows the old root alone, as from a join token, still finds the server, whatever kind of key the operator's PKI has.
#[tokio::test]
async fn a_root_made_here_certifies_its_plugged_in_successor() {
    for kind in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_RSA_SHA256] {
        let (dir, state, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), root("root"));
        let own = open(state.path(), &Arc::new(TestClock::default())).await.unwrap();
        let token = own.create_join_token(&web(), Duration::ZERO).await.unwrap().token.to_string();
        let key = KeyPair::generate_for(kind).unwrap();
        let issuing = CertifiedIssuer::signed_by(params("issuing", |_| {}), key, &root).unwrap();
        write(dir.path(), &issuing, &[&issuing], &[&root]);
        let paths = (state.path().to_owned(), dir.path().to_owned());
        let server = Server::start_with(move |config| (config.dir, config.cacerts) = (paths.0, Some(paths.1))).await;
        server.authority.activate(Some(Duration::ZERO)).await.unwrap();
        let key = KeyPair::generate().unwrap();
        let answer = server.pinned(&token).ask(&csr(&key, &[WEB]), 0, Some(&token)).await.unwrap();
        identity(&answer, &key)
            .svid
            .usable(&TrustBundles::from_iter([(*own.bundle()).clone()]), UnixTime::now())
            .unwrap_err();
        server.stop().await;
    }
}

#[tokio::test]
async fn files_that_are_good_later_are_taken_then() {
    let (dir, root) = (tempfile::tempdir().unwrap(), root("root"));
    let now = below(&root, "now", |_| {});
    let later =
        below(&root, "later", |params| params.not_before = OffsetDateTime::now_utc() + time::Duration::hours(1));
    write(dir.path(), &now, &[&now], &[&root]);
    let server = server(dir.path()).await;
    write(dir.path(), &later, &[&later], &[&root]);
    server.authority.maintain().await;
    let status = server.authority.status().await.unwrap();
    assert!(status.authorities.len() == 1 && status.cacerts_refused.unwrap().contains("is not valid now"));
    server.clock.advance(Duration::from_secs(3_700));
    server.authority.maintain().await;
    let status = server.authority.status().await.unwrap();
    assert_eq!((status.authorities.len(), status.cacerts_refused), (2, None));
    server.stop().await;
}
