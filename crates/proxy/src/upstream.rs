//! Clusters at work: their hosts as shared by all workers, and each worker's pools of connections to them.

mod cluster;
mod connect;
mod eyeballs;
mod hosts;
mod limits;
mod multiplex;
pub(crate) mod outlier;
mod pool;
mod waiting;

pub(crate) use cluster::{Entry, WorkerCluster, WorkerHost};
pub(crate) use connect::{ConnectError, Purpose, connect};
pub(crate) use hosts::{Able, Loads, Local, LocalityHosts, Zones};
pub use hosts::{ClusterEntry, Host, HostSet, PriorityHosts};
pub use limits::Load;
pub(crate) use limits::{Breakers, Permit};
pub(crate) use multiplex::{Capacity, Carrier, Multiplexed, Ride};
pub(crate) use pool::{Counted, Idle, Pool};
pub(crate) use waiting::Turn;

#[cfg(test)]
pub(crate) use hosts::tests;
