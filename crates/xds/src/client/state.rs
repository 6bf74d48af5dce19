//! What a delta ADS client subscribes to, holds and must say next; no I/O.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::Update;
use crate::types::Status;
use crate::types::core::Node;
use crate::types::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use crate::{Resource, TypeUrl};

/// Envoy's NACKs carry gRPC's `INTERNAL`; servers look at the message only.
const INTERNAL: i32 = 13;

/// Some servers pass reasons on in gRPC headers, whose size is limited; Envoy cuts at the same length.
const MAX_REASON: usize = 4096;

/// The pure state machine of a delta ADS client.
///
/// Feed it responses, answers and changes of interest; pull [`Self::next_request`] until it has nothing more to say.
pub struct DeltaClient {
    node: Node,
    stream: u64,
    open: bool,
    node_sent: bool,
    watches: BTreeMap<TypeUrl, Watch>,
}

/// Proof of one update; given back to accept or refuse it.
#[derive(Debug)]
pub struct Receipt {
    type_url: TypeUrl,
    stream: u64,
    nonce: String,
    added: Vec<(Arc<str>, Arc<str>)>,
    removed: Vec<Arc<str>>,
}

#[derive(Default)]
struct Watch {
    wildcard: bool,
    names: BTreeSet<Arc<str>>,
    held: BTreeMap<Arc<str>, Arc<str>>,
    started: bool,
    subscribe: BTreeSet<Arc<str>>,
    unsubscribe: BTreeSet<Arc<str>>,
    replies: VecDeque<Reply>,
}

/// What a response says that is meant for us.
struct Content {
    nonce: String,
    added: Vec<Resource>,
    removed: Vec<Arc<str>>,
}

struct Reply {
    nonce: String,
    refusal: Option<String>,
}

impl DeltaClient {
    /// A client that has no stream and is interested in nothing yet.
    pub fn new(node: Node) -> Self {
        Self { node, stream: 0, open: false, node_sent: false, watches: BTreeMap::new() }
    }

    /// A stream was opened: everything subscribed to is asked for again, naming the versions held.
    pub fn on_open(&mut self) {
        self.stream += 1;
        self.open = true;
        self.node_sent = false;
        for watch in self.watches.values_mut() {
            watch.started = false;
            watch.replies.clear();
        }
    }

    /// The stream ended. What is held stays held.
    pub fn on_close(&mut self) {
        self.open = false;
    }

    /// Subscribes to all resources of a type.
    pub fn subscribe_all(&mut self, type_url: TypeUrl) {
        let watch = self.watches.entry(type_url).or_default();
        if !watch.wildcard {
            watch.wildcard = true;
            watch.subscribe.insert("*".into());
        }
    }

    /// Adds names to a subscription. A name that is subscribed to already is asked for again.
    pub fn subscribe(&mut self, type_url: TypeUrl, names: impl IntoIterator<Item = Arc<str>>) {
        let watch = self.watches.entry(type_url).or_default();
        for name in names {
            watch.unsubscribe.remove(&name);
            watch.subscribe.insert(name.clone());
            watch.names.insert(name);
        }
    }

    /// Takes names out of a subscription.
    pub fn unsubscribe(&mut self, type_url: TypeUrl, names: impl IntoIterator<Item = Arc<str>>) {
        let Some(watch) = self.watches.get_mut(&type_url) else { return };
        for name in names {
            if watch.names.remove(&name) {
                watch.held.remove(&name);
                watch.subscribe.remove(&name);
                watch.unsubscribe.insert(name);
            }
        }
    }

    /// The names subscribed to, a wildcard aside.
    pub fn names(&self, type_url: TypeUrl) -> Option<&BTreeSet<Arc<str>>> {
        self.watches.get(&type_url).map(|watch| &watch.names)
    }

    /// A response came. A malformed one is refused here, and one of a type never asked for is dropped; neither
    /// yields an update.
    pub fn on_response(&mut self, response: DeltaDiscoveryResponse) -> Option<Update> {
        let type_url = TypeUrl::parse(&response.type_url)?;
        let stream = self.stream;
        let watch = self.watches.get_mut(&type_url)?;
        match watch.read(type_url, response) {
            Ok(Content { nonce, added, removed }) => {
                let receipt = Receipt {
                    type_url,
                    stream,
                    nonce,
                    added: added.iter().map(|resource| (resource.name.clone(), resource.version.clone())).collect(),
                    removed: removed.clone(),
                };
                Some(Update { type_url, added, removed, receipt })
            }
            Err(reply) => {
                watch.replies.push_back(reply);
                None
            }
        }
    }

    /// The update was taken.
    pub fn ack(&mut self, receipt: Receipt) {
        self.answer(receipt, None, &[]);
    }

    /// The update was refused, or those of its resources that are named.
    pub fn nack(&mut self, receipt: Receipt, reason: String, refused: &[Arc<str>]) {
        self.answer(receipt, Some(reason), refused);
    }

    /// The next request to send on the open stream, if there is something to say.
    pub fn next_request(&mut self) -> Option<DeltaDiscoveryRequest> {
        if !self.open {
            return None;
        }
        let (type_url, watch) = self.watches.iter_mut().find(|(_, watch)| watch.has_something_to_say())?;
        let mut request = watch.request();
        request.type_url = type_url.as_str().into();
        if !std::mem::replace(&mut self.node_sent, true) {
            request.node = Some(self.node.clone());
        }
        Some(request)
    }

    /// Whether [`Self::next_request`] would yield one.
    pub fn has_request(&self) -> bool {
        self.open && self.watches.values().any(Watch::has_something_to_say)
    }

    fn answer(&mut self, receipt: Receipt, refusal: Option<String>, refused: &[Arc<str>]) {
        let Some(watch) = self.watches.get_mut(&receipt.type_url) else { return };
        let nothing_taken = refusal.is_some() && refused.is_empty();
        if !nothing_taken {
            for name in &receipt.removed {
                watch.held.remove(name);
            }
            for (name, version) in receipt.added {
                if watch.wants(&name) && !refused.contains(&name) {
                    watch.held.insert(name, version);
                }
            }
        }
        // A nonce means nothing to another stream than its own.
        if receipt.stream == self.stream && self.open {
            watch.replies.push_back(Reply { nonce: receipt.nonce, refusal });
        }
    }
}

impl Watch {
    fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    fn has_something_to_say(&self) -> bool {
        if self.started {
            !(self.subscribe.is_empty() && self.unsubscribe.is_empty() && self.replies.is_empty())
        } else {
            self.wildcard || !self.names.is_empty()
        }
    }

    fn request(&mut self) -> DeltaDiscoveryRequest {
        let mut request = DeltaDiscoveryRequest::default();
        let strings = |names: &BTreeSet<Arc<str>>| names.iter().map(|name| name.to_string()).collect();
        if self.started {
            request.resource_names_subscribe = strings(&self.subscribe);
            request.resource_names_unsubscribe = strings(&self.unsubscribe);
            if let Some(reply) = self.replies.pop_front() {
                request.response_nonce = reply.nonce;
                request.error_detail = reply.refusal.map(|reason| Status {
                    code: INTERNAL,
                    message: truncated(reason),
                    ..Default::default()
                });
            }
        } else {
            self.started = true;
            request.resource_names_subscribe = strings(&self.names);
            // Without names an empty first request is a wildcard for every server, those that predate `*` included.
            if self.wildcard && !self.names.is_empty() {
                request.resource_names_subscribe.push("*".into());
            }
            request.initial_resource_versions =
                self.held.iter().map(|(name, version)| (name.to_string(), version.to_string())).collect();
        }
        self.subscribe.clear();
        self.unsubscribe.clear();
        request
    }

    /// Takes a response apart, or says why it makes no sense.
    fn read(&self, type_url: TypeUrl, response: DeltaDiscoveryResponse) -> Result<Content, Reply> {
        let nonce = response.nonce;
        let mut seen = HashSet::new();
        let mut added = Vec::with_capacity(response.resources.len());
        let refuse = |nonce: &str, reason: String| Reply { nonce: nonce.into(), refusal: Some(reason) };
        for resource in response.resources {
            let name: Arc<str> = resource.name.into();
            if !seen.insert(name.clone()) {
                return Err(refuse(&nonce, format!("{} {name:?} is in one response twice", type_url.noun())));
            }
            // Without a body it is a heartbeat or an alias: nothing changed.
            let Some(any) = resource.resource else { continue };
            if any.type_url != type_url.as_str() {
                let reason = format!(
                    "{} {name:?} holds a {:?} in a response of {:?}",
                    type_url.noun(),
                    any.type_url,
                    type_url.as_str()
                );
                return Err(refuse(&nonce, reason));
            }
            if self.wants(&name) {
                added.push(Resource { name, version: resource.version.into(), body: Bytes::from(any.value) });
            }
        }
        let mut removed = Vec::with_capacity(response.removed_resources.len());
        for name in response.removed_resources {
            let name: Arc<str> = name.into();
            if !seen.insert(name.clone()) {
                let reason = format!("{} {name:?} is both added and removed, or removed twice", type_url.noun());
                return Err(refuse(&nonce, reason));
            }
            removed.push(name);
        }
        Ok(Content { nonce, added, removed })
    }
}

fn truncated(mut reason: String) -> String {
    if reason.len() > MAX_REASON {
        let cut = (0..=MAX_REASON).rev().find(|&at| reason.is_char_boundary(at)).unwrap_or(0);
        reason.truncate(cut);
        reason.push('…');
    }
    reason
}

#[cfg(test)]
mod tests;
