//! The mesh as one immutable, indexed Snapshot: services, workloads, gateways, visibility.
