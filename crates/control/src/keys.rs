//! Keys of the issuers that RequestAuthentications believe: fetched when a policy first names them, and again from time to time.
//!
//! Proxies are given the keys themselves, so that a judgement waits for nobody. What was fetched once stays in force while its
//! place does not answer; what never could be is missing from the set, and no token of that issuer is believed.

mod fetch;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use maille_api::{Object, Spec};
use maille_model::{KeySets, KeySource};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

pub(crate) use fetch::Web;

/// How often keys are fetched anew.
const REFRESH: Duration = Duration::from_secs(20 * 60);
/// The first time that a place which did not answer is asked again; then twice as long each time.
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// How long a place may take to answer, unless the rule says.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long the first answer of a place can hold up everything else.
const LONGEST_WAIT: Duration = Duration::from_secs(6);

/// A set of keys, or why there is none.
pub(crate) type Fetched = Pin<Box<dyn Future<Output = Result<Arc<str>, String>> + Send>>;

/// How keys are fetched.
pub(crate) trait FetchKeys: Send + Sync + 'static {
    /// The key set of a source.
    fn fetch(&self, source: KeySource) -> Fetched;
}

/// The builder's end: what it wants, and what there is.
pub(crate) struct Keys {
    wanted: watch::Sender<Wanted>,
    known: watch::Receiver<Known>,
}

type Wanted = BTreeMap<KeySource, Duration>;

/// What there is, and whom we asked at all.
#[derive(Clone, Debug, Default)]
struct Known {
    sets: Arc<KeySets>,
    asked: BTreeSet<KeySource>,
}

impl Keys {
    /// Both ends: what asks, and the work itself, which runs until it is aborted or nobody asks any more.
    pub(crate) fn new(fetcher: impl FetchKeys) -> (Keys, impl Future<Output = ()> + Send) {
        let (wanted, wanted_by) = watch::channel(Wanted::new());
        let (known_to, known) = watch::channel(Known::default());
        let work = Work { fetcher: Arc::new(fetcher), wanted: wanted_by, known: known_to, places: BTreeMap::new() };
        (Keys { wanted, known }, work.run())
    }

    /// The keys that these resources need. Places that were never asked are waited for, if not for long: a proxy that knew their
    /// keys would lose them otherwise.
    pub(crate) async fn of(&mut self, objects: &[Arc<Object>]) -> Arc<KeySets> {
        let wanted = wanted(objects);
        self.wanted.send_if_modified(|present| {
            let differs = *present != wanted;
            if differs {
                present.clone_from(&wanted);
            }
            differs
        });
        let all_asked = |known: &Known| wanted.keys().all(|source| known.asked.contains(source));
        // Too late, or nobody at work: what there is has to do.
        let _ = tokio::time::timeout(LONGEST_WAIT, self.known.wait_for(all_asked)).await;
        self.known.borrow_and_update().sets.clone()
    }

    /// Returns when there are others than were last given out.
    pub(crate) async fn changed(&mut self) {
        if self.known.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Where the keys are that the resources do not have in themselves, and how long each may take.
fn wanted(objects: &[Arc<Object>]) -> Wanted {
    let policies = objects.iter().filter_map(|object| match &object.spec {
        Spec::RequestAuthentication(policy) => Some(policy),
        _ => None,
    });
    let elsewhere = policies.flat_map(|policy| &policy.jwt_rules).filter(|rule| rule.jwks.is_empty());
    let timeout =
        |timeout: maille_api::Duration| Duration::from_millis(u64::try_from(timeout.as_millis()).unwrap_or(0));
    let mut wanted = Wanted::new();
    for rule in elsewhere {
        let timeout = rule.timeout.map_or(TIMEOUT, timeout);
        let longest = wanted.entry(KeySource::of(rule)).or_insert(timeout);
        *longest = timeout.max(*longest);
    }
    wanted
}

struct Work<F> {
    fetcher: Arc<F>,
    wanted: watch::Receiver<Wanted>,
    known: watch::Sender<Known>,
    places: BTreeMap<KeySource, Place>,
}

/// One place that keys come from.
struct Place {
    timeout: Duration,
    due: Instant,
    failures: u32,
    /// It is being asked right now.
    busy: bool,
}

impl<F: FetchKeys> Work<F> {
    async fn run(mut self) {
        let mut asking = JoinSet::new();
        loop {
            self.follow();
            for (source, place) in
                self.places.iter_mut().filter(|(_, place)| !place.busy && place.due <= Instant::now())
            {
                place.busy = true;
                let (source, limit, fetched) = (source.clone(), place.timeout, self.fetcher.fetch(source.clone()));
                asking.spawn(async move {
                    let answer = tokio::time::timeout(limit, fetched).await;
                    (source, answer.unwrap_or_else(|_| Err(format!("no answer within {limit:?}"))))
                });
            }
            let next = self.places.values().filter(|place| !place.busy).map(|place| place.due).min();
            tokio::select! {
                changed = self.wanted.changed() => if changed.is_err() {
                    return;
                },
                Some(Ok((source, answer))) = asking.join_next() => self.take(source, answer),
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        }
    }

    /// Takes up places that are wanted, and forgets those that are not.
    fn follow(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        self.places.retain(|source, _| wanted.contains_key(source));
        let stale = |known: &Known| known.asked.iter().any(|source| !wanted.contains_key(source));
        self.known.send_if_modified(|known| {
            let stale = stale(known);
            if stale {
                known.asked.retain(|source| wanted.contains_key(source));
                Arc::make_mut(&mut known.sets).retain(|source, _| wanted.contains_key(source));
            }
            stale
        });
        for (source, timeout) in wanted {
            let fresh = || Place { timeout, due: Instant::now(), failures: 0, busy: false };
            self.places.entry(source).or_insert_with(fresh).timeout = timeout;
        }
    }

    fn take(&mut self, source: KeySource, answer: Result<Arc<str>, String>) {
        let Some(place) = self.places.get_mut(&source) else { return };
        place.busy = false;
        match &answer {
            Ok(_) => (place.failures, place.due) = (0, Instant::now() + REFRESH),
            Err(reason) => {
                tracing::warn!(%source, %reason, "the keys of a token's issuer cannot be fetched");
                place.due = Instant::now() + (FIRST_RETRY * 2u32.saturating_pow(place.failures.min(16))).min(REFRESH);
                place.failures += 1;
            }
        }
        self.known.send_if_modified(|known| {
            let is_first = known.asked.insert(source.clone());
            let Ok(keys) = answer else { return is_first };
            let is_new = known.sets.get(&source) != Some(&keys);
            if is_new {
                Arc::make_mut(&mut known.sets).insert(source, keys);
            }
            is_first || is_new
        });
    }
}

#[cfg(test)]
mod tests;
