//! `palisade ca entry`: registration entries of the administration API. SPIRE's users find the names they know.

use std::fmt::Write as _;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use palisade_wire::admin::{CreateEntryRequest, DeleteEntryRequest, ListEntriesRequest, RegistrationEntry};
use serde::Serialize;

use crate::admin::AdminOptions;
use crate::exit::{self, Exit};
use crate::output::print;

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Make an entry; its ID is printed.
    Create(Create),
    /// List entries, those of the configuration directory included.
    #[command(visible_alias = "show")]
    List(List),
    /// Delete an entry that was made with `create`.
    Delete(Delete),
}

/// The entry.
#[derive(Args, Debug)]
pub(crate) struct Create {
    /// The identity that the workload gets, such as spiffe://cluster.local/ns/shop/sa/web.
    #[arg(long, visible_alias = "spiffeID", value_name = "SPIFFE_ID")]
    spiffe_id: String,
    /// The agent that serves it to its workloads; without it the entry is for who proves himself to the server.
    #[arg(long, visible_alias = "parentID", value_name = "SPIFFE_ID", default_value = "")]
    parent_id: String,
    /// What the workload must have, such as unix:uid:1000; may be repeated, all of them count.
    #[arg(long = "selector", value_name = "KIND:VALUE", required = true)]
    selectors: Vec<String>,
    /// Lifetime of its certificates, such as 1h; without it the server's default.
    #[arg(long, visible_alias = "x509SVIDTTL", value_name = "DURATION")]
    x509_ttl: Option<humantime::Duration>,
    /// Lifetime of its tokens.
    #[arg(long, visible_alias = "jwtSVIDTTL", value_name = "DURATION")]
    jwt_ttl: Option<humantime::Duration>,
    /// A DNS name that its certificates carry; may be repeated.
    #[arg(long = "dns", value_name = "NAME")]
    dns_names: Vec<String>,
    /// A foreign trust domain whose bundle the workload gets; may be repeated.
    #[arg(long, visible_alias = "federatesWith", value_name = "TRUST_DOMAIN")]
    federates_with: Vec<String>,
    /// Tells several identities of one workload apart.
    #[arg(long, value_name = "TEXT", default_value = "")]
    hint: String,
    #[command(flatten)]
    admin: AdminOptions,
}

/// Which entries, and how to print them.
#[derive(Args, Debug)]
pub(crate) struct List {
    /// Entries with this identity.
    #[arg(long, visible_alias = "spiffeID", value_name = "SPIFFE_ID", default_value = "")]
    spiffe_id: String,
    /// Entries of this agent.
    #[arg(long, visible_alias = "parentID", value_name = "SPIFFE_ID", default_value = "")]
    parent_id: String,
    /// Entries that have this selector.
    #[arg(long, value_name = "KIND:VALUE", default_value = "")]
    selector: String,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    admin: AdminOptions,
}

/// Which entry.
#[derive(Args, Debug)]
pub(crate) struct Delete {
    /// The entry's ID, as `list` shows it.
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    admin: AdminOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// An entry as JSON, with the names of the resource's fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    id: &'a str,
    spiffe_id: &'a str,
    parent_id: &'a str,
    selectors: &'a [String],
    #[serde(rename = "x509TTLSeconds")]
    x509_ttl: i64,
    #[serde(rename = "jwtTTLSeconds")]
    jwt_ttl: i64,
    dns_names: &'a [String],
    federates_with: &'a [String],
    hint: &'a str,
    origin: &'a str,
}

pub(super) async fn run(verb: Verb) -> Result<Exit> {
    match verb {
        Verb::Create(options) => create(options).await,
        Verb::List(options) => list(options).await,
        Verb::Delete(options) => delete(options).await,
    }
}

async fn create(options: Create) -> Result<Exit> {
    let entry = RegistrationEntry {
        spiffe_id: options.spiffe_id,
        parent_id: options.parent_id,
        selectors: options.selectors,
        x509_ttl: seconds("--x509-ttl", options.x509_ttl)?,
        jwt_ttl: seconds("--jwt-ttl", options.jwt_ttl)?,
        dns_names: options.dns_names,
        federates_with: options.federates_with,
        hint: options.hint,
        ..RegistrationEntry::default()
    };
    let answer = options.admin.client().create_entry(CreateEntryRequest { entry: Some(entry) }).await;
    let made = answer.map_err(|status| options.admin.error(&status))?.into_inner();
    print(&format!("{}\n", made.id))?;
    Ok(Exit::Done)
}

fn seconds(flag: &str, ttl: Option<humantime::Duration>) -> Result<i64> {
    let Some(ttl) = ttl else { return Ok(0) };
    let whole = i64::try_from(ttl.as_secs()).ok().filter(|seconds| *seconds > 0 && ttl.subsec_nanos() == 0);
    whole.ok_or_else(|| exit::usage(format!("{flag} `{ttl}` must be whole seconds, at least one")))
}

async fn list(options: List) -> Result<Exit> {
    let request =
        ListEntriesRequest { spiffe_id: options.spiffe_id, parent_id: options.parent_id, selector: options.selector };
    let answer = options.admin.client().list_entries(request).await;
    let entries = answer.map_err(|status| options.admin.error(&status))?.into_inner().entries;
    match options.output {
        Format::Table => print(&table(&entries))?,
        Format::Json => {
            let shown: Vec<_> = entries.iter().map(shown).collect();
            print(&format!("{}\n", serde_json::to_string_pretty(&shown)?))?
        }
    };
    Ok(Exit::Done)
}

async fn delete(options: Delete) -> Result<Exit> {
    let answer = options.admin.client().delete_entry(DeleteEntryRequest { id: options.id }).await;
    answer.map_err(|status| options.admin.error(&status))?;
    Ok(Exit::Done)
}

fn shown(entry: &RegistrationEntry) -> Shown<'_> {
    Shown {
        id: &entry.id,
        spiffe_id: &entry.spiffe_id,
        parent_id: &entry.parent_id,
        selectors: &entry.selectors,
        x509_ttl: entry.x509_ttl,
        jwt_ttl: entry.jwt_ttl,
        dns_names: &entry.dns_names,
        federates_with: &entry.federates_with,
        hint: &entry.hint,
        origin: &entry.origin,
    }
}

fn table(entries: &[RegistrationEntry]) -> String {
    let mut rows = vec![["ID", "SPIFFE ID", "PARENT", "SELECTORS", "FROM"].map(str::to_owned)];
    rows.extend(entries.iter().map(|entry| {
        let or = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
        let parent = or(&entry.parent_id, "(server)");
        [entry.id.clone(), entry.spiffe_id.clone(), parent, entry.selectors.join(" "), or(&entry.origin, "(api)")]
    }));
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..4).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths.iter().copied().chain([0])) {
            // Writing to a String cannot fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_under_their_titles() {
        let entry = RegistrationEntry {
            id: "shop/web".into(),
            spiffe_id: "spiffe://cluster.local/web".into(),
            selectors: vec!["unix:gid:1".into(), "unix:uid:1".into()],
            origin: "entries.yaml:3".into(),
            ..RegistrationEntry::default()
        };
        let text = table(&[entry]);
        assert_eq!(
            text,
            "ID        SPIFFE ID                   PARENT    SELECTORS              FROM\n\
             shop/web  spiffe://cluster.local/web  (server)  unix:gid:1 unix:uid:1  entries.yaml:3\n"
        );
    }
}
