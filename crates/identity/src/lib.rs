//! SPIFFE ids, the CA, CSRs, tokens, trust bundles, TLS configuration and verification.

pub mod ca;
pub mod csr;
mod ocsp;
pub mod pem;
pub mod rotation;
pub mod spiffe;
pub mod token;
pub mod verify;
pub mod workload;
pub mod x509;

pub use spiffe::{SpiffeId, TrustDomain};
pub use workload::Workload;
