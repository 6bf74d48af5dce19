//! Makes a snapshot of what the store holds, and from it a world for each proxy, whenever either changes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use maille_api::mesh::MeshConfig;
use maille_api::parse::mesh_config_of;
use maille_api::{Key, Kind, Object};
use maille_model::{Options, Proxy, Snapshot, Warning};
use maille_store::Store;
use maille_xds::World;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

use crate::Shared;
use crate::intern::Interner;
use crate::keys::Keys;
use crate::proxies::Wanted;

/// How long the store must at most be quiet before a burst of changes is taken. A small mesh, whose worlds are made in no
/// time, does not wait that long: see [`Burst::quiet`].
const QUIET: Duration = Duration::from_millis(100);

/// How long a burst can put that off.
const LONGEST: Duration = Duration::from_secs(1);

/// The first change after a quiet time waits only for those that came with it.
const FIRST: Duration = Duration::from_millis(5);

/// Runs until it is aborted.
pub(crate) async fn run(
    store: Arc<Store>,
    mesh: Option<MeshConfig>,
    mut keys: Keys,
    shared: Arc<Shared>,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
) {
    let mut revisions = store.subscribe();
    let mut settings = Settings { given: mesh, last_good: MeshConfig::default() };
    let mut interner = Interner::default();
    let mut burst = Burst::default();
    let mut snapshot = None;
    let mut said = Said::default();
    burst.change(Instant::now());
    loop {
        tokio::select! {
            () = sleep_until(burst.due.unwrap_or_else(Instant::now)), if burst.due.is_some() => {
                let taken = Instant::now();
                shared.metrics.debounced(burst.waited());
                let (_, objects) = store.list();
                let mesh = settings.of(&objects);
                let options = Options { key_sets: keys.of(&objects).await, ..Options::default() };
                let started = Instant::now();
                match spawn_blocking(move || Arc::new(Snapshot::build_with(&objects, &mesh, options))).await {
                    Ok(built) => {
                        shared.metrics.built(started.elapsed());
                        said.say(built.warnings());
                        snapshots.send_replace(Some(built.clone()));
                        snapshot = Some(built);
                    }
                    // A defect of ours; what is being served stays.
                    Err(error) => tracing::error!(%error, "the snapshot could not be built; keeping the last one"),
                }
                if let Some(snapshot) = &snapshot {
                    interner = translate(snapshot, &shared, interner, false).await;
                }
                burst.taken(Instant::now(), taken.elapsed());
            }
            changed = revisions.changed() => match changed {
                Ok(()) => burst.change(Instant::now()),
                Err(_) => return,
            },
            () = keys.changed() => burst.change(Instant::now()),
            () = shared.proxies.connected() => if let Some(snapshot) = &snapshot {
                interner = translate(snapshot, &shared, interner, true).await;
            },
        }
    }
}

/// What the log was told already.
#[derive(Default)]
struct Said(BTreeSet<Warning>);

impl Said {
    /// Tells the log what is new. What policies do not do is for everybody to see.
    fn say(&mut self, warnings: &[Warning]) {
        for warning in warnings.iter().filter(|warning| !self.0.contains(warning)) {
            match warning.is_about_policy() {
                true => tracing::warn!(%warning, "configuration"),
                false => tracing::debug!(%warning, "configuration"),
            }
        }
        self.0 = warnings.iter().cloned().collect();
    }
}

/// Gives every proxy, or every new one, its world.
async fn translate(snapshot: &Arc<Snapshot>, shared: &Shared, mut interner: Interner, only_new: bool) -> Interner {
    let wanted = shared.proxies.wanted(only_new);
    let snapshot = snapshot.clone();
    let started = Instant::now();
    let work = spawn_blocking(move || {
        if !only_new {
            interner.begin();
        }
        let worlds = worlds(&snapshot, wanted, &mut interner);
        if !only_new {
            interner.end();
        }
        (worlds, interner)
    });
    let (worlds, interner) = match work.await {
        Ok(done) => done,
        Err(error) => {
            tracing::error!(%error, "the translation failed; proxies keep what they have");
            return Interner::default();
        }
    };
    let proxies = worlds.len();
    let changed = worlds.into_iter().filter(|(id, world)| shared.proxies.publish(*id, world.clone())).count();
    if changed > 0 {
        tracing::debug!(proxies, changed, took = ?started.elapsed(), "published");
    }
    interner
}

/// Proxies that differ in nothing but their name have one world.
fn worlds(snapshot: &Snapshot, wanted: Vec<Wanted>, interner: &mut Interner) -> Vec<(u64, World)> {
    let mut made: HashMap<Proxy, World> = HashMap::new();
    wanted
        .into_iter()
        .map(|Wanted { id, proxy, previous }| {
            let key = Proxy { id: String::new(), ..(*proxy).clone() };
            let world = made
                .entry(key)
                .or_insert_with(|| interner.intern(maille_translate::translate(snapshot, &proxy), previous.as_ref()));
            (id, world.clone())
        })
        .collect()
}

/// Where the mesh settings come from.
struct Settings {
    given: Option<MeshConfig>,
    last_good: MeshConfig,
}

impl Settings {
    fn of(&mut self, objects: &[Arc<Object>]) -> MeshConfig {
        if let Some(given) = &self.given {
            return given.clone();
        }
        let istio = Key { kind: Kind::ConfigMap, namespace: "istio-system".into(), name: "istio".into() };
        let written = objects.iter().find(|object| object.key() == istio).and_then(|object| mesh_config_of(object));
        match written {
            None => self.last_good = MeshConfig::default(),
            Some((Some(config), _)) => self.last_good = config,
            // The file it is in said so already; this is for what other sources may let through.
            Some((None, diagnostics)) => {
                let reason = diagnostics.iter().map(|found| found.message.as_str()).collect::<Vec<_>>().join("; ");
                tracing::warn!(%reason, "ConfigMap istio-system/istio cannot be used; keeping the mesh settings");
            }
        }
        self.last_good.clone()
    }
}

/// The mesh settings before the first snapshot is there.
pub(crate) fn mesh_config(given: Option<&MeshConfig>, store: &Store) -> MeshConfig {
    Settings { given: given.cloned(), last_good: MeshConfig::default() }.of(&store.list().1)
}

/// When to take the changes that came.
#[derive(Default)]
struct Burst {
    first: Option<Instant>,
    due: Option<Instant>,
    last_taken: Option<Instant>,
    cost: Duration,
}

impl Burst {
    /// Waiting for more is worth a few times what the work costs, not more: what waits is endpoints that are there but get
    /// no requests yet.
    fn quiet(&self) -> Duration {
        (4 * self.cost).clamp(FIRST, QUIET)
    }

    fn change(&mut self, now: Instant) {
        let quiet = self.quiet();
        let lone = self.last_taken.is_none_or(|last| now - last >= quiet);
        let first = *self.first.get_or_insert(now);
        let wait = match self.due.is_none() && lone {
            true => FIRST,
            false => quiet,
        };
        // The first change of a burst is not put off by the ones right behind it, but what comes later is one step.
        self.due = Some(match self.due {
            Some(due) if due - first <= FIRST => due,
            _ => (now + wait).min(first + LONGEST),
        });
    }

    fn waited(&self) -> Duration {
        self.first.map(|first| first.elapsed()).unwrap_or_default()
    }

    fn taken(&mut self, now: Instant, cost: Duration) {
        *self = Self { last_taken: Some(now), cost, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_are_taken_whole_and_lone_changes_at_once() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let due_after = |burst: &Burst| burst.due.unwrap() - start;
        let mut burst = Burst::default();
        burst.change(start);
        burst.change(start + ms(3));
        assert_eq!(due_after(&burst), FIRST, "the first change is not put off");
        burst.taken(start + ms(5), ms(40));
        burst.change(start + ms(50));
        assert_eq!(due_after(&burst), ms(150), "so soon after another, it waits for quiet");
        burst.change(start + ms(120));
        assert_eq!(due_after(&burst), ms(220));
        for at in (200..1200).step_by(80) {
            burst.change(start + ms(at));
        }
        assert_eq!(due_after(&burst), ms(50) + LONGEST, "but not for ever");
        burst.taken(start + ms(1050), ms(10));
        burst.change(start + ms(1060));
        assert_eq!(due_after(&burst), ms(1100), "what costs little is not put off for long");
        burst.taken(start + ms(1100), ms(10));
        burst.change(start + ms(1150));
        assert_eq!(due_after(&burst), ms(1150) + FIRST);
    }
}
