//! How serde walks a tree: the fields of a message, the entries of a map, the elements of a list, the name of an enum value.

use std::collections::HashMap;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::{Context, Decoder, Failure, Rules, expect};
use crate::message::camel_case;
use crate::parse::tree::{Entry, Node};

/// An entry whose name is a field's.
type Known<'t> = (&'static str, &'t Entry);

/// Those entries that are fields of the message and not null; the others are noted.
pub(super) fn known<'t>(entries: &'t [Entry], fields: &'static [&'static str], context: &Context) -> Vec<Known<'t>> {
    let mut lines = HashMap::new();
    let mut known = Vec::with_capacity(entries.len());
    for entry in entries {
        let is = |key: &str| fields.iter().copied().find(|field| *field == key);
        let field = is(&entry.key).or_else(|| match context.rules {
            Rules::Protobuf if entry.key.contains('_') => is(&camel_case(&entry.key)),
            _ => None,
        });
        let Some(field) = field else {
            let (message, hint) = expect::unknown_field(&entry.key, fields, &context.scopes.borrow());
            match context.rules {
                Rules::Protobuf => context.error(entry.key_span, message, hint),
                Rules::Kubernetes | Rules::KubernetesSecret => {
                    context.warning(entry.key_span, format!("{message}; it is ignored"), hint)
                }
            }
            continue;
        };
        if let Some(line) = lines.insert(field, entry.key_span.start.line) {
            let message = format!("`{field}` is here twice; the first is in line {line}");
            context.error(entry.key_span, message, None);
        } else if !entry.value.is_null() {
            known.push((field, entry));
        }
    }
    known
}

/// The fields of a message.
pub(super) struct Fields<'t, 'c> {
    entries: std::vec::IntoIter<Known<'t>>,
    value: Option<&'t Entry>,
    context: &'c Context,
}

impl<'t, 'c> Fields<'t, 'c> {
    pub(super) fn new(entries: Vec<Known<'t>>, context: &'c Context) -> Self {
        Fields { entries: entries.into_iter(), value: None, context }
    }
}

impl<'t> MapAccess<'t> for Fields<'t, '_> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'t>>(&mut self, seed: K) -> Result<Option<K::Value>, Failure> {
        let Some((field, entry)) = self.entries.next() else { return Ok(None) };
        self.value = Some(entry);
        seed.deserialize(BorrowedStrDeserializer::new(field)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'t>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        value_of(self.value.take(), self.context, seed)
    }
}

/// The entries of a map, whose keys are free.
pub(super) struct MapEntries<'t, 'c> {
    entries: std::slice::Iter<'t, Entry>,
    value: Option<&'t Entry>,
    context: &'c Context,
}

impl<'t, 'c> MapEntries<'t, 'c> {
    pub(super) fn new(entries: &'t [Entry], context: &'c Context) -> Self {
        MapEntries { entries: entries.iter(), value: None, context }
    }
}

impl<'t> MapAccess<'t> for MapEntries<'t, '_> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'t>>(&mut self, seed: K) -> Result<Option<K::Value>, Failure> {
        let Some(entry) = self.entries.next() else { return Ok(None) };
        self.value = Some(entry);
        seed.deserialize(BorrowedStrDeserializer::new(&entry.key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'t>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        value_of(self.value.take(), self.context, seed)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len())
    }
}

fn value_of<'t, S: DeserializeSeed<'t>>(
    entry: Option<&'t Entry>,
    context: &Context,
    seed: S,
) -> Result<S::Value, Failure> {
    // serde asks for a value only after its key.
    let entry = entry.ok_or(Failure::Noted)?;
    Decoder { node: &entry.value, at: entry.span(), context }.seed(seed)
}

/// The elements of a list.
pub(super) struct Elements<'t, 'c> {
    items: std::slice::Iter<'t, Node>,
    context: &'c Context,
}

impl<'t, 'c> Elements<'t, 'c> {
    pub(super) fn new(items: &'t [Node], context: &'c Context) -> Self {
        Elements { items: items.iter(), context }
    }
}

impl<'t> SeqAccess<'t> for Elements<'t, '_> {
    type Error = Failure;

    fn next_element_seed<S: DeserializeSeed<'t>>(&mut self, seed: S) -> Result<Option<S::Value>, Failure> {
        let Some(node) = self.items.next() else { return Ok(None) };
        Decoder { node, at: node.span_or_first_key(), context: self.context }.seed(seed).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// The value of an enumeration, as it was written.
pub(super) enum EnumName<'t> {
    Name(&'t str),
    Number(i64),
}

impl<'t> EnumAccess<'t> for EnumName<'t> {
    type Error = Failure;
    type Variant = Unit;

    fn variant_seed<S: DeserializeSeed<'t>>(self, seed: S) -> Result<(S::Value, Unit), Failure> {
        let value = match self {
            EnumName::Name(name) => seed.deserialize(BorrowedStrDeserializer::new(name)),
            EnumName::Number(number) => seed.deserialize(number.into_deserializer()),
        };
        value.map(|value| (value, Unit))
    }
}

/// An enumeration's value has nothing beside its name.
pub(super) struct Unit;

impl<'t> VariantAccess<'t> for Unit {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'t>>(self, _: S) -> Result<S::Value, Failure> {
        Err(Failure::Noted)
    }

    fn tuple_variant<V: Visitor<'t>>(self, _: usize, _: V) -> Result<V::Value, Failure> {
        Err(Failure::Noted)
    }

    fn struct_variant<V: Visitor<'t>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Failure> {
        Err(Failure::Noted)
    }
}
