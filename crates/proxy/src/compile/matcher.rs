//! Matchers, fractions, address ranges and metadata.

use std::collections::HashMap;
use std::sync::Arc;

use maille_xds::types::kind::fractional_percent::DenominatorType;
use maille_xds::types::matcher::string_matcher::MatchPattern;
use maille_xds::types::route::header_matcher::HeaderMatchSpecifier;
use maille_xds::types::{Struct, ValueKind, core, kind, matcher, route};
use regex::bytes::{Regex, RegexBuilder};

use crate::compile::at::{At, Compiled};
use crate::config::{Cidr, Fraction, FullRegex, HeaderMatcher, Metadata, RegexRewrite, StringMatcher, ValueMatcher};

/// A compiled expression may take this much memory.
const REGEX_BYTES: usize = 1 << 20;

pub(crate) fn string(at: &At<'_>, proto: &matcher::StringMatcher) -> Compiled<StringMatcher> {
    let matcher::StringMatcher { ignore_case, match_pattern } = proto;
    let bytes = |text: &str| -> Box<[u8]> { text.as_bytes().into() };
    let lower = |text: &str| -> Box<[u8]> { text.to_ascii_lowercase().into_bytes().into() };
    let empty = |what: &str| at.field(what).refuse("is empty");
    Ok(match (at.required("match_pattern", match_pattern)?, ignore_case) {
        (MatchPattern::Prefix(text), _) if text.is_empty() => return empty("prefix"),
        (MatchPattern::Suffix(text), _) if text.is_empty() => return empty("suffix"),
        (MatchPattern::Contains(text), _) if text.is_empty() => return empty("contains"),
        (MatchPattern::Exact(text), false) => StringMatcher::Exact(bytes(text)),
        (MatchPattern::Exact(text), true) => StringMatcher::ExactIgnoreCase(lower(text)),
        (MatchPattern::Prefix(text), false) => StringMatcher::Prefix(bytes(text)),
        (MatchPattern::Prefix(text), true) => StringMatcher::PrefixIgnoreCase(lower(text)),
        (MatchPattern::Suffix(text), false) => StringMatcher::Suffix(bytes(text)),
        (MatchPattern::Suffix(text), true) => StringMatcher::SuffixIgnoreCase(lower(text)),
        (MatchPattern::Contains(text), false) => StringMatcher::Contains(bytes(text)),
        (MatchPattern::Contains(text), true) => StringMatcher::ContainsIgnoreCase(lower(text)),
        (MatchPattern::SafeRegex(_), true) => {
            return at.field("ignore_case").refuse("has no meaning for a regex: write (?i) into the expression");
        }
        (MatchPattern::SafeRegex(regex), false) => StringMatcher::Regex(full_regex(&at.field("safe_regex"), regex)?),
        (MatchPattern::Custom(_), _) => return at.field("custom").refuse("is not supported"),
    })
}

/// An expression that must match whole texts.
pub(crate) fn full_regex(at: &At<'_>, proto: &matcher::RegexMatcher) -> Compiled<FullRegex> {
    let inner = regex(at, proto)?;
    build(at, &format!(r"\A(?:{})\z", inner.as_str())).map(FullRegex)
}

/// An expression that is looked for inside texts.
pub(crate) fn regex(at: &At<'_>, proto: &matcher::RegexMatcher) -> Compiled<Regex> {
    let matcher::RegexMatcher { regex, engine_type: _ } = proto;
    let translated = maille_re2::translate(at.text("regex", regex)?);
    let at = at.field("regex");
    match translated {
        Ok(translated) => build(&at, &translated),
        Err(reason) => at.refuse(format!("is not a regular expression of RE2: {reason}")),
    }
}

/// Classes like `\d` are of ASCII, as in RE2; Unicode only where the expression cannot do without.
fn build(at: &At<'_>, text: &str) -> Compiled<Regex> {
    let build = |unicode| RegexBuilder::new(text).unicode(unicode).size_limit(REGEX_BYTES).build();
    build(false).or_else(|_| build(true)).or_else(|error| at.refuse(format!("is no expression we can run: {error}")))
}

pub(crate) fn substitution(at: &At<'_>, proto: &matcher::RegexMatchAndSubstitute) -> Compiled<RegexRewrite> {
    let matcher::RegexMatchAndSubstitute { pattern, substitution } = proto;
    let pattern = regex(&at.field("pattern"), at.required("pattern", pattern)?)?;
    RegexRewrite::new(pattern, substitution).or_else(|reason| at.field("substitution").refuse(reason))
}

pub(crate) fn headers(at: &At<'_>, name: &str, protos: &[route::HeaderMatcher]) -> Compiled<Vec<HeaderMatcher>> {
    protos.iter().enumerate().map(|(i, proto)| header(&at.item(name, i), proto)).collect()
}

pub(crate) fn header(at: &At<'_>, proto: &route::HeaderMatcher) -> Compiled<HeaderMatcher> {
    let route::HeaderMatcher { name, invert_match, treat_missing_header_as_empty, header_match_specifier } = proto;
    let pattern = |pattern| matcher::StringMatcher { ignore_case: false, match_pattern: Some(pattern) };
    let text = |pattern| string(at, &pattern).map(ValueMatcher::String);
    let value = match header_match_specifier {
        None => ValueMatcher::Present(true),
        Some(HeaderMatchSpecifier::PresentMatch(wanted)) => ValueMatcher::Present(*wanted),
        Some(HeaderMatchSpecifier::RangeMatch(kind::Int64Range { start, end })) => ValueMatcher::Range(*start..*end),
        Some(HeaderMatchSpecifier::ExactMatch(s)) => text(pattern(MatchPattern::Exact(s.clone())))?,
        Some(HeaderMatchSpecifier::PrefixMatch(s)) => text(pattern(MatchPattern::Prefix(s.clone())))?,
        Some(HeaderMatchSpecifier::SuffixMatch(s)) => text(pattern(MatchPattern::Suffix(s.clone())))?,
        Some(HeaderMatchSpecifier::ContainsMatch(s)) => text(pattern(MatchPattern::Contains(s.clone())))?,
        Some(HeaderMatchSpecifier::SafeRegexMatch(r)) => text(pattern(MatchPattern::SafeRegex(r.clone())))?,
        Some(HeaderMatchSpecifier::StringMatch(matcher)) => text(matcher.clone())?,
    };
    Ok(HeaderMatcher {
        name: header_name(at, "name", name)?,
        value,
        invert: *invert_match,
        missing_as_empty: *treat_missing_header_as_empty,
    })
}

/// A header's name that can stand in a message.
pub(crate) fn header_name(at: &At<'_>, field: &str, text: &str) -> Compiled<maille_http::Name> {
    let name = maille_http::Name::new(text);
    if name.is_valid() { Ok(name) } else { at.field(field).refuse(format!("{text:?} is no header name")) }
}

/// A share of requests. Runtime overrides do not exist here, so the default counts whatever the key.
pub(crate) fn runtime_fraction(at: &At<'_>, proto: &core::RuntimeFractionalPercent) -> Compiled<Fraction> {
    let core::RuntimeFractionalPercent { default_value, runtime_key: _ } = proto;
    fraction(at, at.required("default_value", default_value)?)
}

pub(crate) fn fraction(at: &At<'_>, proto: &kind::FractionalPercent) -> Compiled<Fraction> {
    let kind::FractionalPercent { numerator, denominator } = proto;
    let denominator = match at.one_of("denominator", *denominator)? {
        DenominatorType::Hundred => 100,
        DenominatorType::TenThousand => 10_000,
        DenominatorType::Million => 1_000_000,
    };
    Ok(Fraction { numerator: *numerator, denominator })
}

pub(crate) fn cidrs(at: &At<'_>, name: &str, protos: &[core::CidrRange]) -> Compiled<Vec<Cidr>> {
    let one = |(i, proto): (usize, &core::CidrRange)| {
        let at = at.item(name, i);
        let core::CidrRange { address_prefix, prefix_len } = proto;
        let length = prefix_len.as_ref().map_or(0, |l| l.value);
        let parsed = address_prefix.parse().ok().zip(u8::try_from(length).ok());
        match parsed.and_then(|(address, length)| Cidr::new(address, length)) {
            Some(cidr) => Ok(cidr),
            None => at.refuse(format!("{address_prefix}/{length} is no range of addresses")),
        }
    };
    protos.iter().enumerate().map(one).collect()
}

/// Metadata; what is typed in it is for extensions we do not have.
pub(crate) fn metadata(proto: &Option<core::Metadata>) -> Option<Arc<Metadata>> {
    let core::Metadata { filter_metadata, typed_filter_metadata: _ } = proto.as_ref()?;
    let entries = filter_metadata.iter().map(|(name, fields)| (name.as_str().into(), json(fields)));
    Some(Arc::new(Metadata(entries.collect())))
}

/// A protobuf struct as JSON.
pub(crate) fn json(proto: &Struct) -> serde_json::Value {
    object(&proto.fields)
}

fn object(fields: &HashMap<String, maille_xds::types::Value>) -> serde_json::Value {
    fields.iter().map(|(key, value)| (key.clone(), json_value(value))).collect::<serde_json::Map<_, _>>().into()
}

fn json_value(proto: &maille_xds::types::Value) -> serde_json::Value {
    match &proto.kind {
        None | Some(ValueKind::NullValue(_)) => serde_json::Value::Null,
        Some(ValueKind::BoolValue(value)) => (*value).into(),
        // Whole numbers stay whole: `1`, not `1.0`.
        Some(ValueKind::NumberValue(value)) if value.fract() == 0.0 && value.abs() < 9e15 => (*value as i64).into(),
        Some(ValueKind::NumberValue(value)) => (*value).into(),
        Some(ValueKind::StringValue(value)) => value.as_str().into(),
        Some(ValueKind::ListValue(list)) => list.values.iter().map(json_value).collect::<Vec<_>>().into(),
        Some(ValueKind::StructValue(fields)) => object(&fields.fields),
    }
}
