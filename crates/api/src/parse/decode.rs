//! Trees to types, by protobuf's JSON rules where Istio's kinds are concerned and Kubernetes' where its own are.
//!
//! A wrong value is noted, replaced by a harmless one, and decoding goes on, so that all mistakes of a resource are
//! found at once; whoever asked gets no value then.

mod access;
mod expect;

use std::cell::RefCell;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};

use self::access::{Elements, EnumName, Fields, MapEntries};
use super::scalar::{self, Plain};
use super::tree::{Node, Span, Value};
use crate::bytes::Bytes;
use crate::duration::Duration;

pub(crate) use self::expect::suggestion;

/// More of them tell nobody more.
const MAX_MISFITS: usize = 100;

/// Whose rules hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Rules {
    /// protobuf's JSON: names in camelCase or snake_case, an unknown field is an error.
    Protobuf,
    /// Kubernetes': names as they are; an unknown field is a warning, for newer versions than ours have more of them.
    Kubernetes,
    /// Kubernetes', and no value may appear in a message.
    KubernetesSecret,
}

/// Something that does not fit its type.
#[derive(Clone, Debug)]
pub(crate) struct Misfit {
    pub(crate) span: Span,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    pub(crate) is_error: bool,
}

/// Decodes a node, or says why not. Warnings come with either.
pub(crate) fn decode<'t, T: Deserialize<'t>>(node: &'t Node, at: Span, rules: Rules) -> (Option<T>, Vec<Misfit>) {
    let context = Context { rules, misfits: RefCell::default(), scopes: RefCell::default() };
    let value = T::deserialize(Decoder { node, at, context: &context });
    if let Err(failure) = &value {
        context.note_failure(failure, node, at);
    }
    let mut misfits = context.misfits.into_inner();
    misfits.sort_by_key(|misfit| misfit.span.start);
    (value.ok().filter(|_| !misfits.iter().any(|misfit| misfit.is_error)), misfits)
}

struct Context {
    rules: Rules,
    misfits: RefCell<Vec<Misfit>>,
    /// The fields of the messages we are inside of, to say where a misplaced one belongs.
    scopes: RefCell<Vec<&'static [&'static str]>>,
}

impl Context {
    fn error(&self, span: Span, message: impl Into<String>, hint: Option<String>) {
        self.note(Misfit { span, message: message.into(), hint, is_error: true });
    }

    fn warning(&self, span: Span, message: impl Into<String>, hint: Option<String>) {
        self.note(Misfit { span, message: message.into(), hint, is_error: false });
    }

    fn note(&self, misfit: Misfit) {
        let mut misfits = self.misfits.borrow_mut();
        // An error past the limit would go unseen only if all before it were warnings.
        if misfits.len() < MAX_MISFITS || misfit.is_error && !misfits.iter().any(|misfit| misfit.is_error) {
            misfits.push(misfit);
        }
    }

    /// A failure that a type came up with does not know its place: it is the value's, or that of a key it names.
    fn note_failure(&self, failure: &Failure, node: &Node, at: Span) {
        if let Failure::New(message) = failure {
            let named = message.split('`').skip(1).step_by(2).filter_map(|name| node.get(name)).last();
            self.error(named.map_or(at, |entry| entry.key_span), message.clone(), None);
        }
    }
}

/// Why a value could not be made.
#[derive(Clone, Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    New(String),
    #[error("already noted")]
    Noted,
}

impl serde::de::Error for Failure {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Failure::New(message.to_string())
    }
}

/// A node that is to become a value.
#[derive(Clone, Copy)]
struct Decoder<'t, 'c> {
    node: &'t Node,
    /// What to point at: the node, or its key.
    at: Span,
    context: &'c Context,
}

impl<'t> Decoder<'t, '_> {
    /// Decodes with a seed, and notes here what goes wrong inside without a place.
    fn seed<S: serde::de::DeserializeSeed<'t>>(self, seed: S) -> Result<S::Value, Failure> {
        seed.deserialize(self).map_err(|failure| {
            self.context.note_failure(&failure, self.node, self.at);
            Failure::Noted
        })
    }

    fn text(&self) -> Option<(&'t str, bool)> {
        match &self.node.value {
            Value::Scalar { text, plain } => Some((text, *plain)),
            _ => None,
        }
    }

    /// The text of something that has to be a string.
    fn string(&self) -> &'t str {
        match self.text() {
            Some((text, false)) => text,
            Some((text, true)) if scalar::resolve(text) == Plain::Text => text,
            _ => {
                let hint = expect::string_hint(self.node);
                self.wrong("a string", hint);
                ""
            }
        }
    }

    fn integer(&self, min: i128, max: i128) -> i128 {
        let number = self.text().and_then(|(text, _)| {
            // Quoted numbers are protobuf's way to write large ones; fractions count when they are whole.
            scalar::int(text).or_else(|| {
                let float = scalar::float(text)?;
                (float.fract() == 0.0 && float.abs() < 1e18).then_some(float as i128)
            })
        });
        match number {
            Some(number) if (min..=max).contains(&number) => number,
            Some(number) => {
                self.context.error(self.at, format!("{number} is out of range: {min} to {max} is possible"), None);
                0
            }
            None => {
                self.wrong("an integer", None);
                0
            }
        }
    }

    fn is_duration(&self) -> bool {
        let (message, hint) = match expect::number_without_unit(self.node) {
            Some(number) => (
                format!("a duration needs a unit, {number} has none"),
                Some(format!("in seconds it would be {number}s")),
            ),
            None => match self.text().map(|(text, _)| text.parse::<Duration>()) {
                Some(Ok(_)) => return true,
                Some(Err(error)) => (error.to_string(), None),
                None => (format!("a duration such as 5s was expected here, not {}", expect::describe(self.node)), None),
            },
        };
        self.context.error(self.at, message, hint);
        false
    }

    fn is_base64(&self) -> bool {
        let valid = self.text().is_some_and(|(text, _)| Bytes::from_base64(text).is_some());
        if !valid {
            self.context.error(self.at, "this is not base64", None);
        }
        valid
    }

    fn wrong(&self, expected: &str, hint: Option<String>) {
        if self.context.rules == Rules::KubernetesSecret {
            return self.context.error(self.at, format!("{expected} was expected here"), None);
        }
        let message = format!("{expected} was expected here, not {}", expect::describe(self.node));
        self.context.error(self.at, message, hint);
    }
}

macro_rules! integers {
    ($( $method:ident $visit:ident $type:ty, )*) => {
        $( fn $method<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Failure> {
            visitor.$visit(self.integer(<$type>::MIN.into(), <$type>::MAX.into()) as $type)
        } )*
    };
}

impl<'t> Deserializer<'t> for Decoder<'t, '_> {
    type Error = Failure;

    integers! {
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
    }

    fn deserialize_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Failure> {
        match &self.node.value {
            Value::Scalar { text, plain: false } => visitor.visit_borrowed_str(text),
            Value::Scalar { text, plain: true } => match scalar::resolve(text) {
                Plain::Null => visitor.visit_unit(),
                Plain::Bool(value) => visitor.visit_bool(value),
                Plain::Int(value) => match (u64::try_from(value), i64::try_from(value)) {
                    (Ok(value), _) => visitor.visit_u64(value),
                    (_, Ok(value)) => visitor.visit_i64(value),
                    _ => visitor.visit_f64(value as f64),
                },
                Plain::Float(value) => visitor.visit_f64(value),
                Plain::Text => visitor.visit_borrowed_str(text),
            },
            Value::Sequence(items) => visitor.visit_seq(Elements::new(items, self.context)),
            Value::Mapping(entries) => visitor.visit_map(MapEntries::new(entries, self.context)),
        }
    }

    fn deserialize_bool<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Failure> {
        let value = match self.text() {
            Some((text, true)) => match scalar::resolve(text) {
                Plain::Bool(value) => Some(value),
                _ => None,
            },
            _ => None,
        };
        if value.is_none() {
            let quoted = self.text().is_some_and(|(text, plain)| !plain && matches!(text, "true" | "false"));
            self.wrong("true or false", quoted.then(|| "write it without quotes".to_owned()));
        }
        visitor.visit_bool(value.unwrap_or_default())
    }

    fn deserialize_f64<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Failure> {
        let number =
            self.text().and_then(|(text, _)| scalar::float(text).or_else(|| scalar::int(text).map(|int| int as f64)));
        if number.is_none() {
            let percent = self.text().and_then(|(text, _)| text.strip_suffix('%'));
            self.wrong("a number", percent.map(|number| format!("write it without the sign: {number}")));
        }
        visitor.visit_f64(number.unwrap_or_default())
    }

    fn deserialize_f32<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_str<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_borrowed_str(self.string())
    }

    fn deserialize_string<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Failure> {
        if self.node.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Failure> {
        if !self.node.is_null() {
            self.wrong("nothing", None);
        }
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'t>>(self, _: &'static str, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_unit(visitor)
    }

    /// Durations and base64 are checked here, so that a wrong one does not end the decoding of everything around it.
    fn deserialize_newtype_struct<V: Visitor<'t>>(self, name: &'static str, visitor: V) -> Result<V::Value, Failure> {
        let harmless = match name {
            Duration::TYPE_NAME if !self.is_duration() => "0s",
            Bytes::TYPE_NAME if !self.is_base64() => "",
            _ => return visitor.visit_newtype_struct(self),
        };
        visitor.visit_newtype_struct(BorrowedStrDeserializer::new(harmless))
    }

    fn deserialize_seq<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Failure> {
        match &self.node.value {
            Value::Sequence(items) => visitor.visit_seq(Elements::new(items, self.context)),
            _ => {
                let one = self.text().filter(|(text, _)| !text.is_empty());
                self.wrong("a list", one.map(|(text, _)| format!("a list of one is written [{text}]")));
                visitor.visit_seq(Elements::new(&[], self.context))
            }
        }
    }

    fn deserialize_tuple<V: Visitor<'t>>(self, _: usize, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'t>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Failure> {
        match &self.node.value {
            Value::Mapping(entries) => visitor.visit_map(MapEntries::new(entries, self.context)),
            _ => {
                self.wrong("a mapping", None);
                visitor.visit_map(MapEntries::new(&[], self.context))
            }
        }
    }

    fn deserialize_struct<V: Visitor<'t>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        if !matches!(self.node.value, Value::Mapping(_)) {
            self.wrong("a mapping", expect::mapping_hint(self.node, fields));
        }
        let entries = access::known(self.node.entries(), fields, self.context);
        self.context.scopes.borrow_mut().push(fields);
        let value = visitor.visit_map(Fields::new(entries, self.context));
        self.context.scopes.borrow_mut().pop();
        value
    }

    fn deserialize_enum<V: Visitor<'t>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        match self.text() {
            // By name, even one that YAML takes for something else, such as OFF or NONE.
            Some((text, _)) if names.contains(&text) => visitor.visit_enum(EnumName::Name(text)),
            Some((text, true)) if scalar::int(text).is_some() => {
                let number = scalar::int(text).and_then(|number| i64::try_from(number).ok()).unwrap_or(i64::MAX);
                visitor.visit_enum(EnumName::Number(number))
            }
            Some((text, _)) if !text.is_empty() => {
                let (message, hint) = expect::unknown_value(text, names);
                self.context.error(self.at, message, hint);
                visitor.visit_enum(EnumName::Name(names.first().copied().unwrap_or_default()))
            }
            _ => {
                self.wrong(&format!("one of {}", names.join(", ")), None);
                visitor.visit_enum(EnumName::Name(names.first().copied().unwrap_or_default()))
            }
        }
    }

    fn deserialize_ignored_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_unit()
    }

    fn deserialize_identifier<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'t>>(self, _: V) -> Result<V::Value, Failure> {
        Err(Failure::custom("no field is a single character"))
    }

    fn deserialize_bytes<V: Visitor<'t>>(self, _: V) -> Result<V::Value, Failure> {
        Err(Failure::custom("bytes are written as base64"))
    }

    fn deserialize_byte_buf<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_bytes(visitor)
    }
}
