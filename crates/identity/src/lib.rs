//! SPIFFE ids, the CA, CSRs, tokens, trust bundles, TLS configuration and verification.
