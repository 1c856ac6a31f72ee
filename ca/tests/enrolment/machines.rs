//! X.509 proof of possession over a real handshake: machines of the operator's authority enrol, others do not get in.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use palisade_ca::attest::x509pop::{Machines, WithMachines, X509Pop};
use palisade_ca::{Authority, CaService};
use palisade_identity::tls;
use palisade_wire::channel;
use palisade_wire::serve::ServerTls;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tonic::Code;

use crate::harness::{Agent, H2, Server, csr, domain, identity};

/// The operator's authority for machines.
struct Operator(CertifiedIssuer<'static, KeyPair>);

struct Machine {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Operator {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "machines");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn machine(&self, change: impl FnOnce(&mut CertificateParams)) -> Machine {
        let (mut params, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
        params.distinguished_name.push(DnType::CommonName, "db-1");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.0).unwrap().der().clone();
        Machine { certificate, key: key.serialize_der() }
    }

    async fn server(&self) -> Server {
        let machines = Arc::new(Machines::from_pem(self.0.pem().as_bytes()).unwrap());
        let attestor = Box::new(X509Pop::new(domain(), Arc::clone(&machines)));
        let door = |authority: Arc<Authority>| Arc::new(WithMachines::new(authority, machines)) as Arc<dyn ServerTls>;
        Server::start_behind(|service: CaService| service.with_attestor(attestor), door).await
    }
}

impl Machine {
    fn connect(&self, server: &Server) -> Agent {
        let named = tls::client_config_named(None, &server.authority.bundle(), H2).unwrap();
        let key = PrivatePkcs8KeyDer::from(self.key.clone());
        let mut config: ClientConfig = named;
        let resolver = rustls::sign::SingleCertAndKey::from(
            // Unchecked: a thief's key does not fit.
            rustls::sign::CertifiedKey::new(
                vec![self.certificate.clone()],
                tls::provider().key_provider.load_private_key(key.into()).unwrap(),
            ),
        );
        config.client_auth_cert_resolver = Arc::new(resolver);
        Agent::new(channel::tls(&server.address, "localhost", Arc::new(config)).unwrap())
    }
}

async fn outcome(server: &Server, machine: &Machine) -> Result<(String, KeyPair), Code> {
    let key = KeyPair::generate().unwrap();
    let answer = machine.connect(server).ask(&csr(&key, &[]), 0, None).await.map_err(|status| status.code())?;
    Ok((identity(&answer, &key).svid.id().to_string(), key))
}

/// The handshake fails: no request reaches the service.
async fn outside(server: &Server, machine: &Machine, what: &str) {
    let refused = outcome(server, machine).await.err();
    assert!(matches!(refused, Some(Code::Unavailable | Code::Unknown)), "{what}: {refused:?}");
    assert!(!server.counted("palisade_ca_refused_total{"), "{what}");
}

#[tokio::test]
async fn a_machine_enrols_by_its_certificate_and_renews_by_ours() {
    let operator = Operator::new();
    let (server, machine) = (operator.server().await, operator.machine(|_| ()));
    let key = KeyPair::generate().unwrap();
    let answer = machine.connect(&server).ask(&csr(&key, &[]), 0, None).await.unwrap();
    let enrolled = identity(&answer, &key);
    let fingerprint = digest(&SHA256, &machine.certificate);
    let hex: String = fingerprint.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(enrolled.svid.id().as_str(), format!("spiffe://cluster.local/agent/x509pop/{hex}"));
    server.connect(Some(&enrolled)).ask(&csr(&key, &[]), 0, None).await.expect("the trust domain's own still get in");
    let rows = server.issued(enrolled.svid.id(), 9).await;
    let attestors: Vec<_> = rows.iter().map(|row| row.attestor.as_str()).collect();
    assert_eq!(attestors, ["certificate", "x509pop"]);
    server.stop().await;
}

#[tokio::test]
async fn certificates_that_prove_no_machine_do_not_get_in() {
    let operator = Operator::new();
    let server = operator.server().await;
    let past = |params: &mut CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    };
    let for_servers = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    let with_id = |params: &mut CertificateParams| {
        params.subject_alt_names =
            vec![rcgen::SanType::URI("spiffe://cluster.local/ns/shop/sa/web".try_into().unwrap())];
    };
    let stranger = Operator::new().machine(|_| ());
    let mut stolen = operator.machine(|_| ());
    stolen.key = KeyPair::generate().unwrap().serialize_der();
    for (machine, what) in [
        (stranger, "of another authority"),
        (operator.machine(past), "expired"),
        (operator.machine(for_servers), "for servers"),
        (operator.machine(with_id), "with an ID of its own"),
        (stolen, "somebody else's"),
    ] {
        outside(&server, &machine, what).await;
    }
    outcome(&server, &operator.machine(|_| ())).await.expect("a good one");
    server.stop().await;
}

/// The port lets the machine in, and its certificate ends while the connection lives.
#[tokio::test]
async fn a_machine_s_certificate_is_judged_with_each_request() {
    let operator = Operator::new();
    let server = operator.server().await;
    let soon = |params: &mut CertificateParams| {
        let now = std::time::SystemTime::now();
        params.not_before = (now - Duration::from_secs(60)).into();
        params.not_after = (now + Duration::from_secs(3_600)).into();
    };
    let mut agent = operator.machine(soon).connect(&server);
    let request = csr(&KeyPair::generate().unwrap(), &[]);
    agent.ask(&request, 0, None).await.unwrap();
    server.clock.advance(Duration::from_secs(7_200));
    assert_eq!(agent.ask(&request, 0, None).await.unwrap_err().code(), Code::Unauthenticated);
    assert!(server.counted("palisade_ca_refused_total{reason=\"machine-certificate-expired\"}"));
    server.stop().await;
}

/// Without the attestor's door such a certificate ends the handshake, as before.
#[tokio::test]
async fn without_the_door_machines_stay_outside() {
    let server = Server::start().await;
    outside(&server, &Operator::new().machine(|_| ()), "nobody asked for machines").await;
    server.stop().await;
}

#[test]
fn files_of_authorities_are_refused_with_a_reason() {
    for (text, reason) in [
        ("", "no certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate 1"),
        ("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n", "not PEM"),
    ] {
        let error = Machines::from_pem(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}
