use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;

use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::*;

fn policy(name: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{}}\n"
    )
}

const BROKEN: &str =
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: x}\nspec: {acton: DENY}\n";

/// A directory that is followed for the length of a test.
struct Followed {
    home: TempDir,
    state: watch::Receiver<State>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Followed {
    /// `files` in `config/`, followed with this configuration.
    fn start(files: &[(&str, &str)], configure: impl FnOnce(&Path, &mut DirectoryConfig)) -> Self {
        let home = tempfile::tempdir().expect("temporary directory");
        let dir = home.path().join("config");
        fs::create_dir(&dir).expect("create");
        for (name, text) in files {
            fs::write(dir.join(name), text).expect("write");
        }
        let mut config = DirectoryConfig::new(dir);
        configure(home.path(), &mut config);
        let directory = Directory::open(config);
        let (state, stop) = (directory.subscribe(), CancellationToken::new());
        let task = tokio::spawn(directory.run(stop.clone()));
        Self { home, state, stop, task }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join("config").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("write");
    }

    async fn until(&mut self, what: &str, condition: impl Fn(&State) -> bool) -> State {
        let waited = tokio::time::timeout(Duration::from_secs(20), self.state.wait_for(|state| condition(state))).await;
        match waited.map(|state| state.expect("directory is followed").clone()) {
            Ok(state) => state,
            Err(_) => panic!("not seen: {what}; last state: {:?}", self.state.borrow()),
        }
    }

    /// Nothing like `condition` is seen for long enough that a wrong reading would have been.
    async fn never(&mut self, what: &str, condition: impl Fn(&State) -> bool) {
        let waited =
            tokio::time::timeout(Duration::from_millis(700), self.state.wait_for(|state| condition(state))).await;
        assert!(waited.is_err(), "seen: {what}");
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.expect("stops");
    }
}

fn names(state: &State) -> Vec<&str> {
    let good = state.good.as_ref();
    good.map_or(Vec::new(), |good| good.documents.iter().map(|document| document.name.as_str()).collect())
}

fn is_good(state: &State, expected: &[&str]) -> bool {
    state.problem.is_none() && names(state) == expected
}

#[tokio::test]
async fn edits_additions_renames_and_removals_come_into_force() {
    let mut dir = Followed::start(&[("a.yaml", &policy("one"))], |_, _| {});
    dir.until("the first content", |state| is_good(state, &["one"])).await;
    dir.write("a.yaml", &policy("two"));
    dir.until("an edit", |state| is_good(state, &["two"])).await;
    fs::create_dir(dir.path("sub")).expect("create");
    dir.write("sub/b.yml", &policy("three"));
    dir.until("a file in a new directory", |state| is_good(state, &["two", "three"])).await;
    dir.write("a.tmp", &policy("four"));
    fs::rename(dir.path("a.tmp"), dir.path("a.yaml")).expect("rename");
    dir.until("a file renamed over another", |state| is_good(state, &["four", "three"])).await;
    fs::remove_file(dir.path("a.yaml")).expect("remove");
    dir.until("a removal", |state| is_good(state, &["three"])).await;
    dir.end().await;
}

#[tokio::test]
async fn a_broken_edit_changes_nothing_and_says_where() {
    let mut dir = Followed::start(&[("a.yaml", &policy("one")), ("b.yaml", &policy("two"))], |_, _| {});
    let before = dir.until("the first content", |state| is_good(state, &["one", "two"])).await;
    dir.write("b.yaml", BROKEN);
    let broken = dir.until("the problem", |state| state.problem.is_some()).await;
    assert_eq!(names(&broken), ["one", "two"], "the last good one stays, whole");
    let problem = broken.problem.expect("a problem");
    assert!(problem.errors() >= 1);
    let text = problem.to_string();
    for part in ["b.yaml:4", "acton", "fix:"] {
        assert!(text.contains(part), "{part} missing in: {text}");
    }
    dir.write("b.yaml", &policy("two"));
    let repaired = dir.until("the repair", |state| state.problem.is_none()).await;
    let revision = |state: &State| state.good.as_ref().expect("good").revision.clone();
    assert_eq!(revision(&before), revision(&repaired));
    dir.end().await;
}

#[tokio::test]
async fn a_file_that_is_being_written_is_not_read() {
    let mut dir = Followed::start(&[("a.yaml", &policy("one")), ("b.yaml", &policy("two"))], |_, config| {
        config.poll = Duration::from_millis(100);
    });
    dir.until("the first content", |state| is_good(state, &["one", "two"])).await;
    // Truncated, it is an empty YAML file: valid, and without the policy.
    let mut writer = fs::File::create(dir.path("a.yaml")).expect("truncate");
    dir.never("the directory without the policy", |state| names(state) != ["one", "two"]).await;
    writer.write_all(policy("three").as_bytes()).expect("write");
    drop(writer);
    dir.until("the finished file", |state| is_good(state, &["three", "two"])).await;
    dir.end().await;
}

#[tokio::test]
async fn rewriting_a_file_in_place_never_shows_the_directory_without_it() {
    let mut dir = Followed::start(&[("a.yaml", &policy("edit-0")), ("b.yaml", &policy("two"))], |_, _| {});
    let mut seen = dir.state.clone();
    let recorder = tokio::spawn(async move {
        let mut counts = Vec::new();
        while seen.changed().await.is_ok() {
            counts.push(names(&seen.borrow_and_update()).len());
        }
        counts
    });
    // Each edit follows at once on the news of the last, when the directory may just be being read again.
    for edit in 1..=20 {
        let name = format!("edit-{edit}");
        dir.write("a.yaml", &policy(&name));
        dir.until("the edit", |state| is_good(state, &[&name, "two"])).await;
    }
    dir.end().await;
    let counts = recorder.await.expect("recorded");
    assert!(counts.len() >= 20 && counts.iter().all(|count| *count == 2), "{counts:?}");
}

#[tokio::test]
async fn changes_that_never_pause_are_an_alarm_and_heal() {
    let mut dir = Followed::start(&[("a.yaml", &policy("one")), ("b.yaml", &policy("two"))], |_, _| {});
    let (file, rest) = (dir.path("a.yaml"), CancellationToken::new());
    let restless = tokio::spawn(rest.clone().run_until_cancelled_owned(async move {
        for edit in 0.. {
            fs::write(&file, policy(&format!("edit-{edit}"))).expect("write");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }));
    let unsettled = |state: &State| matches!(state.problem.as_deref(), Some(Problem::Unsettled));
    let alarmed = dir.until("the alarm", unsettled).await;
    assert_eq!(names(&alarmed), ["one", "two"]);
    rest.cancel();
    restless.await.expect("stops");
    dir.write("a.yaml", &policy("one"));
    dir.until("the content it had at first", |state| is_good(state, &["one", "two"])).await;
    dir.end().await;
}

#[tokio::test]
async fn trap_32_a_config_map_swap_is_one_step() {
    let mut dir = Followed::start(&[], |home, _| {
        let config = home.join("config");
        for (version, name) in [("..v1", "one"), ("..v2", "two")] {
            fs::create_dir(config.join(version)).expect("create");
            fs::write(config.join(version).join("a.yaml"), policy(name)).expect("write");
            fs::write(config.join(version).join("b.yaml"), policy(&format!("{name}-b"))).expect("write");
        }
        symlink("..v1", config.join("..data")).expect("symlink");
        symlink("..data/a.yaml", config.join("a.yaml")).expect("symlink");
        symlink("..data/b.yaml", config.join("b.yaml")).expect("symlink");
    });
    dir.until("the first version", |state| is_good(state, &["one", "one-b"])).await;
    symlink("..v2", dir.path("..data_tmp")).expect("symlink");
    fs::rename(dir.path("..data_tmp"), dir.path("..data")).expect("rename");
    dir.until("the second version", |state| is_good(state, &["two", "two-b"])).await;
    dir.end().await;
}

#[tokio::test]
async fn a_directory_that_vanishes_or_empties_keeps_the_last_good_and_alarms() {
    let mut dir = Followed::start(&[("a.yaml", &policy("one"))], |_, _| {});
    dir.until("the first content", |state| is_good(state, &["one"])).await;
    let (here, away) = (dir.home.path().join("config"), dir.home.path().join("away"));
    fs::rename(&here, &away).expect("rename");
    let gone = dir.until("the alarm", |state| state.problem.is_some()).await;
    assert_eq!(names(&gone), ["one"]);
    assert!(matches!(*gone.problem.expect("a problem"), Problem::Unreadable { .. }));
    // What an unmounted volume leaves: its empty mount point.
    fs::create_dir(&here).expect("create");
    let emptied = |state: &State| matches!(state.problem.as_deref(), Some(Problem::Emptied));
    let empty = dir.until("the other alarm", emptied).await;
    assert_eq!(names(&empty), ["one"]);
    dir.write("b.yaml", &policy("two"));
    dir.until("content under the old name", |state| is_good(state, &["two"])).await;
    dir.write("b.yaml", "# nothing on purpose\n");
    dir.until("everything removed on purpose", |state| is_good(state, &[])).await;
    dir.end().await;
}

#[tokio::test]
async fn trap_32_a_directory_replaced_under_its_symlink_is_seen() {
    let mut dir = Followed::start(&[("a.yaml", &policy("one"))], |home, config| {
        fs::create_dir(home.join("next")).expect("create");
        fs::write(home.join("next/a.yaml"), policy("two")).expect("write");
        symlink("config", home.join("current")).expect("symlink");
        config.dir = home.join("current");
        config.poll = Duration::from_secs(3600);
    });
    dir.until("the first content", |state| is_good(state, &["one"])).await;
    symlink("next", dir.home.path().join("swap")).expect("symlink");
    fs::rename(dir.home.path().join("swap"), dir.home.path().join("current")).expect("rename");
    dir.until("the other directory", |state| is_good(state, &["two"])).await;
    fs::write(dir.home.path().join("next/a.yaml"), policy("three")).expect("write");
    dir.until("an edit in it", |state| is_good(state, &["three"])).await;
    dir.end().await;
}

#[tokio::test]
async fn missing_at_first_is_not_empty() {
    let mut dir = Followed::start(&[], |home, config| config.dir = home.join("later"));
    let state = dir.state.borrow().clone();
    assert!(state.good.is_none());
    assert!(state.problem.expect("a problem").to_string().contains("is not a directory"));
    let (staged, later) = (dir.home.path().join("staged"), dir.home.path().join("later"));
    fs::create_dir(&staged).expect("create");
    fs::write(staged.join("a.yaml"), policy("one")).expect("write");
    fs::rename(staged, later).expect("rename");
    dir.until("the directory that came", |state| is_good(state, &["one"])).await;
    dir.end().await;
}

#[tokio::test]
async fn an_empty_directory_is_a_configuration() {
    let dir = Followed::start(&[], |_, _| {});
    assert!(is_good(&dir.state.borrow(), &[]));
    dir.end().await;
}

#[tokio::test]
async fn the_authority_s_settings_are_no_resource() {
    let mut test =
        Followed::start(&[("a.yaml", policy("a").as_str()), ("ca.yaml", "admission: {rate: 10}\n")], |_, _| {});
    test.until("the policy alone", |state| is_good(state, &["a"])).await;
    test.end().await;
}

#[tokio::test]
async fn an_entry_of_another_trust_domain_is_refused_at_its_place() {
    let entry = "apiVersion: palisade.dev/v1\nkind: RegistrationEntry\nmetadata: {name: e}\nspec:\n  \
                 spiffeId: spiffe://other.example/a\n  selectors: [\"unix:uid:0\"]\n";
    let mut test = Followed::start(&[("e.yaml", entry)], |_, _| {});
    let state = test.until("refused", |state| state.problem.is_some()).await;
    let problem = state.problem.unwrap().to_string();
    assert!(problem.starts_with("e.yaml:5:13: error[PAL0807] spec.spiffeId"), "{problem}");
    test.write("e.yaml", &entry.replace("other.example", "cluster.local"));
    test.until("accepted", |state| {
        state.good.as_ref().is_some_and(|good| good.resources.registration_entries.len() == 1)
    })
    .await;
    test.end().await;
}

#[tokio::test]
async fn the_mesh_file_is_no_resource_and_may_lie_elsewhere() {
    let mut dir = Followed::start(&[("mesh.yaml", "rootNamespace: one\n")], |_, _| {});
    let root = |state: &State| state.good.as_ref().map(|good| good.mesh.root_namespace.clone());
    dir.until("mesh.yaml", |state| root(state).as_deref() == Some("one")).await;
    dir.write("mesh.yaml", "rootNamespace: two\n");
    dir.until("its edit", |state| root(state).as_deref() == Some("two")).await;
    dir.end().await;

    let mut dir = Followed::start(&[], |home, config| {
        let file = home.join("the-mesh.yaml");
        fs::write(&file, "rootNamespace: three\n").expect("write");
        config.mesh_file = Some(file);
        config.poll = Duration::from_secs(3600);
    });
    dir.until("the named file", |state| root(state).as_deref() == Some("three")).await;
    fs::write(dir.home.path().join("the-mesh.yaml"), "rootNamespace: four\n").expect("write");
    dir.until("its edit", |state| root(state).as_deref() == Some("four")).await;
    fs::remove_file(dir.home.path().join("the-mesh.yaml")).expect("remove");
    let gone = dir.until("the alarm", |state| state.problem.is_some()).await;
    assert_eq!(root(&gone).as_deref(), Some("four"));
    dir.end().await;
}

#[tokio::test]
async fn the_trust_domain_has_one_truth() {
    let issued = || Some(TrustDomain::parse("corp.example").expect("a trust domain"));
    let dir = Followed::start(&[], |_, config| config.trust_domain = issued());
    let good = dir.state.borrow().good.clone().expect("good");
    assert_eq!(good.mesh.trust_domain.as_str(), "corp.example");
    assert_eq!(&*good.mesh_text.as_ref().expect("written for the proxies").text, "trustDomain: corp.example\n");
    dir.end().await;

    let dir =
        Followed::start(&[("mesh.yaml", "trustDomain: other.example\n")], |_, config| config.trust_domain = issued());
    let state = dir.state.borrow().clone();
    assert!(state.good.is_none());
    let text = state.problem.expect("a problem").to_string();
    for part in ["mesh.yaml", "other.example", "corp.example", "fix:"] {
        assert!(text.contains(part), "{part} missing in: {text}");
    }
    dir.end().await;

    let istio = TrustDomain::parse("cluster.local").expect("a trust domain");
    let dir = Followed::start(&[], |_, config| config.trust_domain = Some(istio));
    assert!(dir.state.borrow().good.as_ref().expect("good").mesh_text.is_none(), "the default needs no words");
    dir.end().await;
}

#[test]
fn files_are_named_as_seen_from_the_directory() {
    let names = |place: &str| {
        let home = tempfile::tempdir().expect("temporary directory");
        let dir = home.path().join(place);
        fs::create_dir_all(dir.join("sub")).expect("create");
        fs::write(dir.join("sub/a.yaml"), policy("one")).expect("write");
        let directory = Directory::open(DirectoryConfig::new(dir));
        let good = directory.subscribe().borrow().good.clone().expect("good");
        (good.revision.clone(), good.snapshot().documents[0].file.to_string())
    };
    let (here, there) = (names("here"), names("far/away"));
    assert_eq!(here.1, "sub/a.yaml");
    assert_eq!(here, there);
}
