//! Resources by the names that proxies know them by, and where they are written.

use std::sync::Arc;

use maille_api::{Kind, Object, Source};
use maille_model::Proxy;

use super::walk::Mesh;

/// A resource and where it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) kind: &'static str,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Which of its rules.
    pub(crate) rule: Option<usize>,
    pub(crate) source: Option<String>,
}

impl Mesh {
    fn source(&self, kind: Kind, namespace: &str, name: &str) -> Option<String> {
        let is_it = |object: &&Arc<Object>| {
            object.spec.kind() == kind && object.meta.namespace == namespace && object.meta.name == name
        };
        self.objects.iter().find(is_it)?.source.as_ref().map(Source::to_string)
    }

    /// `/apis/networking.istio.io/v1/namespaces/NS/KIND/NAME`, as metadata names what it was made from.
    pub(super) fn named_by_path(&self, path: &str) -> Option<Named> {
        let parts: Vec<&str> = path.split('/').collect();
        let ["", "apis", _, _, "namespaces", namespace, kind, name] = parts[..] else { return None };
        let (kind, text) = match kind {
            "virtual-service" => (Kind::VirtualService, "VirtualService"),
            "gateway" => (Kind::Gateway, "Gateway"),
            "sidecar" => (Kind::Sidecar, "Sidecar"),
            _ => return None,
        };
        Some(self.named(kind, text, namespace, name))
    }

    /// `ns[NS]-policy[NAME]-rule[N]`, as Istio calls its policies.
    pub(super) fn named_by_policy(&self, policy: &str) -> Option<Named> {
        let rest = &policy[policy.find("ns[")? + 3..];
        let (namespace, rest) = rest.split_once("]-policy[")?;
        let (name, rest) = rest.split_once("]-rule[")?;
        let rule = rest.split(']').next()?.parse().ok();
        let named = self.named(Kind::AuthorizationPolicy, "AuthorizationPolicy", namespace, name);
        Some(Named { rule, ..named })
    }

    /// Why there is no policy to name: those that could have allowed it did not, or a token is wanted.
    pub(super) fn named_by_absence(&self, proxy: &Proxy, wants_token: bool) -> Option<Named> {
        if wants_token {
            let all = self.snapshot.request_authentications(proxy);
            let meta = &all.first()?.meta;
            return Some(self.named(Kind::RequestAuthentication, "RequestAuthentication", &meta.namespace, &meta.name));
        }
        let authorization = self.snapshot.authorization(proxy);
        let meta = &authorization.allow.first()?.meta;
        Some(self.named(Kind::AuthorizationPolicy, "AuthorizationPolicy", &meta.namespace, &meta.name))
    }

    pub(super) fn named(&self, kind: Kind, text: &'static str, namespace: &str, name: &str) -> Named {
        let source = self.source(kind, namespace, name);
        Named { kind: text, namespace: namespace.into(), name: name.into(), rule: None, source }
    }
}
