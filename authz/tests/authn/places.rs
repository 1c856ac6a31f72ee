//! Sections 7.2 and 7.3: where tokens are looked for, and what counts as one.

use crate::kit::*;

#[test]
fn no_token_passes_without_identity() {
    anonymous(call().to(vec![rule()]));
    anonymous(call().header("x-other", &good()).target("/p?other=1").to(vec![rule()]));
}

#[test]
fn a_valid_token_passes_with_identity() {
    assert_eq!(subject(bearer(&good()).to(vec![rule()])).as_deref(), Some("alice"));
    let call = call().target(&format!("/p?access_token={}", good()));
    assert_eq!(subject(call.to(vec![rule()])).as_deref(), Some("alice"));
}

#[test]
fn other_schemes_are_no_token() {
    for value in ["Basic eDp5", "Bearer", "bearer x", "BEARER x", "x", "", "Bearer\tx"] {
        anonymous(call().header("authorization", value).to(vec![rule()]));
    }
    anonymous(call().header("authorization", &format!("bearer {}", good())).to(vec![rule()]));
    anonymous(call().header("authorization", &good()).to(vec![rule()]));
}

#[test]
fn the_prefix_may_stand_anywhere_in_the_value() {
    for before in ["foo Bearer ", "xBearer ", "Bearer  ", "Bearer \"", "Bearer ,=;"] {
        let call = call().header("authorization", &format!("{before}{}", good()));
        assert_eq!(subject(call.to(vec![rule()])).as_deref(), Some("alice"), "{before}");
    }
    let refused = refused(call().header("authorization", &format!("Bearer Bearer {}", good())).to(vec![rule()]));
    assert_eq!(refused.status, 401);
}

#[test]
fn a_value_without_any_byte_of_a_token_is_taken_whole() {
    let refusal = refused(call().header("authorization", "Bearer !!!").to(vec![rule()]));
    assert_eq!(refusal.body, "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections");
}

#[test]
fn a_custom_prefix_that_is_absent_means_no_token() {
    let mut rule = rule();
    rule.from_headers = vec![from_header("X-Jwt", "Tok ")];
    anonymous(call().header("x-jwt", &good()).to(vec![rule.clone()]));
    anonymous(call().header("x-jwt", &format!("tok {}", good())).to(vec![rule.clone()]));
    let call = call().header("X-JWT", &format!("Tok {}", good()));
    assert_eq!(subject(call.to(vec![rule])).as_deref(), Some("alice"));
}

#[test]
fn an_empty_value_without_prefix_is_refused() {
    let mut rule = rule();
    rule.from_headers = vec![from_header("x-jwt", "")];
    assert_eq!(refused(call().header("x-jwt", "").to(vec![rule.clone()])).status, 401);
    assert_eq!(refused(call().header("x-jwt", &format!("Bearer {}", good())).to(vec![rule])).status, 401);
}

#[test]
fn an_empty_parameter_is_refused() {
    for target in ["/p?access_token=", "/p?access_token", "/p?a&access_token&b"] {
        assert_eq!(refused(call().target(target).to(vec![rule()])).status, 401, "{target}");
    }
}

#[test]
fn any_configured_place_switches_the_default_places_off() {
    let places: [fn(&mut palisade_policies::JwtRule); 3] = [
        |rule| rule.from_headers = vec![from_header("x-jwt", "")],
        |rule| rule.from_params = vec!["token".to_owned()],
        |rule| rule.from_cookies = vec!["session".to_owned()],
    ];
    for place in places {
        let mut rule = rule();
        place(&mut rule);
        anonymous(bearer(&bad()).to(vec![rule.clone()]));
        anonymous(call().target("/p?access_token=x").to(vec![rule]));
    }
}

#[test]
fn all_tokens_of_one_rule_have_to_be_good() {
    let both = |header: &str, parameter: &str| bearer(header).target(&format!("/p?access_token={parameter}"));
    assert_eq!(subject(both(&good(), &good()).to(vec![rule()])).as_deref(), Some("alice"));
    assert_eq!(refused(both(&good(), &bad()).to(vec![rule()])).status, 401);
    assert_eq!(refused(both(&bad(), &good()).to(vec![rule()])).status, 401);
}

#[test]
fn of_several_good_tokens_the_first_found_is_the_identity() {
    let bob = P256.claims(&with(&serde_json::json!({"sub": "bob"})));
    let call = bearer(&good()).target(&format!("/p?access_token={bob}"));
    assert_eq!(subject(call.to(vec![rule()])).as_deref(), Some("alice"));
}

#[test]
fn each_instance_of_a_header_is_a_token_unless_envoy_joins_them() {
    let mut single = rule();
    single.from_headers = vec![from_header("x-jwt", "")];
    let twice = call().header("x-jwt", &good()).header("x-jwt", &good());
    assert_eq!(subject(twice.to(vec![single.clone()])).as_deref(), Some("alice"));
    let mixed = call().header("x-jwt", &good()).header("x-jwt", &bad());
    assert_eq!(refused(mixed.to(vec![single])).status, 401);
    let joined = bearer(&good()).header("authorization", &format!("Bearer {}", good()));
    assert_eq!(refused(joined.to(vec![rule()])).status, 401);
    let beside_nothing = bearer(&good()).header("authorization", "");
    assert_eq!(subject(beside_nothing.to(vec![rule()])).as_deref(), Some("alice"));
}

#[test]
fn of_a_repeated_parameter_the_first_counts() {
    let ask = |first: &str, second: &str| {
        call().target(&format!("/p?a=1&access_token={first}&access_token={second}")).to(vec![rule()])
    };
    assert_eq!(subject(ask(&good(), &bad())).as_deref(), Some("alice"));
    assert_eq!(refused(ask(&bad(), &good())).status, 401);
}

#[test]
fn parameters_are_percent_decoded_and_plus_is_no_space() {
    let dots = good().replace('.', "%2E");
    for target in [
        format!("/p?access_token={dots}"),
        format!("/p?access%5Ftoken={dots}"),
        format!("/p?access_token={dots}%20"),
        format!("/p?&&access_token={dots}&"),
    ] {
        assert_eq!(subject(call().target(&target).to(vec![rule()])).as_deref(), Some("alice"), "{target}");
    }
    assert_eq!(refused(call().target(&format!("/p?access_token={dots}+")).to(vec![rule()])).status, 401);
    anonymous(call().target(&format!("/p?Access_Token={dots}")).to(vec![rule()]));
    anonymous(call().target(&format!("/p;access_token={dots}")).to(vec![rule()]));
}

#[test]
fn a_cookie_is_found_among_others_and_in_any_cookie_header() {
    let mut rule = rule();
    rule.from_cookies = vec!["session".to_owned()];
    let token = good();
    let several = call().header("cookie", &format!("a=b; session={token}; c=d"));
    assert_eq!(subject(several.to(vec![rule.clone()])).as_deref(), Some("alice"));
    let quoted = call().header("cookie", "a=b").header("cookie", &format!("session=\"{token}\""));
    assert_eq!(subject(quoted.to(vec![rule.clone()])).as_deref(), Some("alice"));
    let first = call().header("cookie", &format!("session={}; session={token}", bad()));
    assert_eq!(refused(first.to(vec![rule.clone()])).status, 401);
    anonymous(call().header("cookie", &format!("SESSION={token}; session ={token}")).to(vec![rule]));
}

#[test]
fn more_tokens_than_anybody_means_are_refused() {
    let mut rule = rule();
    rule.from_headers = vec![from_header("x-jwt", "")];
    let many = |number| (0..number).fold(call(), |call, _| call.header("x-jwt", &good()));
    assert_eq!(subject(many(16).to(vec![rule.clone()])).as_deref(), Some("alice"));
    assert_eq!(refused(many(17).to(vec![rule])).body, "Found multiple Jwt tokens");
}

#[test]
fn the_headers_it_reads_are_listed() {
    let mut rule = rule();
    rule.from_headers = vec![from_header("X-Jwt", "")];
    rule.from_cookies = vec!["session".to_owned()];
    rule.output_payload_to_header = Some("X-Payload".to_owned());
    let authenticator = compile(vec![rule]);
    let mut names: Vec<_> = authenticator.headers_read().collect();
    names.sort_unstable();
    assert_eq!(names, ["access-control-request-method", "cookie", "origin", "x-jwt", "x-payload"]);
    let nothing = compile(Vec::new());
    assert!(nothing.is_empty() && nothing.headers_read().next().is_none());
}

#[test]
fn rules_with_a_token_in_the_request_and_keys_elsewhere_are_presented() {
    let mut remote = rule();
    remote.jwks = palisade_policies::JwksSource::Uri("https://keys.example".to_owned());
    let authenticator = compile(vec![rule(), remote]);
    let presented = |call: &Call| {
        let request = palisade_authz::TokenRequest {
            method: Some(call.method),
            target: Some(&call.target),
            headers: &call.headers,
            ..palisade_authz::TokenRequest::default()
        };
        authenticator.presented(&request).len()
    };
    assert_eq!((presented(&call()), presented(&bearer("x"))), (0, 1));
    assert_eq!(
        presented(&bearer("x").method("OPTIONS").header("origin", "o").header("access-control-request-method", "GET")),
        0
    );
}
