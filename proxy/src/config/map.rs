//! One mapping of the file: each field is taken once by the name it should have, and what is left over is refused.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use palisade_policies::AppProtocol;

use super::node::{Node, Value};
use super::{ConfigProblem, Labels, ServerConfig};

/// A mapping being read.
pub(super) struct Map {
    pub(super) path: String,
    pub(super) place: (u64, u64),
    entries: Vec<(String, Node)>,
    known: Vec<&'static str>,
}

/// Every mistake found so far.
#[derive(Default)]
pub(super) struct Problems {
    pub(super) found: Vec<ConfigProblem>,
    /// Who listens where, to tell when two want the same address.
    listeners: Vec<(SocketAddr, u64, String)>,
}

impl Problems {
    pub(super) fn add(&mut self, place: (u64, u64), field: &str, message: impl Into<String>, fix: impl Into<String>) {
        let (line, column) = place;
        let field = if field.is_empty() { "(file)".to_owned() } else { field.to_owned() };
        self.found.push(ConfigProblem { line, column, field, message: message.into(), fix: fix.into() });
    }
}

impl Map {
    pub(super) fn of(path: &str, node: Node, problems: &mut Problems) -> Option<Map> {
        let place = (node.line, node.column);
        match node.value {
            Value::Map(entries) => Some(Map { path: path.to_owned(), place, entries, known: Vec::new() }),
            other => {
                problems.add(place, path, format!("is {}, not a mapping", other.kind()), "write `key: value` lines");
                None
            }
        }
    }

    pub(super) fn field(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Whether the file has that field.
    pub(super) fn names(&self, name: &str) -> bool {
        self.known.contains(&name) || self.entries.iter().any(|(key, _)| key == name)
    }

    /// Says that a field is missing, where it is.
    pub(super) fn demand(&self, name: &str, problems: &mut Problems, fix: &str) {
        if !self.names(name) {
            problems.add(self.place, &self.field(name), "is missing", fix);
        }
    }

    pub(super) fn place_of(&self, name: &str) -> (u64, u64) {
        self.entries.iter().find(|(key, _)| key == name).map_or(self.place, |(_, node)| (node.line, node.column))
    }

    pub(super) fn take(&mut self, name: &'static str) -> Option<Node> {
        let at = self.entries.iter().position(|(key, _)| key == name)?;
        self.known.push(name);
        let (_, node) = self.entries.remove(at);
        (!matches!(node.value, Value::Null)).then_some(node)
    }

    pub(super) fn map(&mut self, name: &'static str, problems: &mut Problems) -> Option<Map> {
        let field = self.field(name);
        // `agent:` with nothing below is an empty mapping.
        let empty = self.entries.iter().any(|(key, node)| key == name && matches!(node.value, Value::Null));
        let place = self.place_of(name);
        match self.take(name) {
            Some(node) => Map::of(&field, node, problems),
            None => empty.then(|| Map { path: field, place, entries: Vec::new(), known: Vec::new() }),
        }
    }

    pub(super) fn list<T>(
        &mut self,
        name: &'static str,
        problems: &mut Problems,
        read: fn(Map, &mut Problems) -> Option<T>,
    ) -> Vec<T> {
        let field = self.field(name);
        let Some(node) = self.take(name) else { return Vec::new() };
        let Value::List(list) = node.value else {
            problems.add(
                (node.line, node.column),
                &field,
                format!("is {}, not a list", node.value.kind()),
                "begin each entry with `- `",
            );
            return Vec::new();
        };
        let mut out = Vec::new();
        for (index, node) in list.into_iter().enumerate() {
            out.extend(Map::of(&format!("{field}[{index}]"), node, problems).and_then(|map| read(map, problems)));
        }
        out
    }

    pub(super) fn text(&mut self, name: &'static str, problems: &mut Problems) -> Option<String> {
        let field = self.field(name);
        let node = self.take(name)?;
        match node.value {
            Value::Scalar(text) if !text.is_empty() => Some(text),
            Value::Scalar(_) => {
                problems.add((node.line, node.column), &field, "is empty", "write a value or leave the line out");
                None
            }
            other => {
                problems.add(
                    (node.line, node.column),
                    &field,
                    format!("is {}, not a plain value", other.kind()),
                    "write one value",
                );
                None
            }
        }
    }

    pub(super) fn required(&mut self, name: &'static str, problems: &mut Problems) -> Option<String> {
        let present = self.names(name);
        let (field, place) = (self.field(name), self.place);
        let text = self.text(name, problems);
        if text.is_none() && !present {
            problems.add(place, &field, "is missing", format!("add `{name}: ..`"));
        }
        text
    }

    /// A value of a type with a textual form; `fix` shows one.
    pub(super) fn parsed<T: FromStr>(
        &mut self,
        name: &'static str,
        problems: &mut Problems,
        what: &str,
        fix: &str,
    ) -> Option<T> {
        let (field, place) = (self.field(name), self.place_of(name));
        let text = self.text(name, problems)?;
        let value = text.parse().ok();
        if value.is_none() {
            problems.add(place, &field, format!("`{text}` is no {what}"), fix);
        }
        value
    }

    pub(super) fn address(&mut self, name: &'static str, problems: &mut Problems) -> Option<SocketAddr> {
        self.parsed(
            name,
            problems,
            "address with port",
            "write `127.0.0.1:8080` or `[::1]:8080`; port 0 takes a free one",
        )
    }

    pub(super) fn required_address(&mut self, name: &'static str, problems: &mut Problems) -> Option<SocketAddr> {
        if !self.names(name) {
            problems.add(self.place, &self.field(name), "is missing", format!("add `{name}: 127.0.0.1:8080`"));
        }
        self.address(name, problems)
    }

    /// The address a port is served on, which no other may be.
    pub(super) fn listen(&mut self, problems: &mut Problems) -> Option<SocketAddr> {
        let (field, place) = (self.field("listen"), self.place_of("listen"));
        let address = self.required_address("listen", problems)?;
        let taken = problems.listeners.iter().find(|(other, ..)| *other == address && address.port() != 0);
        if let Some((_, line, by)) = taken {
            let message = format!("`{address}` is taken by `{by}` in line {line}");
            problems.add(place, &field, message, "give each listener an address or a port of its own");
        }
        problems.listeners.push((address, place.0, field));
        Some(address)
    }

    /// The application: an address, or a port on 127.0.0.1.
    pub(super) fn forward(&mut self, problems: &mut Problems) -> Option<SocketAddr> {
        let (field, place) = (self.field("forward"), self.place_of("forward"));
        let text = self.required("forward", problems)?;
        let local = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let address = text.parse::<SocketAddr>().ok().or_else(|| text.parse::<u16>().ok().map(local));
        let usable = address.filter(|address| address.port() != 0);
        if usable.is_none() {
            problems.add(
                place,
                &field,
                format!("`{text}` is no address of an application"),
                "write `127.0.0.1:8080`, or `8080`",
            );
        }
        usable
    }

    pub(super) fn protocol(&mut self, problems: &mut Problems) -> Option<AppProtocol> {
        let (field, place) = (self.field("protocol"), self.place_of("protocol"));
        let text = self.text("protocol", problems)?;
        let found = match text.to_ascii_uppercase().as_str() {
            "HTTP" => AppProtocol::Http,
            "HTTP1" => AppProtocol::Http1,
            "HTTP2" => AppProtocol::Http2,
            "GRPC" => AppProtocol::Grpc,
            "TCP" => AppProtocol::Tcp,
            _ => {
                let message = format!("`{text}` is not supported");
                problems.add(place, &field, message, "write HTTP, HTTP1, HTTP2, GRPC or TCP, or leave it out");
                return None;
            }
        };
        Some(found)
    }

    pub(super) fn server(&mut self, problems: &mut Problems) -> Option<ServerConfig> {
        let place = self.place_of("server");
        let is_map = self.entries.iter().any(|(key, node)| key == "server" && matches!(node.value, Value::Map(_)));
        let (address, name) = if is_map {
            let mut map = self.map("server", problems)?;
            let read = (map.required("address", problems), map.text("name", problems));
            map.finish(problems);
            read
        } else {
            (self.text("server", problems), None)
        };
        let address = address?;
        let valid = address
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p != 0));
        if !valid {
            problems.add(place, "server", format!("`{address}` is no host and port"), "write `host:15012`");
        }
        valid.then_some(ServerConfig { address, name })
    }

    pub(super) fn labels(&mut self, problems: &mut Problems) -> Labels {
        let Some(map) = self.map("labels", problems) else { return Labels::new() };
        let path = map.path.clone();
        let mut labels = Labels::new();
        for (key, node) in map.entries {
            match node.value {
                Value::Scalar(value) => drop(labels.insert(key, value)),
                Value::Null => drop(labels.insert(key, String::new())),
                other => problems.add(
                    (node.line, node.column),
                    &format!("{path}.{key}"),
                    format!("is {}", other.kind()),
                    "write text",
                ),
            }
        }
        labels
    }

    pub(super) fn uids(&mut self, problems: &mut Problems) -> Vec<u32> {
        let field = self.field("allowedUids");
        let Some(node) = self.take("allowedUids") else { return Vec::new() };
        let list = match node.value {
            Value::List(list) => list,
            value => vec![Node { line: node.line, column: node.column, value }],
        };
        let mut out = Vec::new();
        for (index, node) in list.into_iter().enumerate() {
            match &node.value {
                Value::Scalar(text) if text.parse::<u32>().is_ok() => out.extend(text.parse::<u32>()),
                _ => problems.add(
                    (node.line, node.column),
                    &format!("{field}[{index}]"),
                    "is no user number",
                    "write a uid, for example 1000",
                ),
            }
        }
        out
    }

    pub(super) fn number<T: FromStr>(&mut self, name: &'static str, problems: &mut Problems, slot: &mut T) {
        if let Some(value) = self.parsed(name, problems, "number in range", "write a positive whole number") {
            *slot = value;
        }
    }

    pub(super) fn duration(&mut self, name: &'static str, problems: &mut Problems, slot: &mut Duration) {
        let (field, place) = (self.field(name), self.place_of(name));
        let Some(text) = self.text(name, problems) else { return };
        match duration(&text) {
            Some(value) => *slot = value,
            None => problems.add(
                place,
                &field,
                format!("`{text}` is no duration"),
                "write for example `300ms`, `10s`, `5m` or `1h`",
            ),
        }
    }

    /// Whatever nobody asked for is refused by name.
    pub(super) fn finish(&mut self, problems: &mut Problems) {
        for (key, node) in std::mem::take(&mut self.entries) {
            problems.add(
                (node.line, node.column),
                &self.field(&key),
                "is not supported",
                "remove it, or correct its spelling",
            );
        }
    }
}

/// `300ms`, `10s`, `5m`, `1h`; nothing else, and not nought.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let seconds = |factor: u64| number.checked_mul(factor).map(Duration::from_secs);
    let duration = match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3600),
        _ => None,
    };
    duration.filter(|d| !d.is_zero())
}
