//! The names under which a client may call a service: what stands in `Host`.

use std::net::IpAddr;

use maille_model::{Proxy, Resolution, Service};

use crate::convert::{bracketed, host_port};

/// The domains of a service's virtual host.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Domains {
    /// All of them, the full name first.
    pub(crate) names: Vec<String>,
    /// Those that were derived by leaving something out or adding something: another service's own name beats them.
    pub(crate) derived: Vec<String>,
}

/// The domains of a service for clients of this proxy, each with `:port` too when a port is given.
///
/// Listeners of one port ignore the port in `Host`; the forward proxy serves every port, and has to tell them apart.
pub(crate) fn service_domains(service: &Service, port: Option<u32>, proxy: &Proxy) -> Domains {
    let mut domains = Domains::default();
    let aliases = service.aliases.iter().map(|alias| alias.hostname.as_str());
    for host in std::iter::once(service.hostname.as_str()).chain(aliases) {
        push(&mut domains.names, host, port);
        let derived = derived_names(host, port, &proxy.dns_domain);
        domains.names.extend(derived.iter().cloned());
        domains.derived.extend(derived);
    }
    if service.is_kubernetes() && service.resolution == Resolution::Passthrough {
        // The pods of a headless service have names of their own.
        let pods: Vec<String> = domains.names.iter().map(|name| format!("*.{name}")).collect();
        domains.names.extend(pods);
    }
    // A client names an address, never a network.
    for address in service_addresses(service, proxy).filter(|address| !address.contains('/')) {
        push(&mut domains.names, address, port);
    }
    domains
}

/// The addresses by which a client may know a service: its own, else those the mesh's name service made up for it.
pub(crate) fn service_addresses<'a>(service: &'a Service, proxy: &Proxy) -> impl Iterator<Item = &'a str> {
    let allocated: &[String] =
        if proxy.metadata.dns_capture && service.addresses.is_empty() { &service.auto_allocated } else { &[] };
    // A cluster IP of a family the proxy does not have is of no use to it; a ServiceEntry's addresses need not be real.
    let (v4, v6, cluster_ip) = (proxy.supports_ipv4(), proxy.supports_ipv6(), service.is_kubernetes());
    let usable = move |address: &&str| !cluster_ip || if address.contains(':') { v6 } else { v4 };
    let addresses = service.addresses.iter().chain(allocated).map(String::as_str);
    addresses.filter(|address| *address != "0.0.0.0").filter(usable)
}

/// Other ways to write a host: with a final dot, and shorter as far as the proxy's own domain completes it.
pub(crate) fn derived_names(host: &str, port: Option<u32>, dns_domain: &str) -> Vec<String> {
    let mut names = Vec::new();
    if host.parse::<IpAddr>().is_err() {
        names.push(format!("{host}."));
    }
    if let Some(port) = port {
        names.push(host_port(&format!("{host}."), port));
    }
    if let Some((namespace, suffix)) = dns_domain.split_once(".svc.") {
        // Other names are not shortened here: they could be taken for those of Kubernetes services.
        if let Some(rest) = host.strip_suffix(suffix).and_then(|rest| rest.strip_suffix(".svc.")) {
            kubernetes_names(rest, namespace, port, &mut names);
        }
        return names;
    }
    let (unique, shared) = split_shared_suffix(host, dns_domain);
    if let Some(first_shared) = shared.first() {
        let short = unique.join(".");
        push(&mut names, &short, port);
        if unique.len() == 2 {
            push(&mut names, &format!("{short}.{first_shared}"), port);
        }
    }
    names
}

/// `rest` is `name.namespace`, or more.
fn kubernetes_names(rest: &str, own_namespace: &str, port: Option<u32>, names: &mut Vec<String>) {
    // The first `.svc.` ends the namespace, wherever it stands.
    let rest = rest.split(".svc.").next().unwrap_or(rest);
    let Some((name, namespace)) = rest.split_once('.') else { return };
    if namespace == own_namespace {
        push(names, name, port);
        push(names, &format!("{rest}.svc"), port);
        push(names, rest, port);
    } else {
        push(names, rest, port);
        push(names, &format!("{rest}.svc"), port);
    }
}

/// `foo.local.campus.net` seen from `remote.campus.net`: `[foo, local]` and `[campus, net]`.
fn split_shared_suffix<'a>(host: &'a str, domain: &'a str) -> (Vec<&'a str>, Vec<&'a str>) {
    let parts: Vec<&str> = host.split('.').collect();
    let shared = parts.iter().rev().zip(domain.split('.').rev()).take_while(|(a, b)| *a == b).count();
    let (unique, shared) = parts.split_at(parts.len() - shared);
    (unique.to_vec(), shared.to_vec())
}

fn push(names: &mut Vec<String>, host: &str, port: Option<u32>) {
    names.push(bracketed(host));
    if let Some(port) = port {
        names.push(host_port(host, port));
    }
}

#[cfg(test)]
mod tests {
    use super::derived_names;

    #[test]
    fn names_are_shortened_as_far_as_the_proxy_completes_them() {
        let cases: [(&str, Option<u32>, &str, &[&str]); 9] = [
            (
                "reviews.shop.svc.cluster.local",
                None,
                "shop.svc.cluster.local",
                &["reviews.shop.svc.cluster.local.", "reviews", "reviews.shop.svc", "reviews.shop"],
            ),
            (
                "reviews.shop.svc.cluster.local",
                None,
                "other.svc.cluster.local",
                &["reviews.shop.svc.cluster.local.", "reviews.shop", "reviews.shop.svc"],
            ),
            (
                "reviews.shop.svc.cluster.local",
                Some(80),
                "shop.svc.cluster.local",
                &[
                    "reviews.shop.svc.cluster.local.",
                    "reviews.shop.svc.cluster.local.:80",
                    "reviews",
                    "reviews:80",
                    "reviews.shop.svc",
                    "reviews.shop.svc:80",
                    "reviews.shop",
                    "reviews.shop:80",
                ],
            ),
            ("google.com", None, "shop.svc.cluster.local", &["google.com."]),
            ("10.0.0.1", None, "shop.svc.cluster.local", &[]),
            ("reviews.shop.svc.other.zone", None, "shop.svc.cluster.local", &["reviews.shop.svc.other.zone."]),
            (
                "foo.local.campus.net",
                None,
                "remote.campus.net",
                &["foo.local.campus.net.", "foo.local", "foo.local.campus"],
            ),
            ("foo.local.campus.net", None, "local.campus.net", &["foo.local.campus.net.", "foo"]),
            ("foo.local.campus.net", None, "example.com", &["foo.local.campus.net."]),
        ];
        for (host, port, domain, expected) in cases {
            assert_eq!(derived_names(host, port, domain), expected, "{host} from {domain}");
        }
    }
}
