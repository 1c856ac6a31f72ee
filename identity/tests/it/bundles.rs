//! Bundles in and out, and what does not get in.

use palisade_identity::{AuthorityError, BundleError, PrivateKey, TrustBundle, TrustBundles};
use rcgen::{IsCa, KeyUsagePurpose};

use crate::certs::{Ca, WEB, bundle, domain, uri};

fn refused(authorities: &[&Ca]) -> BundleError {
    TrustBundle::new(domain("a.test"), authorities.iter().map(|ca| ca.der()).collect()).unwrap_err()
}

#[test]
fn pem_and_der_bring_back_the_same_bundle() {
    let (one, two) = (Ca::root("one"), Ca::root("two"));
    let bundle = bundle("a.test", &[&one, &two]);
    assert_eq!(bundle.trust_domain().as_str(), "a.test");
    assert_eq!(bundle.authorities(), [one.der(), two.der()]);
    assert_eq!(bundle.to_der(), [&one.der()[..], &two.der()[..]].concat());
    let read = TrustBundle::from_pem(domain("a.test"), bundle.to_pem().as_bytes()).unwrap();
    assert_eq!(read, bundle);
    let commented = format!("# roots of a.test\n{}\nthe end\n", bundle.to_pem());
    assert_eq!(TrustBundle::from_pem(domain("a.test"), commented.as_bytes()).unwrap(), bundle);
}

#[test]
fn the_digest_names_the_set_and_its_domain() {
    let (one, two) = (Ca::root("one"), Ca::root("two"));
    let digest = |name, authorities: &[&Ca]| bundle(name, authorities).digest();
    assert_eq!(digest("a.test", &[&one, &two]), digest("a.test", &[&two, &one]));
    assert_ne!(digest("a.test", &[&one, &two]), digest("a.test", &[&one]));
    assert_ne!(digest("a.test", &[&one]), digest("b.test", &[&one]));
}

#[test]
fn only_signing_certificates_get_in() {
    let rule = |ca: Ca| match refused(&[&Ca::root("good"), &ca]) {
        BundleError::Authority { position: 2, source } => source,
        other => panic!("{other:?}"),
    };
    assert_eq!(rule(Ca::root_with("x", |p| p.is_ca = IsCa::NoCa)), AuthorityError::NotAuthority);
    assert_eq!(rule(Ca::root_with("x", |p| p.is_ca = IsCa::ExplicitNoCa)), AuthorityError::NotAuthority);
    assert_eq!(rule(Ca::root_with("x", |p| p.key_usages.clear())), AuthorityError::KeyUsage);
    let crl_only = |p: &mut rcgen::CertificateParams| p.key_usages = vec![KeyUsagePurpose::CrlSign];
    assert_eq!(rule(Ca::root_with("x", crl_only)), AuthorityError::KeyUsage);
    assert_eq!(rule(Ca::root_with("x", |p| p.subject_alt_names = vec![uri(WEB)])), AuthorityError::Path);
    let odd = |p: &mut rcgen::CertificateParams| p.subject_alt_names = vec![uri("spiffe://A.test")];
    assert!(matches!(rule(Ca::root_with("x", odd)), AuthorityError::Id(_)));
    let own = Ca::root_with("x", |p| p.subject_alt_names = vec![uri("spiffe://a.test")]);
    assert!(TrustBundle::new(domain("a.test"), vec![own.der()]).is_ok());
}

#[test]
fn empty_doubled_and_oversized_bundles_are_refused() {
    assert_eq!(refused(&[]), BundleError::Empty);
    let root = Ca::root("root");
    assert_eq!(refused(&[&root, &root]), BundleError::Duplicate(2));
    assert_eq!(refused(&vec![&root; 65]), BundleError::TooMany(65));
    let garbage = TrustBundle::new(domain("a.test"), vec![vec![1, 2, 3].into()]).unwrap_err();
    assert!(matches!(garbage, BundleError::Authority { position: 1, source: AuthorityError::Malformed(_) }));
}

#[test]
fn a_file_that_is_no_bundle_is_refused_by_name() {
    let read = |text: &str| TrustBundle::from_pem(domain("a.test"), text.as_bytes()).unwrap_err();
    let pem = bundle("a.test", &[&Ca::root("root")]).to_pem();
    assert_eq!(read(""), BundleError::Empty);
    assert_eq!(read("just text"), BundleError::Empty);
    assert_eq!(read(&pem[..pem.len() / 2]), BundleError::Pem);
    assert_eq!(read(&pem.replace("MII", "M*I")), BundleError::Pem);
    let key = PrivateKey::generate_p256().unwrap();
    assert_eq!(read(&format!("{pem}{}", *key.to_pem())), BundleError::PrivateKey);
    assert_eq!(read(&" ".repeat(1024 * 1024 + 1)), BundleError::TooLarge(1024 * 1024 + 1));
}

#[test]
fn bundles_of_several_domains_stay_apart() {
    let (one, two) = (Ca::root("one"), Ca::root("two"));
    let mut all: TrustBundles = [one.bundle("a.test"), one.bundle("b.test")].into_iter().collect();
    let names = |all: &TrustBundles| all.iter().map(|b| b.trust_domain().to_string()).collect::<Vec<_>>();
    assert_eq!(names(&all), ["a.test", "b.test"]);
    assert_eq!(all.insert(two.bundle("a.test")), Some(one.bundle("a.test")), "replaced, not merged");
    assert_eq!(all.get("a.test").unwrap().authorities(), [two.der()]);
    assert!(all.get("A.test").is_none() && all.get("spiffe://a.test").is_none());
    assert!(all.remove("a.test").is_some());
    assert_eq!((all.len(), all.is_empty()), (1, false));
    assert!(TrustBundles::default().is_empty());
}
