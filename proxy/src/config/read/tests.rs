use std::time::Duration;

use palisade_policies::AppProtocol;

use super::super::map::duration;
use super::*;

const WHOLE: &str = "
workload:
  namespace: shop
  name: cart-0
  labels: {app: cart, version: 2}
inbound:
- listen: 127.0.0.1:0
  forward: 127.0.0.1:8080
- {listen: '[::1]:15006', forward: 9000, protocol: tcp}
outbound:
- {listen: 127.0.0.1:15001, service: payments.shop.svc.cluster.local:80}
identity:
  trustDomain: example.org
  agent: {joinToken: token, allowedUids: [0, 1000]}
server: {address: 127.0.0.1:15012, name: localhost}
metrics: 127.0.0.1:0
stateDir: /tmp/state
limits: {drainTimeout: 250ms, maxConnections: 10}
";

#[test]
fn a_whole_file() {
    let config = config(WHOLE).unwrap();
    assert_eq!(config.workload.labels.get("version").map(String::as_str), Some("2"));
    assert_eq!(config.inbound[1].forward.to_string(), "127.0.0.1:9000");
    assert_eq!(config.inbound[1].protocol, Some(AppProtocol::Tcp));
    assert_eq!((config.outbound[0].host.as_str(), config.outbound[0].port), ("payments.shop.svc.cluster.local", 80));
    assert_eq!(config.trust_domain.as_str(), "example.org");
    assert_eq!(config.limits.drain_timeout, Duration::from_millis(250));
    assert_eq!((config.limits.max_connections, config.resources), (10, ResourcesConfig::Server));
    let IdentityConfig::Agent(agent) = config.identity else { panic!("{:?}", config.identity) };
    assert_eq!(agent.allowed_uids, [0, 1000]);
}

#[test]
fn standalone() {
    let config = config(
        "workload: {namespace: a, name: b}\ninbound: [{listen: 127.0.0.1:1, forward: 2}]\n\
         identity: {files: {certificate: c, privateKey: k, trustBundle: t}}\nresources: {directory: d}\n",
    )
    .unwrap();
    assert_eq!(config.resources, ResourcesConfig::Directory { directory: "d".into(), mesh: None });
    assert!(config.server.is_none());
}

#[test]
fn every_mistake_is_named_with_line_and_field() {
    let problems = config(
        "workload: {namespace: shop}\n\
         inbound:\n\
         - listen: 127.0.0.1\n\
         \x20 forward: nowhere\n\
         \x20 protocol: MYSQL\n\
         \x20 tls: true\n\
         outbound: {listen: 1}\n\
         identity: {agent: {}, files: {certificate: c}}\n\
         server: localhost\n\
         limits:\n\
         \x20 drainTimeout: soon\n\
         \x20 maxHeads: 1\n\
         color: red\n",
    )
    .unwrap_err();
    let told: Vec<(u64, &str)> = problems.iter().map(|p| (p.line, p.field.as_str())).collect();
    for expected in [
        (1, "workload.name"),
        (3, "inbound[0].listen"),
        (4, "inbound[0].forward"),
        (5, "inbound[0].protocol"),
        (6, "inbound[0].tls"),
        (7, "outbound"),
        (8, "identity"),
        (8, "identity.agent"),
        (8, "identity.files.privateKey"),
        (9, "server"),
        (11, "limits.drainTimeout"),
        (12, "limits.maxHeads"),
        (13, "color"),
    ] {
        assert!(told.contains(&expected), "{expected:?} is not among {told:?}");
    }
    assert!(problems.iter().all(|p| !p.fix.is_empty() && p.line > 0 && p.column > 0), "{problems:?}");
}

#[test]
fn two_listeners_on_one_address_are_told_apart() {
    let text = WHOLE.replace("127.0.0.1:15001, service", "'[::1]:15006', service").replace(
        "identity:\n",
        "- {listen: 127.0.0.1:0, service: a:1}\n- {listen: 127.0.0.1:0, service: b:1}\nidentity:\n",
    );
    let problems = config(&text).unwrap_err();
    let [problem] = &problems[..] else { panic!("{problems:?}") };
    assert_eq!((problem.line, problem.field.as_str()), (11, "outbound[0].listen"));
    assert_eq!(problem.message, "`[::1]:15006` is taken by `inbound[1].listen` in line 9");
}

#[test]
fn what_is_no_configuration_at_all() {
    for text in ["", "- a", "a: [", "workload: 3", "\t", "a: &a [*a]"] {
        let problems = config(text).unwrap_err();
        assert!(!problems.is_empty(), "{text:?}");
    }
}

#[test]
fn durations() {
    assert_eq!(duration("2m"), Some(Duration::from_secs(120)));
    for text in ["", "5", "s", "-1s", "0s", "1d", "99999999999999999999s", "18446744073709551615h"] {
        assert_eq!(duration(text), None, "{text}");
    }
}
