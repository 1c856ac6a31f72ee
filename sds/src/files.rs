//! Identities in files, for applications that read files.
//!
//! The three files change together: they are links into a directory of one version, and the link to that directory is
//! replaced by one rename, as the kubelet does with secrets. No reader ever sees the key of one certificate beside another.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use palisade_identity::{SpiffeId, TrustBundle, TrustBundles, X509Svid, error_chain};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::roster::{Place, Rejection, Roster};
use crate::secrets::encoded::version_of;

/// Certificate chain, leaf first, without the root.
pub const CERTIFICATE_FILE: &str = "svid.pem";
/// Private key, PKCS#8.
pub const KEY_FILE: &str = "svid_key.pem";
/// The authorities of the own trust domain.
pub const BUNDLE_FILE: &str = "bundle.pem";

/// The link that is replaced.
const DATA: &str = "..data";
/// Stands in a version that the application has been told of, and comes and goes with it.
const TOLD: &str = "..told";
/// A command that takes longer is killed.
const COMMAND_TIME: Duration = Duration::from_secs(30);

/// One directory that an application reads its identity from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesConfig {
    /// The directory; made (0755) if it is missing.
    pub dir: PathBuf,
    /// Whose identity: that of an entry of this agent, or the agent's own if unset.
    pub spiffe_id: Option<SpiffeId>,
    /// User and group that the files belong to; the agent's own if unset.
    pub owner: Option<(u32, u32)>,
    /// Permission bits of the key, such as `0o600`.
    pub key_mode: u32,
    /// What happens after each change.
    pub on_change: Option<OnChange>,
}

/// How an application learns that its files have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnChange {
    /// A command for `/bin/sh -c`, killed after 30 s. `PALISADE_SVID_DIR` names the directory.
    Command(String),
    /// SIGHUP to the process whose number this file holds.
    Hangup(PathBuf),
}

/// What is written.
struct Contents {
    chain: String,
    key: Zeroizing<String>,
    bundle: String,
}

/// Writes one identity, if it is not there already. True if it was written.
pub(crate) fn write(config: &FilesConfig, svid: &X509Svid, bundles: &TrustBundles) -> io::Result<bool> {
    let bundle = bundles.get(svid.id().trust_domain_name()).map(TrustBundle::to_pem).unwrap_or_default();
    let contents = Contents { chain: svid.chain_pem(), key: svid.key().to_pem(), bundle };
    DirBuilder::new().recursive(true).mode(0o755).create(&config.dir)?;
    let name = contents.version(config);
    let before = fs::read_link(config.dir.join(DATA)).ok();
    if before.as_deref() == Some(Path::new(&name)) && contents.are_in(&config.dir) {
        return Ok(false);
    }
    let target = config.dir.join(&name);
    // Whatever a crash has left there.
    if target.exists() {
        fs::remove_dir_all(&target)?;
    }
    // The directory is closed until its files have their owner and mode.
    DirBuilder::new().mode(0o700).create(&target)?;
    contents.write_to(config, &target)?;
    own(config, &target)?;
    fs::set_permissions(&target, PermissionsExt::from_mode(0o755))?;
    link(&config.dir, DATA, Path::new(&name))?;
    for file in [CERTIFICATE_FILE, KEY_FILE, BUNDLE_FILE] {
        let wanted = Path::new(DATA).join(file);
        if fs::read_link(config.dir.join(file)).ok().as_ref() != Some(&wanted) {
            link(&config.dir, file, &wanted)?;
        }
    }
    fs::File::open(&config.dir)?.sync_all()?;
    sweep(&config.dir, &name, before.as_deref());
    Ok(true)
}

/// Has the application been told of what is there? An agent that was killed in between has not told it.
fn is_told(config: &FilesConfig) -> bool {
    config.on_change.is_none() || config.dir.join(DATA).join(TOLD).exists()
}

fn note_told(config: &FilesConfig) -> io::Result<()> {
    let path = config.dir.join(DATA).join(TOLD);
    // The directory may be the application's: nothing that lies there already is followed or written to.
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

impl Contents {
    /// The name of the directory that holds them. Another owner or mode is another version, for it too is to be there at once.
    fn version(&self, config: &FilesConfig) -> String {
        let rights = format!("{:?} {:o}", config.owner, config.key_mode);
        format!("..{}", version_of(&[self.chain.as_bytes(), self.bundle.as_bytes(), rights.as_bytes()]))
    }

    fn are_in(&self, dir: &Path) -> bool {
        let is = |file: &str, text: &str| fs::read(dir.join(file)).is_ok_and(|found| found == text.as_bytes());
        is(CERTIFICATE_FILE, &self.chain) && is(KEY_FILE, &self.key) && is(BUNDLE_FILE, &self.bundle)
    }

    fn write_to(&self, config: &FilesConfig, dir: &Path) -> io::Result<()> {
        let files = [
            (CERTIFICATE_FILE, self.chain.as_str(), 0o644),
            (KEY_FILE, self.key.as_str(), config.key_mode),
            (BUNDLE_FILE, self.bundle.as_str(), 0o644),
        ];
        for (name, text, mode) in files {
            let path = dir.join(name);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(text.as_bytes())?;
            own(config, &path)?;
            file.set_permissions(PermissionsExt::from_mode(mode))?;
            file.sync_all()?;
        }
        Ok(())
    }
}

fn own(config: &FilesConfig, path: &Path) -> io::Result<()> {
    match config.owner {
        Some((user, group)) => chown(path, Some(user), Some(group)),
        None => Ok(()),
    }
}

/// Makes or replaces a link in one step.
fn link(dir: &Path, name: &str, target: &Path) -> io::Result<()> {
    let temporary = dir.join(format!("..new-{name}"));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(target, &temporary)?;
    fs::rename(&temporary, dir.join(name))
}

/// Removes older versions. The one before stays: somebody may be reading it.
fn sweep(dir: &Path, current: &str, before: Option<&Path>) {
    let Ok(found) = fs::read_dir(dir) else { return };
    for file in found.flatten() {
        let name = file.file_name();
        let version = name
            .to_str()
            .and_then(|name| name.strip_prefix(".."))
            .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if version
            && name != current
            && Some(Path::new(&name)) != before
            && let Err(error) = fs::remove_dir_all(file.path())
        {
            tracing::warn!(path = %file.path().display(), %error, "an old version of an identity stays on disk");
        }
    }
}

/// Keeps one directory up to date. `identity` gives what belongs there at the moment. Files are a subscriber as any Envoy is: a bundle
/// is acknowledged when they hold it and the application was told, and refused while they cannot be written.
pub(crate) async fn keep<F>(config: &FilesConfig, identity: F, roster: &Roster, shutdown: &CancellationToken)
where
    F: Fn() -> Option<(Arc<X509Svid>, Arc<TrustBundles>)>,
{
    let mut changed = roster.subscribe();
    let mut keeper = Keeper { config, roster, first: true, place: roster.place(), rejection: None };
    let working = async {
        loop {
            changed.mark_unchanged();
            let place = roster.place();
            if let Some((svid, bundles)) = identity() {
                keeper.look(svid, bundles).await;
            } else {
                keeper.rejection = None;
            }
            keeper.place = place;
            // Once a minute too: a disk that was full may have room again.
            tokio::select! {
                _ = changed.changed() => {}
                () = tokio::time::sleep(crate::schedule::REEVALUATE) => {}
            }
        }
    };
    shutdown.run_until_cancelled(working).await;
}

struct Keeper<'a> {
    config: &'a FilesConfig,
    roster: &'a Roster,
    /// An agent before this one may have been killed before it told the application.
    first: bool,
    /// Up to here the files are as they should be, or cannot be written.
    place: Place,
    /// While they cannot.
    rejection: Option<Rejection>,
}

impl Keeper<'_> {
    async fn look(&mut self, svid: Arc<X509Svid>, bundles: Arc<TrustBundles>) {
        let config = self.config;
        match put(config, svid, bundles).await {
            Ok(fresh) => {
                if fresh || (self.first && !is_told(config)) {
                    tell(config).await;
                }
                self.first = false;
                self.rejection = None;
            }
            Err(error) => {
                let dir = config.dir.display();
                tracing::error!(%dir, %error, "identity files cannot be written");
                let why = format!("the identity files in `{dir}` cannot be written: {error}");
                self.rejection = Some(self.roster.reject(&why));
            }
        }
    }
}

/// As [`write`], beside the other tasks.
async fn put(config: &FilesConfig, svid: Arc<X509Svid>, bundles: Arc<TrustBundles>) -> io::Result<bool> {
    let (task, here) = (config.clone(), Arc::clone(&svid));
    let written = tokio::task::spawn_blocking(move || write(&task, &here, &bundles)).await??;
    if written {
        tracing::info!(dir = %config.dir.display(), id = %svid.id(), serial = svid.serial(), "identity files are written");
    }
    Ok(written)
}

/// Tells the application of what is there. That is noted afterwards: rather twice than never.
async fn tell(config: &FilesConfig) {
    let told = match &config.on_change {
        None => return,
        Some(OnChange::Hangup(path)) => hang_up(path),
        Some(OnChange::Command(command)) => run(command, &config.dir).await,
    };
    if let Err(error) = told {
        let dir = config.dir.display();
        tracing::error!(%dir, error = %error_chain(&error), "the application was not told of its new identity; a restart tells it");
        return;
    }
    if let Err(error) = note_told(config) {
        tracing::warn!(dir = %config.dir.display(), error = %error_chain(&error), "the application is told again after a restart");
    }
}

fn hang_up(path: &Path) -> io::Result<()> {
    let invalid =
        || io::Error::new(io::ErrorKind::InvalidData, format!("`{}` holds no process number", path.display()));
    let pid = fs::read_to_string(path)?.trim().parse().ok().filter(|pid: &i32| *pid > 1);
    let pid = pid.and_then(rustix::process::Pid::from_raw).ok_or_else(invalid)?;
    Ok(rustix::process::kill_process(pid, rustix::process::Signal::HUP)?)
}

async fn run(command: &str, dir: &Path) -> io::Result<()> {
    let mut shell = tokio::process::Command::new("/bin/sh");
    shell.args(["-c", command]).env("PALISADE_SVID_DIR", dir).stdin(Stdio::null()).kill_on_drop(true);
    let mut child = shell.spawn()?;
    let status = tokio::time::timeout(COMMAND_TIME, child.wait())
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the command took too long and was killed"))??;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("the command ended with {status}"))) }
}

#[cfg(test)]
mod tests;
