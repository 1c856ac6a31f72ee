//! Evidence that proves nothing: refused in the same words each time, for a reason that operators see, and never written anywhere.

use rcgen::KeyPair;
use serde_json::json;
use tonic::Code;

use crate::caller::{Ca, csr};

const TRACE: [&str; 2] = ["--log-level", "trace"];

/// The kubelet's tokens: expired, of another audience, and of a cluster whose clock is an hour ahead or back.
fn lapsed(ca: &Ca) -> Vec<(String, &'static str)> {
    let mut foreign = Ca::claims("web", 0);
    foreign["aud"] = json!(["vault"]);
    let mut expired = Ca::claims("web", -7_200);
    expired["exp"] = json!(expired["iat"].as_i64().unwrap() + 600);
    vec![
        (ca.token(&expired), "token-expired"),
        (ca.token(&foreign), "token-audience"),
        (ca.token(&Ca::claims("web", 3_600)), "token-not-yet-valid"),
        (ca.token(&Ca::claims("web", -3_660)), "token-expired"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_that_lapsed_or_was_used_is_refused_for_its_reason_and_never_logged() {
    let mut ca = Ca::start(|mesh| mesh.server_flags = TRACE.map(str::to_owned).into());
    let mut others = ca.well_behaved("cart").await;
    let (mut caller, key) = (ca.connect(None), KeyPair::generate().unwrap());
    let mut cases = lapsed(&ca);
    let used = ca.mesh.join_token("shop", "node").unwrap();
    caller.ask(&csr(&key, &[]), Some(&used)).await.unwrap();
    caller.ask(&csr(&key, &[]), Some(&used)).await.expect("the same key: the first answer may have been lost");
    cases.push((used.clone(), "token-used"));
    let (start, root) = used.rsplit_once('.').unwrap();
    let (first, rest) = start["pjt1.".len()..].split_at(1);
    cases.push((format!("pjt1.{}{rest}.{root}", if first == "A" { "B" } else { "A" }), "token-unknown"));
    for (token, reason) in &cases {
        let before = ca.refused(reason);
        let stranger = csr(&KeyPair::generate().unwrap(), &[]);
        let status = caller.ask(&stranger, Some(token)).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "attestation failed"), "{reason}");
        assert_eq!(ca.refused(reason), before + 1, "{reason}");
        others.renew().await;
    }
    let log = ca.mesh.server().unwrap().log();
    assert!(log.contains("TRACE"), "as talkative as was asked");
    for (token, reason) in &cases {
        assert!(log.contains(&format!("reason=\"{reason}\"")), "{reason} is not logged");
        let secret = token.split('.').filter(|part| part.len() > 30);
        // The root's hash at the end of a join token is public.
        let secret: Vec<&str> = secret.filter(|part| *part != root).collect();
        assert!(
            !secret.is_empty() && !secret.iter().any(|part| log.contains(part)),
            "{reason}: the token is in the log"
        );
    }
}
