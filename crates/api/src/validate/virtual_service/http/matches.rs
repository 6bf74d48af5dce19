//! What a request has to look like.

use crate::networking::virtual_service::{HttpMatchRequest, StringMatch};
use crate::validate::findings::{At, Problem};
use crate::validate::{header, re2, rules};

pub(super) fn validate(found: &HttpMatchRequest, at: &mut At<'_>) {
    for (name, value) in &found.headers {
        let mut at = at.field("headers");
        let at = &mut at.key(name);
        at.check(header::matched_name(name));
        string_match(value, at);
    }
    for (name, value) in &found.without_headers {
        let mut at = at.field("withoutHeaders");
        let at = &mut at.key(name);
        at.check(header::matched_name(name));
        // `*` is no regular expression: it asks whether the header is there.
        if *value != StringMatch::Regex("*".to_owned()) {
            string_match(value, at);
        }
    }
    // Every path has the empty prefix.
    if let Some(StringMatch::Regex(pattern)) = &found.uri {
        at.field("uri").field("regex").check(re2::check(pattern));
    }
    for (field, value) in [("scheme", &found.scheme), ("method", &found.method), ("authority", &found.authority)] {
        if let Some(value) = value {
            string_match(value, &mut at.field(field));
        }
    }
    for (name, value) in &found.query_params {
        string_match(value, &mut at.field("queryParams").key(name));
    }
    if found.port != 0 {
        at.field("port").check(rules::port(found.port));
    }
    rules::labels(&found.source_labels, &mut at.field("sourceLabels"));
    rules::gateway_names(&found.gateways, false, &mut at.field("gateways"));
    if !found.source_namespace.is_empty() {
        at.field("sourceNamespace").check(rules::dns_label("namespace", &found.source_namespace));
    }
}

fn string_match(value: &StringMatch, at: &mut At<'_>) {
    match value {
        StringMatch::Prefix(prefix) if prefix.is_empty() => at
            .field("prefix")
            .error(Problem::new("the prefix is empty").hint("leave the match out, or write `regex: .*`")),
        StringMatch::Regex(pattern) => at.field("regex").check(re2::check(pattern)),
        StringMatch::Prefix(_) | StringMatch::Exact(_) | StringMatch::Unset => {}
    }
}
