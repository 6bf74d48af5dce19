//! Where in a resource we are, what is wrong there, and the conversions every message needs.

use std::fmt;
use std::time::Duration;

use maille_xds::types::{self, Any, Message, Name};

/// A resource that cannot be run whole, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refused {
    /// The resource's name.
    pub resource: String,
    /// The field, from the resource's top; empty is the whole.
    pub field: String,
    /// What is wrong with it and what would be right.
    pub reason: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => write!(f, "{:?}: {}", self.resource, self.reason),
            field => write!(f, "{:?}: {field}: {}", self.resource, self.reason),
        }
    }
}

/// A place in a resource. It lives on the stack; a path is only written when something is refused.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    parent: Option<&'a At<'a>>,
    name: &'a str,
    index: Option<usize>,
}

pub(crate) type Compiled<T> = Result<T, Refused>;

impl<'a> At<'a> {
    /// The top of a resource.
    pub(crate) fn resource(name: &'a str) -> At<'a> {
        At { parent: None, name, index: None }
    }

    pub(crate) fn field(&'a self, name: &'a str) -> At<'a> {
        At { parent: Some(self), name, index: None }
    }

    pub(crate) fn item(&'a self, name: &'a str, index: usize) -> At<'a> {
        At { parent: Some(self), name, index: Some(index) }
    }

    pub(crate) fn refuse<T>(&self, reason: impl Into<String>) -> Compiled<T> {
        let mut parts = Vec::new();
        let mut place = *self;
        while let Some(parent) = place.parent {
            parts.push(match place.index {
                Some(index) => format!("{}[{index}]", place.name),
                None => place.name.to_owned(),
            });
            place = *parent;
        }
        parts.reverse();
        Err(Refused { resource: place.name.to_owned(), field: parts.join("."), reason: reason.into() })
    }

    /// Refuses a field that is set.
    pub(crate) fn unset<T: Default + PartialEq>(&self, name: &str, value: &T) -> Compiled<()> {
        if *value == T::default() { Ok(()) } else { self.field(name).refuse("is not supported") }
    }

    /// A sub-message that must be there.
    pub(crate) fn required<'v, T>(&self, name: &str, value: &'v Option<T>) -> Compiled<&'v T> {
        match value {
            Some(value) => Ok(value),
            None => self.field(name).refuse("is missing"),
        }
    }

    /// Text that must not be empty.
    pub(crate) fn text<'v>(&self, name: &str, value: &'v str) -> Compiled<&'v str> {
        if value.is_empty() { self.field(name).refuse("is empty") } else { Ok(value) }
    }

    /// A number of an enum.
    pub(crate) fn one_of<T: TryFrom<i32>>(&self, name: &str, value: i32) -> Compiled<T> {
        match T::try_from(value) {
            Ok(value) => Ok(value),
            Err(_) => self.field(name).refuse(format!("{value} is no value of this enum")),
        }
    }

    /// What an `Any` holds, when it holds an `M`.
    pub(crate) fn unpack<M: Message + Name + Default>(&self, any: &Any) -> Compiled<Option<M>> {
        match types::unpack::<M>(any) {
            None => Ok(None),
            Some(Ok(message)) => Ok(Some(message)),
            Some(Err(error)) => self.refuse(format!("the bytes are no {}: {error}", M::full_name())),
        }
    }

    /// A duration that must not be negative.
    pub(crate) fn duration(&self, name: &str, value: &Option<types::Duration>) -> Compiled<Option<Duration>> {
        let Some(types::Duration { seconds, nanos }) = *value else { return Ok(None) };
        match (u64::try_from(seconds), u32::try_from(nanos)) {
            (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Some(Duration::new(seconds, nanos))),
            _ => self.field(name).refuse(format!("{seconds}s {nanos}ns is no duration")),
        }
    }

    /// A timeout: unset is the default, zero is none.
    pub(crate) fn timeout(
        &self,
        name: &str,
        value: &Option<types::Duration>,
        default: Option<Duration>,
    ) -> Compiled<Option<Duration>> {
        Ok(match self.duration(name, value)? {
            None => default,
            Some(Duration::ZERO) => None,
            Some(timeout) => Some(timeout),
        })
    }
}

/// Refuses each of the fields that is set. They are local variables with the fields' names.
macro_rules! unset {
    ($at:expr; $($field:ident),* $(,)?) => {
        $($at.unset(stringify!($field), $field)?;)*
    };
}
pub(crate) use unset;

/// Whether a wrapped bool is set and true.
pub(crate) fn is_true(value: &Option<types::BoolValue>) -> bool {
    value.as_ref().is_some_and(|v| v.value)
}

/// A wrapped number, if it is there.
pub(crate) fn number(value: &Option<types::UInt32Value>) -> Option<u32> {
    value.as_ref().map(|v| v.value)
}
