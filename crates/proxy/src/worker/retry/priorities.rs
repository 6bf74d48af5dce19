//! Retries that avoid the priorities that were tried: Envoy's `previous_priorities`.

use crate::upstream::{HostSet, Loads};

/// The priorities that a request was tried at.
#[derive(Debug)]
pub(crate) struct Priorities {
    /// After how many tries each time the loads are computed anew.
    frequency: usize,
    attempted: Vec<u32>,
    excluded: Vec<bool>,
    loads: Option<Loads>,
}

impl Priorities {
    pub(crate) fn new(frequency: u32) -> Priorities {
        Priorities { frequency: frequency.max(1) as usize, attempted: Vec::new(), excluded: Vec::new(), loads: None }
    }

    /// The request was tried at a host of this priority.
    pub(crate) fn tried(&mut self, priority: u32) {
        self.attempted.push(priority);
    }

    /// The loads for the next try; `None` is the cluster's own.
    pub(crate) fn loads(&mut self, set: &HostSet) -> Option<&Loads> {
        if self.attempted.len() < self.frequency {
            return None;
        }
        if self.attempted.len().is_multiple_of(self.frequency) {
            self.excluded.resize(self.excluded.len().max(set.priorities.len()), false);
            for priority in &self.attempted {
                if let Some(excluded) = self.excluded.get_mut(*priority as usize) {
                    *excluded = true;
                }
            }
            self.loads = set.loads.without(&self.excluded);
            if self.loads.is_none() {
                // None is left: begin anew rather than fail.
                self.excluded.fill(false);
                self.attempted.clear();
                self.loads = set.loads.without(&[]);
            }
        }
        self.loads.as_ref()
    }
}
