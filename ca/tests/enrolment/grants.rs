//! What a registration entry grants beyond the ID, and that a request can ask for none of it.

use std::fs;

use der::Decode;
use palisade_ca::Entries;
use palisade_ca::attest::kubernetes::KeySource;
use palisade_identity::SpiffeId;
use palisade_wire::admin::RegistrationEntry;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use tonic::Code;
use x509_cert::Certificate;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::harness::{Server, WEB, certificates, csr, domain, identity, web};
use crate::issuer::{Issuer, claims, jwks};
use crate::kubernetes::{now, reviewer};

/// Asks for a CA of a foreign name, with a common name.
fn greedy(key: &KeyPair) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "bank.example");
    params.subject_alt_names = vec![
        SanType::URI(WEB.try_into().unwrap()),
        SanType::DnsName("bank.example".try_into().unwrap()),
        SanType::IpAddress([10, 0, 0, 1].into()),
    ];
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.serialize_request(key).unwrap().pem().unwrap()
}

/// URIs, DNS names, and how many other names there are; the subject is empty.
fn names(leaf: &str) -> (Vec<String>, Vec<String>, usize) {
    let leaf = Certificate::from_der(certificates(leaf).first().unwrap()).unwrap();
    assert!(leaf.tbs_certificate().subject().is_empty());
    let (_, names) = leaf.tbs_certificate().get_extension::<SubjectAltName>().unwrap().unwrap();
    let (mut uris, mut dns, mut others) = (Vec::new(), Vec::new(), 0);
    for name in names.0 {
        match name {
            GeneralName::UniformResourceIdentifier(uri) => uris.push(uri.to_string()),
            GeneralName::DnsName(name) => dns.push(name.to_string()),
            _ => others += 1,
        }
    }
    (uris, dns, others)
}

/// A server with entries, and who makes the tokens that it believes.
async fn granting() -> (Server, Entries, Issuer, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (issuer, path, database) = (Issuer::rsa("r"), dir.path().join("jwks.json"), dir.path().join("entries.db"));
    fs::write(&path, jwks(&[&issuer])).unwrap();
    fs::write(&database, "").unwrap();
    let entries = Entries::open(&database, domain()).await.unwrap();
    let tokens = reviewer(KeySource::File(path)).await;
    let mine = entries.clone();
    let server = Server::start_service(|service| service.with_attestor(Box::new(tokens)).with_entries(mine)).await;
    (server, entries, issuer, dir)
}

#[tokio::test]
async fn trap_03_names_come_from_the_entry_and_never_from_the_request() {
    let (server, entries, issuer, _dir) = granting().await;
    let (key, token) = (KeyPair::generate().unwrap(), issuer.token(&claims("shop", "web", now())));
    let mut agent = server.connect(None);
    let answer = agent.ask(&greedy(&key), 0, Some(&token)).await.unwrap();
    assert_eq!(names(&answer.cert_chain[0]), (vec![WEB.into()], vec![], 0), "no entry, no names");
    let entry = |selectors: &[&str], dns: &str| RegistrationEntry {
        spiffe_id: WEB.into(),
        selectors: selectors.iter().map(ToString::to_string).collect(),
        dns_names: vec![dns.into()],
        x509_ttl: 600,
        ..RegistrationEntry::default()
    };
    entries.create(&entry(&["k8s:ns:shop", "k8s:pod-name:web-7"], "other.shop")).await.unwrap();
    let made = entries.create(&entry(&["k8s:ns:shop", "k8s:sa:web"], "web.shop")).await.unwrap();
    let mut answer = answer;
    for (asked, given) in [(0, 600), (60, 60), (86_400, 600)] {
        answer = agent.ask(&greedy(&key), asked, Some(&token)).await.unwrap();
        assert_eq!(names(&answer.cert_chain[0]), (vec![WEB.into()], vec!["web.shop".into()], 0));
        let row = server.issued(&web(), 1).await.remove(0);
        assert_eq!(row.not_after - row.issued_at, given, "{asked}");
    }
    let current = identity(&answer, &key);
    let renewed = server.connect(Some(&current)).ask(&greedy(&key), 86_400, None).await.unwrap();
    assert_eq!(names(&renewed.cert_chain[0]).1, ["web.shop"], "a renewal keeps what is still granted");
    let row = server.issued(&web(), 1).await.remove(0);
    assert_eq!((row.attestor.as_str(), row.not_after - row.issued_at), ("certificate", 600));
    entries.delete(&made.id).await.unwrap();
    let renewed = server.connect(Some(&current)).ask(&greedy(&key), 0, None).await.unwrap();
    assert_eq!(names(&renewed.cert_chain[0]).1, [""; 0], "and nothing else");
    let answer = agent.ask(&greedy(&key), 0, Some(&token)).await.unwrap();
    assert_eq!(names(&answer.cert_chain[0]).1, [""; 0], "the other entry is of another pod");
    server.stop().await;
}

/// A join token proves to entries whose it is, and nothing else; what it once granted is kept by renewals.
#[tokio::test]
async fn an_entry_for_a_join_token_gives_names_and_lifetime() {
    let (server, entries, ..) = granting().await;
    let entry = |id: &str, parent: &str, dns: &str| RegistrationEntry {
        spiffe_id: id.into(),
        parent_id: parent.into(),
        selectors: vec![format!("join_token:spiffe-id:{WEB}")],
        dns_names: vec![dns.into()],
        x509_ttl: 600,
        ..RegistrationEntry::default()
    };
    let cart = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/cart").unwrap();
    let made = entries.create(&entry(WEB, "", "web.shop")).await.unwrap();
    entries.create(&entry(WEB, cart.as_str(), "served.shop")).await.unwrap();
    entries.create(&entry(cart.as_str(), "", "cart.shop")).await.unwrap();
    let (key, token) = (KeyPair::generate().unwrap(), server.token(&web()).await);
    let answer = server.connect(None).ask(&greedy(&key), 86_400, Some(&token)).await.unwrap();
    assert_eq!(names(&answer.cert_chain[0]), (vec![WEB.into()], vec!["web.shop".into()], 0));
    let row = server.issued(&web(), 1).await.remove(0);
    assert_eq!((row.attestor.as_str(), row.entry, row.not_after - row.issued_at), ("join-token", made.id.clone(), 600));
    let current = identity(&answer, &key);
    let renewed = server.connect(Some(&current)).ask(&greedy(&key), 0, None).await.unwrap();
    assert_eq!(names(&renewed.cert_chain[0]).1, ["web.shop"]);
    let token = server.token(&cart).await;
    let plain = server.connect(None).ask(&csr(&key, &[]), 0, Some(&token)).await.unwrap();
    assert_eq!(names(&plain.cert_chain[0]).1, [""; 0], "a token of another ID is not what this entry asks for");
    server.stop().await;
}

/// Clients recognise the server by its names: whoever had them could ask agents for their join tokens.
#[tokio::test]
async fn what_the_server_is_recognised_by_is_nobody_elses() {
    let (server, entries, issuer, _dir) = granting().await;
    let mut agent = server.connect(None);
    let mut ask = async |namespace: &str, account: &str| {
        let token = issuer.token(&claims(namespace, account, now()));
        agent.ask(&greedy(&KeyPair::generate().unwrap()), 0, Some(&token)).await.map(|_| ())
    };
    // `greedy` asks for another ID than this one, which is looked at first.
    assert_eq!(ask("palisade-system", "palisade").await.unwrap_err().code(), Code::InvalidArgument);
    let entry = |names: &[&str]| RegistrationEntry {
        spiffe_id: WEB.into(),
        selectors: vec!["k8s:ns:shop".into()],
        dns_names: names.iter().map(|name| (*name).to_owned()).collect(),
        ..RegistrationEntry::default()
    };
    let refused = entries.create(&entry(&["web.shop", "istiod.istio-system.svc"])).await.unwrap_err();
    assert!(refused.to_string().contains("`istiod.istio-system.svc` is the server's own"), "{refused}");
    // A name from the command line is not among those that every entry is held against.
    entries.create(&entry(&["web.shop", "ca.mesh.example"])).await.unwrap();
    let refused = ask("shop", "web").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("`ca.mesh.example` is the server's own"), "{refused}");
    assert!(server.metric("palisade_ca_refused_total{reason=\"reserved\"} 1"));
    let own = SpiffeId::parse("spiffe://cluster.local/ns/palisade-system/sa/palisade").unwrap();
    assert!(server.authority.reserved(&own, &[]).is_some());
    for (name, taken) in [("Palisade.Palisade-System.SVC", true), ("localhost", true), ("svc", false)] {
        assert_eq!(server.authority.reserved(&web(), &[name.to_owned()]).is_some(), taken, "{name}");
    }
    server.stop().await;
}
