//! The main thread's loop: updates in, snapshots and sockets out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use maille_identity::Workload;
use maille_xds::client::{Client, Connection, Update};
use maille_xds::{Resource, TypeUrl};
use tokio::sync::{mpsc, watch};

use super::admin::{self, Command, Process, Question, View};
use super::assembly::{Applied, Assembly};
use super::crew::Crew;
use super::dns::{Answer, Dns};
use super::ejections::Ejections;
use super::files::Files;
use super::kept::Kept;
use super::sockets::Sockets;
use super::{Drain, Ending, Status};
use crate::config::{Listener, Locality};
use crate::snapshot::Snapshot;
use crate::upstream::outlier::Verdict;
use crate::worker::{Draining, Message};

/// How often to see whether an address that somebody else had is free.
const FREE_YET: Duration = Duration::from_secs(1);

/// How often files with secrets are looked at.
const FILES_AGAIN: Duration = Duration::from_secs(1);

/// How the workload's own certificate comes.
pub(super) type WorkloadSource = watch::Receiver<Option<Arc<Workload>>>;

/// How the rest of the process reaches the main thread, and it them.
pub(super) struct Outside {
    pub(super) status: watch::Sender<Status>,
    pub(super) drain: watch::Receiver<Option<Drain>>,
    pub(super) questions: mpsc::Receiver<Question>,
    pub(super) process: Process,
    pub(super) ending: Ending,
    /// Where this proxy is, if it was told.
    pub(super) locality: Option<Locality>,
    pub(super) workload: Option<WorkloadSource>,
}

/// Follows the control plane until told to drain; ends when the workers have.
pub(super) async fn follow(
    mut client: Option<Client>,
    fixed: Vec<(TypeUrl, Vec<Resource>)>,
    mut crew: Crew,
    outside: Outside,
) {
    let Outside { status, mut drain, mut questions, process, ending, locality, mut workload } = outside;
    if let Some(client) = &client {
        client.subscribe_all(TypeUrl::Cluster);
        client.subscribe_all(TypeUrl::Listener);
    }
    let (_nobody, never) = mpsc::unbounded_channel();
    let mut fallen = crew.fallen().unwrap_or(never);
    let mut connection = client.as_ref().map(Client::connection);
    let (dns, mut answers) = Dns::new();
    let mut main = Main {
        assembly: Assembly::at(locality),
        sockets: Sockets::default(),
        dns,
        crew,
        status,
        served: Arc::default(),
        retired: Vec::new(),
        homeless: BTreeMap::new(),
        subscribed: Default::default(),
        files: Files::default(),
        seen: [false; 2],
        ejections: Ejections::new(process.registry.clone()),
        process,
        kept: Kept::default(),
        failing: false,
        leaving: None,
    };
    if let Some(workload) = &mut workload {
        let own = workload.borrow_and_update().clone();
        main.workload(own.as_deref());
    }
    for (type_url, resources) in fixed {
        for (_, reason) in main.apply(type_url, &resources, &[]).refused {
            tracing::warn!("refused: {} {reason}", type_url.noun());
        }
        main.publish();
    }
    let alarm = main.assembly.alarm();
    let (drained_in, mut drained) = mpsc::unbounded_channel();
    let mut undrained = main.crew.len();
    let mut free_yet = tokio::time::interval(FREE_YET);
    free_yet.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut files_again = tokio::time::interval(FILES_AGAIN);
    files_again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let check = main.assembly.next_check(Instant::now());
        tokio::select! {
            changed = drain.changed() => {
                let wanted = *drain.borrow_and_update();
                match (changed, wanted) {
                    (_, Some(Drain::All(ending))) => main.leave(ending),
                    (Ok(()), Some(Drain::Inbound)) => main.crew.drain_inbound(&drained_in),
                    (Ok(()), None) => {}
                    (Err(_), _) => main.leave(Ending::default()),
                }
            }
            update = next(&mut client) => match (update, &client) {
                (Some(update), Some(client)) => main.update(client, update),
                _ => break,
            },
            Some(()) = drained.recv() => {
                undrained = undrained.saturating_sub(1);
                if undrained == 0 {
                    main.status.send_modify(|status| status.inbound_drained = true);
                }
            }
            Some(answer) = answers.recv() => main.resolved(answer),
            Some(now) = changed(&mut connection) => main.connection(now),
            Some(question) = questions.recv() => match main.answer(question) {
                Some(Command::Quit) => main.leave(ending),
                Some(Command::DrainListeners { inbound_only: true, graceful: false }) => main.crew.drain_inbound(&drained_in),
                Some(command) => main.obey(command),
                None => {}
            },
            Some(number) = fallen.recv() => main.replace(number),
            () = until(main.leaving.map(|leaving| leaving.next)) => if main.has_left() { break },
            () = alarm.notified() => main.check(),
            () = until(check) => main.check(),
            _ = free_yet.tick(), if !main.homeless.is_empty() => main.house(client.as_ref()),
            _ = files_again.tick(), if !main.files.is_empty() => main.publish(),
            Some(own) = renewed(&mut workload) => main.workload(own.as_deref()),
        }
    }
    let limit = main.leaving.map(|leaving| leaving.ending.limit).unwrap_or_default();
    main.crew.drain(limit).await;
}

/// The next update; for ever in coming without a control plane.
async fn next(client: &mut Option<Client>) -> Option<Update> {
    match client {
        Some(client) => client.next().await,
        None => std::future::pending().await,
    }
}

async fn changed(connection: &mut Option<watch::Receiver<Connection>>) -> Option<Connection> {
    match connection {
        Some(connection) => connection.changed().await.ok().map(|()| connection.borrow_and_update().clone()),
        None => std::future::pending().await,
    }
}

async fn renewed(workload: &mut Option<WorkloadSource>) -> Option<Option<Arc<Workload>>> {
    if let Some(source) = workload
        && source.changed().await.is_ok()
    {
        return Some(source.borrow_and_update().clone());
    }
    // Whoever renewed it is gone: what is there stays.
    std::future::pending().await
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

struct Main {
    assembly: Assembly,
    sockets: Sockets,
    dns: Dns,
    crew: Crew,
    status: watch::Sender<Status>,
    /// What the workers have.
    served: Arc<Snapshot>,
    /// What they had, until none of them has it any more: freeing it is not for them to do.
    retired: Vec<Arc<Snapshot>>,
    /// Listeners that were refused because of their addresses.
    homeless: BTreeMap<Arc<str>, Listener>,
    /// Names of endpoints, of routes and of secrets that are subscribed to.
    subscribed: [BTreeSet<Arc<str>>; 3],
    files: Files,
    /// Whether clusters and listeners have come at all.
    seen: [bool; 2],
    process: Process,
    /// What was sent, for whoever asks.
    kept: Kept,
    /// Whether the operator wants us to be taken for unwell.
    failing: bool,
    leaving: Option<Leaving>,
    ejections: Ejections,
}

/// A proxy that is to end, and still accepts.
#[derive(Clone, Copy)]
struct Leaving {
    ending: Ending,
    /// When to see whether it may stop accepting.
    next: Instant,
}

/// How often to see whether the last client is gone.
const GONE_YET: Duration = Duration::from_millis(100);

impl Main {
    fn apply(&mut self, type_url: TypeUrl, added: &[Resource], removed: &[Arc<str>]) -> Applied {
        match type_url {
            TypeUrl::Cluster => self.seen[0] = true,
            TypeUrl::Listener => self.seen[1] = true,
            _ => {}
        }
        let Main { assembly, sockets, crew, homeless, .. } = self;
        let workers = crew.len();
        if type_url == TypeUrl::Listener {
            let said_anew = added.iter().map(|resource| &resource.name).chain(removed);
            said_anew.for_each(|name| drop(homeless.remove(name)));
        }
        let applied = assembly.apply(type_url, added, removed, |listener| {
            sockets.open(listener, workers).map_err(|error| {
                homeless.insert(listener.name.clone(), listener.clone());
                error.to_string()
            })
        });
        self.kept.update(type_url, added, removed, &applied.refused);
        self.dns.follow(self.assembly.to_resolve());
        applied
    }

    fn update(&mut self, client: &Client, update: Update) {
        let applied = self.apply(update.type_url, &update.added, &update.removed);
        self.assembly.look_for_secrets(Instant::now());
        self.subscribe(client);
        if applied.refused.is_empty() {
            client.ack(update.receipt);
        } else {
            let reasons: Vec<&str> = applied.refused.iter().map(|(_, reason)| reason.as_str()).collect();
            let reason = format!("{} {}", update.type_url.noun(), reasons.join("; "));
            tracing::warn!("refused: {reason}");
            client.nack(update.receipt, reason, applied.refused.into_iter().map(|(name, _)| name));
        }
        self.publish();
    }

    /// Asks for listeners once more whose addresses have become free.
    fn house(&mut self, client: Option<&Client>) {
        let Main { homeless, sockets, .. } = self;
        let housed: Vec<_> = homeless
            .iter()
            .filter(|(_, listener)| sockets.could_open(listener))
            .map(|(name, _)| name.clone())
            .collect();
        housed.iter().for_each(|name| drop(homeless.remove(name)));
        if let Some(client) = client.filter(|_| !housed.is_empty()) {
            client.subscribe(TypeUrl::Listener, housed);
        }
    }

    /// Takes the workload's own certificate.
    fn workload(&mut self, own: Option<&Workload>) {
        if let Err(error) = self.assembly.materials().put_workload(own) {
            tracing::error!("the workload's certificate cannot be used: {error}");
        }
        self.publish();
    }

    fn resolved(&mut self, (cluster, endpoints): Answer) {
        self.assembly.resolve(&cluster, endpoints);
        self.publish();
    }

    /// Takes hosts that fail out of use, and others back into it.
    fn check(&mut self) {
        let now = Instant::now();
        let late = self.assembly.materials().next_deadline().is_some_and(|deadline| deadline <= now);
        let verdicts = self.assembly.check(now, &mut || fastrand::u64(..));
        for (cluster, counts) in self.assembly.outlier_counts() {
            self.ejections.count(cluster, &counts);
        }
        for (cluster, verdict) in &verdicts {
            match verdict {
                Verdict::Ejected(host, reason) => tracing::info!(%cluster, %host, ?reason, "ejected"),
                Verdict::Released(host) => tracing::info!(%cluster, %host, "back in use after its ejection"),
            }
        }
        if late || !verdicts.is_empty() {
            self.publish();
        }
    }

    fn connection(&mut self, connection: Connection) {
        self.status.send_modify(|status| {
            status.connected = connection == Connection::Connected;
            status.connection_problem = match connection {
                Connection::Disconnected(reason) => Some(reason),
                _ => None,
            };
        });
    }

    /// Asks for what the clusters and listeners refer to, and no longer for what they do not.
    fn subscribe(&mut self, client: &Client) {
        let types = [TypeUrl::Endpoint, TypeUrl::Route, TypeUrl::Secret];
        for (type_url, subscribed) in types.into_iter().zip(&mut self.subscribed) {
            let wanted = self.assembly.wanted(type_url);
            let new: Vec<_> = wanted.difference(subscribed).cloned().collect();
            let old: Vec<_> = subscribed.difference(&wanted).cloned().collect();
            if !new.is_empty() {
                client.subscribe(type_url, new);
            }
            if !old.is_empty() {
                client.unsubscribe(type_url, old);
            }
            *subscribed = wanted;
        }
    }

    /// Hands the workers what has changed: tables before the sockets that need them.
    fn publish(&mut self) {
        self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
        self.assembly.look_for_secrets(Instant::now());
        self.files.refresh(self.assembly.materials());
        let snapshot = self.assembly.assemble();
        if !Arc::ptr_eq(&snapshot, &self.served) {
            for worker in 0..self.crew.len() {
                self.crew.serve(worker, snapshot.clone());
            }
            self.retired.push(std::mem::replace(&mut self.served, snapshot.clone()));
            for address in snapshot.bound.keys() {
                for (worker, socket) in self.sockets.hand_over(*address).into_iter().flatten().enumerate() {
                    self.crew.tell(worker, Message::Listen(*address, socket));
                }
            }
        }
        let assembly = &self.assembly;
        for address in self.sockets.keep(|address| assembly.wants_address(address)) {
            for worker in 0..self.crew.len() {
                self.crew.tell(worker, Message::Unlisten(address));
            }
        }
        let mut listening: Vec<_> = snapshot.bound.iter().map(|(a, listener)| (listener.name.clone(), *a)).collect();
        listening.sort();
        let ready = self.seen == [true; 2] && self.assembly.is_warm();
        self.status.send_modify(|status| {
            // Once ready, always ready: what is warming up later does not disturb what is served.
            status.ready |= ready;
            status.listening = listening;
            status.refused = assembly.refused().collect();
        });
    }

    /// Answers; says what is to be done.
    fn answer(&self, question: Question) -> Option<Command> {
        let status = self.status.borrow().clone();
        let view = View {
            process: &self.process,
            status: &status,
            assembly: &self.assembly,
            kept: &self.kept,
            served: &self.served,
            failing: self.failing,
            draining: self.leaving.is_some(),
        };
        let (answer, command) = admin::answer(&question, &view);
        let _ = question.answer.send(answer);
        command
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::FailHealthChecks(failing) => {
                self.failing = failing;
                self.dismiss(if failing { Draining::All } else { Draining::No });
            }
            Command::DrainListeners { inbound_only: true, .. } => self.dismiss(Draining::Inbound),
            Command::DrainListeners { graceful: true, .. } => self.dismiss(Draining::All),
            Command::DrainListeners { .. } => self.crew.tell_all(|| Message::StopAccepting),
            Command::Quit => {}
        }
    }

    /// Has clients told to go with their next response.
    fn dismiss(&self, who: Draining) {
        self.crew.tell_all(|| Message::Dismiss(who));
    }

    /// Begins to end: first clients are told to go, while others still may come.
    fn leave(&mut self, ending: Ending) {
        // Whoever says so again is in a hurry.
        let least = if self.leaving.is_some() { Duration::ZERO } else { ending.lame_duck.least };
        self.leaving = Some(Leaving { ending, next: Instant::now() + least });
        self.status.send_modify(|status| status.leaving = true);
        if !least.is_zero() || ending.lame_duck.until_idle {
            self.dismiss(Draining::All);
        }
    }

    /// Puts a worker in the place of one that has fallen over, with everything that it is to serve.
    fn replace(&mut self, number: usize) {
        if let Err(error) = self.crew.replace(number) {
            tracing::error!(worker = number, "nothing takes its place: {error}");
            return;
        }
        self.crew.serve(number, self.served.clone());
        for (address, listener) in &self.served.bound {
            match self.sockets.again(listener, *address, self.crew.len()) {
                Ok(socket) => self.crew.tell(number, Message::Listen(*address, socket)),
                Err(error) => tracing::error!(worker = number, %address, "cannot listen again: {error}"),
            }
        }
    }

    /// Whether nothing more is to be accepted; else looks again later.
    fn has_left(&mut self) -> bool {
        let Some(leaving) = &mut self.leaving else { return false };
        if leaving.ending.lame_duck.until_idle && self.process.overload.connections() > 0 {
            leaving.next = Instant::now() + GONE_YET;
            return false;
        }
        true
    }
}
