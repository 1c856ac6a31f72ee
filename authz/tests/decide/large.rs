//! Random sets of hundreds of rules that share values: what the index finds is what every rule, tried by itself, says.

use std::sync::Arc;

use palisade_authz::{CompiledSet, Evaluation, Explanation, Known, Outcome, Phase, PolicyRef, Semantics, normalize};
use palisade_policies::{AuthorizationPolicy, MeshConfig};
use serde_json::{Map, Value, json};

use crate::ask::{Ask, policy};
use crate::slow;

/// SplitMix64: all of a case follows from its seed.
pub(crate) struct Dice {
    state: u64,
    /// Distinct values that stand in for one field.
    spread: u64,
    /// Few rules match anything.
    narrow: bool,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Self { state: seed, spread: 1, narrow: false };
        dice.spread = *dice.one(&[2, 3, 10, 60, 1000]);
        dice.narrow = !dice.chance(3);
        dice
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    pub(crate) fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    pub(crate) fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        self.one::<&str>(from)
    }

    pub(crate) fn one<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        from.get(self.below(from.len() as u64) as usize).unwrap()
    }

    /// One of the forms with `#` replaced by a number below the spread.
    fn value(&mut self, forms: &[&str]) -> String {
        let number = self.below(self.spread);
        let mut form = self.pick(forms);
        for _ in 0..if self.narrow { 3 } else { 0 } {
            if !form.contains('#') {
                form = self.pick(forms);
            }
        }
        form.replace("#b", &(number % 250).to_string()).replace('#', &number.to_string())
    }

    fn maybe(&mut self, forms: &[&str]) -> Option<String> {
        (!self.chance(8)).then(|| self.value(forms))
    }
}

/// Field, then the forms of its values.
type Vocabulary = &'static [(&'static str, &'static [&'static str])];

const SOURCE: Vocabulary = &[
    ("principals", &["td/ns/n#/sa/x", "td/ns/n#/*", "*/sa/x#", "td/ns/n#/sa/x#", "*", "cluster.local/ns/n#/sa/x"]),
    ("namespaces", &["n#", "n#", "n#*", "*#", "n*#", "*", "*n*#*", "a/n#"]),
    ("serviceAccounts", &["n#/x", "x#", "n#/x#", "a/b/c#"]),
    ("trustDomains", &["td", "td#", "t*", "*d#", "*", "td#*"]),
    (
        "ipBlocks",
        &["10.#b.0.0/16", "10.#b.1.0/24", "10.#b.1.7", "10.0.0.0/8", "0.0.0.0/0", "fe80::#", "::/0", "fe80::/10"],
    ),
    ("remoteIpBlocks", &["1.2.#b.0/24", "1.2.0.0/16", "1.2.#b.4"]),
    ("requestPrincipals", &["i#/s#", "i#/*", "*/s#", "*", "i#*", "*s#", "i#", "*#/s#", "i#/s*"]),
];
/// All that validation lets a CUSTOM rule say of its source.
const ADDRESSES: Vocabulary = &[("ipBlocks", &["10.#b.0.0/16", "10.#b.1.7", "10.0.0.0/8", "fe80::#"])];
const OPERATION: Vocabulary = &[
    ("hosts", &["h#.com", "H#.com", "*.com", "h#*", "*", "*#.com", "h#.com:80"]),
    ("methods", &["GET", "POST", "P*", "*T", "*", "M#"]),
    (
        "paths",
        &["/p#", "/p#/*", "*.x#", "/p#/{*}", "/p#/{**}", "/{*}/q#", "/{**}/q#", "/p#/{**}/q#", "*", "/p#*", "/{*}/{*}"],
    ),
    ("ports", &["80", "8080", "#"]),
];
const WHEN: Vocabulary = &[
    ("request.headers[x-a]", &["v#", "v#*", "*#", "*"]),
    ("request.headers[x-#]", &["v#", "*"]),
    ("request.headers[accept]", &["v#", "v#*", "*#", "*", "v#,v#"]),
    ("request.headers[Host]", &["h#.com", "H*"]),
    ("request.headers[:path]", &["/p#?x", "*?x"]),
    ("request.auth.claims[g]", &["v#", "v#*", "*"]),
    ("request.auth.claims[o][p]", &["v#"]),
    ("request.auth.claims[scope]", &["v#", "*"]),
    ("request.auth.audiences", &["v#", "*"]),
    ("source.namespace", &["n#"]),
    ("source.principal", &["td/ns/n#/sa/x"]),
    ("source.ip", &["10.#b.1.7"]),
    ("destination.ip", &["10.0.0.9", "10.9.#b.0/24"]),
    ("destination.port", &["80", "#"]),
    ("connection.sni", &["h#.com", "*.com", "H#.com", "*"]),
    ("experimental.envoy.filters.x[k]", &["v#", "[v#]", "[*]", "*"]),
];

fn values(dice: &mut Dice, forms: &[&str]) -> Vec<String> {
    let count = if dice.chance(30) { 40 } else { 1 + dice.below(3) };
    (0..count).map(|_| dice.value(forms)).collect()
}

fn fields(dice: &mut Dice, vocabulary: Vocabulary) -> Value {
    let mut object = Map::new();
    for _ in 0..=dice.below(3) {
        let (field, forms) = *dice.one(vocabulary);
        let mut name = field.to_owned();
        if dice.chance(if dice.narrow { 10 } else { 4 }) {
            let (head, tail) = field.split_at(1);
            name = format!("not{}{tail}", head.to_uppercase());
        }
        object.insert(name, json!(values(dice, forms)));
    }
    Value::Object(object)
}

fn rule(dice: &mut Dice, actions: &[&str]) -> Value {
    let custom = actions == ["CUSTOM"];
    let least = usize::from(dice.narrow);
    let count = |dice: &mut Dice| *dice.one(&[least, 1, 1, 1, 2, 5]);
    let from: Vec<Value> =
        (0..count(dice)).map(|_| json!({"source": fields(dice, if custom { ADDRESSES } else { SOURCE })})).collect();
    let to: Vec<Value> = (0..count(dice)).map(|_| json!({"operation": fields(dice, OPERATION)})).collect();
    let when: Vec<Value> = (0..dice.below(3))
        .map(|_| {
            let (key, forms) = *dice.one(WHEN);
            let side = if dice.chance(4) { "notValues" } else { "values" };
            json!({"key": dice.value(&[key]), side: values(dice, forms)})
        })
        .collect();
    json!({"from": from, "to": to, "when": when})
}

/// Policies with a few rules each, `count` rules in all, names distinct.
pub(crate) fn policies(dice: &mut Dice, count: usize, actions: &[&str]) -> Vec<Value> {
    let mut made = Vec::new();
    let mut rules = 0;
    while rules < count {
        let action = dice.pick(actions);
        let some: Vec<Value> = (0..=dice.below(4)).map(|_| rule(dice, actions)).collect();
        rules += some.len();
        let name = format!("p{}-{}", dice.below(100_000), made.len());
        let dry_run = action != "AUDIT" && action != "CUSTOM" && dice.chance(5);
        made.push(json!({"action": action, "name": name, "dryRun": dry_run, "rules": some}));
    }
    made
}

fn claims(dice: &mut Dice) -> Value {
    let words = format!("{} {}", dice.value(&["v#", "v#", ""]), dice.value(&["v#", "v#", ""]));
    let list = json!([dice.value(&["v#"]), 1, dice.value(&["v#"])]);
    let one = json!(dice.value(&["v#"]));
    let group = if dice.chance(2) { list } else { one.clone() };
    json!({"iss": dice.value(&["i#", "i#", "x"]), "sub": dice.value(&["s#", "s#", ""]), "g": group, "aud": one,
           "o": {"p": one}, "scope": words})
}

fn headers(dice: &mut Dice) -> Vec<(String, String)> {
    let long = "x".repeat(300);
    let one = |dice: &mut Dice| {
        let name = dice.value(&["x-a", "X-A", "accept", "Accept", "x-#"]);
        let value = dice.value(&["v#", "v#", "v#x", "", "v#,v#"]);
        (name, if dice.chance(30) { long.clone() + &value } else { value })
    };
    (0..dice.below(5)).map(|_| one(dice)).collect()
}

/// A request whose values policies name.
pub(crate) fn ask(dice: &mut Dice) -> Ask {
    let principals = [
        "td/ns/n#/sa/x",
        "td/ns/n#/sa/x#",
        "td#/ns/n#/sa/x#",
        "td/ns/a/ns/n#/k/sa/x/sa/x#",
        "ns/n#/sa/x",
        "td/x#",
        "td/ns/n#\n/sa/x#",
        "td/ns/a/n#/sa/x",
    ];
    let targets = ["/p#", "/p#/a", "/p#/q#", "/a/q#", "/p#/a.x#", "/p#/a/b/q#?x", "/p#?x", "/", "/p#/[/q#", "/p##"];
    let claims = (!dice.chance(4)).then(|| claims(dice));
    let metadata = match dice.below(3) {
        0 => None,
        1 => Some(json!({"envoy.filters.x": {"k": dice.value(&["v#"])}})),
        _ => Some(json!({"envoy.filters.x": {"k": [dice.value(&["v#"]), dice.value(&["v#"])]}})),
    };
    Ask {
        principal: dice.maybe(&principals),
        ip: dice.maybe(&["10.#b.1.7", "10.#b.2.7", "fe80::#", "192.168.0.1"]).and_then(|ip| ip.parse().ok()),
        remote_ip: dice.maybe(&["1.2.#b.4", "1.2.#b.5", "9.9.9.9"]).and_then(|ip| ip.parse().ok()),
        destination_ip: dice.maybe(&["10.0.0.9", "10.9.#b.1"]).and_then(|ip| ip.parse().ok()),
        port: dice.maybe(&["80", "8080", "#"]).and_then(|port| port.parse().ok()),
        sni: dice.maybe(&["h#.com", "H#.com"]),
        tcp: dice.chance(10),
        method: dice.maybe(&["GET", "POST", "PUT", "M#"]),
        target: dice.maybe(&targets),
        host: dice.maybe(&["h#.com", "H#.COM", "h#.com:80", "www.h#.com", ""]),
        scheme: Some("http".to_owned()),
        headers: headers(dice),
        claims,
        metadata,
    }
}

pub(crate) fn compile(policies: &[Value], mesh: &MeshConfig, semantics: Semantics) -> CompiledSet {
    let list: Vec<Arc<AuthorizationPolicy>> = policies.iter().map(policy).collect();
    CompiledSet::compile(&list, mesh, semantics)
}

/// What the phases of an explanation, which tries every rule, come to.
fn summed_up(explanation: &Explanation) -> (Outcome, Phase, Option<PolicyRef>, bool) {
    let phase = |name: &str| explanation.phases.iter().find(|report| report.phase == name).unwrap();
    let first = |name: &str| phase(name).matched.first().cloned();
    if let Some(policy) = first("custom") {
        return (Outcome::Deny, Phase::Custom, Some(policy), false);
    }
    let audited = first("audit").is_some();
    match (first("deny"), first("allow")) {
        (Some(policy), _) => (Outcome::Deny, Phase::Deny, Some(policy), audited),
        (None, Some(policy)) => (Outcome::Allow, Phase::Allow, Some(policy), audited),
        (None, None) if phase("allow").attached => (Outcome::Deny, Phase::Default, None, audited),
        (None, None) => (Outcome::Allow, Phase::Default, None, audited),
    }
}

fn agree(evaluation: &Evaluation, explanation: &Explanation, what: &str) {
    let Evaluation { outcome, phase, policy, shadow, audited } = evaluation.clone();
    assert_eq!((outcome, phase, policy, audited), summed_up(explanation), "{what}");
    if phase == Phase::Custom {
        return;
    }
    for (name, found) in [("shadow-deny", shadow.deny), ("shadow-allow", shadow.allow)] {
        let report = explanation.phases.iter().find(|report| report.phase == name).unwrap();
        assert_eq!(found.is_some(), report.attached, "{what}");
        assert_eq!(found.and_then(|found| found.policy), report.matched.first().cloned(), "{what}: {name}");
    }
}

/// One set, many requests.
fn case(seed: u64, actions: &[&str], sizes: &[usize], requests: usize) {
    let mut dice = Dice::new(seed);
    let size = *dice.one(sizes);
    let policies = policies(&mut dice, size, actions);
    let semantics = *dice.one(&[Semantics::Http, Semantics::Http, Semantics::Tcp, Semantics::L4]);
    let set = compile(&policies, &MeshConfig::default(), semantics);
    for number in 0..requests {
        let ask = ask(&mut dice);
        ask.view(&MeshConfig::default(), |request| {
            let (found, explained) = (set.evaluate(request, Known::ALL), set.explain(request, Known::ALL));
            agree(&found, &explained, &format!("seed {seed}, {semantics:?}, request {number}: {ask:?}"));
        });
    }
}

/// What [`slow`] does not speak of: `:path`, and an identity with a line feed.
fn strange(rule: &Value) -> bool {
    rule["when"].as_array().unwrap().iter().any(|when| when["key"] == "request.headers[:path]")
}

fn slow_case(seed: u64) {
    let mut dice = Dice::new(seed);
    let mut policies = policies(&mut dice, 250, &["ALLOW", "DENY", "ALLOW"]);
    for policy in &mut policies {
        policy["rules"].as_array_mut().unwrap().retain(|rule| !strange(rule));
    }
    let semantics = *dice.one(&[Semantics::Http, Semantics::Http, Semantics::Tcp, Semantics::L4]);
    let set = compile(&policies, &MeshConfig::default(), semantics);
    let list: Vec<AuthorizationPolicy> = policies.iter().map(|spec| policy(spec).as_ref().clone()).collect();
    for number in 0..8 {
        let mut ask = ask(&mut dice);
        ask.principal = ask.principal.filter(|principal| !principal.contains('\n'));
        let target =
            ask.target.as_deref().map(|raw| normalize::path(raw, MeshConfig::default().path_normalization).unwrap());
        let expected = slow::decide(&list, semantics, target.as_deref().map(normalize::without_query), &ask);
        let found = ask.view(&MeshConfig::default(), |request| set.evaluate(request, Known::ALL));
        let got = (found.outcome == Outcome::Allow, found.policy.map(|policy| policy.id().to_owned()));
        assert_eq!(got, expected, "seed {seed}, {semantics:?}, request {number}: {ask:?}");
    }
}

/// What one more policy does to a large set.
fn one_more(seed: u64, action: &'static str) {
    let mut dice = Dice::new(seed);
    let mut policies = policies(&mut dice, 120, &["ALLOW", "DENY"]);
    policies.push(json!({"name": "none"}));
    let extra = self::policies(&mut dice, 1, &[action]);
    let before = compile(&policies, &MeshConfig::default(), Semantics::Http);
    let all = [extra, policies.clone()].concat();
    let after = compile(&all, &MeshConfig::default(), Semantics::Http);
    policies.reverse();
    let backwards = compile(&policies, &MeshConfig::default(), Semantics::Http);
    for _ in 0..20 {
        ask(&mut dice).view(&MeshConfig::default(), |request| {
            let evaluation = before.evaluate(request, Known::ALL);
            assert_eq!(evaluation, backwards.evaluate(request, Known::ALL), "seed {seed}: the order of policies");
            let after = after.evaluate(request, Known::ALL).outcome;
            let wrong =
                if action == "DENY" { (Outcome::Deny, Outcome::Allow) } else { (Outcome::Allow, Outcome::Deny) };
            assert_ne!((evaluation.outcome, after), wrong, "seed {seed}: one more {action}");
        });
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 25, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_index_finds_what_trying_every_rule_finds(seed in proptest::prelude::any::<u64>()) {
        case(seed, &["ALLOW", "DENY", "ALLOW", "AUDIT"], &[20, 60, 300, 700], 30);
    }

    #[test]
    fn the_index_finds_what_the_obvious_evaluator_finds(seed in proptest::prelude::any::<u64>()) {
        slow_case(seed);
    }

    #[test]
    fn one_more_policy_on_a_large_set(seed in proptest::prelude::any::<u64>()) {
        one_more(seed, "DENY");
        one_more(seed, "ALLOW");
    }

    #[test]
    fn the_index_finds_custom_rules(seed in proptest::prelude::any::<u64>()) {
        case(seed, &["CUSTOM"], &[20, 200], 20);
    }
}
