//! Trust domains: names of the mesh itself, each as good as the other.

/// What a policy calls the mesh's own trust domain, whatever its name.
const LOCAL: &str = "cluster.local";

/// The mesh's trust domain, and the names that it also goes by.
#[derive(Clone, Debug)]
pub(super) struct TrustDomains<'a> {
    names: Vec<&'a str>,
}

impl<'a> TrustDomains<'a> {
    pub(super) fn new(own: &'a str, aliases: &'a [String]) -> Self {
        TrustDomains { names: std::iter::once(own).chain(aliases.iter().map(String::as_str)).collect() }
    }

    /// Principals of the mesh under each of its names; others as they are.
    pub(super) fn principals(&self, values: &[String]) -> Vec<String> {
        values.iter().flat_map(|value| self.principal(value)).collect()
    }

    /// Trust domains, one of ours standing for all of ours.
    pub(super) fn domains(&self, values: &[String]) -> Vec<String> {
        let mut domains: Vec<String> = Vec::new();
        for value in values {
            let ours = self.names.contains(&value.as_str());
            let meant: Vec<&str> = if ours { self.names.clone() } else { vec![value] };
            for domain in meant {
                if !domains.iter().any(|known| known == domain) {
                    domains.push(domain.to_owned());
                }
            }
        }
        domains
    }

    fn principal(&self, value: &str) -> Vec<String> {
        let parts: Vec<&str> = value.split('/').collect();
        let &[domain, ns, namespace, sa, account] = parts.as_slice() else { return vec![value.to_owned()] };
        let ours = domain == LOCAL || self.names.iter().any(|name| overlaps(domain, name));
        if domain == "*" || !ours {
            return vec![value.to_owned()];
        }
        let mut principals = Vec::new();
        for name in &self.names {
            // `*-td` already means every name that ends so.
            let meant = match ends_as(name, domain) {
                true => value.to_owned(),
                false => [name, ns, namespace, sa, account].join("/"),
            };
            if !principals.contains(&meant) {
                principals.push(meant);
            }
        }
        principals
    }
}

fn overlaps(a: &str, b: &str) -> bool {
    a == b || b == "*" || begins_as(a, b) || begins_as(b, a) || ends_as(a, b) || ends_as(b, a)
}

fn begins_as(text: &str, pattern: &str) -> bool {
    pattern.strip_suffix('*').is_some_and(|prefix| text.starts_with(prefix))
}

fn ends_as(text: &str, pattern: &str) -> bool {
    pattern.strip_prefix('*').is_some_and(|suffix| text.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_of_the_mesh_come_under_each_of_its_names() {
        let aliases = ["td2".to_owned(), "old-td".to_owned()];
        let domains = TrustDomains::new("td1", &aliases);
        for (principal, expected) in [
            ("td1/ns/a/sa/b", &["td1/ns/a/sa/b", "td2/ns/a/sa/b", "old-td/ns/a/sa/b"][..]),
            ("td2/ns/a/sa/b", &["td1/ns/a/sa/b", "td2/ns/a/sa/b", "old-td/ns/a/sa/b"]),
            ("cluster.local/ns/a/sa/b", &["td1/ns/a/sa/b", "td2/ns/a/sa/b", "old-td/ns/a/sa/b"]),
            ("*-td/ns/a/sa/b", &["td1/ns/a/sa/b", "td2/ns/a/sa/b", "*-td/ns/a/sa/b"]),
            ("other/ns/a/sa/b", &["other/ns/a/sa/b"]),
            ("*/ns/a/sa/b", &["*/ns/a/sa/b"]),
            ("sa/b", &["sa/b"]),
            ("*", &["*"]),
        ] {
            assert_eq!(domains.principals(&[principal.to_owned()]), expected, "{principal}");
        }
        let some = ["td2".to_owned(), "other".to_owned(), "td1".to_owned()];
        assert_eq!(domains.domains(&some), ["td1", "td2", "old-td", "other"]);
    }
}
