//! What a workload shows and what it believes: its certificate, its key, the roots of its mesh.

use std::fmt;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A workload's certificate with its key, and the roots that it checks others against. Whoever serves SDS calls the first
/// two `default` and the last `ROOTCA`.
pub struct Workload {
    /// The leaf first, then the intermediates; not the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key. It was made on this machine and does not leave it.
    pub key: PrivateKeyDer<'static>,
    /// Every root that is believed.
    pub roots: Vec<CertificateDer<'static>>,
}

impl Clone for Workload {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key(), roots: self.roots.clone() }
    }
}

/// Says nothing of the key.
impl fmt::Debug for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workload")
            .field("chain", &self.chain.len())
            .field("roots", &self.roots.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printing_a_workload_tells_nothing_of_its_key() {
        let key = PrivateKeyDer::Pkcs8(b"a secret".to_vec().into());
        let workload = Workload { chain: vec![CertificateDer::from(vec![1])], key, roots: Vec::new() };
        let printed = format!("{workload:?} {:?}", workload.clone());
        assert_eq!(printed, "Workload { chain: 1, roots: 0, .. } Workload { chain: 1, roots: 0, .. }");
    }
}
