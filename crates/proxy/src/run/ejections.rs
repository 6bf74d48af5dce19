//! Counts what is decided about hosts that fail, under Envoy's names.

use std::collections::BTreeMap;
use std::sync::Arc;

use maille_telemetry::metrics::{ClusterMetrics, Counter, Registry};

use crate::upstream::outlier::Counts;

/// The metrics of the clusters about whose hosts something has been decided.
pub(super) struct Ejections {
    registry: Registry,
    clusters: BTreeMap<Arc<str>, ClusterMetrics>,
}

impl Ejections {
    pub(super) fn new(registry: Registry) -> Ejections {
        Ejections { registry, clusters: BTreeMap::new() }
    }

    pub(super) fn count(&mut self, cluster: &Arc<str>, counts: &Counts) {
        let Counts { detected, enforced, overflow } = counts;
        if detected.iter().chain(enforced).all(|n| *n == 0) && *overflow == 0 {
            return;
        }
        let make = || ClusterMetrics::new(&self.registry, cluster);
        let metrics = self.clusters.entry(cluster.clone()).or_insert_with(make);
        // In the order of the reasons.
        type Cell = fn(&ClusterMetrics) -> &Counter;
        const CELLS: [(Cell, Cell); 7] = [
            (ClusterMetrics::ejections_detected_consecutive_5xx, ClusterMetrics::ejections_enforced_consecutive_5xx),
            (
                ClusterMetrics::ejections_detected_consecutive_gateway_failure,
                ClusterMetrics::ejections_enforced_consecutive_gateway_failure,
            ),
            (
                ClusterMetrics::ejections_detected_consecutive_local_origin_failure,
                ClusterMetrics::ejections_enforced_consecutive_local_origin_failure,
            ),
            (ClusterMetrics::ejections_detected_success_rate, ClusterMetrics::ejections_enforced_success_rate),
            (
                ClusterMetrics::ejections_detected_local_origin_success_rate,
                ClusterMetrics::ejections_enforced_local_origin_success_rate,
            ),
            (
                ClusterMetrics::ejections_detected_failure_percentage,
                ClusterMetrics::ejections_enforced_failure_percentage,
            ),
            (
                ClusterMetrics::ejections_detected_local_origin_failure_percentage,
                ClusterMetrics::ejections_enforced_local_origin_failure_percentage,
            ),
        ];
        for ((seen, done), (detected, enforced)) in detected.iter().zip(enforced).zip(CELLS) {
            if *seen > 0 {
                detected(metrics).add(u64::from(*seen));
            }
            if *done > 0 {
                enforced(metrics).add(u64::from(*done));
                metrics.ejections_enforced_total().add(u64::from(*done));
            }
        }
        if *overflow > 0 {
            metrics.ejections_overflow().add(u64::from(*overflow));
        }
    }
}
