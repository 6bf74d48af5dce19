//! Matchers of strings, headers and query parameters.

use std::borrow::Cow;

use maille_http::{Name, RequestHead};
use regex::bytes::Regex;

/// A condition on a string.
#[derive(Clone, Debug)]
pub enum StringMatcher {
    /// Equal.
    Exact(Box<[u8]>),
    /// Equal but for ASCII case. The text is in lower case.
    ExactIgnoreCase(Box<[u8]>),
    /// Starts with.
    Prefix(Box<[u8]>),
    /// Starts with, but for ASCII case.
    PrefixIgnoreCase(Box<[u8]>),
    /// Ends with.
    Suffix(Box<[u8]>),
    /// Ends with, but for ASCII case.
    SuffixIgnoreCase(Box<[u8]>),
    /// Contains.
    Contains(Box<[u8]>),
    /// Contains, but for ASCII case.
    ContainsIgnoreCase(Box<[u8]>),
    /// Matches as a whole.
    Regex(FullRegex),
}

impl StringMatcher {
    /// Whether it holds.
    pub fn matches(&self, value: &[u8]) -> bool {
        match self {
            StringMatcher::Exact(s) => value == &**s,
            StringMatcher::ExactIgnoreCase(s) => value.eq_ignore_ascii_case(s),
            StringMatcher::Prefix(s) => value.starts_with(s),
            StringMatcher::PrefixIgnoreCase(s) => {
                value.get(..s.len()).is_some_and(|start| start.eq_ignore_ascii_case(s))
            }
            StringMatcher::Suffix(s) => value.ends_with(s),
            StringMatcher::SuffixIgnoreCase(s) => {
                value.len().checked_sub(s.len()).is_some_and(|at| value[at..].eq_ignore_ascii_case(s))
            }
            StringMatcher::Contains(s) => contains(value, s, |a, b| a == b),
            StringMatcher::ContainsIgnoreCase(s) => contains(value, s, |a, b| a.eq_ignore_ascii_case(b)),
            StringMatcher::Regex(regex) => regex.matches(value),
        }
    }
}

fn contains(value: &[u8], part: &[u8], same: fn(&[u8], &[u8]) -> bool) -> bool {
    part.is_empty() || value.windows(part.len()).any(|window| same(window, part))
}

impl PartialEq for StringMatcher {
    fn eq(&self, other: &Self) -> bool {
        // Two matchers that print alike match alike: there is nothing in them that is not printed.
        format!("{self:?}") == format!("{other:?}")
    }
}

/// A regular expression that must match the whole text, as everywhere in Envoy's API.
#[derive(Clone, Debug)]
pub struct FullRegex(pub Regex);

impl FullRegex {
    /// Whether the whole text matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }
}

/// A condition on a request header.
#[derive(Clone, Debug)]
pub struct HeaderMatcher {
    /// Which header.
    pub name: Name,
    /// What it must be.
    pub value: ValueMatcher,
    /// Whether the condition must not hold instead.
    pub invert: bool,
    /// Whether a missing header counts as an empty one; else no condition on the value holds for it, inverted or not.
    pub missing_as_empty: bool,
}

/// A condition on a header's value.
#[derive(Clone, Debug)]
pub enum ValueMatcher {
    /// There is one, or there is none.
    Present(bool),
    /// A string.
    String(StringMatcher),
    /// A number in `start..end`.
    Range(std::ops::Range<i64>),
}

impl HeaderMatcher {
    /// Whether it holds for a request.
    pub fn matches(&self, head: &RequestHead) -> bool {
        self.matches_value(head.header(&self.name))
    }

    /// Whether it holds for a header's value.
    pub fn matches_value(&self, value: Option<Cow<'_, [u8]>>) -> bool {
        if let ValueMatcher::Present(wanted) = self.value {
            return ((value.is_some() || self.missing_as_empty) == wanted) != self.invert;
        }
        let value = match value {
            Some(value) => value,
            None if self.missing_as_empty => Cow::Borrowed(&b""[..]),
            None => return false,
        };
        let holds = match &self.value {
            ValueMatcher::Present(_) => true,
            ValueMatcher::String(matcher) => matcher.matches(&value),
            ValueMatcher::Range(range) => {
                std::str::from_utf8(&value).ok().and_then(|v| v.parse().ok()).is_some_and(|n: i64| range.contains(&n))
            }
        };
        holds != self.invert
    }
}

/// A condition on a query parameter.
#[derive(Clone, Debug)]
pub struct QueryMatcher {
    /// Which parameter.
    pub name: Box<[u8]>,
    /// What its first value must be.
    pub value: QueryValue,
}

/// A condition on a query parameter's value.
#[derive(Clone, Debug)]
pub enum QueryValue {
    /// There is one, or there is none.
    Present(bool),
    /// A string.
    String(StringMatcher),
}

/// A chance, out of [`Fraction::denominator`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fraction {
    /// How many.
    pub numerator: u32,
    /// Out of a hundred, ten thousand or a million.
    pub denominator: u32,
}

impl Fraction {
    /// Whether a random number falls into it.
    pub fn holds(self, random: u64) -> bool {
        random % u64::from(self.denominator.max(1)) < u64::from(self.numerator)
    }
}

/// A condition on metadata.
#[derive(Clone, Debug)]
pub struct MetadataMatcher {
    /// Whose metadata.
    pub filter: Box<str>,
    /// Where in it.
    pub path: Vec<Box<str>>,
    /// What must be there.
    pub value: MetadataValue,
    /// Whether the condition must not hold instead.
    pub invert: bool,
}

/// A condition on a value in metadata.
#[derive(Clone, Debug)]
pub enum MetadataValue {
    /// Null.
    Null,
    /// This number.
    Number(f64),
    /// A number in `start..end`.
    Range(std::ops::Range<f64>),
    /// A string.
    String(StringMatcher),
    /// A boolean.
    Bool(bool),
    /// There is one, or there is none.
    Present(bool),
    /// A list, one of whose items is this.
    OneOf(Box<MetadataValue>),
    /// One of these.
    Or(Vec<MetadataValue>),
}

impl MetadataMatcher {
    /// Whether it holds (Envoy: metadata_matcher in common/matchers.cc).
    pub fn matches(&self, metadata: Option<&crate::config::Metadata>) -> bool {
        let root = metadata.and_then(|metadata| metadata.0.get(&self.filter));
        let value = self.path.iter().try_fold(root, |value, key| value?.get(&**key).map(Some)).flatten();
        self.value.matches(value) != self.invert
    }
}

impl MetadataValue {
    fn matches(&self, value: Option<&serde_json::Value>) -> bool {
        match (self, value) {
            (MetadataValue::Present(wanted), value) => value.is_some() == *wanted,
            (MetadataValue::Or(any), value) => any.iter().any(|matcher| matcher.matches(value)),
            (_, None) => false,
            (MetadataValue::Null, Some(value)) => value.is_null(),
            (MetadataValue::Number(wanted), Some(value)) => value.as_f64() == Some(*wanted),
            (MetadataValue::Range(range), Some(value)) => value.as_f64().is_some_and(|n| range.contains(&n)),
            (MetadataValue::String(matcher), Some(value)) => {
                value.as_str().is_some_and(|text| matcher.matches(text.as_bytes()))
            }
            (MetadataValue::Bool(wanted), Some(value)) => value.as_bool() == Some(*wanted),
            (MetadataValue::OneOf(matcher), Some(value)) => {
                value.as_array().is_some_and(|items| items.iter().any(|item| matcher.matches(Some(item))))
            }
        }
    }
}
