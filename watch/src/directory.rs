//! The directory as a sequence of good configurations.
//!
//! One rule carries it: what is in force changes only to something that was read whole and passed every check. Whatever else
//! is seen (a typing error, a half-written file, a volume that went away) becomes a [`Problem`] beside the last good state.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use palisade_identity::{TrustDomain, error_chain};
use palisade_policies::{CA_FILE, SourceText, read_paths};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::MESH_FILE;
use crate::changes::{Changes, Watched};
use crate::configuration::{Configuration, Problem, check};
use crate::snapshot::digest;

/// Changes that go on for so long without a pause are a problem of their own.
const UNSETTLED: Duration = Duration::from_secs(5);

/// Diagnostics of one state that are logged one by one; the status keeps all of them.
const LOGGED_DIAGNOSTICS: usize = 20;

/// Which directory, and how it is watched.
#[derive(Clone, Debug)]
pub struct DirectoryConfig {
    /// The directory: `*.yaml` and `*.yml`, recursively, names that begin with a dot left out.
    pub dir: PathBuf,
    /// The mesh configuration file; `None` means [`MESH_FILE`] in the directory, if it is there. A file named here must exist.
    pub mesh_file: Option<PathBuf>,
    /// What certificates are issued in, if the caller knows: a mesh configuration of another trust domain is refused, and
    /// one is written where there is no file.
    pub trust_domain: Option<TrustDomain>,
    /// Quiet time after the last change before the directory is read.
    pub settle: Duration,
    /// How often the content is compared though no change was reported.
    pub poll: Duration,
}

impl DirectoryConfig {
    /// This directory with the defaults: its own mesh file, 50 ms of quiet, a poll every 3 s.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            mesh_file: None,
            trust_domain: None,
            settle: Duration::from_millis(50),
            poll: Duration::from_secs(3),
        }
    }

    fn mesh_path(&self) -> PathBuf {
        self.mesh_file.clone().unwrap_or_else(|| self.dir.join(MESH_FILE))
    }
}

/// What is in force, and what stands in the way of the directory's present content.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The last configuration that passed every check; `None` until there was one.
    pub good: Option<Arc<Configuration>>,
    /// Why the present content is not in force; `None` while it is.
    pub problem: Option<Arc<Problem>>,
}

/// A watched directory. [`Directory::open`] has read it once; [`Directory::run`] follows it.
#[derive(Debug)]
pub struct Directory {
    watched: Watched,
    reader: Reader,
}

/// What reads the directory and remembers what it saw.
#[derive(Debug)]
struct Reader {
    config: DirectoryConfig,
    /// Digest of the last reading, good or not.
    seen: [u8; 32],
    state: watch::Sender<State>,
}

/// Texts of one moment, or the reason why there are none, with a digest to compare moments by.
struct Reading {
    digest: [u8; 32],
    texts: Result<Texts, String>,
}

struct Texts {
    resources: Vec<SourceText>,
    mesh: Option<SourceText>,
}

impl Directory {
    /// Reads the directory once, blocking. A directory that is broken or missing is no error: the state says what is wrong,
    /// and following it finds the repair.
    pub fn open(config: DirectoryConfig) -> Self {
        let watched = Watched::start(config.dir.clone(), config.mesh_path());
        let reading = read(&config);
        let seen = reading.digest;
        let state = next_state(&State::default(), reading, &config);
        report(&config.dir, &State::default(), &state);
        Self { watched, reader: Reader { config, seen, state: watch::Sender::new(state) } }
    }

    /// The state, now and after every change. A receiver sees the newest state, not every one between.
    pub fn subscribe(&self) -> watch::Receiver<State> {
        self.reader.state.subscribe()
    }

    /// Follows the directory until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { watched, mut reader } = self;
        let changes = Changes::new(watched, reader.config.settle, reader.config.poll);
        shutdown.run_until_cancelled(reader.follow(changes)).await;
    }
}

impl Reader {
    async fn follow(&mut self, mut changes: Changes) {
        loop {
            changes.next().await;
            let reading = self.steady_reading(&changes).await;
            if reading.digest != self.seen {
                self.adopt(reading).await;
            }
        }
    }

    /// A reading of finished files: none was being written before or during it, and a second one, a little later, says the
    /// same. The second one is for what nobody reported in time: notifications arrive on another thread and may lag behind
    /// the writer, and on some file systems there are none.
    async fn steady_reading(&mut self, changes: &Changes) -> Reading {
        let began = Instant::now();
        loop {
            changes.settled().await;
            let writes = changes.writes();
            let reading = self.read().await;
            if reading.digest == self.seen {
                return reading;
            }
            tokio::time::sleep(self.config.settle).await;
            let again = self.read().await;
            if again.digest == reading.digest && changes.undisturbed(writes) {
                return again;
            }
            if began.elapsed() > UNSETTLED {
                self.alarm_unsettled();
            }
        }
    }

    /// An edit that waits for the directory to come to rest must not wait unseen.
    fn alarm_unsettled(&mut self) {
        let before = self.state.borrow().clone();
        if matches!(before.problem.as_deref(), Some(Problem::Unsettled)) {
            return;
        }
        let after = State { good: before.good.clone(), problem: Some(Arc::new(Problem::Unsettled)) };
        report(&self.config.dir, &before, &after);
        self.state.send_replace(after);
        // Whatever is read next is news, even if it is what was there before the unrest.
        self.seen = [0; 32];
    }

    async fn read(&self) -> Reading {
        let config = self.config.clone();
        match tokio::task::spawn_blocking(move || read(&config)).await {
            Ok(reading) => reading,
            Err(error) => Reading::failed(error.to_string()),
        }
    }

    async fn adopt(&mut self, reading: Reading) {
        let digest = reading.digest;
        let (config, before) = (self.config.clone(), self.state.borrow().clone());
        let good = before.good.clone();
        let checked = tokio::task::spawn_blocking(move || {
            let after = next_state(&before, reading, &config);
            report(&config.dir, &before, &after);
            after
        });
        let after = checked.await.unwrap_or_else(|error| {
            tracing::error!(directory = %self.config.dir.display(), %error, "configuration check failed");
            State { good, problem: Some(Arc::new(Problem::Check { reason: error.to_string() })) }
        });
        self.seen = digest;
        self.state.send_replace(after);
    }
}

impl Reading {
    fn failed(reason: String) -> Self {
        let text = SourceText { file: "".into(), first_line: 0, text: reason.as_str().into() };
        Self { digest: digest(&[text], None), texts: Err(reason) }
    }
}

fn read(config: &DirectoryConfig) -> Reading {
    match read_texts(config) {
        Ok(texts) => Reading { digest: digest(&texts.resources, texts.mesh.as_ref()), texts: Ok(texts) },
        Err(reason) => Reading::failed(reason),
    }
}

fn read_texts(config: &DirectoryConfig) -> Result<Texts, String> {
    // Said here, because an empty answer for a missing directory would be "no policies at all".
    if !config.dir.is_dir() {
        return Err(format!("`{}` is not a directory", config.dir.display()));
    }
    let mesh_path = config.mesh_path();
    let all = read_paths(std::slice::from_ref(&config.dir)).map_err(|error| error_chain(&error))?;
    // The authority's own settings are no resource; the server reads them when it starts.
    let ca_path = config.dir.join(CA_FILE);
    let all: Vec<_> = all.into_iter().filter(|text| Path::new(&*text.file) != ca_path).collect();
    let (mesh, resources): (Vec<_>, Vec<_>) = all.into_iter().partition(|text| Path::new(&*text.file) == mesh_path);
    let mesh = match (mesh.into_iter().next(), &config.mesh_file) {
        (None, Some(file)) => {
            let read = read_paths(std::slice::from_ref(file)).map_err(|error| error_chain(&error))?;
            read.into_iter().next()
        }
        (mesh, _) => mesh,
    };
    let relative = |text: SourceText| relative_to(&config.dir, text);
    Ok(Texts { resources: resources.into_iter().map(relative).collect(), mesh: mesh.map(relative) })
}

/// Names the file as seen from the directory: revisions must not differ between servers that keep it in different places.
fn relative_to(dir: &Path, text: SourceText) -> SourceText {
    let file = Path::new(&*text.file).strip_prefix(dir).ok().and_then(Path::to_str).map(Into::into);
    SourceText { file: file.unwrap_or(text.file), ..text }
}

fn next_state(before: &State, reading: Reading, config: &DirectoryConfig) -> State {
    let checked = match reading.texts {
        Err(reason) => Err(Problem::Unreadable { reason }),
        Ok(texts) if texts.resources.is_empty() && before.good.as_ref().is_some_and(|good| good.files > 0) => {
            Err(Problem::Emptied)
        }
        Ok(texts) => check(&texts.resources, texts.mesh, config.trust_domain.as_ref()),
    };
    match checked {
        Ok(configuration) => State { good: Some(Arc::new(configuration)), problem: None },
        Err(problem) => State { good: before.good.clone(), problem: Some(Arc::new(problem)) },
    }
}

fn report(dir: &Path, before: &State, after: &State) {
    let directory = dir.display();
    match (&after.problem, &after.good) {
        (Some(problem), good) => {
            let in_force = good.as_ref().map_or("none", |good| good.revision.as_str());
            for error in problem.blockers().take(LOGGED_DIAGNOSTICS) {
                tracing::error!(%directory, "{error}");
            }
            if problem.diagnostics().is_empty() {
                tracing::error!(%directory, "{problem}");
            }
            tracing::error!(%directory, errors = problem.errors(), in_force, "configuration not in force, the last good one stays");
        }
        (None, Some(good)) => {
            for diagnostic in good.warnings.iter().take(LOGGED_DIAGNOSTICS) {
                tracing::warn!(%directory, "{diagnostic}");
            }
            let repaired = before.problem.is_some();
            let (revision, resources) = (good.revision.as_str(), good.documents.len());
            tracing::info!(%directory, revision, resources, files = good.files, repaired, "configuration in force");
        }
        (None, None) => {}
    }
}

#[cfg(test)]
mod tests;
