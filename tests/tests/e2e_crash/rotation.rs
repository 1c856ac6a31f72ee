//! Identities that change under load: leaves of seconds, a root that is replaced, a server that dies meanwhile, and an identity
//! that is revoked.

use palisade_tests::poll;
use palisade_tests::shop::Shop;
use serde_json::Value;

use crate::POLICIES;
use crate::load::Load;

/// Half of it is the time to the next renewal.
const LEAF: &str = "6s";

fn authorities(shop: &Shop) -> Result<Vec<Value>, String> {
    let output = shop.mesh.palisade(&["ca", "status", "-o", "json"]).map_err(|error| error.to_string())?;
    let status: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok(status["authorities"].as_array().cloned().unwrap_or_default())
}

/// The authorities by state, as soon as they are these.
fn wait_for(shop: &Shop, states: &[&str]) -> Vec<Value> {
    poll(&format!("the authorities to be {states:?}"), || {
        let found = authorities(shop)?;
        let now: Vec<&str> = found.iter().filter_map(|one| one["state"].as_str()).collect();
        if now == states { Ok(found) } else { Err(format!("{found:?}")) }
    })
}

/// Every handshake and every request of the load counts: not one may fail, though every certificate is replaced several times, the
/// root once, and the server is killed and comes back in the middle.
#[test]
fn a_root_is_replaced_under_load_and_nobody_notices() {
    let mut shop = Shop::start_served(POLICIES, &["--leaf-ttl", LEAF, "--max-leaf-ttl", LEAF]).unwrap();
    let load = Load::start(shop.outbound().unwrap());
    let before = wait_for(&shop, &["active"]);
    load.pass(50);
    let rotated = shop.mesh.palisade(&["ca", "rotate", "--prepare"]).unwrap();
    assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
    let both = wait_for(&shop, &["active", "prepared"]);
    assert_eq!(both[0]["id"], before[0]["id"]);
    load.pass(50);
    shop.mesh.server().unwrap().kill_9().unwrap();
    shop.mesh.start_server().unwrap();
    load.pass(50);
    poll("the new root to be acknowledged and used", || {
        let output = shop.mesh.palisade(&["ca", "rotate", "--activate"]).map_err(|error| error.to_string())?;
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    });
    wait_for(&shop, &["old", "active"]);
    load.pass(50);
    let after = wait_for(&shop, &["active"]);
    assert_eq!(after[0]["id"], both[1]["id"], "the old one is gone with its last leaf");
    load.pass(200);
    load.stop();
}

/// `ca revoke` reaches the proxies: what was open with the identity ends, and nothing new begins.
#[test]
fn a_revoked_identity_is_let_in_no_more() {
    let mut shop = Shop::start(POLICIES).unwrap();
    assert_eq!(shop.call("GET", "/open").unwrap().status, 200);
    let web = "spiffe://cluster.local/ns/shop/sa/web";
    let revoked = shop.mesh.palisade(&["ca", "revoke", "--spiffe-id", web, "--reason", "stolen"]).unwrap();
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    poll("web to be cut off", || match shop.call("GET", "/open") {
        Ok(answer) if answer.status == 200 => Err("200"),
        _ => Ok(()),
    });
    let list = shop.mesh.palisade(&["ca", "revoked", "-o", "json"]).unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    assert!(list.contains(web) && list.contains("stolen"), "{list}");
    // It survives a restart of everybody.
    shop.mesh.server().unwrap().kill_9().unwrap();
    shop.mesh.start_server().unwrap();
    shop.payments.process().unwrap().kill_9().unwrap();
    shop.payments.start().unwrap();
    shop.payments.wait_ready().unwrap();
    assert_ne!(shop.call("GET", "/open").map_or(0, |answer| answer.status), 200);
}
