//! The ADS server's side of one stream: who asked for what, what was sent, what was accepted, what goes next.
//!
//! [`DeltaSession`] and [`SotwSession`] do no I/O and read no clock. Give them requests and worlds, and send what
//! `poll` yields, in its order. They keep these promises:
//!
//! - Only what changed is sent, by resource version; a name newly subscribed to is answered even if unchanged.
//! - One response per type is outstanding; the next waits for its ACK or NACK and carries the newest world.
//! - Make before break: additions go clusters, endpoints, listeners, routes. Listeners wait until the clusters are
//!   accepted and have their endpoints, routes wait for listeners as well; a cluster is removed only when every
//!   listener and route of the new world has been accepted.
//! - A cluster that changed gets its endpoints again, because Envoy waits for them.
//! - A refusal is remembered by resource. What was refused is not sent again until it changes.

mod delta;
mod engine;
mod needs;
mod sotw;
mod watch;

use std::sync::Arc;

use crate::TypeUrl;

pub use delta::DeltaSession;
pub use sotw::SotwSession;

/// What a request turned out to be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Received {
    /// A change of what is subscribed to, and no answer.
    Subscription(TypeUrl),
    /// The outstanding response of this type was accepted.
    Ack(TypeUrl),
    /// The outstanding response of this type was refused, with what the refusal is about.
    Nack(TypeUrl, Vec<Refusal>),
    /// An answer to a response that is not the outstanding one.
    Stale(TypeUrl),
    /// A type that this server does not know; there will be no answer.
    UnknownType(String),
}

/// One resource, or one response whose culprit the client did not name, that the client would not take.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// The resource's type.
    pub type_url: TypeUrl,
    /// The resource's name; `None` when the client refused a response without resources.
    pub name: Option<Arc<str>>,
    /// The version that was refused.
    pub version: Arc<str>,
    /// What the client said.
    pub reason: Arc<str>,
}

/// Where one type stands on a stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TypeStatus {
    /// The type.
    pub type_url: TypeUrl,
    /// Whether everything was sent and answered.
    pub sync: Sync,
    /// How many resources the client holds, as far as it said.
    pub resources: usize,
    /// The version of the last response that was accepted.
    pub acked: Option<Arc<str>>,
    /// What the client refuses at this moment.
    pub refused: Vec<Refusal>,
}

/// How far a type is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sync {
    /// Everything was sent and answered.
    Synced,
    /// A response is on its way and not answered yet.
    Sent,
    /// There is something to send that waits for its turn.
    Pending,
}

/// The client asks for more than a server can keep for one stream.
#[derive(Debug, thiserror::Error)]
#[error("{}: more than {limit} names on one stream", .type_url.short())]
pub struct TooManyNames {
    /// The type whose subscription is too large.
    pub type_url: TypeUrl,
    /// How many names one stream may subscribe to.
    pub limit: usize,
}

#[cfg(test)]
mod tests;
