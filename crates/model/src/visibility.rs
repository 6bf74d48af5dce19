//! Which namespaces may see a resource: `exportTo`.

use std::collections::BTreeSet;

/// The namespaces a resource is exported to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportTo {
    /// `*`: everyone.
    All,
    /// `~`: no one.
    Nobody,
    /// These namespaces and no other; `.` is already the resource's own.
    Namespaces(BTreeSet<String>),
}

impl ExportTo {
    /// From a resource's list; an empty list takes the mesh's default. `*` beats `~`, and `~` beats names.
    pub fn new<'a>(list: impl IntoIterator<Item = &'a str>, namespace: &str, default: &ExportTo) -> ExportTo {
        let list: Vec<&str> = list.into_iter().map(str::trim).filter(|entry| !entry.is_empty()).collect();
        if list.is_empty() {
            return match default {
                // The default `.` was read without knowing whose namespace it would be.
                ExportTo::Namespaces(names) => ExportTo::Namespaces(
                    names.iter().map(|name| if name == "." { namespace.to_owned() } else { name.clone() }).collect(),
                ),
                other => other.clone(),
            };
        }
        if list.contains(&"*") {
            ExportTo::All
        } else if list.contains(&"~") {
            ExportTo::Nobody
        } else {
            let own = |name: &str| if name == "." { namespace.to_owned() } else { name.to_owned() };
            ExportTo::Namespaces(list.into_iter().map(own).collect())
        }
    }

    /// A mesh-wide default, whose `.` stands for the namespace of whoever uses it.
    pub fn mesh_default(list: &[String]) -> ExportTo {
        ExportTo::new(list.iter().map(String::as_str), ".", &ExportTo::All)
    }

    /// Whether a client in this namespace may see the resource.
    pub fn visible_to(&self, namespace: &str) -> bool {
        match self {
            ExportTo::All => true,
            ExportTo::Nobody => false,
            ExportTo::Namespaces(names) => names.contains(namespace),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_tildes_and_dots() {
        let private = ExportTo::mesh_default(&[".".into()]);
        for (list, default, own, other) in [
            (&[][..], &ExportTo::All, true, true),
            (&[][..], &private, true, false),
            (&["."][..], &ExportTo::All, true, false),
            (&["b"][..], &ExportTo::All, false, true),
            (&["~", "*"][..], &ExportTo::All, true, true),
            (&["~", "b"][..], &ExportTo::All, false, false),
        ] {
            let export = ExportTo::new(list.iter().copied(), "a", default);
            assert_eq!((export.visible_to("a"), export.visible_to("b")), (own, other), "{list:?}");
        }
    }
}
