//! What was issued can be asked for, and so can the bundle.

use serde_json::Value;

use crate::caller::Ca;

fn text(ca: &Ca, arguments: &[&str]) -> String {
    let output = ca.mesh.palisade(arguments).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn issued(ca: &Ca, flags: &[&str]) -> Vec<Value> {
    let document: Value = serde_json::from_str(&text(ca, &[&["ca", "issued", "-o", "json"], flags].concat())).unwrap();
    document["issued"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_got_what_and_why_can_be_asked_by_id_serial_number_and_time() {
    let ca = Ca::start(|_| {});
    let web = ca.enrol("web").await;
    let mut cart = ca.well_behaved("cart").await;
    cart.renew().await;
    let facts = |row: &Value| [row["reason"].clone(), row["attestor"].clone(), row["spiffeId"].clone()];
    let id = |account: &str| format!("spiffe://cluster.local/ns/shop/sa/{account}");
    let rows = issued(&ca, &["--spiffe-id", &id("cart")]);
    let facts: Vec<_> = rows.iter().map(facts).collect();
    assert_eq!(facts, [["renewal", "certificate", &id("cart")], ["enrolment", "kubernetes", &id("cart")]]);
    let serial = web.svid.serial();
    let found = issued(&ca, &["--serial", &serial.to_uppercase()]);
    assert_eq!((found.len(), found[0]["serial"].as_str()), (1, Some(serial)));
    assert!(found[0]["caller"].as_str().unwrap().starts_with("127.") && found[0]["entry"] == "", "{found:?}");
    assert_eq!(issued(&ca, &["--since", "1h"]).len(), 4, "two enrolments, a renewal and the server itself");
    assert_eq!(issued(&ca, &["--limit", "1"])[0]["spiffeId"], id("cart"));
    assert_eq!(issued(&ca, &["--since", "2100-01-01T00:00:00Z"]), [Value::Null; 0]);
    assert!(text(&ca, &["ca", "issued"]).starts_with("ISSUED "));
    let refused = ca.mesh.palisade(&["ca", "issued", "--serial", "no hex"]).unwrap();
    assert_eq!(refused.status.code(), Some(64), "{}", String::from_utf8_lossy(&refused.stderr));
}

/// The document is that of the bundle endpoint.
#[test]
fn the_bundle_is_printed_as_it_is_served() {
    let ca = Ca::start(|_| {});
    assert_eq!(ca.bundle().authorities().len(), 1);
    let printed = text(&ca, &["ca", "bundle", "--format", "spiffe"]);
    let document: Value = serde_json::from_str(&printed).unwrap();
    let kinds: Vec<_> = document["keys"].as_array().unwrap().iter().map(|key| key["use"].clone()).collect();
    assert!(kinds.contains(&"x509-svid".into()) && kinds.contains(&"jwt-svid".into()), "{printed}");
}
