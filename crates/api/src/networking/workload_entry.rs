//! WorkloadEntry: one endpoint that is not a pod. Reference: <https://istio.io/latest/docs/reference/config/networking/workload-entry/>.

use std::collections::BTreeMap;

use crate::message::message;

message! {
    /// One endpoint: an address, what listens there, and whose it is.
    pub struct WorkloadEntry {
        pub address: String,
        pub ports: BTreeMap<String, u32>,
        pub labels: BTreeMap<String, String>,
        pub network: String,
        pub locality: String,
        pub weight: u32,
        pub service_account: String,
    }
}
