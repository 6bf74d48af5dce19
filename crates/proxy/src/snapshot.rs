//! What workers serve at one moment: listeners, clusters with their hosts, route tables.

use std::net::SocketAddr;
use std::sync::Arc;

use ahash::AHashMap;

use crate::config::{Listener, RouteTable};
use crate::tls::Servers;
use crate::upstream::ClusterEntry;

/// What workers serve at one moment. The main thread makes a new one for each change; they share what has not changed.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Listeners by name.
    pub listeners: AHashMap<Arc<str>, Arc<Listener>>,
    /// Listeners by the addresses that they accept connections on.
    pub bound: AHashMap<SocketAddr, Arc<Listener>>,
    /// Clusters by name.
    pub clusters: AHashMap<Arc<str>, Arc<ClusterEntry>>,
    /// Discovered route tables by name.
    pub routes: AHashMap<Arc<str>, Arc<RouteTable>>,
    /// TLS towards clients, ready with its secrets.
    pub(crate) servers: Servers,
}
