//! Whether a connection that is carried may stay: it outlives the listener that let it in, and is judged again by each one that takes
//! that one's place.

use std::sync::Arc;
use std::task::{Context, Poll};

use crate::config::{FilterChain, Listener};
use crate::worker::connection::ConnectionInfo;
use crate::worker::registry::Slot;
use crate::worker::{SILENT_SECONDS, Worker, gate};

/// A connection among the others of its worker.
pub(super) struct Standing<'a> {
    pub(super) worker: &'a Worker,
    pub(super) info: &'a ConnectionInfo,
    pub(super) slot: &'a Slot,
}

impl Standing<'_> {
    /// Ready when it is to end, with the reason. Else the task is woken when there is something new to judge by.
    ///
    /// A policy that refuses it ends it at once. One that lets it be changes nothing, unlike in Envoy; where anything else has
    /// changed it has as long as Envoy gives it.
    pub(super) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<String> {
        if self.slot.poll_closing(cx) {
            return Poll::Ready("filter_chain_drained".to_owned());
        }
        if !self.slot.is_outdated() {
            return Poll::Pending;
        }
        let snapshot = self.worker.snapshot();
        let listener = snapshot.listeners.get(&self.info.listener.name);
        self.slot.follow(listener);
        let chain = listener.and_then(|listener| self.chain(listener));
        if let Some(chain) = chain
            && let Err(refusal) = gate::admits(self.info, chain)
        {
            tracing::debug!(remote = %self.info.remote, details = refusal.details, "a policy ends the connection");
            return Poll::Ready(refusal.details);
        }
        if chain.is_none_or(|chain| chain.fingerprint != self.info.chain.fingerprint) {
            self.slot.ends_by(self.worker.clock.seconds().saturating_add(SILENT_SECONDS));
        }
        Poll::Pending
    }

    /// What would take it in if it came now.
    fn chain<'a>(&self, listener: &'a Listener) -> Option<&'a Arc<FilterChain>> {
        let offered: Vec<&str> = self.info.application_protocols.iter().map(|name| &**name).collect();
        listener.chain(&self.info.as_seen(&offered))
    }
}
