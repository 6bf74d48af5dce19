//! The table of attacks, row by row: what configuration is made of, and what is not taken.

use maille_http::{Name, RequestHead};
use maille_xds::types::hcm::{self, http_filter};
use maille_xds::types::matcher::{RegexMatcher, StringMatcher as ProtoString, string_matcher::MatchPattern};
use maille_xds::types::{Any, Message, compressor};

use super::at::At;
use super::{filters, matcher};
use crate::config::{HeaderMatcher, StringMatcher, ValueMatcher};

/// No value hides behind another: a condition sees all of them.
#[test]
fn row_12_a_condition_sees_every_value() {
    let bytes = |text: &str| -> Box<[u8]> { text.as_bytes().into() };
    let head = RequestHead::build("GET", "x", "/", &[("x-user", "guest"), ("x-user", "admin"), ("x-one", "guest")]);
    for (name, value, holds) in [
        ("x-user", StringMatcher::Exact(bytes("guest")), false),
        ("x-user", StringMatcher::Exact(bytes("admin")), false),
        ("x-user", StringMatcher::Exact(bytes("guest,admin")), true),
        ("x-user", StringMatcher::Contains(bytes("admin")), true),
        ("x-user", StringMatcher::Prefix(bytes("guest")), true),
        ("x-user", StringMatcher::Suffix(bytes("admin")), true),
        ("x-user", StringMatcher::Suffix(bytes("guest")), false),
        ("x-one", StringMatcher::Exact(bytes("guest")), true),
    ] {
        for invert in [false, true] {
            let what = format!("{name} {value:?} {invert}");
            let value = ValueMatcher::String(value.clone());
            let matcher = HeaderMatcher { name: Name::new(name), value, invert, missing_as_empty: false };
            assert_eq!(matcher.matches(&head), holds != invert, "{what}");
        }
    }
}

/// An expression that would take much memory or time is refused when it comes, in time that is bounded.
#[test]
fn row_14_expressions_are_bounded() {
    let at = At::resource("r");
    for (text, taken) in [
        ("a{1000}", true),
        ("(a{1000}){1000}", false),
        (r"(\pL{500}){500}", false),
        (&*format!("({})*x", "a|".repeat(200_000)), false),
        ("(((a*)*)*)*b", true),
    ] {
        let regex = RegexMatcher { regex: text.into(), ..Default::default() };
        let proto = ProtoString { match_pattern: Some(MatchPattern::SafeRegex(regex)), ..Default::default() };
        let compiled = matcher::string(&at, &proto);
        assert_eq!(compiled.is_ok(), taken, "{text:.40}");
        // What is taken is linear in what it looks at: this would not end otherwise.
        if let Ok(matcher) = compiled {
            assert!(!matcher.matches(&vec![b'a'; 100_000]));
        }
    }
}

/// There is nothing that decompresses, and so nothing that a small body makes large: who wants it is told so.
#[test]
fn row_22_nothing_decompresses() {
    let compressor = compressor::Compressor::default().encode_to_vec();
    for (name, kind) in [
        ("envoy.filters.http.decompressor", "envoy.extensions.filters.http.decompressor.v3.Decompressor"),
        ("envoy.filters.http.compressor", "envoy.extensions.filters.http.compressor.v3.Compressor"),
    ] {
        let any = Any { type_url: format!("type.googleapis.com/{kind}"), value: compressor.clone() };
        let filter = |name: &str, any| hcm::HttpFilter {
            name: name.into(),
            config_type: Some(http_filter::ConfigType::TypedConfig(any)),
            ..Default::default()
        };
        let router = maille_xds::types::any(&maille_xds::types::router::Router::default());
        let all = [filter(name, any), filter("envoy.filters.http.router", router)];
        let refused = filters::http_filters(&At::resource("l"), &all).unwrap_err().to_string();
        assert!(refused.contains(kind), "{refused}");
    }
}
