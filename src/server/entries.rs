//! Registration entries: the configuration directory's reach the authority, the operator's are made and deleted.

use palisade_ca::{Authority, Entries, EntriesError, Entry};
use palisade_identity::SpiffeId;
use palisade_policies::{registration_id, registration_selector};
use palisade_watch::State;
use palisade_wire::admin::{
    CreateEntryRequest, DeleteEntryResponse, ListEntriesRequest, ListEntriesResponse, RegistrationEntry,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Keeps the directory's entries as the last good configuration has them.
pub(super) async fn follow(entries: Entries, mut states: watch::Receiver<State>, shutdown: CancellationToken) {
    loop {
        let good = states.borrow_and_update().good.clone();
        if let Some(configuration) = good {
            entries.set_files(&configuration.resources.registration_entries);
        }
        match shutdown.run_until_cancelled(states.changed()).await {
            Some(Ok(())) => {}
            // The control plane ends with the process.
            Some(Err(_)) => return shutdown.cancelled().await,
            None => return,
        }
    }
}

pub(super) async fn create(
    authority: &Authority,
    entries: &Entries,
    request: CreateEntryRequest,
) -> Result<RegistrationEntry, Status> {
    let wanted = request.entry.ok_or_else(|| Status::invalid_argument("`entry` is missing"))?;
    // Nothing would ever be issued for it.
    if let Ok(id) = SpiffeId::parse(&wanted.spiffe_id)
        && let Some(name) = authority.reserved(&id, &wanted.dns_names)
    {
        let field = if name == wanted.spiffe_id { "spiffeId" } else { "dnsNames" };
        let text = format!("{field}: `{name}` is the server's own: clients recognise it by that");
        return Err(Status::invalid_argument(text));
    }
    entries.create(&wanted).await.map(|entry| entry.to_admin()).map_err(|error| status(&error))
}

/// The entries that fit.
///
/// # Errors
/// INVALID_ARGUMENT for what no entry could fit: mistyped, it would look as if there were none.
pub(super) fn list(entries: &Entries, request: &ListEntriesRequest) -> Result<ListEntriesResponse, Status> {
    let refuse = |field: &str, text: &str, wrong: &str| {
        Status::invalid_argument(format!("{field}: `{text}` {wrong}; give one as `palisade ca entry list` shows it"))
    };
    for (field, id) in [("spiffeId", &request.spiffe_id), ("parentId", &request.parent_id)] {
        if !id.is_empty() {
            registration_id(id).map_err(|wrong| refuse(field, id, &wrong))?;
        }
    }
    if !request.selector.is_empty() {
        registration_selector(&request.selector).map_err(|wrong| refuse("selector", &request.selector, wrong))?;
    }
    let is = |wanted: &str, id: Option<&str>| wanted.is_empty() || id == Some(wanted);
    let fits = |entry: &&Entry| {
        is(&request.spiffe_id, Some(entry.spiffe_id.as_str()))
            && is(&request.parent_id, entry.parent_id.as_ref().map(|parent| parent.as_str()))
            && (request.selector.is_empty() || entry.selectors.contains(&request.selector))
    };
    let current = entries.current();
    Ok(ListEntriesResponse {
        entries: current.values().map(|entry| &**entry).filter(fits).map(Entry::to_admin).collect(),
    })
}

pub(super) async fn delete(entries: &Entries, id: &str) -> Result<DeleteEntryResponse, Status> {
    entries.delete(id).await.map(|()| DeleteEntryResponse {}).map_err(|error| status(&error))
}

fn status(error: &EntriesError) -> Status {
    let text = crate::exit::chain(error);
    match error {
        EntriesError::Entry(_) | EntriesError::InFile { .. } => Status::invalid_argument(text),
        EntriesError::Exists(_) => Status::already_exists(text),
        EntriesError::Unknown(_) => Status::not_found(text),
        EntriesError::TooMany => Status::resource_exhausted(text),
        EntriesError::Random(_) | EntriesError::Database { .. } | EntriesError::Damaged { .. } => {
            Status::unavailable(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use palisade_identity::TrustDomain;
    use palisade_watch::{Directory, DirectoryConfig};

    use super::*;

    const ENTRY: &str = "apiVersion: palisade.dev/v1\nkind: RegistrationEntry\nmetadata: {name: web, namespace: shop}\n\
                         spec: {spiffeId: spiffe://cluster.local/web, selectors: ['unix:uid:7']}\n";

    /// A file that is written reaches whoever follows the entries, and one that is broken takes nothing away.
    #[tokio::test]
    async fn an_entry_of_the_directory_reaches_its_readers() {
        let dir = tempfile::tempdir().unwrap();
        let (config, database) = (dir.path().join("config"), dir.path().join("ca.db"));
        std::fs::create_dir(&config).unwrap();
        std::fs::write(&database, "").unwrap();
        let entries = Entries::open(&database, TrustDomain::parse("cluster.local").unwrap()).await.unwrap();
        let directory = Directory::open(DirectoryConfig::new(&config));
        let (mut told, stop) = (entries.subscribe(), CancellationToken::new());
        let following = tokio::spawn(follow(entries.clone(), directory.subscribe(), stop.clone()));
        let watching = tokio::spawn(directory.run(stop.clone()));
        std::fs::write(config.join("entry.yaml"), ENTRY).unwrap();
        let reached = told.wait_for(|entries| entries.contains_key("shop/web"));
        tokio::time::timeout(Duration::from_secs(10), reached).await.unwrap().unwrap();
        let listed =
            list(&entries, &ListEntriesRequest { selector: "unix:uid:7".into(), ..Default::default() }).unwrap();
        assert_eq!(listed.entries[0].origin, "entry.yaml:1");
        let other = ListEntriesRequest { parent_id: "spiffe://cluster.local/agent".into(), ..Default::default() };
        assert!(list(&entries, &other).unwrap().entries.is_empty());
        for (id, parent, selector) in [("a", "", ""), ("", "spiffe://cluster.local", ""), ("", "", "unix")] {
            let (spiffe_id, parent_id, selector) = (id.into(), parent.into(), selector.into());
            let refused = list(&entries, &ListEntriesRequest { spiffe_id, parent_id, selector }).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
        }
        assert_eq!(delete(&entries, "shop/web").await.unwrap_err().code(), tonic::Code::InvalidArgument);
        assert_eq!(delete(&entries, "nothing").await.unwrap_err().code(), tonic::Code::NotFound);
        stop.cancel();
        following.await.unwrap();
        watching.await.unwrap();
    }
}
