//! Policies and requests that every engine gets: made from an index alone, so that two runs measure the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use palisade_policies::{Action, AuthorizationPolicy, Condition, Meta, Operation, Origin, Rule, Source};

/// Requests of one kind.
const SAMPLES: usize = 1_024;
/// The header that rules read.
pub const HEADER: &str = "x-tenant";

/// A request with every attribute that the rules read.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Without `spiffe://`.
    pub principal: String,
    /// HTTP method.
    pub method: &'static str,
    /// Normalised, no query.
    pub path: String,
    /// Host header.
    pub host: String,
    /// Value of [`HEADER`].
    pub header: String,
}

/// Policies of one rule each, and requests with the right answers.
pub struct Scene {
    /// In the order of their names.
    pub policies: Vec<Arc<AuthorizationPolicy>>,
    /// Requests that some rule matches.
    pub hits: Vec<Sample>,
    /// Whether each is allowed.
    pub hits_allowed: Vec<bool>,
    /// Requests that no rule matches.
    pub misses: Vec<Sample>,
    /// Whether each is allowed: never, an ALLOW policy is attached.
    pub misses_allowed: Vec<bool>,
}

impl Scene {
    /// A mesh gateway's view: four rules a service (list, item, create, purge), two callers each, a tenant header. One policy
    /// in ten is a DENY. Any of principal, host or path leaves few rules.
    #[must_use]
    pub fn selective(rules: usize) -> Self {
        let policies = (0..rules).map(|index| policy(index, is_deny(index), &selective_rule(index))).collect();
        let spread = |sample: usize| sample * 7_919 % rules;
        let hits: Vec<Sample> = (0..SAMPLES).map(|sample| hit(spread(sample), sample)).collect();
        let hits_allowed = (0..SAMPLES).map(|sample| !is_deny(spread(sample))).collect();
        let misses: Vec<Sample> = (0..SAMPLES).map(|sample| miss(spread(sample), sample)).collect();
        Self { policies, hits, hits_allowed, misses_allowed: vec![false; misses.len()], misses }
    }

    /// Every value of a request holds for half of the rules, and only all five together for none.
    #[must_use]
    pub fn unselective(rules: usize) -> Self {
        let policies = (0..rules).map(|index| policy(index, is_deny(index), &unselective_rule(index))).collect();
        let misses: Vec<Sample> = ASKED.iter().map(|values| unselective_sample(*values)).collect();
        Self { policies, hits: Vec::new(), hits_allowed: Vec::new(), misses_allowed: vec![false; misses.len()], misses }
    }
}

/// Changes the paths of one policy, as an edit does.
pub fn edit(policies: &mut [Arc<AuthorizationPolicy>], round: usize) {
    let at = round * 7_919 % policies.len().max(1);
    if let Some(slot) = policies.get_mut(at) {
        let mut changed = (**slot).clone();
        for operation in changed.rules.iter_mut().flat_map(|rule| &mut rule.to) {
            operation.paths = vec![format!("/edited/{round}/{{*}}")];
        }
        *slot = Arc::new(changed);
    }
}

const fn is_deny(index: usize) -> bool {
    index % 10 == 9
}

struct Parts {
    principals: Vec<String>,
    methods: Vec<&'static str>,
    paths: Vec<String>,
    hosts: Vec<String>,
    tenants: Vec<String>,
}

fn caller(service: usize, which: usize) -> String {
    format!("cluster.local/ns/team-{}/sa/app-{}", (service + which) % 40, service * 3 + which)
}

fn host(service: usize) -> String {
    format!("svc-{service}.team-{}.svc.cluster.local", service % 40)
}

fn tenant(service: usize) -> String {
    format!("tenant-{}", service % 200)
}

fn selective_rule(index: usize) -> Parts {
    let service = index / 4;
    let (method, path) = match index % 4 {
        0 => ("GET", format!("/v1/svc-{service}/items")),
        1 => ("GET", format!("/v1/svc-{service}/items/*")),
        2 => ("POST", format!("/v1/svc-{service}/{{*}}/create")),
        _ => ("DELETE", format!("/v1/svc-{service}/purge*")),
    };
    Parts {
        principals: vec![caller(service, 0), caller(service, 1)],
        methods: vec![method],
        paths: vec![path],
        hosts: vec![host(service)],
        tenants: vec![tenant(service)],
    }
}

fn hit(index: usize, sample: usize) -> Sample {
    let service = index / 4;
    let (method, path) = match index % 4 {
        0 => ("GET", format!("/v1/svc-{service}/items")),
        1 => ("GET", format!("/v1/svc-{service}/items/{sample}/details")),
        2 => ("POST", format!("/v1/svc-{service}/order-{sample}/create")),
        _ => ("DELETE", format!("/v1/svc-{service}/purge/{sample}")),
    };
    Sample { principal: caller(service, sample % 2), method, path, host: host(service), header: tenant(service) }
}

/// A hit with one attribute changed, each in its turn.
fn miss(index: usize, sample: usize) -> Sample {
    let mut request = hit(index, sample);
    match sample % 5 {
        0 => request.principal = format!("cluster.local/ns/other/sa/app-{sample}"),
        1 => request.method = "PATCH",
        2 => request.path = format!("/v1/svc-{}/unknown/{sample}/x", index / 4),
        3 => request.host = format!("other-{sample}.example.com"),
        _ => request.header = "nobody".to_owned(),
    }
    request
}

/// The values of the requests of [`Scene::unselective`], one of sixteen of each attribute.
const ASKED: [[usize; 5]; 4] = [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13, 14], [15, 0, 3, 6, 9]];
const METHODS: [&str; 16] = [
    "GET", "PUT", "POST", "HEAD", "PATCH", "DELETE", "TRACE", "OPTIONS", "PROPFIND", "MKCOL", "COPY", "MOVE", "LOCK",
    "UNLOCK", "SEARCH", "REPORT",
];

fn method(value: usize) -> &'static str {
    METHODS.get(value).copied().unwrap_or("GET")
}

fn unselective_sample([principal, verb, path, host, tenant]: [usize; 5]) -> Sample {
    Sample {
        principal: format!("cluster.local/ns/team-{principal}/sa/app"),
        method: method(verb),
        path: format!("/v1/area-{path}/items"),
        host: format!("svc-{host}.example.com"),
        header: format!("tenant-{tenant}"),
    }
}

/// Half of the sixteen values of each attribute; a draw that one of the asked requests would match is drawn again.
fn unselective_rule(index: usize) -> Parts {
    let mut state = index as u64 + 1;
    loop {
        let masks: [u64; 5] = std::array::from_fn(|_| half(&mut state));
        let matched = |asked: &[usize; 5]| asked.iter().zip(&masks).all(|(value, mask)| mask & (1 << value) != 0);
        if ASKED.iter().any(matched) {
            continue;
        }
        let [principals, methods, paths, hosts, tenants] =
            masks.map(|mask| (0..16).filter(move |v| mask & (1 << v) != 0));
        return Parts {
            principals: principals.map(|value| format!("cluster.local/ns/team-{value}/sa/app")).collect(),
            methods: methods.map(method).collect(),
            paths: paths.map(|value| format!("/v1/area-{value}/*")).collect(),
            hosts: hosts.map(|value| format!("svc-{value}.example.com")).collect(),
            tenants: tenants.map(|value| format!("tenant-{value}")).collect(),
        };
    }
}

/// Eight of sixteen bits.
fn half(state: &mut u64) -> u64 {
    loop {
        // SplitMix64: any generator that is the same everywhere will do.
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let mask = (mixed >> 16) & 0xFFFF;
        if mask.count_ones() == 8 {
            return mask;
        }
    }
}

fn policy(index: usize, deny: bool, parts: &Parts) -> Arc<AuthorizationPolicy> {
    let origin = Origin { file: "bench.yaml".into(), line: 1 };
    let rule = Rule {
        from: vec![Source { principals: parts.principals.clone(), ..Source::default() }],
        to: vec![Operation {
            methods: parts.methods.iter().map(|method| (*method).to_owned()).collect(),
            paths: parts.paths.clone(),
            hosts: parts.hosts.clone(),
            ..Operation::default()
        }],
        when: vec![Condition {
            key: format!("request.headers[{HEADER}]"),
            values: parts.tenants.clone(),
            not_values: Vec::new(),
        }],
        origin: origin.clone(),
    };
    Arc::new(AuthorizationPolicy {
        meta: Meta {
            name: format!("p{index:06}"),
            namespace: "shop".to_owned(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            created: None,
            origin,
        },
        selector: None,
        target_refs: Vec::new(),
        action: if deny { Action::Deny } else { Action::Allow },
        dry_run: false,
        rules: vec![rule],
    })
}
