//! The control plane: store to snapshot to xDS, registration, debug endpoints.
