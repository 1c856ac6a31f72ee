//! The vocabulary of one workload. It is small: what policies name, requests have.

use std::net::IpAddr;

use crate::conformance::dice::Dice;

/// Words by what they are for.
#[derive(Debug)]
pub(super) struct World {
    pub(super) segments: Vec<String>,
    pub(super) hosts: Vec<String>,
    pub(super) trust_domains: Vec<String>,
    pub(super) namespaces: Vec<String>,
    pub(super) accounts: Vec<String>,
    pub(super) addresses: Vec<IpAddr>,
    /// Addresses from which a test can really call.
    pub(super) callers: Vec<IpAddr>,
    pub(super) ports: Vec<u16>,
    pub(super) headers: Vec<String>,
    pub(super) texts: Vec<String>,
    pub(super) servers: Vec<String>,
    pub(super) methods: Vec<String>,
    pub(super) issuers: Vec<String>,
    pub(super) subjects: Vec<String>,
    /// Claims, each the path to it.
    pub(super) claims: Vec<Vec<String>>,
    /// Whether rules are made to tell many values apart, so that few of many rules match a request.
    pub(super) selective: bool,
}

const SEGMENTS: &[&str] = &[
    "a",
    "b",
    "api",
    "v1",
    "admin",
    "x.txt",
    "A",
    "a.b",
    "..;q",
    ".;q",
    ";p=1",
    "a;p=1",
    "~u",
    "%2e",
    "%2E%2e",
    "..",
    ".",
    "%61",
    "%2F",
    "%2f",
    "%5C",
    "%5c",
    "\\",
    "a*b",
    "*",
    "a[b",
    "]",
    "\"",
    "|",
    "^",
    "<a>",
    "`",
    "{x}",
    "{*}",
    "%zz",
    "%",
    "%6",
    "@",
    ":",
    "!$&'()+,=",
    "%00x",
    "%7F",
    "%C3%A9",
    "",
    "-",
    "_",
    "%25",
    "%252e",
];
const PLAIN_SEGMENTS: &[&str] = &["a", "b", "api", "v1", "admin", "x.txt", "c"];
const HOSTS: &[&str] = &[
    "a.com",
    "A.com",
    "b.org",
    "api.a.com",
    "a.com:80",
    "a.com.",
    "x",
    "[::1]:80",
    "10.0.0.1",
    "a.com:8080",
    "foo.svc",
    ".a.com",
    "a.com.evil.org",
];
const TRUST_DOMAINS: &[&str] = &["cluster.local", "td", "old-td", "new-td", "other.org", "t.d"];
const NAMESPACES: &[&str] = &["a", "b", "foo", "n1", "n.1", "nx1", "istio-system", "a-b"];
const ACCOUNTS: &[&str] = &["x", "y", "default", "x.y", "xy", "sleep"];
const ADDRESSES: &[&str] = &[
    "10.0.0.1",
    "10.1.2.3",
    "1.2.3.4",
    "1.2.3.5",
    "255.255.255.255",
    "0.0.0.0",
    "192.168.1.7",
    "127.0.0.1",
    "2001:db8::1",
    "2001:db8::2",
    "fe80::1",
    "::1",
    "::",
    "::ffff:10.1.2.3",
    "::ffff:127.0.0.1",
    "64:ff9b::a01:203",
];
const CALLERS: &[&str] = &["127.0.0.1", "127.0.0.2", "127.0.1.2", "127.3.2.1", "127.255.255.254"];
const PORTS: &[u16] = &[80, 8080, 443, 1, 9000, 65535, 0, 15008];
/// Without `referer`: Envoy takes one away that is no URI before any policy sees it.
const HEADERS: &[&str] = &[
    "x-a",
    "x-b",
    "X-Token",
    "x_under",
    "x.dot",
    "accept",
    "Accept-Encoding",
    "cookie",
    "user-agent",
    "x-forwarded-for",
    "authorization",
    "origin",
    "content-type",
    "grpc-timeout",
    "via",
    "if-match",
    "accept-language",
    "range",
    "date",
    "from",
    "forwarded",
    "cache-control",
    "pragma",
    "x-forwarded-host",
    "x-request-id",
    "Host",
    ":authority",
    ":path",
    ":method",
    ":scheme",
    "traceparent",
    "if-none-match",
    "x-missing",
    "!#$%&'*+-.^_`|~",
    "cdn-loop",
    "proxy-status",
    "access-control-request-headers",
    "x-ot-span-context",
    "max-forwards",
    "x-real-ip",
];
const TEXTS: &[&str] = &["1", "2", "1,2", "1, 2", "", "x1", "A", "a", "a b", "*", "ü", "a,b,1", "12", ",", "1,"];
const SERVERS: &[&str] = &["a.com", "api.a.com", "x.org", "b-1.a.com", "API.a.com", "A.COM"];
const METHODS: &[&str] = &["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get", "PURGE", "M-SEARCH", "CONNECT"];
const ISSUERS: &[&str] = &["i", "https://i.example.com", "https://i.example.com/", "a/b", "xi", "i*"];
const SUBJECTS: &[&str] = &["s", "alice", "s/t", "xs", "", "s*"];
const CLAIMS: &[&[&str]] = &[
    &["g"],
    &["o", "p"],
    &["o", "q", "r"],
    &["a.b"],
    &["scope"],
    &["permission"],
    &["iss"],
    &["sub"],
    &["aud"],
    &["azp"],
    &["https://x/y"],
    &["n"],
    &["o"],
    &["l"],
];

impl World {
    /// A vocabulary for this many rules, with callers of one address family.
    pub(super) fn new(dice: &mut Dice, v6: bool, rules: usize) -> Self {
        let mut segments = texts(dice, PLAIN_SEGMENTS, 3);
        segments.extend(texts(dice, SEGMENTS, 4));
        let caller = |text: &&str| text.parse().ok();
        let callers = if v6 { vec![IpAddr::from(std::net::Ipv6Addr::LOCALHOST)] } else { Vec::new() };
        let callers = if v6 { callers } else { dice.some(CALLERS, 3).iter().filter_map(caller).collect() };
        let mut world = Self {
            segments,
            hosts: texts(dice, HOSTS, 4),
            trust_domains: texts(dice, TRUST_DOMAINS, 3),
            namespaces: texts(dice, NAMESPACES, 4),
            accounts: texts(dice, ACCOUNTS, 3),
            addresses: dice.some(ADDRESSES, 6).iter().filter_map(caller).collect(),
            callers,
            ports: dice.some(PORTS, 3),
            headers: texts(dice, HEADERS, 5),
            texts: texts(dice, TEXTS, 5),
            servers: texts(dice, SERVERS, 3),
            methods: texts(dice, METHODS, 4),
            issuers: texts(dice, ISSUERS, 3),
            subjects: texts(dice, SUBJECTS, 3),
            claims: dice
                .some(CLAIMS, 6)
                .iter()
                .map(|path| path.iter().map(|name| (*name).to_owned()).collect())
                .collect(),
            selective: false,
        };
        if dice.chance(15) {
            // Longer than what anybody keeps at hand for a value.
            let long =
                format!("{}{}", dice.pick(&["l", "ab", "1,"]).repeat(dice.between(20, 700)), dice.pick(&["", "z"]));
            world.texts.push(long.clone());
            world.segments.push(long.replace(',', "-"));
        }
        if rules > 16 && dice.chance(60) {
            world.tell_apart(rules / 2);
        }
        world
    }

    /// Adds that many words of each kind.
    fn tell_apart(&mut self, count: usize) {
        self.selective = true;
        let kinds = [
            (&mut self.segments, "s"),
            (&mut self.hosts, "h.a.com"),
            (&mut self.namespaces, "n"),
            (&mut self.accounts, "sa"),
            (&mut self.texts, "t"),
        ];
        for (words, stem) in kinds {
            words.extend((0..count).map(|number| format!("{stem}{number}")));
        }
        for number in 0..u16::try_from(count).unwrap_or(u16::MAX) {
            let [high, low] = number.to_be_bytes();
            self.ports.push(20_000 + number);
            self.addresses.push(IpAddr::from([10, 20, high, low]));
        }
    }

    /// A SPIFFE ID without the scheme; mostly one that Istio would give.
    pub(super) fn principal(&self, dice: &mut Dice) -> String {
        let (domain, namespace, account) =
            (dice.pick(&self.trust_domains), dice.pick(&self.namespaces), dice.pick(&self.accounts));
        self.shaped(dice, domain, namespace, account)
    }

    /// The same of one namespace and account.
    pub(super) fn shaped(&self, dice: &mut Dice, domain: &str, namespace: &str, account: &str) -> String {
        match dice.below(20) {
            0 => format!("{domain}/{account}"),
            1 => format!("{domain}/ns/{namespace}/sa/{account}/k/v"),
            2 => format!("{domain}/k/v/ns/{namespace}/sa/{account}"),
            3 => format!("{domain}/ns/{namespace}/k/v/sa/{account}"),
            4 => format!("{domain}/ns/{namespace}"),
            _ => format!("{domain}/ns/{namespace}/sa/{account}"),
        }
    }
}

fn texts(dice: &mut Dice, all: &[&str], count: usize) -> Vec<String> {
    dice.some(all, count).into_iter().map(str::to_owned).collect()
}
