//! The workload selector that policies share (`istio.type.v1beta1`).

use std::collections::BTreeMap;

use crate::message::message;

message! {
    /// Workloads that carry all of these labels.
    pub struct WorkloadSelector {
        pub match_labels: BTreeMap<String, String>,
    }
}
