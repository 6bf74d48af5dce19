//! What metrics are called: in Envoy's dotted form, and in Prometheus' with labels, by Istio's tag extraction.

use std::fmt::Write as _;

/// What a metric is about; its subject's name is a label in Prometheus and a part of Envoy's dotted name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the variants are Envoy's scopes")]
pub enum Scope {
    Cluster,
    ClusterManager,
    ControlPlane,
    Http,
    Listener,
    ListenerManager,
    Overload,
    Server,
    Tcp,
    /// Istio's own metrics: all that distinguishes them are labels.
    Istio,
}

impl Scope {
    /// Envoy's prefix, and the label that Prometheus has for the subject.
    fn parts(self) -> (&'static str, &'static str) {
        match self {
            Scope::Cluster => ("cluster", "envoy_cluster_name"),
            Scope::ClusterManager => ("cluster_manager", ""),
            Scope::ControlPlane => ("control_plane", ""),
            Scope::Http => ("http", "envoy_http_conn_manager_prefix"),
            Scope::Listener => ("listener", "envoy_listener_address"),
            Scope::ListenerManager => ("listener_manager", ""),
            Scope::Overload => ("overload", ""),
            Scope::Server => ("server", ""),
            Scope::Tcp => ("tcp", "envoy_tcp_prefix"),
            Scope::Istio => ("", ""),
        }
    }
}

/// A metric's name, without its subject and tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// What it is about.
    pub scope: Scope,
    /// What is counted, as Envoy says it: `upstream_rq_total`, `ssl.handshake`.
    pub suffix: &'static str,
}

/// What distinguishes metrics of one name and subject.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tag {
    /// Nothing.
    None,
    /// An HTTP status: `…_200`.
    Code(u16),
    /// The class of an HTTP status: `…_2xx`.
    Class(u8),
    /// Labels, as [`labels`] writes them.
    Labels(Box<str>),
}

/// A metric's labels and their values.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

/// Labels as they are exported, without the braces.
pub fn labels(labels: Labels<'_>) -> Box<str> {
    let mut out = String::new();
    for (name, value) in labels {
        push(&mut out, name, value);
    }
    out.into()
}

/// Appends a label to others.
pub(crate) fn push(out: &mut String, name: &str, value: &str) {
    if !out.is_empty() && !out.ends_with('{') {
        out.push(',');
    }
    out.push_str(name);
    out.push_str("=\"");
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
}

impl Name {
    /// Prometheus' name.
    pub(crate) fn prometheus(self) -> String {
        let (prefix, _) = self.scope.parts();
        match self.scope {
            Scope::Istio => self.suffix.to_owned(),
            _ => format!("envoy_{prefix}_{}", self.suffix).replace('.', "_"),
        }
    }

    /// Prometheus' labels of one series.
    pub(crate) fn labels(self, subject: &str, tag: &Tag) -> String {
        let mut out = String::new();
        match tag {
            Tag::None => {}
            Tag::Code(code) => push(&mut out, "envoy_response_code", &code.to_string()),
            Tag::Class(class) => push(&mut out, "envoy_response_code_class", &class.to_string()),
            Tag::Labels(labels) => out.push_str(labels),
        }
        let (_, label) = self.scope.parts();
        if !label.is_empty() {
            // Istio ends its names of clusters and prefixes with `;`, so that tags can be told apart.
            push(&mut out, label, subject.strip_suffix(';').unwrap_or(subject));
        }
        out
    }

    /// Envoy's name of one series.
    pub(crate) fn dotted(self, subject: &str, tag: &Tag) -> String {
        let (prefix, _) = self.scope.parts();
        let mut out = prefix.to_owned();
        for part in [subject, self.suffix] {
            if !out.is_empty() && !part.is_empty() {
                out.push('.');
            }
            out.push_str(part);
        }
        // Writing to a String cannot fail.
        let _ = match tag {
            Tag::None => Ok(()),
            Tag::Code(code) => write!(out, "_{code}"),
            Tag::Class(class) => {
                let stem = out.strip_suffix("_xx").unwrap_or(&out).len();
                out.truncate(stem);
                write!(out, "_{class}xx")
            }
            Tag::Labels(labels) => write!(out, ".{}", labels.replace("\",", ".").replace("=\"", ".").replace('"', "")),
        };
        // The colon separates name and value where statistics are shown.
        out.replace(':', "_")
    }
}
