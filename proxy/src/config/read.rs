//! The walk over the tree: each field is taken once, what nobody took is unknown, and every mistake is kept.

use std::path::PathBuf;

use palisade_identity::TrustDomain;
use palisade_policies::Workload;
use serde_saphyr::Spanned;

use super::map::{Map, Problems};
use super::node::Value;
use super::{
    AgentConfig, ConfigProblem, FilesConfig, IdentityConfig, InboundConfig, Limits, OutboundConfig, ProxyConfig,
    ResourcesConfig,
};

pub(super) fn config(text: &str) -> Result<ProxyConfig, Vec<ConfigProblem>> {
    let mut problems = Problems::default();
    let root: Spanned<Value> = match serde_saphyr::from_str(text) {
        Ok(root) => root,
        Err(error) => {
            let place = error.location().map_or((1, 1), |at| (at.line(), at.column()));
            let message = error.without_snippet().to_string();
            problems.add(place, "", message.lines().next().unwrap_or("is no YAML").to_owned(), "write valid YAML");
            return Err(problems.found);
        }
    };
    let read = Map::of("", root.into(), &mut problems).map(|map| whole(map, &mut problems));
    match read.flatten() {
        Some(config) if problems.found.is_empty() => Ok(config),
        _ => {
            problems.found.sort_by_key(|p| (p.line, p.column));
            Err(problems.found)
        }
    }
}

fn whole(mut map: Map, problems: &mut Problems) -> Option<ProxyConfig> {
    let workload = map.map("workload", problems).and_then(|map| workload(map, problems));
    map.demand("workload", problems, "write `workload: {namespace: .., name: ..}`");
    let inbound = map.list("inbound", problems, inbound);
    let outbound = map.list("outbound", problems, outbound);
    if !map.names("inbound") && !map.names("outbound") {
        problems.add(map.place, "", "lists no port", "add `inbound` or `outbound` with at least one listener");
    }
    let (trust_domain, identity) = map.map("identity", problems).map(|map| identity(map, problems)).unwrap_or_default();
    map.demand("identity", problems, "write `identity: {agent: ..}` or `identity: {files: ..}`");
    let server = map.server(problems);
    let resources = map.map("resources", problems).map(|map| resources(map, problems));
    if resources.is_none() || matches!(identity, Some(IdentityConfig::Agent(_))) {
        let fix = "name the control plane, `server: host:15012`, or use `resources.directory` with `identity.files`";
        map.demand("server", problems, fix);
    }
    // A stand-in where it is missing: the rest is read all the same, so that every mistake is told.
    let mut config = ProxyConfig::of(workload.clone().unwrap_or_default(), inbound, outbound);
    config.server = server;
    config.resources = resources.flatten().unwrap_or(ResourcesConfig::Server);
    config.trust_domain = trust_domain.unwrap_or(config.trust_domain);
    the_rest(&mut config, &mut map, problems);
    map.finish(problems);
    workload?;
    config.identity = identity?;
    Some(config)
}

fn the_rest(config: &mut ProxyConfig, map: &mut Map, problems: &mut Problems) {
    for (name, slot) in
        [("admin", &mut config.admin), ("metrics", &mut config.metrics), ("readiness", &mut config.readiness)]
    {
        *slot = map.address(name, problems).unwrap_or(*slot);
    }
    if let Some(directory) = map.text("stateDir", problems) {
        config.state_dir = PathBuf::from(directory);
    }
    if let Some(map) = map.map("limits", problems) {
        config.limits = limits(map, problems);
    }
}

fn workload(mut map: Map, problems: &mut Problems) -> Option<Workload> {
    let namespace = map.required("namespace", problems);
    let name = map.required("name", problems);
    let labels = map.labels(problems);
    map.finish(problems);
    Some(Workload { namespace: namespace?, name: name?, labels })
}

fn inbound(mut map: Map, problems: &mut Problems) -> Option<InboundConfig> {
    let listen = map.listen(problems);
    let forward = map.forward(problems);
    let protocol = map.protocol(problems);
    map.finish(problems);
    Some(InboundConfig { listen: listen?, forward: forward?, protocol })
}

fn outbound(mut map: Map, problems: &mut Problems) -> Option<OutboundConfig> {
    let listen = map.listen(problems);
    let place = map.place_of("service");
    let service = map.required("service", problems);
    map.finish(problems);
    let service = service?;
    match service.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>())) {
        Some((host, Ok(port))) if !host.is_empty() && port != 0 => {
            Some(OutboundConfig { listen: listen?, host: host.to_owned(), port })
        }
        _ => {
            let field = format!("{}.service", map.path);
            problems.add(
                place,
                &field,
                format!("`{service}` is no service"),
                "write `host:port`, for example `cart.shop.svc.cluster.local:80`",
            );
            None
        }
    }
}

fn identity(mut map: Map, problems: &mut Problems) -> (Option<TrustDomain>, Option<IdentityConfig>) {
    let (field, place) = (format!("{}.trustDomain", map.path), map.place_of("trustDomain"));
    let trust_domain = map.text("trustDomain", problems).and_then(|text| {
        let parsed = TrustDomain::parse(&text);
        if let Err(error) = &parsed {
            problems.add(
                place,
                &field,
                format!("`{text}` is no trust domain: {error}"),
                "write for example `cluster.local`",
            );
        }
        parsed.ok()
    });
    let agent = map.map("agent", problems).map(|map| agent(map, problems));
    let files = map.map("files", problems).map(|map| files(map, problems));
    let (path, place) = (map.path.clone(), map.place);
    map.finish(problems);
    let source = match (agent, files) {
        (Some(agent), None) => Some(IdentityConfig::Agent(agent)),
        (None, Some(files)) => files.map(IdentityConfig::Files),
        _ => {
            problems.add(place, &path, "needs one source", "write either `agent` or `files`");
            None
        }
    };
    (trust_domain, source)
}

fn agent(mut map: Map, problems: &mut Problems) -> AgentConfig {
    let agent = AgentConfig {
        join_token: map.text("joinToken", problems).map(PathBuf::from),
        trust_bundle: map.text("trustBundle", problems).map(PathBuf::from),
        socket: map.text("socket", problems).map(PathBuf::from),
        allowed_uids: map.uids(problems),
    };
    if agent.join_token.is_none() && agent.trust_bundle.is_none() {
        problems.add(
            map.place,
            &map.path,
            "has nothing to trust the server by",
            "name a `joinToken` file or a `trustBundle` file",
        );
    }
    map.finish(problems);
    agent
}

fn files(mut map: Map, problems: &mut Problems) -> Option<FilesConfig> {
    let certificate = map.required("certificate", problems);
    let private_key = map.required("privateKey", problems);
    let trust_bundle = map.required("trustBundle", problems);
    map.finish(problems);
    Some(FilesConfig {
        certificate: certificate?.into(),
        private_key: private_key?.into(),
        trust_bundle: trust_bundle?.into(),
    })
}

fn resources(mut map: Map, problems: &mut Problems) -> Option<ResourcesConfig> {
    let directory = map.required("directory", problems);
    let mesh = map.text("mesh", problems).map(PathBuf::from);
    map.finish(problems);
    Some(ResourcesConfig::Directory { directory: directory?.into(), mesh })
}

fn limits(mut map: Map, problems: &mut Problems) -> Limits {
    let mut limits = Limits::default();
    map.number("maxConnections", problems, &mut limits.max_connections);
    map.number("maxHeadBytes", problems, &mut limits.max_head);
    map.number("maxStreams", problems, &mut limits.max_streams);
    for (name, slot) in [
        ("handshakeTimeout", &mut limits.handshake_timeout),
        ("headerTimeout", &mut limits.header_timeout),
        ("detectTimeout", &mut limits.detect_timeout),
        ("idleTimeout", &mut limits.idle_timeout),
        ("connectTimeout", &mut limits.connect_timeout),
        ("poolIdleTimeout", &mut limits.pool_idle_timeout),
        ("maxConnectionAge", &mut limits.max_connection_age),
        ("drainTimeout", &mut limits.drain_timeout),
    ] {
        map.duration(name, problems, slot);
    }
    map.finish(problems);
    limits
}

#[cfg(test)]
mod tests;
