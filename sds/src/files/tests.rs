use std::os::unix::fs::MetadataExt;

use futures_util::FutureExt as _;
use palisade_identity::Identity;
use tokio::sync::watch;

use super::*;
use crate::fixtures::Authority;

const ID: &str = "spiffe://a.test/web";

fn config(dir: &Path) -> FilesConfig {
    FilesConfig { dir: dir.join("out"), spiffe_id: None, owner: None, key_mode: 0o640, on_change: None }
}

fn text(config: &FilesConfig, name: &str) -> String {
    fs::read_to_string(config.dir.join(name)).unwrap()
}

#[test]
fn trap_33_the_three_files_are_one_identity_and_change_together() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let authority = Authority::new("a");
    let (first, second) = (authority.identity(ID), authority.identity(ID));
    assert!(write(&config, &first.svid, &first.bundles).unwrap());
    assert!(!write(&config, &first.svid, &first.bundles).unwrap(), "nothing to do");
    // A reader that opened the version before still sees a whole one.
    let old = config.dir.join(fs::read_link(config.dir.join(DATA)).unwrap());
    assert!(write(&config, &second.svid, &second.bundles).unwrap());
    assert_eq!(fs::read_to_string(old.join(CERTIFICATE_FILE)).unwrap(), first.svid.chain_pem());
    assert_eq!(text(&config, CERTIFICATE_FILE), second.svid.chain_pem());
    assert_eq!(text(&config, KEY_FILE), *second.svid.key().to_pem());
    assert_eq!(text(&config, BUNDLE_FILE), authority.bundle().to_pem());
    let third = authority.identity(ID);
    assert!(write(&config, &third.svid, &third.bundles).unwrap());
    assert!(!old.exists(), "two versions are kept");
    assert_eq!(fs::read_dir(&config.dir).unwrap().count(), 6);
}

#[test]
fn modes_and_owner_are_as_asked_and_damage_is_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let root = user == 0;
    let owner = if root { (user + 4242, group + 4242) } else { (user, group) };
    let config = FilesConfig { owner: Some(owner), ..config(dir.path()) };
    let identity = Authority::new("a").identity(ID);
    assert!(write(&config, &identity.svid, &identity.bundles).unwrap());
    for (name, mode) in [(KEY_FILE, 0o640), (CERTIFICATE_FILE, 0o644), (BUNDLE_FILE, 0o644)] {
        let meta = fs::metadata(config.dir.join(name)).unwrap();
        assert_eq!((meta.mode() & 0o777, meta.uid(), meta.gid()), (mode, owner.0, owner.1), "{name}");
    }
    fs::write(config.dir.join(CERTIFICATE_FILE), "damaged").unwrap();
    assert!(write(&config, &identity.svid, &identity.bundles).unwrap());
    assert_eq!(text(&config, CERTIFICATE_FILE), identity.svid.chain_pem());
}

/// What runs [`keep`], stopped and awaited by [`Kept::stop`].
struct Kept {
    roster: Arc<Roster>,
    identity: watch::Sender<Arc<Identity>>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Kept {
    fn start(config: &FilesConfig, identity: &Arc<Identity>) -> Self {
        let (shutdown, roster) = (CancellationToken::new(), Arc::new(Roster::default()));
        let identity = watch::Sender::new(identity.clone());
        let (config, given, stop, of) = (config.clone(), identity.subscribe(), shutdown.clone(), roster.clone());
        let task = tokio::spawn(async move {
            let now = || Some((given.borrow().svid.clone(), given.borrow().bundles.clone()));
            keep(&config, now, &of, &stop).await;
        });
        Self { roster, identity, shutdown, task }
    }

    fn give(&self, identity: &Arc<Identity>) {
        self.identity.send_replace(identity.clone());
        self.roster.wake();
    }

    fn is_acknowledged(&self) -> bool {
        self.roster.acknowledged().now_or_never().is_some()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_change_runs_the_command_after_the_files_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("seen");
    let command = format!("cp \"$PALISADE_SVID_DIR/{CERTIFICATE_FILE}\" {0}.new && mv {0}.new {0}", out.display());
    let config = FilesConfig { on_change: Some(OnChange::Command(command)), ..config(dir.path()) };
    let identity = Authority::new("a").identity(ID);
    let kept = Kept::start(&config, &identity);
    until("the command has run", || out.exists()).await;
    assert_eq!(fs::read_to_string(&out).unwrap(), identity.svid.chain_pem());
    kept.stop().await;
}

/// The agent before was killed between the two.
#[tokio::test]
async fn an_application_is_told_of_files_that_the_agent_had_no_time_to_tell_of_and_only_once() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("told");
    let command = format!("readlink \"$PALISADE_SVID_DIR/{DATA}\" >> {}", out.display());
    let config = FilesConfig { on_change: Some(OnChange::Command(command)), ..config(dir.path()) };
    let authority = Authority::new("a");
    let lines = || fs::read_to_string(&out).unwrap_or_default().lines().count();
    let (first, second) = (authority.identity(ID), authority.identity(ID));
    assert!(write(&config, &first.svid, &first.bundles).unwrap());
    let kept = Kept::start(&config, &first);
    until("told", || is_told(&config)).await;
    kept.stop().await;
    assert_eq!(lines(), 1);
    // The next start finds everything done; its first word is of the second identity.
    let kept = Kept::start(&config, &first);
    kept.roster.wake();
    kept.stop().await;
    let kept = Kept::start(&config, &second);
    until("told of the second", || lines() >= 2).await;
    kept.stop().await;
    let versions = fs::read_to_string(&out).unwrap();
    let [one, two] = versions.lines().collect::<Vec<_>>()[..] else { panic!("{versions}") };
    assert_ne!(one, two);
}

/// An application that reads its files has the old bundle for as long as it was not told of the new one.
#[tokio::test]
async fn a_bundle_is_acknowledged_when_the_files_hold_it_and_the_application_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let (fifo, slow) = (dir.path().join("fifo"), dir.path().join("slow"));
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let command = format!("test ! -e {} || cat {}", slow.display(), fifo.display());
    let config = FilesConfig { on_change: Some(OnChange::Command(command)), ..config(dir.path()) };
    let authority = Authority::new("a");
    let (first, second) = (authority.identity(ID), authority.identity(ID));
    let kept = Kept::start(&config, &first);
    until("told", || is_told(&config) && kept.is_acknowledged()).await;
    fs::write(&slow, "").unwrap();
    kept.give(&second);
    assert!(!kept.is_acknowledged(), "nobody has looked yet");
    until("written", || text(&config, CERTIFICATE_FILE) == second.svid.chain_pem()).await;
    assert!(!kept.is_acknowledged(), "the application is being told");
    tokio::fs::write(&fifo, "").await.unwrap();
    until("acknowledged", || kept.is_acknowledged()).await;
    assert!(is_told(&config) && kept.roster.rejections().borrow().is_empty());
    kept.stop().await;
}

#[test]
fn another_owner_or_mode_is_applied_though_the_content_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let first = config(dir.path());
    let identity = Authority::new("a").identity(ID);
    assert!(write(&first, &identity.svid, &identity.bundles).unwrap());
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let owner = if user == 0 { (4242, 4243) } else { (user, group) };
    let second = FilesConfig { owner: Some(owner), key_mode: 0o600, ..first };
    assert!(write(&second, &identity.svid, &identity.bundles).unwrap());
    let meta = fs::metadata(second.dir.join(KEY_FILE)).unwrap();
    assert_eq!((meta.mode() & 0o777, meta.uid(), meta.gid()), (0o600, owner.0, owner.1));
    assert!(!write(&second, &identity.svid, &identity.bundles).unwrap(), "nothing to do");
}

#[test]
fn a_hang_up_goes_to_a_process_and_never_to_a_group() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pid");
    for bad in ["", "x", "0", "1", "-1", "-17"] {
        fs::write(&path, bad).unwrap();
        assert_eq!(hang_up(&path).unwrap_err().kind(), io::ErrorKind::InvalidData, "{bad}");
    }
    let mut child = std::process::Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    fs::write(&path, format!("{}\n", child.id())).unwrap();
    hang_up(&path).unwrap();
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(child.wait().unwrap().signal(), Some(1));
}
