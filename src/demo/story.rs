//! The story: each step makes real requests, then checks what the callers saw and what the audit log says.

use anyhow::{Context as _, Result, bail, ensure};
use http::Method;
use palisade_wire::admin::AuditQuery;
use palisade_wire::audit::{Event, Verdict};
use rustix::process::Signal;

use super::load::Load;
use super::report::{Report, Step};
use super::stage::Stage;

/// Requests of each caller while the candidate is observed.
const OBSERVED: usize = 20;

/// Tells every step; a step that is not as told is reported and the others still run.
pub(super) async fn tell(stage: &Stage, report: &Report) -> Result<(usize, usize)> {
    let mut told = (0, 0);
    for (number, title) in TITLES.iter().enumerate() {
        let outcome = play(stage, number).await;
        told.0 += 1;
        told.1 += usize::from(outcome.is_err());
        let (ok, detail) = match outcome {
            Ok(detail) => (true, detail),
            Err(error) => (false, format!("{error:#}")),
        };
        report.step(&Step { step: number + 1, ok, title: (*title).to_owned(), detail })?;
    }
    Ok(told)
}

const TITLES: [&str; 7] = [
    "web -> payments GET /balance: allowed",
    "web -> payments POST /refund: denied",
    "legacy -> payments in plaintext: let in",
    "payments' certificate rotated under load",
    "a candidate policy in dry-run",
    "STRICT: plaintext refused",
    "the audit log shows it all",
];

async fn play(stage: &Stage, number: usize) -> Result<String> {
    match number {
        0 => allowed(stage).await,
        1 => denied(stage).await,
        2 => blocker(stage).await,
        3 => rotation(stage).await,
        4 => candidate(stage).await,
        5 => strict(stage).await,
        _ => audit(stage).await,
    }
}

async fn allowed(stage: &Stage) -> Result<String> {
    let answer = stage.caller.get(stage.address("web-app", "http")?, "/call/balance").await?;
    ensure!(answer.status == 200, "expected 200, saw {} {}", answer.status, answer.body);
    let certificate = answer.field("client_cert");
    let part = |name: &str| {
        let found = certificate.split(';').find_map(|part| part.strip_prefix(name));
        found.map(str::to_owned).with_context(|| format!("no `{name}` in X-Forwarded-Client-Cert `{certificate}`"))
    };
    let (client, server) = (part("URI=")?, part("By=")?);
    ensure!(
        client.ends_with("/ns/shop/sa/web") && server.ends_with("/ns/shop/sa/payments"),
        "wrong IDs: {certificate}"
    );
    Ok(format!("200, mTLS: {client} -> {server}"))
}

async fn denied(stage: &Stage) -> Result<String> {
    let answer = stage.caller.request(Method::POST, stage.address("web-app", "http")?, "/call/refund").await?;
    ensure!(answer.status == 403, "expected 403, saw {} {}", answer.status, answer.body);
    ensure!(answer.body == "RBAC: access denied", "unexpected body `{}`", answer.body);
    let rows = rows(stage, deny_query("cluster.local/ns/shop/sa/web"), 1).await?;
    let event = rows.last().context("no row")?;
    ensure!(event.policy == "ns[shop]-policy[refunds-need-finance]-rule[0]", "wrong policy `{}`", event.policy);
    Ok(format!("403 by {}, {}", event.policy, place(&event.policy_file, event.policy_line)))
}

async fn blocker(stage: &Stage) -> Result<String> {
    let answer = stage.caller.get(stage.address("legacy-app", "http")?, "/call/balance").await?;
    ensure!(answer.status == 200, "expected 200, saw {} {}", answer.status, answer.body);
    let rows = rows(stage, AuditQuery { from: super::stage::LEGACY.to_owned(), ..AuditQuery::default() }, 1).await?;
    let event = rows.last().context("no row")?;
    ensure!(event.transport == "plaintext", "expected plaintext, saw `{}`", event.transport);
    ensure!(event.source_hint == "shop/legacy", "expected the hint shop/legacy, saw `{}`", event.source_hint);
    Ok(format!("200 under PERMISSIVE; {} blocks STRICT", event.source_hint))
}

async fn rotation(stage: &Stage) -> Result<String> {
    let before = serial(stage).await?;
    let load = Load::start(&stage.caller, stage.address("web-app", "http")?, "/call/balance");
    stage.until("traffic before the rotation", async || Ok((load.answered() >= 100).then_some(()))).await?;
    stage.children.signal("payments", Signal::HUP)?;
    let after = stage
        .until("a new certificate", async || {
            let now = serial(stage).await?;
            Ok((now != before).then_some(now))
        })
        .await?;
    let mark = load.answered();
    stage.until("traffic after the rotation", async || Ok((load.answered() >= mark + 100).then_some(()))).await?;
    let (answered, failed) = load.stop().await?;
    ensure!(failed == 0, "{failed} of {} requests failed", answered + failed);
    Ok(format!("{answered} requests, 0 failed; serial {} -> {}", short(&before), short(&after)))
}

async fn candidate(stage: &Stage) -> Result<String> {
    stage.write_config("candidate.yaml", include_str!("files/candidate.yaml"))?;
    let (web, legacy) = (stage.address("web-app", "http")?, stage.address("legacy-app", "http")?);
    // The candidate is in force in the shadow once a row carries its result.
    let since_ns = stage
        .until("the candidate to be distributed", async || {
            stage.caller.get(legacy, "/call/balance").await?;
            let rows = stage.audit(AuditQuery { limit: 1, ..AuditQuery::default() }).await?;
            Ok(rows.last().filter(|event| event.shadow_deny.is_some()).map(|event| event.time_ns + 1))
        })
        .await?;
    for _ in 0..OBSERVED {
        for address in [web, legacy] {
            let answer = stage.caller.get(address, "/call/balance").await?;
            ensure!(answer.status == 200, "dry-run must not deny, saw {}", answer.status);
        }
    }
    let rows = rows(stage, AuditQuery { since_ns, ..AuditQuery::default() }, 2 * OBSERVED).await?;
    let flips: Vec<&Event> = rows.iter().filter(|event| would_flip(event)).collect();
    ensure!(flips.len() >= OBSERVED, "expected {OBSERVED} flips, counted {}", flips.len());
    ensure!(flips.iter().all(|event| event.source_hint == "shop/legacy"), "a flip that is not legacy's");
    Ok(format!("would deny {} of {} requests now allowed, all from shop/legacy", flips.len(), rows.len()))
}

fn would_flip(event: &Event) -> bool {
    event.verdict() == Verdict::Allow && event.shadow_deny.as_ref().is_some_and(|shadow| shadow.result == "denied")
}

async fn strict(stage: &Stage) -> Result<String> {
    let strict = include_str!("files/peer-authentication.yaml").replace("PERMISSIVE", "STRICT");
    stage.write_config("peer-authentication.yaml", &strict)?;
    let (web, legacy) = (stage.address("web-app", "http")?, stage.address("legacy-app", "http")?);
    // The change itself cuts an open connection first (`policy-changed`); a new one is refused as STRICT.
    let reason = "strict-plaintext";
    stage
        .until("plaintext to be refused", async || {
            let answer = stage.caller.get(legacy, "/call/balance").await?;
            let refused = stage.audit(deny_query(super::stage::LEGACY)).await?;
            Ok((answer.status == 502 && refused.iter().any(|event| event.reason == reason)).then_some(()))
        })
        .await?;
    let answer = stage.caller.get(web, "/call/balance").await?;
    if answer.status != 200 {
        bail!("web must still pass, saw {} {}", answer.status, answer.body);
    }
    Ok(format!("legacy: refused ({reason}); web: 200"))
}

/// The questions an operator asks after such a day; the report prints their answers.
pub(super) fn questions() -> [(&'static str, AuditQuery); 3] {
    let newest = |limit, query: AuditQuery| AuditQuery { limit, ..query };
    [
        ("--verdict deny --limit 5", newest(5, deny_query(""))),
        ("--from cluster.local/ns/shop/sa/web --limit 3", newest(3, from_query("cluster.local/ns/shop/sa/web"))),
        (
            "--from 127.0.0.13 --verdict allow --limit 3",
            AuditQuery { verdict: "allow".to_owned(), ..newest(3, from_query(super::stage::LEGACY)) },
        ),
    ]
}

async fn audit(stage: &Stage) -> Result<String> {
    let mut shown = 0;
    for (flags, query) in questions() {
        let rows = rows(stage, query, 1).await.with_context(|| format!("audit query {flags}"))?;
        shown += rows.len();
    }
    let denied = rows(stage, deny_query(""), 2).await?;
    let reasons: Vec<&str> = denied.iter().map(|event| event.reason.as_str()).collect();
    for wanted in ["deny-matched", "strict-plaintext"] {
        ensure!(reasons.contains(&wanted), "no row with the reason {wanted} among {reasons:?}");
    }
    Ok(format!("{shown} rows below; every one names who, what, verdict, rule, file and line"))
}

fn from_query(from: &str) -> AuditQuery {
    AuditQuery { from: from.to_owned(), ..AuditQuery::default() }
}

fn deny_query(from: &str) -> AuditQuery {
    AuditQuery { verdict: "deny".to_owned(), from: from.to_owned(), ..AuditQuery::default() }
}

/// Waits until at least `count` rows match: delivery takes a moment.
pub(super) async fn rows(stage: &Stage, query: AuditQuery, count: usize) -> Result<Vec<Event>> {
    stage
        .until("the audit rows", async || {
            let rows = stage.audit(query.clone()).await?;
            Ok((rows.len() >= count).then_some(rows))
        })
        .await
}

async fn serial(stage: &Stage) -> Result<String> {
    let answer = stage.caller.get(stage.address("payments", "admin")?, "/status").await?;
    let status: serde_json::Value = serde_json::from_str(&answer.body)?;
    let serial = status.pointer("/identity/serial").and_then(serde_json::Value::as_str);
    serial.map(str::to_owned).context("the proxy's status has no serial")
}

fn short(serial: &str) -> &str {
    serial.get(..8).unwrap_or(serial)
}

fn place(file: &str, line: u32) -> String {
    let name =
        std::path::Path::new(file).file_name().map_or(file.to_owned(), |name| name.to_string_lossy().into_owned());
    format!("config/{name}:{line}")
}
