//! SPIFFE ids, the CA, CSRs, tokens, trust bundles, TLS configuration and verification.

pub mod spiffe;
pub mod verify;
pub mod workload;
pub mod x509;

pub use spiffe::{SpiffeId, TrustDomain};
pub use workload::Workload;
