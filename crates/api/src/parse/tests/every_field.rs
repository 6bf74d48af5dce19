//! Every field of every kind is read and written back.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde::de::value::{MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{Deserialize, DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::Value;

use super::fixtures;
use crate::mesh::MeshConfig;
use crate::meta::Spec;
use crate::parse::decode::{Rules, decode};
use crate::parse::tree::{File, Tree};
use crate::parse::{Parsed, documents, read};

#[test]
fn every_field_is_read_and_written_back() {
    let spy = Seen::default();
    for (name, text) in fixtures("every_field").into_iter().filter(|(name, _)| !name.starts_with("mesh")) {
        for Parsed { object, .. } in parse(&name, &text) {
            let written = object.to_json();
            let again = parse(&name, &written.to_string()).remove(0).object;
            assert_eq!((&again.meta, &again.spec), (&object.meta, &object.spec), "{name}");
            assert_eq!(again.to_json(), written);
            look(&object.spec, &spy);
        }
    }
    spy.assert_complete();
}

#[test]
fn every_mesh_setting_is_read_and_written_back() {
    let spy = Seen::default();
    for (name, text) in fixtures("every_field").into_iter().filter(|(name, _)| name.starts_with("mesh")) {
        let config: MeshConfig = decoded(&name, &text);
        let written = serde_json::to_value(&config).unwrap();
        assert_eq!(decoded::<MeshConfig>(&name, &written.to_string()), config, "{name}");
        // Mesh settings are written whole, so only the fixture itself tells what it has.
        MeshConfig::deserialize(Spy { value: &decoded(&name, &text), seen: &spy }).unwrap();
    }
    spy.assert_complete();
}

fn parse(name: &str, text: &str) -> Vec<Parsed> {
    documents(text, name).into_iter().map(|parsed| parsed.unwrap_or_else(|diagnostic| panic!("{diagnostic}"))).collect()
}

fn decoded<T: DeserializeOwned>(name: &str, text: &str) -> T {
    let file = File::new(name, text);
    let root = read::documents(&file).remove(0).unwrap();
    let tree = Tree { file, root, secret: false };
    let (value, misfits) = decode(&tree.root, tree.locate(""), Rules::Protobuf);
    assert!(misfits.is_empty(), "{name}: {misfits:?}");
    value.unwrap()
}

/// Reads a spec's own JSON with an eye on which fields it has.
fn look(spec: &Spec, seen: &Seen) {
    let json = spec.to_json();
    let spy = || Spy { value: &json, seen };
    match spec {
        Spec::Gateway(spec) => assert_eq!(&Deserialize::deserialize(spy()), &Ok(spec.clone())),
        Spec::VirtualService(spec) => assert_eq!(&Deserialize::deserialize(spy()), &Ok(spec.clone())),
        Spec::DestinationRule(spec) => assert_eq!(&Deserialize::deserialize(spy()), &Ok(spec.clone())),
        Spec::ServiceEntry(spec) => assert_eq!(&Deserialize::deserialize(spy()), &Ok(spec.clone())),
        Spec::WorkloadEntry(spec) => assert_eq!(&Deserialize::deserialize(spy()), &Ok(spec.clone())),
        Spec::WorkloadGroup(spec) => assert_eq!(&Deserialize::deserialize(spy()), &Ok(spec.clone())),
        Spec::Sidecar(spec) => assert_eq!(&Deserialize::deserialize(spy()), &Ok(spec.clone())),
        Spec::PeerAuthentication(spec) => assert_eq!(&Deserialize::deserialize(spy()), &Ok(spec.clone())),
        Spec::RequestAuthentication(spec) => assert_eq!(&Deserialize::deserialize(spy()), &Ok(spec.clone())),
        Spec::AuthorizationPolicy(spec) => assert_eq!(&Deserialize::deserialize(spy()), &Ok(spec.clone())),
        Spec::Service(spec) => assert_eq!(&Deserialize::deserialize(spy()), &Ok(spec.clone())),
        Spec::Namespace(spec) => assert_eq!(&Deserialize::deserialize(spy()), &Ok(spec.clone())),
        Spec::ConfigMap(spec) => assert_eq!(&Deserialize::deserialize(spy()), &Ok(spec.clone())),
        // What is written is not all that is read: `stringData` becomes `data`.
        Spec::Secret(_) => {}
    }
}

/// The fields that the messages have, and those that were there.
#[derive(Default)]
struct Seen {
    declared: RefCell<BTreeSet<(String, &'static str)>>,
    present: RefCell<BTreeSet<(String, String)>>,
}

impl Seen {
    fn assert_complete(&self) {
        let present = self.present.borrow();
        let declared = self.declared.borrow();
        let absent: Vec<_> = declared
            .iter()
            .filter(|(message, field)| !present.contains(&(message.clone(), (*field).to_owned())))
            .collect();
        assert!(absent.is_empty(), "not in any fixture: {absent:#?}");
        assert!(declared.len() > 100, "only {} fields", declared.len());
    }
}

/// A deserializer that notes what it is asked for.
#[derive(Clone, Copy)]
struct Spy<'a> {
    value: &'a Value,
    seen: &'a Seen,
}

impl<'de> Deserializer<'de> for Spy<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        let spy = |value| Spy { value, seen: self.seen };
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => visitor.visit_u64(number),
                (_, Some(number)) => visitor.visit_i64(number),
                _ => visitor.visit_f64(number.as_f64().unwrap()),
            },
            Value::String(text) => visitor.visit_str(text),
            Value::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.iter().map(spy))),
            Value::Object(fields) => {
                visitor.visit_map(MapDeserializer::new(fields.iter().map(|(key, value)| (key.as_str(), spy(value)))))
            }
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        // Several types may share a name, but not one and the same fields.
        let message = format!("{name}({})", fields.join(","));
        self.seen.declared.borrow_mut().extend(fields.iter().map(|field| (message.clone(), *field)));
        let present = self.value.as_object().into_iter().flatten().map(|(field, _)| (message.clone(), field.clone()));
        self.seen.present.borrow_mut().extend(present);
        self.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        let name: StrDeserializer<'_, Self::Error> = self.value.as_str().unwrap_or_default().into_deserializer();
        visitor.visit_enum(name)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

impl IntoDeserializer<'_> for Spy<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}
