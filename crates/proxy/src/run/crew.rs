//! The workers' threads. One that falls over is replaced: what it was serving is lost, and nothing else.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;

use super::newest::Newest;
use crate::snapshot::Snapshot;
use crate::worker::{self, Message, Outcome, Shared};

/// The workers.
pub(crate) struct Crew {
    mailboxes: Vec<mpsc::UnboundedSender<Message>>,
    /// What each is to serve next.
    newest: Vec<Newest>,
    threads: Vec<JoinHandle<()>>,
    shared: Shared,
    /// Which processor each stays on.
    cpus: Vec<Option<usize>>,
    fallen_in: mpsc::UnboundedSender<usize>,
    fallen: Option<mpsc::UnboundedReceiver<usize>>,
}

impl Crew {
    /// Starts one for each entry, which says on which processor it stays.
    pub(crate) fn start(cpus: Vec<Option<usize>>, shared: Shared) -> io::Result<Crew> {
        let (fallen_in, fallen) = mpsc::unbounded_channel();
        let (mailboxes, newest, threads) = (Vec::new(), Vec::new(), Vec::new());
        let mut crew = Crew { mailboxes, newest, threads, shared, cpus, fallen_in, fallen: Some(fallen) };
        for number in 0..crew.cpus.len() {
            let (mailbox, thread) = crew.spawn(number)?;
            crew.mailboxes.push(mailbox);
            crew.newest.push(Newest::default());
            crew.threads.push(thread);
        }
        Ok(crew)
    }

    fn spawn(&self, number: usize) -> io::Result<(mpsc::UnboundedSender<Message>, JoinHandle<()>)> {
        let (mailbox, messages) = mpsc::unbounded_channel();
        let (cpu, shared, fallen) = (self.cpus[number], self.shared.clone(), self.fallen_in.clone());
        let thread = std::thread::Builder::new().name(format!("proxy-{number}")).spawn(move || {
            if let Some(cpu) = cpu
                && let Err(error) = maille_net::pin_to(cpu)
            {
                tracing::warn!(worker = number, cpu, "cannot stay on a processor: {error}");
            }
            let overload = shared.overload.clone();
            match worker::run(messages, shared) {
                Ok(Outcome::Ended) => {}
                Ok(Outcome::Fell) => {
                    tracing::error!(worker = number, "has fallen over, with its connections; another takes its place");
                    overload.worker_fell();
                    let _ = fallen.send(number);
                }
                Err(error) => tracing::error!(worker = number, "cannot start: {error}"),
            }
        })?;
        Ok((mailbox, thread))
    }

    /// Says which workers fall over.
    pub(crate) fn fallen(&mut self) -> Option<mpsc::UnboundedReceiver<usize>> {
        self.fallen.take()
    }

    /// Puts another in the place of one that has fallen over.
    pub(crate) fn replace(&mut self, number: usize) -> io::Result<()> {
        let (mailbox, thread) = self.spawn(number)?;
        self.mailboxes[number] = mailbox;
        self.newest[number] = Newest::default();
        self.threads[number] = thread;
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.mailboxes.len()
    }

    /// Has a worker serve this from now on.
    pub(crate) fn serve(&self, worker: usize, snapshot: Arc<Snapshot>) {
        let newest = &self.newest[worker];
        if newest.put(snapshot) {
            self.tell(worker, Message::Snapshot(newest.clone()));
        }
    }

    /// Tells one worker.
    pub(crate) fn tell(&self, worker: usize, message: Message) {
        // A worker that is gone has said why when it went.
        let _ = self.mailboxes[worker].send(message);
    }

    /// Tells all workers.
    pub(crate) fn tell_all(&self, message: impl Fn() -> Message) {
        for mailbox in &self.mailboxes {
            let _ = mailbox.send(message());
        }
    }

    /// Drains what comes in; each worker says when it has.
    pub(crate) fn drain_inbound(&self, done: &mpsc::UnboundedSender<()>) {
        self.tell_all(|| Message::DrainInbound(done.clone()));
    }

    /// Drains all workers; returns when they have ended.
    pub(crate) async fn drain(self, limit: Duration) {
        self.tell_all(|| Message::Drain(limit));
        let threads = self.threads;
        let _ = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|t| drop(t.join()))).await;
    }

    /// Where the workers listen for messages, for tests that want to see one fall.
    pub(crate) fn mailboxes(&self) -> Arc<[mpsc::UnboundedSender<Message>]> {
        self.mailboxes.clone().into()
    }
}
