//! What runs beside a workload: registration, sidecar, the app's process.
