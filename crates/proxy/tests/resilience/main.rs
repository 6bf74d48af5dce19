//! A proxy with a fixed configuration in front of backends that are slow, broken or not there: what its limits and its
//! judgement of hosts come to, as clients see it.

mod limits;
mod mirrors;
mod outliers;
mod policies;
mod reroutes;
mod retries;
mod shown_bodies;
mod support;
