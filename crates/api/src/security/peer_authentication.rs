//! PeerAuthentication: whether workloads take plaintext, mTLS or both. Reference: <https://istio.io/latest/docs/reference/config/security/peer_authentication/>.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::message::{message, proto_enum};
use crate::selector::WorkloadSelector;

message! {
    /// What connections the sidecars of the mesh, of a namespace, or of some workloads take.
    pub struct PeerAuthentication {
        pub selector: Option<WorkloadSelector>,
        pub mtls: Option<MutualTls>,
        pub port_level_mtls: BTreeMap<WorkloadPort, MutualTls>,
    }
}

message! {
    /// Whether mutual TLS is asked for.
    pub struct MutualTls {
        pub mode: MutualTlsMode,
    }
}

proto_enum! {
    /// What connections are taken; `UNSET` leaves it to the wider policy.
    pub enum MutualTlsMode {
        Unset = 0 "UNSET",
        Disable = 1 "DISABLE",
        Permissive = 2 "PERMISSIVE",
        Strict = 3 "STRICT",
    }
}

/// A port of the workload itself, which is a map's key and so a string in JSON.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct WorkloadPort(pub u32);

impl fmt::Display for WorkloadPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for WorkloadPort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = WorkloadPort;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port number")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<WorkloadPort, E> {
                let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                let number = if plain { text.parse().ok() } else { None };
                number.map(WorkloadPort).ok_or_else(|| E::custom(format!("`{text}` is not a port number")))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl Serialize for WorkloadPort {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
