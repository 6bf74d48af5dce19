//! Host names as Istio compares them: exact, or a wildcard that is a leading `*` and a suffix.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Whether the name begins with `*`.
pub fn is_wildcard(host: &str) -> bool {
    host.starts_with('*')
}

/// Whether two hosts overlap: either may be the wildcard.
pub fn matches(a: &str, b: &str) -> bool {
    match (a.strip_prefix('*'), b.strip_prefix('*')) {
        (Some(a), Some(b)) => a.ends_with(b) || b.ends_with(a),
        (Some(suffix), None) => b.ends_with(suffix),
        (None, Some(suffix)) => a.ends_with(suffix),
        (None, None) => a == b,
    }
}

/// Whether every name covered by `host` is covered by `other`.
pub fn subset_of(host: &str, other: &str) -> bool {
    match (host.strip_prefix('*'), other.strip_prefix('*')) {
        (Some(host), Some(other)) => host.ends_with(other),
        (Some(_), None) => false,
        (None, Some(suffix)) => host.ends_with(suffix),
        (None, None) => host == other,
    }
}

/// Whether `a` should be preferred over `b`: exact before wildcard, longer before shorter, then by name.
pub fn more_specific(a: &str, b: &str) -> bool {
    if is_wildcard(a) != is_wildcard(b) {
        return !is_wildcard(a);
    }
    (b.len(), a) < (a.len(), b)
}

/// The host of a resource in `namespace`, with a short name made a full one. A name with a dot, an address and `*` stay.
pub fn resolve_short_name(host: &str, namespace: &str, domain: &str) -> String {
    if host.is_empty() || host == "*" || host.contains('.') || host.parse::<IpAddr>().is_ok() {
        return host.to_owned();
    }
    let mut full = host.to_owned();
    for part in [namespace, if domain.is_empty() { "" } else { "svc" }, domain] {
        if !part.is_empty() {
            full.push('.');
            full.push_str(part);
        }
    }
    full
}

/// Values by host, asked for the most specific host that covers a name.
#[derive(Clone, Debug)]
pub struct HostMap<V> {
    exact: BTreeMap<String, V>,
    wildcard: BTreeMap<String, V>,
}

impl<V> HostMap<V> {
    /// The value of exactly this host.
    pub fn get(&self, host: &str) -> Option<&V> {
        if is_wildcard(host) { self.wildcard.get(host) } else { self.exact.get(host) }
    }

    /// The value of exactly this host, made if absent.
    pub fn entry(&mut self, host: &str) -> std::collections::btree_map::Entry<'_, String, V> {
        let map = if is_wildcard(host) { &mut self.wildcard } else { &mut self.exact };
        map.entry(host.to_owned())
    }

    /// The value of the most specific host that covers `host`, which may be a wildcard itself.
    pub fn most_specific(&self, host: &str) -> Option<(&str, &V)> {
        if let Some((key, value)) =
            if is_wildcard(host) { self.wildcard.get_key_value(host) } else { self.exact.get_key_value(host) }
        {
            return Some((key, value));
        }
        // Every suffix that could be a key, longest first: cost follows the name's length, not the number of wildcards.
        let name = host.strip_prefix('*').unwrap_or(host);
        let mut key = String::with_capacity(name.len() + 1);
        if self.wildcard.is_empty() {
            return None;
        }
        for (start, _) in name.char_indices() {
            key.clear();
            key.push('*');
            key.push_str(&name[start..]);
            if let Some((key, value)) = self.wildcard.get_key_value(&key) {
                return Some((key, value));
            }
        }
        self.wildcard.get_key_value("*").map(|(key, value)| (key.as_str(), value))
    }

    /// Every host and its value, exact hosts first.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &V)> {
        self.exact.iter().chain(&self.wildcard)
    }
}

impl<V> Default for HostMap<V> {
    fn default() -> Self {
        HostMap { exact: BTreeMap::new(), wildcard: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_overlap_and_nest() {
        for (a, b, overlap, subset) in [
            ("a.com", "a.com", true, true),
            ("a.com", "b.com", false, false),
            ("a.com", "*.com", true, true),
            ("com", "*.com", false, false),
            ("*.com", "a.com", true, false),
            ("*.a.com", "*.com", true, true),
            ("*.com", "*.a.com", true, false),
            ("*", "*.com", true, false),
            ("*.com", "*", true, true),
            ("x", "*", true, true),
        ] {
            assert_eq!((matches(a, b), subset_of(a, b)), (overlap, subset), "{a} {b}");
        }
    }

    #[test]
    fn short_names_become_full() {
        for (host, domain, full) in [
            ("reviews", "cluster.local", "reviews.shop.svc.cluster.local"),
            ("reviews.prod", "cluster.local", "reviews.prod"),
            ("*", "cluster.local", "*"),
            ("*.com", "cluster.local", "*.com"),
            ("10.0.0.1", "cluster.local", "10.0.0.1"),
            ("::1", "cluster.local", "::1"),
            ("reviews", "", "reviews.shop"),
        ] {
            assert_eq!(resolve_short_name(host, "shop", domain), full);
        }
    }

    #[test]
    fn the_longest_wildcard_wins() {
        let mut map = HostMap::default();
        for host in ["*", "*.com", "*.b.com", "a.b.com"] {
            map.entry(host).or_insert(host);
        }
        for (name, found) in [
            ("a.b.com", "a.b.com"),
            ("x.b.com", "*.b.com"),
            ("b.com", "*.com"),
            ("*.b.com", "*.b.com"),
            ("*.x.com", "*.com"),
            ("org", "*"),
        ] {
            assert_eq!(map.most_specific(name).map(|(key, _)| key), Some(found), "{name}");
        }
        assert_eq!(HostMap::<u8>::default().most_specific("a"), None);
    }
}
