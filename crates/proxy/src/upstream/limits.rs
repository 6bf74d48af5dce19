//! Circuit breakers: how much may be going on in a cluster at a time, counted over all workers.

mod window;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::config::{Limits, RetryBudget};
use window::Window;

/// What is going on at a host or in a cluster, counted over all workers. Survives updates of either.
///
/// A cluster's requests and retries are only counted where something depends on their number: the counter would be one
/// cache line that all workers write to for each request.
#[derive(Debug, Default)]
pub struct Load {
    /// Requests at work.
    pub requests: AtomicU32,
    /// Connections open.
    pub connections: AtomicU32,
    /// Requests that wait for a connection, or for one to be made.
    pub pending: AtomicU32,
    /// Retries at work.
    pub retries: AtomicU32,
    /// Hosts that a worker has connections to, for each worker.
    pub pools: AtomicU32,
    /// Requests that began a short while ago.
    begun: OnceLock<Box<Window>>,
}

impl Load {
    /// Requests at work.
    #[inline]
    pub(crate) fn active(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// A cluster's limits at one priority, and what counts against them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Breakers<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) load: &'a Arc<Load>,
}

/// One of something of which there is only so much, given back when dropped.
#[must_use]
#[derive(Debug)]
pub(crate) struct Permit<'a>(Option<&'a AtomicU32>);

impl<'a> Breakers<'a> {
    /// For a request that has a connection; `None` when the cluster has as many as it may.
    #[inline]
    pub(crate) fn request(self) -> Option<Permit<'a>> {
        let Breakers { limits, load } = self;
        match limits.retry_budget {
            None if limits.max_requests == u32::MAX => return Some(Permit(None)),
            Some(RetryBudget { interval: Some(interval), .. }) => {
                load.begun.get_or_init(|| Box::new(Window::new(interval))).count(Instant::now());
            }
            _ => {}
        }
        Permit::take(&load.requests, limits.max_requests)
    }

    /// For a request that has no connection yet.
    pub(crate) fn pending(self) -> Option<Permit<'a>> {
        Permit::take(&self.load.pending, self.limits.max_pending_requests)
    }

    /// Whether a worker may have connections to one more host.
    pub(crate) fn pool_is_free(self) -> bool {
        let most = self.limits.max_connection_pools;
        most == u32::MAX || self.load.pools.load(Ordering::Relaxed) < most
    }

    /// For a retry, from the decision for it to its outcome.
    pub(crate) fn retry(self) -> Option<Permit<'a>> {
        let Breakers { limits, load } = self;
        let most = match limits.retry_budget {
            // A share of what is going on right now; a few are allowed however little that is.
            Some(RetryBudget { percent, least, interval }) => {
                let requests = match (interval, load.begun.get()) {
                    (None, _) => f64::from(load.active()) + f64::from(load.pending.load(Ordering::Relaxed)),
                    (Some(_), begun) => begun.map_or(0.0, |begun| f64::from(begun.sum(Instant::now()))),
                };
                ((percent / 100.0 * requests) as u32).max(least)
            }
            None if limits.max_retries == u32::MAX => return Some(Permit(None)),
            None => limits.max_retries,
        };
        Permit::take(&load.retries, most)
    }
}

impl<'a> Permit<'a> {
    /// One of `limit`, all of which are counted by `counter`.
    pub(crate) fn take(counter: &'a AtomicU32, limit: u32) -> Option<Permit<'a>> {
        take(counter, limit).then(|| Permit(Some(counter)))
    }

    /// One that only is to be counted.
    #[inline]
    pub(crate) fn count(counter: &'a AtomicU32) -> Permit<'a> {
        counter.fetch_add(1, Ordering::Relaxed);
        Permit(Some(counter))
    }
}

impl Drop for Permit<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(counter) = self.0 {
            give(counter);
        }
    }
}

/// Adds one unless there are as many as may be.
pub(crate) fn take(counter: &AtomicU32, limit: u32) -> bool {
    if limit == u32::MAX {
        counter.fetch_add(1, Ordering::Relaxed);
        return true;
    }
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < limit).then(|| n + 1)).is_ok()
}

/// Takes one away.
#[inline]
pub(crate) fn give(counter: &AtomicU32) {
    counter.fetch_sub(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
