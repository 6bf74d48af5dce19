//! What a request has to look like: one `match` of a VirtualService as Envoy's RouteMatch.

use maille_api::networking::virtual_service::{HttpMatchRequest, StringMatch};
use maille_xds::types::BoolValue;
use maille_xds::types::matcher::{self, metadata_matcher, string_matcher, value_matcher};
use maille_xds::types::route::header_matcher::HeaderMatchSpecifier;
use maille_xds::types::route::query_parameter_matcher::QueryParameterMatchSpecifier;
use maille_xds::types::route::route_match::PathSpecifier;
use maille_xds::types::route::{HeaderMatcher, QueryParameterMatcher, Route, RouteMatch};

/// The prefix of header names that stand for claims of the request's token.
const CLAIMS: &str = "@request.auth.claims";

/// Matches every request.
pub(crate) fn any_request() -> RouteMatch {
    RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".into())), ..Default::default() }
}

/// The runtime part of a match; port, source and gateways are decided when the route is made.
pub(crate) fn route_match(request: Option<&HttpMatchRequest>) -> RouteMatch {
    let mut out = any_request();
    let Some(request) = request else { return out };

    for (name, value) in &request.headers {
        match claims_matcher(name, value, false) {
            Some(claims) => out.dynamic_metadata.push(claims),
            None => out.headers.push(header(name, value)),
        }
    }
    for (name, value) in &request.without_headers {
        match claims_matcher(name, value, true) {
            Some(claims) => out.dynamic_metadata.push(claims),
            None => out.headers.push(HeaderMatcher {
                invert_match: true,
                // Envoy refuses this beside a presence match, which has no value to compare.
                treat_missing_header_as_empty: !asks_for_presence(value),
                ..header(name, value)
            }),
        }
    }
    out.headers.sort_by(|a, b| a.name.cmp(&b.name));

    match &request.uri {
        Some(StringMatch::Exact(path)) => out.path_specifier = Some(PathSpecifier::Path(path.clone())),
        Some(StringMatch::Prefix(prefix)) => out.path_specifier = Some(PathSpecifier::Prefix(prefix.clone())),
        Some(StringMatch::Regex(regex)) => out.path_specifier = Some(PathSpecifier::SafeRegex(regex_matcher(regex))),
        Some(StringMatch::Unset) | None => {}
    }
    out.case_sensitive = Some(BoolValue { value: !request.ignore_uri_case });

    for (name, value) in
        [(":method", &request.method), (":authority", &request.authority), (":scheme", &request.scheme)]
    {
        if let Some(value) = value {
            out.headers.push(header(name, value));
        }
    }
    out.query_parameters = request.query_params.iter().map(|(name, value)| query_parameter(name, value)).collect();
    out
}

/// Whether every request matches: nothing after such a route is ever reached.
pub(crate) fn is_catch_all(route: &Route) -> bool {
    let Some(request) = &route.r#match else { return false };
    let any_path = match &request.path_specifier {
        Some(PathSpecifier::Prefix(prefix) | PathSpecifier::PathSeparatedPrefix(prefix)) => prefix == "/",
        Some(PathSpecifier::SafeRegex(matcher)) => matcher.regex == ".*",
        _ => false,
    };
    any_path && request.headers.is_empty() && request.query_parameters.is_empty() && request.dynamic_metadata.is_empty()
}

/// How Envoy compares a string; `None` for a match that says nothing.
pub(crate) fn string_matcher(value: &StringMatch) -> Option<matcher::StringMatcher> {
    let pattern = match value {
        StringMatch::Unset => return None,
        StringMatch::Exact(text) => string_matcher::MatchPattern::Exact(text.clone()),
        StringMatch::Prefix(text) => string_matcher::MatchPattern::Prefix(text.clone()),
        StringMatch::Regex(text) => string_matcher::MatchPattern::SafeRegex(regex_matcher(text)),
    };
    Some(matcher::StringMatcher { match_pattern: Some(pattern), ..Default::default() })
}

/// A regular expression that has to match the whole value.
pub(crate) fn regex_matcher(regex: &str) -> matcher::RegexMatcher {
    matcher::RegexMatcher { regex: regex.to_owned(), ..Default::default() }
}

/// An empty match asks that the header is there; so does the regular expression `*`, which is none.
fn asks_for_presence(value: &StringMatch) -> bool {
    match value {
        StringMatch::Unset => true,
        StringMatch::Regex(regex) => regex == "*",
        StringMatch::Exact(_) | StringMatch::Prefix(_) => false,
    }
}

fn header(name: &str, value: &StringMatch) -> HeaderMatcher {
    let specifier = match string_matcher(value) {
        Some(matcher) if !asks_for_presence(value) => HeaderMatchSpecifier::StringMatch(matcher),
        _ => HeaderMatchSpecifier::PresentMatch(true),
    };
    HeaderMatcher { name: name.to_owned(), header_match_specifier: Some(specifier), ..Default::default() }
}

fn query_parameter(name: &str, value: &StringMatch) -> QueryParameterMatcher {
    let specifier = match string_matcher(value) {
        Some(matcher) if !asks_for_presence(value) => QueryParameterMatchSpecifier::StringMatch(matcher),
        _ => QueryParameterMatchSpecifier::PresentMatch(true),
    };
    QueryParameterMatcher { name: name.to_owned(), query_parameter_match_specifier: Some(specifier) }
}

/// `@request.auth.claims.a.b` and `@request.auth.claims[a][b]`: the claims of a verified token, which may be a string or a list.
fn claims_matcher(name: &str, value: &StringMatch, invert: bool) -> Option<matcher::MetadataMatcher> {
    let path = claims_path(name)?;
    let value = matcher::ValueMatcher {
        match_pattern: Some(value_matcher::MatchPattern::StringMatch(string_matcher(value).unwrap_or_default())),
    };
    let in_list = matcher::ValueMatcher {
        match_pattern: Some(value_matcher::MatchPattern::ListMatch(Box::new(matcher::ListMatcher {
            match_pattern: Some(matcher::list_matcher::MatchPattern::OneOf(Box::new(value.clone()))),
        }))),
    };
    let either = matcher::OrMatcher { value_matchers: vec![in_list, value] };
    let segments = std::iter::once("payload").chain(path).map(|key| metadata_matcher::PathSegment {
        segment: Some(metadata_matcher::path_segment::Segment::Key(key.to_owned())),
    });
    Some(matcher::MetadataMatcher {
        filter: "envoy.filters.http.jwt_authn".into(),
        path: segments.collect(),
        value: Some(matcher::ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::OrMatch(either)) }),
        invert,
    })
}

fn claims_path(name: &str) -> Option<Vec<&str>> {
    let head = name.get(..CLAIMS.len())?;
    if !head.eq_ignore_ascii_case(CLAIMS) {
        return None;
    }
    let rest = &name[CLAIMS.len()..];
    if let Some(dotted) = rest.strip_prefix('.').filter(|dotted| !dotted.is_empty()) {
        return Some(dotted.split('.').collect());
    }
    let bracketed = rest.strip_prefix('[')?.strip_suffix(']').filter(|inner| !inner.is_empty())?;
    Some(bracketed.split("][").collect())
}
