//! Maintenance: what an administrator has the tier do, each as a job.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use cvmcache::Session;
use cvmcache::admin::{CommandError, Value};
use cvmcache::plugin::ObjectId;
use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio::task::spawn_blocking;

use crate::hot::HotTier;
use crate::jobs::{Jobs, Progress};
use crate::markers::{MarkersError, State};
use crate::recalls::Outcome;
use crate::tier::Tier;

/// The maintenance of one tier.
pub(crate) struct Maintenance<H> {
    pub(crate) tier: Arc<Tier<H>>,
    pub(crate) workspace: PathBuf,
    pub(crate) jobs: Jobs,
}

/// Which objects a job is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    /// These.
    Ids(Vec<ObjectId>),
    /// All that have not been used for so long.
    Idle(Duration),
}

/// Recalls under way at once: clients need threads, too.
const RECALLS: usize = 8;
const VERIFICATIONS: usize = 8;
/// An administrator waits for a dry run, and threads of the administration socket are few.
const DRY_RUN: Duration = Duration::from_secs(10);
const CHECK_POLL: Duration = Duration::from_millis(20);

impl<H: HotTier> Maintenance<H> {
    /// Archives objects.
    pub(crate) fn archive(&self, selection: Selection) -> Result<Value, CommandError> {
        let (tier, workspace) = (Arc::clone(&self.tier), self.workspace.clone());
        self.jobs.start("archive", move |progress| {
            let archived = match selection {
                Selection::Idle(age) => {
                    wait_for_objects(&tier.hot, || progress.is_stopped());
                    let objects = tier.hot.idle_objects(before(age));
                    run(&tier, tier.archive(objects, progress))
                }
                Selection::Ids(ids) => {
                    let objects = ids.iter().filter_map(|id| match tier.archivable(id) {
                        Ok(object) => Some(object),
                        Err(reason) => {
                            progress.failed(&format_args!("object {id}: {reason}"));
                            None
                        }
                    });
                    run(&tier, tier.archive(objects, progress))
                }
            };
            archived?;
            run(&tier, tier.upload_list(&workspace))
        })
    }

    /// How many objects and bytes archiving would move.
    pub(crate) fn archive_dry_run(&self, age: Duration) -> Result<Value, CommandError> {
        let deadline = Instant::now() + DRY_RUN;
        if !wait_for_objects(&self.tier.hot, || Instant::now() >= deadline) {
            let text = "the cache is still being checked after its start: try again".to_owned();
            return Err(CommandError::Failed(text));
        }
        let mut objects: u64 = 0;
        let mut bytes: u64 = 0;
        for object in self.tier.hot.idle_objects(before(age)) {
            objects += 1;
            bytes += object.len;
        }
        Ok(json!({"objects": objects, "bytes": bytes}))
    }

    /// Recalls these objects, or with `None` all that are remote.
    pub(crate) fn recall(&self, ids: Option<Vec<ObjectId>>) -> Result<Value, CommandError> {
        let tier = Arc::clone(&self.tier);
        self.jobs.start("recall", move |progress| {
            let recall = async {
                match ids {
                    Some(ids) => recall_all(&tier, ids, progress).await,
                    None => {
                        for page in tier.markers.pages() {
                            let remote = page
                                .map_err(text)?
                                .into_iter()
                                .filter(|(_, marker)| marker.state == State::Remote);
                            let ids = remote.map(|(id, _)| id).collect();
                            recall_all(&tier, ids, progress).await;
                            if progress.is_stopped() {
                                break;
                            }
                        }
                    }
                }
                Ok::<_, String>(())
            };
            run(&tier, recall)
        })
    }

    /// Compares all objects with their digests: those here, and with `remote` those in the store as well.
    pub(crate) fn scrub(&self, remote: bool) -> Result<Value, CommandError> {
        let tier = Arc::clone(&self.tier);
        self.jobs.start("scrub", move |progress| {
            wait_for_objects(&tier.hot, || progress.is_stopped());
            tier.hot.scrub(&mut |scrubbed| {
                progress.scrubbed(scrubbed);
                !progress.is_stopped()
            });
            if remote && !progress.is_stopped() {
                run(&tier, verify_all(&tier, progress))?;
            }
            Ok(())
        })
    }

    /// Finds, or deletes, objects of the store that no cache needs.
    pub(crate) fn gc(&self, grace: Duration, delete: bool) -> Result<Value, CommandError> {
        let (tier, workspace) = (Arc::clone(&self.tier), self.workspace.clone());
        self.jobs
            .start("gc", move |progress| run(&tier, tier.gc(&workspace, grace, delete, progress)))
    }

    /// Makes lost markers again.
    pub(crate) fn rebuild(&self) -> Result<Value, CommandError> {
        let tier = Arc::clone(&self.tier);
        self.jobs.start("rebuild", move |progress| run(&tier, tier.rebuild(progress)))
    }
}

/// Runs a job's work, which is cut short if the tier ends.
fn run<H: HotTier, E: ToString>(
    tier: &Tier<H>,
    work: impl Future<Output = Result<(), E>>,
) -> Result<(), String> {
    match tier.run(work) {
        Some(result) => result.map_err(text),
        None => Err("the program ends".to_owned()),
    }
}

async fn recall_all<H: HotTier>(tier: &Arc<Tier<H>>, ids: Vec<ObjectId>, progress: &Progress) {
    let recalls = stream::iter(ids).take_while(|_| async { !progress.is_stopped() });
    let recalls = recalls.map(|id| {
        let tier = Arc::clone(tier);
        async move { (id, spawn_blocking(move || tier.bring_back(&id)).await) }
    });
    let mut recalls = recalls.buffer_unordered(RECALLS).boxed();
    while let Some((id, result)) = recalls.next().await {
        match result {
            Ok(Ok(Some(len))) => progress.done(len),
            Ok(Ok(None)) => progress.skip(),
            Ok(Err(reason)) => progress.failed(&format_args!("object {id}: {reason}")),
            Err(_) => progress.failed(&format_args!("object {id}: the program ends")),
        }
    }
}

async fn verify_all<H: HotTier>(
    tier: &Arc<Tier<H>>,
    progress: &Progress,
) -> Result<(), MarkersError> {
    for page in tier.markers.pages() {
        let checks = stream::iter(page?).take_while(|_| async { !progress.is_stopped() });
        let mut checks = checks
            .map(|(id, marker)| async move { (id, marker, tier.verify_remote(&id, &marker).await) })
            .buffer_unordered(VERIFICATIONS)
            .boxed();
        while let Some((id, marker, result)) = checks.next().await {
            progress.look_at();
            match result {
                Ok(()) => {
                    progress.done(marker.len);
                    if marker.state == State::Error {
                        tier.markers.set_state(&id, &marker, State::Remote)?;
                    }
                }
                Err(error) => {
                    progress.failed(&format_args!("object {id} in the store: {error}"));
                    if error.is_lost() && marker.state == State::Remote {
                        tier.markers.set_state(&id, &marker, State::Error)?;
                    }
                }
            }
        }
        if progress.is_stopped() {
            break;
        }
    }
    Ok(())
}

impl<H: HotTier> Tier<H> {
    /// Brings an object back for an administrator: its length, or `None` if it is here already.
    fn bring_back(&self, id: &ObjectId) -> Result<Option<u64>, String> {
        if self.hot.object(id).is_ok() {
            return Ok(None);
        }
        let marker = self.markers.get(id).map_err(text)?;
        let marker =
            marker.ok_or("there is no marker of it: it is neither here nor in the store")?;
        if marker.state == State::Error {
            // It may have been mended.
            self.markers.set_state(id, &marker, State::Remote).map_err(text)?;
        }
        self.recalls.forget_failure(id);
        let session = Session::new(0, "");
        match self.recall(&session, id, Instant::now()) {
            Outcome::Recalled { is_leader: true } => {
                let _ = self.hot.change_refcount(&session, id, -1);
                Ok(Some(marker.len))
            }
            // A client may have opened it to be read in blocks.
            Outcome::Recalled { is_leader: false } => match self.hot.object(id) {
                Ok(_) => Ok(Some(marker.len)),
                Err(_) => Err("a client has just opened it in the store".to_owned()),
            },
            Outcome::Failed => Err("it did not come back: the log says why".to_owned()),
        }
    }
}

/// Waits until the hot cache knows all of its objects; false if it was stopped before.
fn wait_for_objects(hot: &impl HotTier, is_stopped: impl Fn() -> bool) -> bool {
    while !hot.is_complete() {
        if is_stopped() {
            return false;
        }
        thread::sleep(CHECK_POLL);
    }
    true
}

fn before(age: Duration) -> SystemTime {
    SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
