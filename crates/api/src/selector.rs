//! How policies say whom they are for (`istio.type.v1beta1`).

use std::collections::BTreeMap;

use crate::message::message;

message! {
    /// Workloads that carry all of these labels.
    pub struct WorkloadSelector {
        pub match_labels: BTreeMap<String, String>,
    }
}

message! {
    /// A resource that a policy is for: a Gateway of the Gateway API, or what stands behind a waypoint.
    pub struct PolicyTargetReference {
        pub group: String,
        pub kind: String,
        pub name: String,
        pub namespace: String,
    }
}
