use super::*;
use crate::fixtures::{Authority, START, at, domain};

const ID: &str = "spiffe://a.test/ns/web/sa/front";

struct Case {
    authority: Authority,
    key: PrivateKey,
}

impl Case {
    fn new() -> Self {
        Self { authority: Authority::new("a"), key: PrivateKey::generate_p256().unwrap() }
    }

    fn leaf(&self, id: &str) -> String {
        self.authority.leaf(id, &self.key, START - 60, START + 3540).pem()
    }

    fn answer(&self, id: &str) -> Vec<String> {
        vec![self.leaf(id), self.authority.intermediate.pem(), self.authority.root.pem()]
    }

    fn accept(
        &self,
        elements: &[String],
        id: Option<&SpiffeId>,
        pin: Option<[u8; 32]>,
    ) -> Result<Identity, AnswerError> {
        let trust_domain = domain();
        let expect = Expectation { trust_domain: &trust_domain, id, pinned_root: pin };
        accept(elements, self.key.clone(), &expect, at(START))
    }
}

#[test]
fn a_good_answer_becomes_the_identity() {
    let case = Case::new();
    let id = SpiffeId::parse(ID).unwrap();
    let pin = sha256(&case.authority.root_der());
    let identity = case.accept(&case.answer(ID), Some(&id), Some(pin)).unwrap();
    assert_eq!(identity.svid.id(), &id);
    assert_eq!(identity.svid.chain().len(), 2);
    assert_eq!(identity.bundles.get("a.test").unwrap().authorities(), [case.authority.root_der()]);
}

#[test]
fn trap_17_18_every_root_is_kept_and_none_presented() {
    let case = Case::new();
    let other = Authority::new("next");
    let mut answer = case.answer(ID);
    answer.insert(2, case.authority.root.pem());
    answer[3].push_str(&other.root.pem());
    let identity = case.accept(&answer, None, None).unwrap();
    assert_eq!(identity.svid.chain().len(), 2, "leaf and intermediate, without the root");
    assert_eq!(identity.bundles.get("a.test").unwrap().authorities().len(), 2);
}

#[test]
fn shapes_that_are_no_answer() {
    let case = Case::new();
    let good = case.answer(ID);
    assert!(matches!(case.accept(&[], None, None), Err(AnswerError::Shape(0))));
    assert!(matches!(case.accept(&good[..1], None, None), Err(AnswerError::Shape(1))));
    assert!(matches!(case.accept(&vec![good[0].clone(); 17], None, None), Err(AnswerError::Shape(17))));
    let mut junk = good.clone();
    junk[1] = "-----BEGIN CERTIFICATE-----\n!!\n".to_owned();
    assert!(matches!(case.accept(&junk, None, None), Err(AnswerError::Element { index: 1, .. })));
    let packed = vec![format!("{}{}", good[0], good[1]), good[2].clone()];
    assert!(matches!(case.accept(&packed, None, None), Err(AnswerError::Packed(0))));
    let no_roots = vec![good[0].clone(), good[1].clone(), String::new()];
    assert!(matches!(case.accept(&no_roots, None, None), Err(AnswerError::Element { index: 2, .. })));
}

#[test]
fn another_key_is_refused() {
    let case = Case::new();
    let mut answer = case.answer(ID);
    let stranger = PrivateKey::generate_p256().unwrap();
    answer[0] = case.authority.leaf(ID, &stranger, START - 60, START + 60).pem();
    assert!(matches!(case.accept(&answer, None, None), Err(AnswerError::Svid(_))));
}

#[test]
fn another_identity_is_refused() {
    let case = Case::new();
    let id = SpiffeId::parse(ID).unwrap();
    let answer = case.answer("spiffe://a.test/ns/web/sa/admin");
    let error = case.accept(&answer, Some(&id), None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "identity `spiffe://a.test/ns/web/sa/admin` was issued where `spiffe://a.test/ns/web/sa/front` was expected"
    );
    let foreign = case.answer("spiffe://b.test/ns/web/sa/front");
    assert!(matches!(case.accept(&foreign, None, None), Err(AnswerError::Foreign { .. })));
}

#[test]
fn roots_must_be_authorities_and_hold_the_pin() {
    let case = Case::new();
    let mut answer = case.answer(ID);
    assert!(matches!(case.accept(&answer, None, Some([7; 32])), Err(AnswerError::Pin)));
    answer[2] = format!("{}{}", case.leaf(ID), case.authority.root.pem());
    assert!(matches!(case.accept(&answer, None, None), Err(AnswerError::Bundle(_))));
}

#[test]
fn a_chain_to_somebody_else_is_refused() {
    let case = Case::new();
    let mut answer = case.answer(ID);
    answer[2] = Authority::new("b").root.pem();
    assert!(matches!(case.accept(&answer, None, None), Err(AnswerError::Unusable(_))));
    let mut answer = case.answer(ID);
    answer.remove(1);
    assert!(matches!(case.accept(&answer, None, None), Err(AnswerError::Unusable(_))), "missing intermediate");
}

#[test]
fn dates_are_checked() {
    let case = Case::new();
    for (from, to) in [(START - 60, START - 1), (START + 60, START + 120)] {
        let mut answer = case.answer(ID);
        answer[0] = case.authority.leaf(ID, &case.key, from, to).pem();
        assert!(matches!(case.accept(&answer, None, None), Err(AnswerError::Unusable(_))), "{from} to {to}");
    }
}
