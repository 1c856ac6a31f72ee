//! One case a trap, and the same text where it is none. Numbers are those of the traps that Istio is known for.

/// Resources, and what is found in them.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) mesh: &'static str,
    /// The `spec` of one AuthorizationPolicy in the namespace `a`, or whole resources.
    pub(super) yaml: &'static str,
    pub(super) found: &'static [&'static str],
}

const fn case(name: &'static str, yaml: &'static str, found: &'static [&'static str]) -> Case {
    Case { name, mesh: "", yaml, found }
}

const fn in_mesh(name: &'static str, mesh: &'static str, yaml: &'static str, found: &'static [&'static str]) -> Case {
    Case { name, mesh, yaml, found }
}

const MERGE: &str = "pathNormalization: {normalization: MERGE_SLASHES}\n";
const NEW_DOMAIN: &str = "trustDomain: new-td\n";

macro_rules! deny {
    ($($operation:literal),*) => {
        concat!("{action: DENY, rules: [{to: [", $("{operation: {ports: ['8080'], ", $operation, "}},",)* "]}]}")
    };
}

/// An ALLOW policy beside one that closes by default: nothing is its last permission.
macro_rules! allow {
    ($rules:literal) => {
        concat!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: nothing, namespace: a}\nspec: {}\n",
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: a}\n",
            "spec: {rules: [",
            $rules,
            "]}\n"
        )
    };
}

macro_rules! peer {
    ($namespace:literal, $name:literal, $spec:literal) => {
        concat!(
            "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: ",
            $name,
            ", namespace: ",
            $namespace,
            "}\nspec: ",
            $spec,
            "\n"
        )
    };
}

macro_rules! tokens {
    ($rule:literal) => {
        concat!(
            "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: t, namespace: a}\n",
            "spec: {jwtRules: [",
            $rule,
            "]}\n"
        )
    };
}

macro_rules! workload {
    ($namespace:literal, $labels:literal) => {
        concat!(
            "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: w-0, namespace: ",
            $namespace,
            "}\nspec: {address: 10.0.0.9, labels: {",
            $labels,
            "}}\n"
        )
    };
}

const ISSUER: &str = tokens!("{issuer: 'https://idp.example', jwksUri: 'https://idp.example/jwks'}");

pub(super) const CASES: &[Case] = &[
    // Paths.
    in_mesh("5 exact", MERGE, deny!("paths: [/admin]"), &["PAL0701 spec.rules[0].to[0].operation.paths[0]"]),
    in_mesh("5 exact with its variants", MERGE, deny!("paths: [/admin, '/admin/*']"), &[]),
    in_mesh("5 an exact permission", MERGE, allow!("{to: [{operation: {paths: [/admin]}}]}"), &[]),
    in_mesh(
        "5 all but an exact path",
        MERGE,
        allow!("{to: [{operation: {methods: [GET], notPaths: [/admin]}}]}"),
        &["PAL0701 spec.rules[0].to[0].operation.notPaths[0]"],
    ),
    case("6 slashes", deny!("paths: ['/admin*', '/b*']"), &["PAL0702 spec.rules[0].to[0].operation.paths[0]"]),
    in_mesh("6 slashes are merged", MERGE, deny!("paths: ['/admin*']"), &[]),
    case(
        "6 slashes within, where the begin is asked for",
        concat!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: q, namespace: a}\n\
             spec: {rules: [{to: [{operation: {paths: ['/a/*']}}]}]}\n---\n",
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: a}\n\
             spec: {action: DENY, rules: [{to: [{operation: {ports: ['8080'], paths: [/a/b*]}}]}]}\n",
        ),
        &["PAL0731 metadata.name", "PAL0702 spec.rules[0].to[0].operation.paths[0]"],
    ),
    case(
        "6 slashes within what is closed whole",
        concat!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: q, namespace: a}\n\
             spec: {rules: [{to: [{operation: {paths: ['/a*']}}]}]}\n---\n",
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: a}\n\
             spec: {action: DENY, rules: [{to: [{operation: {ports: ['8080'], paths: ['/a/*', '/a/{**}', /a/b*, '/a/c/d']}}]}]}\n",
        ),
        &["PAL0731 metadata.name", "PAL0704 spec.rules[0].to[0].operation.paths[1]"],
    ),
    in_mesh(
        "8 bracket",
        MERGE,
        deny!("paths: ['/admin/{*}', '/admin/{*}/{**}']"),
        &["PAL0703 spec.rules[0].to[0].operation.paths[0]", "PAL0703 spec.rules[0].to[0].operation.paths[1]"],
    ),
    in_mesh(
        "8 a segment more",
        MERGE,
        deny!("paths: ['/admin/{*}', '/{*}/b/']"),
        &[
            "PAL0701 spec.rules[0].to[0].operation.paths[0]",
            "PAL0703 spec.rules[0].to[0].operation.paths[0]",
            "PAL0701 spec.rules[0].to[0].operation.paths[1]",
            "PAL0703 spec.rules[0].to[0].operation.paths[1]",
        ],
    ),
    in_mesh(
        "8 bracket",
        MERGE,
        deny!("paths: ['/a/{*}/b/{**}']"),
        &["PAL0703 spec.rules[0].to[0].operation.paths[0]", "PAL0704 spec.rules[0].to[0].operation.paths[0]"],
    ),
    in_mesh("8 a permission", MERGE, allow!("{to: [{operation: {paths: ['/admin/{*}']}}]}"), &[]),
    case(
        "9 slash behind",
        allow!("{to: [{operation: {paths: ['/foo/{**}/']}}]}"),
        &["PAL0704 spec.rules[0].to[0].operation.paths[0]"],
    ),
    case(
        "10 nothing behind",
        allow!("{to: [{operation: {paths: ['/foo/{**}']}}]}"),
        &["PAL0704 spec.rules[0].to[0].operation.paths[0]"],
    ),
    case(
        "10 in the middle",
        allow!("{to: [{operation: {paths: ['/s/{**}/cart']}}]}"),
        &["PAL0704 spec.rules[0].to[0].operation.paths[0]"],
    ),
    case("10 both", allow!("{to: [{operation: {paths: ['/foo', '/foo/{**}', '/{**}']}}]}"), &[]),
    case(
        "11 star in a path",
        allow!("{to: [{operation: {paths: ['/a*b']}}]}"),
        &["PAL0705 spec.rules[0].to[0].operation.paths[0]"],
    ),
    case(
        "11 star in a host",
        deny!("hosts: ['api.*.example.com:*']"),
        &["PAL0705 spec.rules[0].to[0].operation.hosts[0]"],
    ),
    case(
        "11 star in a header",
        allow!("{when: [{key: 'request.headers[x-a]', values: ['*a*']}]}"),
        &["PAL0705 spec.rules[0].when[0].values[0]"],
    ),
    case(
        "11 star in a principal",
        allow!("{from: [{source: {principals: ['cluster.local/ns/*/sa/b']}}]}"),
        &["PAL0705 spec.rules[0].from[0].source.principals[0]"],
    ),
    case(
        "11 star in a name",
        allow!("{when: [{key: connection.sni, values: ['a*.b']}]}"),
        &["PAL0705 spec.rules[0].when[0].values[0]"],
    ),
    case("11 a namespace", allow!("{from: [{source: {namespaces: ['n*1']}}]}"), &[]),
    case(
        "12 CONNECT",
        allow!("{to: [{operation: {notPaths: ['/x*', '//x*']}}]}"),
        &["PAL0706 spec.rules[0].to[0].operation.notPaths"],
    ),
    case("12 not CONNECT", allow!("{to: [{operation: {notPaths: ['/x*', '//x*'], notMethods: [CONNECT]}}]}"), &[]),
    // Hosts.
    case("3 port", deny!("hosts: [example.com]"), &["PAL0707 spec.rules[0].to[0].operation.hosts[0]"]),
    case("3 port of a suffix", deny!("hosts: ['*.example.com']"), &["PAL0707 spec.rules[0].to[0].operation.hosts[0]"]),
    case("3 with its ports", deny!("hosts: [example.com, 'example.com:*']"), &[]),
    case(
        "4 prefix",
        allow!("{to: [{operation: {hosts: ['example.com*']}}]}"),
        &["PAL0708 spec.rules[0].to[0].operation.hosts[0]"],
    ),
    case("4 ports", allow!("{to: [{operation: {hosts: [example.com, 'example.com:*', 'api.*']}}]}"), &[]),
    // Headers.
    case(
        "13 empty",
        allow!("{when: [{key: 'request.headers[x-a]', values: ['*']}]}"),
        &["PAL0709 spec.rules[0].when[0].values[0]"],
    ),
    case("13 values", allow!("{when: [{key: 'request.headers[x-a]', values: [a, 'b*']}]}"), &[]),
    case(
        "14 absent",
        allow!("{when: [{key: 'request.headers[x-a]', notValues: [b]}]}"),
        &["PAL0710 spec.rules[0].when[0].notValues"],
    ),
    case(
        "14 absent in a DENY",
        "{action: DENY, rules: [{to: [{operation: {ports: ['8080']}}], when: [{key: 'request.headers[x-a]', notValues: [b]}]}]}",
        &[],
    ),
    case(
        "15 joined, and all are closed",
        "{action: DENY, rules: [{to: [{operation: {ports: ['8080']}}], when: [{key: 'request.headers[User-Agent]', values: [curl, 'b*', '*']}]}]}",
        &[],
    ),
    case(
        "15 joined",
        "{action: DENY, rules: [{to: [{operation: {ports: ['8080']}}], when: [{key: 'request.headers[User-Agent]', values: [curl, 'b*', '*c']}]}]}",
        &[
            "PAL0739 spec.rules[0].when[0].values[0]",
            "PAL0739 spec.rules[0].when[0].values[1]",
            "PAL0739 spec.rules[0].when[0].values[2]",
        ],
    ),
    case(
        "15 joined, the other text as in the values",
        "{action: DENY, rules: [{to: [{operation: {ports: ['8080']}}], when: [{key: 'request.headers[User-Agent]', values: ['x*', '*y', 'b*']}]}]}",
        &[
            "PAL0739 spec.rules[0].when[0].values[0]",
            "PAL0739 spec.rules[0].when[0].values[1]",
            "PAL0739 spec.rules[0].when[0].values[2]",
        ],
    ),
    case(
        "15 joined, an ending as the other text",
        "{action: DENY, rules: [{to: [{operation: {ports: ['8080']}}], when: [{key: 'request.headers[User-Agent]', values: ['*x']}]}]}",
        &["PAL0739 spec.rules[0].when[0].values[0]"],
    ),
    case(
        "15 not joined",
        "{action: DENY, rules: [{to: [{operation: {ports: ['8080']}}], when: [{key: 'request.headers[x-a]', values: [a, 'b*']}]}]}",
        &[],
    ),
    case(
        "53 Host",
        allow!("{when: [{key: 'request.headers[Host]', values: [example.com]}]}"),
        &["PAL0711 spec.rules[0].when[0].values[0]"],
    ),
    // Identities.
    case(
        "18 scheme",
        allow!("{from: [{source: {principals: ['spiffe://cluster.local/ns/a/sa/b']}}]}"),
        &["PAL0712 spec.rules[0].from[0].source.principals[0]"],
    ),
    case(
        "18 in a rule that never matches anyway",
        allow!(
            "{from: [{source: {principals: ['spiffe://cluster.local/ns/a/sa/b']}}], when: [{key: 'request.headers[x-a]', values: [a]}, {key: 'request.headers[x-a]', values: [b]}]}"
        ),
        &[],
    ),
    case(
        "5 in a rule that never matches",
        "{action: DENY, rules: [{to: [{operation: {ports: ['8080'], paths: ['/admin']}}], when: [{key: source.ip, values: [10.9.9.9], notValues: [10.9.9.9]}]}]}",
        &[],
    ),
    in_mesh(
        "19 rewritten, once",
        NEW_DOMAIN,
        allow!("{from: [{source: {principals: [cluster.local/ns/d/sa/s, 'cluster.local/ns/d/sa/*']}}]}"),
        &["PAL0713 spec.rules[0].from[0].source.principals[0]"],
    ),
    in_mesh(
        "19 an alias",
        "trustDomain: new-td\ntrustDomainAliases: [cluster.local]\n",
        allow!("{from: [{source: {principals: [cluster.local/ns/d/sa/s]}}]}"),
        &[],
    ),
    in_mesh(
        "20 kept",
        NEW_DOMAIN,
        allow!("{from: [{source: {principals: ['cluster.local/ns/d/*']}}]}"),
        &["PAL0714 spec.rules[0].from[0].source.principals[0]"],
    ),
    case("20 the same mesh", allow!("{from: [{source: {principals: ['cluster.local/ns/d/*']}}]}"), &[]),
    case(
        "21 account of the root namespace",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: istio-system}\n\
         spec: {rules: [{from: [{source: {serviceAccounts: [sleep]}}]}, {to: [{operation: {ports: ['1']}}]}]}\n---\n\
         apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: nothing, namespace: istio-system}\nspec: {}\n",
        &["PAL0715 spec.rules[0].from[0].source.serviceAccounts[0]"],
    ),
    case("21 of another namespace", allow!("{from: [{source: {serviceAccounts: [sleep]}}]}"), &[]),
    case(
        "17 plaintext",
        "{action: DENY, rules: [{from: [{source: {namespaces: [x], principals: ['*/sa/y']}}]}]}",
        &["PAL0716 spec.rules[0].from[0].source.principals"],
    ),
    case(
        "17 in STRICT",
        concat!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: a}\n\
             spec: {action: DENY, rules: [{from: [{source: {namespaces: [x]}}]}]}\n",
            peer!("istio-system", "default", "{mtls: {mode: STRICT}}")
        ),
        &[],
    ),
    case(
        "17 with plaintext denied",
        "{action: DENY, rules: [{from: [{source: {namespaces: [x]}}, {source: {notPrincipals: ['*']}}]}]}",
        &[],
    ),
    case(
        "16 all but one",
        allow!("{from: [{source: {notNamespaces: [x]}}]}"),
        &["PAL0717 spec.rules[0].from[0].source.notNamespaces"],
    ),
    case("16 all but one with identity", allow!("{from: [{source: {principals: ['*'], notNamespaces: [x]}}]}"), &[]),
    case(
        "16 a DENY of all but one",
        "{action: DENY, rules: [{from: [{source: {notPrincipals: ['*/sa/x']}}]}]}",
        &["PAL0740 spec.rules[0].from[0].source.notPrincipals"],
    ),
    case(
        "16 a DENY of all but one with identity",
        "{action: DENY, rules: [{from: [{source: {principals: ['*'], notPrincipals: ['*/sa/x']}}]}]}",
        &["PAL0716 spec.rules[0].from[0].source.principals"],
    ),
    case(
        "16 a DENY of plaintext",
        "{action: DENY, rules: [{from: [{source: {notPrincipals: ['*']}}]}, {from: [{source: {notPrincipals: ['*/sa/x']}}]}]}",
        &[],
    ),
    case(
        "16 a DENY in STRICT",
        concat!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: a}\n\
             spec: {action: DENY, rules: [{from: [{source: {notPrincipals: ['*/sa/x']}}]}]}\n",
            peer!("a", "default", "{mtls: {mode: STRICT}}")
        ),
        &[],
    ),
    // Tokens.
    case(
        "22 cut",
        allow!("{from: [{source: {requestPrincipals: ['https://acc*']}}]}"),
        &["PAL0718 spec.rules[0].from[0].source.requestPrincipals[0]"],
    ),
    case(
        "22 an issuer alone",
        allow!("{when: [{key: request.auth.principal, values: [testing@secure.istio.io]}]}"),
        &["PAL0718 spec.rules[0].when[0].values[0]"],
    ),
    case(
        "23 a slash in the subject",
        concat!(
            allow!(
                "{from: [{source: {requestPrincipals: ['https://idp.example/users/alice', 'https://idp.example/bob']}}]}"
            ),
            tokens!("{issuer: 'https://idp.example', jwksUri: 'https://idp.example/jwks'}")
        ),
        &["PAL0718 spec.rules[0].from[0].source.requestPrincipals[0]"],
    ),
    case(
        "23 a slash behind the issuer",
        concat!(
            allow!("{from: [{source: {requestPrincipals: ['https://idp.example/*']}}]}"),
            tokens!("{issuer: 'https://idp.example/', jwksUri: 'https://idp.example/jwks'}")
        ),
        &["PAL0718 spec.rules[0].from[0].source.requestPrincipals[0]"],
    ),
    case(
        "22 good ones",
        allow!("{from: [{source: {requestPrincipals: ['*', 'https://a/*', '*/alice', 'a/b']}}]}"),
        &[],
    ),
    case(
        "25 boolean",
        allow!("{when: [{key: 'request.auth.claims[admin]', values: ['true']}]}"),
        &["PAL0719 spec.rules[0].when[0].values[0]"],
    ),
    case(
        "25 not a number",
        allow!("{when: [{key: 'request.auth.claims[n]', notValues: ['0']}]}"),
        &["PAL0719 spec.rules[0].when[0].notValues[0]"],
    ),
    case(
        "26 dot",
        allow!("{when: [{key: 'request.auth.claims[g.x]', values: [a]}]}"),
        &["PAL0720 spec.rules[0].when[0].values[0]"],
    ),
    case("26 a URI", allow!("{when: [{key: 'request.auth.claims[https://a.example/g]', values: [a]}]}"), &[]),
    case(
        "27 words",
        allow!("{when: [{key: 'request.auth.claims[scope]', values: ['read write', admin]}]}"),
        &["PAL0721 spec.rules[0].when[0].values[0]"],
    ),
    case(
        "27 a claim that the issuer's rule splits",
        concat!(
            allow!("{when: [{key: 'request.auth.claims[roles]', values: ['a b']}]}"),
            tokens!("{issuer: i, jwksUri: 'https://i/jwks', spaceDelimitedClaims: [roles]}")
        ),
        &["PAL0721 spec.rules[0].when[0].values[0]"],
    ),
    case("29 no token", ISSUER, &["PAL0722 spec.jwtRules"]),
    case(
        "29 a token is asked for",
        concat!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: a}\n\
             spec: {action: DENY, rules: [{from: [{source: {notRequestPrincipals: ['*']}}], to: [{operation: {ports: ['8080']}}]}]}\n",
            tokens!("{issuer: 'https://idp.example', jwksUri: 'https://idp.example/jwks'}")
        ),
        &[],
    ),
    // Without HTTP.
    case(
        "33 lost",
        allow!("{to: [{operation: {ports: ['80']}}, {operation: {methods: [GET]}}]}"),
        &["PAL0723 spec.rules[0].to[0]"],
    ),
    case("33 apart", allow!("{to: [{operation: {ports: ['80']}}]}, {to: [{operation: {methods: [GET]}}]}"), &[]),
    case(
        "34 widened, as Istio warns",
        "{action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}",
        &["PAL0225 spec.rules[0]", "PAL0725 spec.rules[0].to[0].operation.methods"],
    ),
    case(
        "35 one alternative widened",
        "{action: DENY, rules: [{to: [{operation: {ports: ['1']}}, {operation: {methods: [GET]}}]}]}",
        &["PAL0225 spec.rules[0]", "PAL0725 spec.rules[0].to[1].operation.methods"],
    ),
    case(
        "34 widened without a word of Istio",
        "{action: DENY, rules: [{from: [{source: {ipBlocks: [10.0.0.0/8]}}], when: [{key: 'request.headers[x-a]', values: [b]}]}]}",
        &["PAL0724 spec.rules[0]", "PAL0725 spec.rules[0].when[0].values"],
    ),
    case(
        "37 lost in ambient",
        "{action: DENY, rules: [{from: [{source: {principals: ['*'], requestPrincipals: ['a/*']}}], when: [{key: 'request.headers[x-a]', values: [b]}]}]}",
        &[
            "PAL0724 spec.rules[0]",
            "PAL0716 spec.rules[0].from[0].source.principals",
            "PAL0725 spec.rules[0].from[0].source.requestPrincipals",
        ],
    ),
    case(
        "37 for one port",
        "{action: DENY, rules: [{to: [{operation: {ports: ['80']}}], when: [{key: 'request.headers[x-a]', values: [b]}]}]}",
        &[],
    ),
    case(
        "38 domains beside",
        allow!("{from: [{source: {principals: ['*'], trustDomains: [td2]}}]}"),
        &["PAL0726 spec.rules[0].from[0].source.trustDomains[0]"],
    ),
    case(
        "38 domains alone",
        allow!("{from: [{source: {trustDomains: [td2]}}]}"),
        &["PAL0726 spec.rules[0].from[0].source.trustDomains[0]"],
    ),
    case("54 an empty selector", "{selector: {}, action: DENY, rules: [{}]}", &["PAL0204 spec.selector"]),
    // Addresses and names.
    case(
        "39 spoofed",
        allow!("{from: [{source: {remoteIpBlocks: [203.0.113.9]}}]}"),
        &["PAL0727 spec.rules[0].from[0].source.remoteIpBlocks"],
    ),
    case(
        "39 hidden",
        "{action: DENY, rules: [{when: [{key: remote.ip, values: [203.0.113.0/24]}]}]}",
        &["PAL0727 spec.rules[0].when[0].values", "PAL0725 spec.rules[0].when[0].values"],
    ),
    case(
        "39 at a gateway",
        "{selector: {matchLabels: {istio: ingressgateway}}, action: DENY, rules: [{from: [{source: {remoteIpBlocks: [203.0.113.9]}}]}]}",
        &[],
    ),
    case(
        "41 family",
        allow!("{from: [{source: {ipBlocks: ['::/0', '::ffff:10.0.0.7']}}]}"),
        &["PAL0728 spec.rules[0].from[0].source.ipBlocks[0]", "PAL0728 spec.rules[0].from[0].source.ipBlocks[1]"],
    ),
    case("41 both", allow!("{from: [{source: {ipBlocks: ['::/0', '0.0.0.0/0']}}]}"), &[]),
    case(
        "42 upper case",
        "{action: DENY, rules: [{when: [{key: connection.sni, values: [API.example.com]}]}]}",
        &["PAL0725 spec.rules[0].when[0].values", "PAL0729 spec.rules[0].when[0].values[0]"],
    ),
    // Several resources.
    case(
        "2 dry-run",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: a, annotations: {istio.io/dry-run: 'true'}}\n\
         spec: {rules: [{to: [{operation: {ports: ['80']}}]}]}\n",
        &["PAL0730 metadata.annotations[\"istio.io/dry-run\"]"],
    ),
    case("the last permission", "{rules: [{to: [{operation: {ports: ['80']}}]}]}", &["PAL0731 metadata.name"]),
    case("not the last permission", allow!("{to: [{operation: {ports: ['80']}}]}"), &[]),
    case(
        "nobody",
        concat!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: a}\n\
             spec: {selector: {matchLabels: {app: payment}}, action: DENY, rules: [{}]}\n",
            workload!("a", "app: payments")
        ),
        &["PAL0732 spec.selector.matchLabels"],
    ),
    case(
        "somebody",
        concat!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: istio-system}\n\
             spec: {selector: {matchLabels: {app: payments}}, action: DENY, rules: [{}]}\n",
            workload!("a", "app: payments")
        ),
        &[],
    ),
    case("nobody is known", "{selector: {matchLabels: {app: payment}}, action: DENY, rules: [{}]}", &[]),
    in_mesh(
        "45 two providers",
        "extensionProviders:\n- {name: one, envoyExtAuthzGrpc: {service: one.a, port: 1}}\n- {name: one-n, envoyExtAuthzGrpc: {service: two.a, port: 1}}\n",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: a}\n\
         spec: {action: CUSTOM, provider: {name: one}, rules: [{to: [{operation: {ports: ['80']}}]}]}\n---\n\
         apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: q, namespace: a}\n\
         spec: {action: CUSTOM, provider: {name: one-n}, rules: [{to: [{operation: {ports: ['81']}}]}]}\n",
        &["PAL0733 spec.provider.name"],
    ),
    in_mesh(
        "unknown provider",
        "trustDomain: cluster.local\n",
        "{action: CUSTOM, provider: {name: one}, rules: [{}]}",
        &["PAL0734 spec.provider.name"],
    ),
    case("an unknown mesh", "{action: CUSTOM, provider: {name: one}, rules: [{}]}", &[]),
    case(
        "44 targets",
        concat!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: a}\n\
             spec: {targetRefs: [{kind: Service, group: '', name: s}], action: DENY, rules: [{}]}\n",
            workload!("a", "app: w")
        ),
        &["PAL0227 spec.targetRefs"],
    ),
    case(
        "44 targets, no workloads known",
        "{targetRefs: [{kind: Service, group: '', name: s}], action: DENY, rules: [{to: [{operation: {ports: ['80']}}]}]}",
        &["PAL0227 spec.targetRefs"],
    ),
    in_mesh(
        "5 at every waypoint",
        MERGE,
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: istio-system}\n\
         spec: {targetRefs: [{kind: GatewayClass, group: gateway.networking.k8s.io, name: istio-waypoint}], \
         action: DENY, rules: [{to: [{operation: {ports: ['8080'], paths: [/admin]}}]}]}\n",
        &["PAL0227 spec.targetRefs", "PAL0701 spec.rules[0].to[0].operation.paths[0]"],
    ),
    // Modes.
    case(
        "48 two for a workload",
        concat!(
            peer!(
                "a",
                "new",
                "{selector: {matchLabels: {app: w, v: '1'}}, mtls: {mode: PERMISSIVE}, portLevelMtls: {8080: {mode: STRICT}}}"
            ),
            peer!("a", "a-old", "{selector: {matchLabels: {app: w}}, mtls: {mode: PERMISSIVE}}")
        ),
        &["PAL0735 spec.selector"],
    ),
    case(
        "48 of different workloads",
        concat!(
            peer!("a", "new", "{selector: {matchLabels: {app: w}}, mtls: {mode: STRICT}}"),
            peer!("a", "old", "{selector: {matchLabels: {app: v}}, mtls: {mode: PERMISSIVE}}")
        ),
        &[],
    ),
    case(
        "49 root",
        peer!("istio-system", "p", "{selector: {matchLabels: {app: w}}, mtls: {mode: STRICT}}"),
        &["PAL0736 spec.selector"],
    ),
    case(
        "a STRICT port below a STRICT mesh",
        concat!(
            peer!("istio-system", "default", "{mtls: {mode: STRICT}}"),
            peer!(
                "a",
                "w",
                "{selector: {matchLabels: {app: w}}, mtls: {mode: PERMISSIVE}, portLevelMtls: {8443: {mode: STRICT}}}"
            )
        ),
        &["PAL0737 spec.portLevelMtls"],
    ),
];
