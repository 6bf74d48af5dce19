//! How a rule's values are compared: exactly, by prefix (`a*`), by suffix (`*a`), or for being there (`*`).

use maille_xds::types::matcher::list_matcher::MatchPattern as ListPattern;
use maille_xds::types::matcher::metadata_matcher::{PathSegment, path_segment};
use maille_xds::types::matcher::path_matcher::Rule;
use maille_xds::types::matcher::string_matcher::MatchPattern;
use maille_xds::types::matcher::value_matcher::MatchPattern as ValuePattern;
use maille_xds::types::matcher::{
    ListMatcher, MetadataMatcher, OrMatcher, PathMatcher, RegexMatcher, StringMatcher, ValueMatcher,
};
use maille_xds::types::route::HeaderMatcher;
use maille_xds::types::route::header_matcher::HeaderMatchSpecifier;

/// Where the filter that judges tokens keeps what they say.
const JWT_FILTER: &str = "envoy.filters.http.jwt_authn";
const JWT_PAYLOAD: &str = "payload";

pub(super) fn string(value: &str) -> StringMatcher {
    prefixed("", value)
}

/// The value with something in front that the author leaves out.
pub(super) fn prefixed(front: &str, value: &str) -> StringMatcher {
    match (value, value.strip_prefix('*'), value.strip_suffix('*')) {
        // Envoy takes no empty prefix or suffix.
        ("*", ..) => regex(".+".to_owned()),
        (_, Some(end), _) if front.is_empty() => suffix(end, false),
        (_, Some(end), _) => regex(format!("{front}.*{}", quote(end))),
        (_, _, Some(start)) => prefix(&format!("{front}{start}"), false),
        _ => exact(&format!("{front}{value}"), false),
    }
}

pub(super) fn regex(regex: String) -> StringMatcher {
    matcher(MatchPattern::SafeRegex(RegexMatcher { regex, ..RegexMatcher::default() }), false)
}

pub(super) fn prefix(text: &str, ignore_case: bool) -> StringMatcher {
    matcher(MatchPattern::Prefix(text.to_owned()), ignore_case)
}

pub(super) fn suffix(text: &str, ignore_case: bool) -> StringMatcher {
    matcher(MatchPattern::Suffix(text.to_owned()), ignore_case)
}

pub(super) fn exact(text: &str, ignore_case: bool) -> StringMatcher {
    matcher(MatchPattern::Exact(text.to_owned()), ignore_case)
}

fn matcher(pattern: MatchPattern, ignore_case: bool) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ignore_case }
}

/// A header; of hosts the case does not count.
pub(super) fn header(name: &str, value: &str, ignore_case: bool) -> HeaderMatcher {
    let specifier = match (value, value.strip_prefix('*'), value.strip_suffix('*')) {
        ("*", ..) => HeaderMatchSpecifier::PresentMatch(true),
        (_, Some(end), _) => HeaderMatchSpecifier::StringMatch(suffix(end, ignore_case)),
        (_, _, Some(start)) => HeaderMatchSpecifier::StringMatch(prefix(start, ignore_case)),
        _ => HeaderMatchSpecifier::StringMatch(exact(value, ignore_case)),
    };
    HeaderMatcher { name: name.to_owned(), header_match_specifier: Some(specifier), ..HeaderMatcher::default() }
}

pub(super) fn path(value: &str) -> PathMatcher {
    PathMatcher { rule: Some(Rule::Path(string(value))) }
}

/// A claim that is a string.
pub(super) fn string_claim(claim: &str, matcher: StringMatcher) -> MetadataMatcher {
    metadata(JWT_FILTER, &[JWT_PAYLOAD, claim], string_value(matcher))
}

/// A claim that is a string, or a list of strings one of which will do.
pub(super) fn claim(claims: &[&str], value: ValueMatcher) -> MetadataMatcher {
    let path: Vec<&str> = std::iter::once(JWT_PAYLOAD).chain(claims.iter().copied()).collect();
    metadata(JWT_FILTER, &path, any_of(vec![in_list(value.clone()), value]))
}

/// Any of these texts.
pub(super) fn texts(values: &[String]) -> ValueMatcher {
    one_or_any(values.iter().map(|value| string_value(string(value))).collect())
}

pub(super) fn metadata(filter: &str, path: &[&str], value: ValueMatcher) -> MetadataMatcher {
    let segment = |key: &&str| PathSegment { segment: Some(path_segment::Segment::Key((*key).to_owned())) };
    MetadataMatcher {
        filter: filter.to_owned(),
        path: path.iter().map(segment).collect(),
        value: Some(value),
        ..MetadataMatcher::default()
    }
}

pub(super) fn string_value(matcher: StringMatcher) -> ValueMatcher {
    ValueMatcher { match_pattern: Some(ValuePattern::StringMatch(matcher)) }
}

pub(super) fn in_list(value: ValueMatcher) -> ValueMatcher {
    let list = ListMatcher { match_pattern: Some(ListPattern::OneOf(Box::new(value))) };
    ValueMatcher { match_pattern: Some(ValuePattern::ListMatch(Box::new(list))) }
}

pub(super) fn one_or_any(mut values: Vec<ValueMatcher>) -> ValueMatcher {
    if values.len() == 1 { values.remove(0) } else { any_of(values) }
}

fn any_of(value_matchers: Vec<ValueMatcher>) -> ValueMatcher {
    ValueMatcher { match_pattern: Some(ValuePattern::OrMatch(OrMatcher { value_matchers })) }
}

/// The text as a regular expression for itself, escaped as RE2 has it.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted
}
