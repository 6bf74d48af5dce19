//! Metric cells, access logs, and their export.
