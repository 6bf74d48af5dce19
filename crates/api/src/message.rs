//! How a protobuf message becomes a Rust type here: the macros every resource type is written with.
//!
//! Proto3 JSON leaves out what has its default value and writes a `oneof` as whichever member is set, between the
//! message's other fields. serde can say the first only field by field, and the second not at all without giving up
//! positions and unknown-field errors, so both are said once, here.
//!
//! Fields of mirrored messages carry no documentation of their own: Istio's reference is where they are explained.

use std::marker::PhantomData;

use serde::de::{self, Deserialize, EnumAccess, VariantAccess};

/// Proto3 JSON writes no field that has its default value.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// An error for two members of one `oneof` that are both set.
pub(crate) fn both_set(members: &[Option<&'static str>]) -> String {
    let set: Vec<String> =
        members.iter().flatten().map(|member| format!("`{}`", camel_case(member.trim_start_matches("r#")))).collect();
    format!("only one of {} can be set", set.join(" and "))
}

/// `http_cookie` → `httpCookie`, as protobuf derives JSON names.
pub(crate) fn camel_case(snake: &str) -> String {
    let mut camel = String::with_capacity(snake.len());
    let mut upper = false;
    for c in snake.chars() {
        match c {
            '_' => upper = true,
            c if upper => {
                camel.extend(c.to_uppercase());
                upper = false;
            }
            c => camel.push(c),
        }
    }
    camel
}

/// A protobuf enumeration: its values have a name and a number, and JSON may use either.
pub(crate) trait ProtoEnum: Sized {
    const NAMES: &'static [&'static str];
    fn from_name(name: &str) -> Option<Self>;
    fn from_number(number: i64) -> Option<Self>;
}

pub(crate) struct EnumVisitor<T>(pub(crate) PhantomData<T>);

impl<'de, T: ProtoEnum> de::Visitor<'de> for EnumVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "one of {}", T::NAMES.join(", "))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<T, A::Error> {
        let (EnumValue(value), variant) = access.variant()?;
        variant.unit_variant()?;
        Ok(value)
    }
}

struct EnumValue<T>(T);

impl<'de, T: ProtoEnum> Deserialize<'de> for EnumValue<T> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_identifier(EnumValueVisitor(PhantomData))
    }
}

struct EnumValueVisitor<T>(PhantomData<T>);

impl<T: ProtoEnum> de::Visitor<'_> for EnumValueVisitor<T> {
    type Value = EnumValue<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "one of {}", T::NAMES.join(", "))
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<EnumValue<T>, E> {
        T::from_name(name).map(EnumValue).ok_or_else(|| E::unknown_variant(name, T::NAMES))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<EnumValue<T>, E> {
        T::from_number(number).map(EnumValue).ok_or_else(|| E::unknown_variant(&number.to_string(), T::NAMES))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<EnumValue<T>, E> {
        self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// The text of a type that is written as a string; the type's name lets a deserializer check the text where it stands.
pub(crate) fn newtype_text<'de, D: de::Deserializer<'de>>(
    deserializer: D,
    name: &'static str,
) -> Result<String, D::Error> {
    struct Text;
    impl<'de> de::Visitor<'de> for Text {
        type Value = String;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a string")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        fn visit_newtype_struct<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
            deserializer.deserialize_any(self)
        }
    }
    deserializer.deserialize_newtype_struct(name, Text)
}

/// A message: camelCase in JSON, every field optional, defaults not written.
///
/// `oneof NAME: TYPE { member => Variant(Type), }` after the struct adds a field `NAME: Option<TYPE>`.
/// `with defaults` in front is for the messages whose absent fields mean something else than zero: they implement
/// `Default` by hand and write every field.
macro_rules! message {
    (
        $(#[$meta:meta])*
        pub struct $name:ident { $( $(#[$fmeta:meta])* pub $field:ident : $ty:ty, )* }
    ) => {
        $(#[$meta])*
        #[allow(missing_docs)]
        #[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, serde::Serialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
        pub struct $name {
            $( $(#[$fmeta])* #[serde(skip_serializing_if = "crate::message::is_default")] pub $field: $ty, )*
        }
    };
    (
        with defaults
        $(#[$meta:meta])*
        pub struct $name:ident { $( $(#[$fmeta:meta])* pub $field:ident : $ty:ty, )* }
    ) => {
        $(#[$meta])*
        #[allow(missing_docs)]
        #[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
        pub struct $name { $( $(#[$fmeta])* pub $field: $ty, )* }
    };
    (
        $(#[$meta:meta])*
        pub struct $name:ident { $($fields:tt)* }
        $($oneofs:tt)+
    ) => {
        $crate::message::message_with_oneof! {
            [#[derive(Default)]] [serde(skip_serializing_if = "crate::message::is_default")]
            $(#[$meta])* pub struct $name { $($fields)* } $($oneofs)+
        }
    };
    (
        with defaults
        $(#[$meta:meta])*
        pub struct $name:ident { $($fields:tt)* }
        $($oneofs:tt)+
    ) => {
        $crate::message::message_with_oneof! { [] [allow(missing_docs)] $(#[$meta])* pub struct $name { $($fields)* } $($oneofs)+ }
    };
}

/// The part of `message!` that has oneofs: on the wire their members stand beside the other fields.
macro_rules! message_with_oneof {
    (
        [$($derive:tt)*] $skip:tt
        $(#[$meta:meta])*
        pub struct $name:ident { $( $(#[$fmeta:meta])* pub $field:ident : $ty:ty, )* }
        $(
            $(#[$ometa:meta])*
            oneof $oneof:ident : $choice:ident { $( $member:ident => $variant:ident($vty:ty), )+ }
        )+
    ) => {
        $(#[$meta])*
        #[allow(missing_docs)]
        #[derive(Clone, Debug, PartialEq)]
        $($derive)*
        pub struct $name {
            $( pub $field: $ty, )*
            $( pub $oneof: Option<$choice>, )+
        }

        $(
            $(#[$ometa])*
            #[allow(missing_docs, clippy::large_enum_variant)]
            #[derive(Clone, Debug, PartialEq)]
            pub enum $choice { $( $variant($vty), )+ }
        )+

        const _: () = {
            #[derive(serde::Deserialize, serde::Serialize)]
            #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
            struct Wire {
                $( $(#[$fmeta])* #$skip $field: $ty, )*
                $($( #[serde(skip_serializing_if = "Option::is_none")] $member: Option<$vty>, )+)+
            }

            impl Default for Wire {
                fn default() -> Self {
                    $name::default().into()
                }
            }

            impl From<$name> for Wire {
                fn from(message: $name) -> Self {
                    $( #[allow(unused_mut)] let ($(mut $member,)+) = ($($crate::message::none::<$vty>(),)+);
                    match message.$oneof {
                        $( Some($choice::$variant(value)) => $member = Some(value), )+
                        None => {}
                    } )+
                    Wire { $( $field: message.$field, )* $($( $member, )+)+ }
                }
            }

            impl<'de> serde::Deserialize<'de> for $name {
                fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    let wire = Wire::deserialize(deserializer)?;
                    $( let set = [$( wire.$member.as_ref().map(|_| stringify!($member)), )+];
                    if set.iter().flatten().count() > 1 {
                        return Err(serde::de::Error::custom($crate::message::both_set(&set)));
                    } )+
                    Ok($name {
                        $( $field: wire.$field, )*
                        $( $oneof: None$(.or(wire.$member.map($choice::$variant)))+, )+
                    })
                }
            }

            impl serde::Serialize for $name {
                fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    Wire::from(self.clone()).serialize(serializer)
                }
            }
        };
    };
}

/// A message that is nothing but one `oneof`: an enum whose default is that no member is set.
macro_rules! choice {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $( $member:ident => $variant:ident($vty:ty), )+ }
    ) => {
        $(#[$meta])*
        #[allow(missing_docs, clippy::large_enum_variant)]
        #[derive(Clone, Debug, Default, PartialEq)]
        pub enum $name {
            /// The message is there, and says nothing.
            #[default]
            Unset,
            $( $variant($vty), )+
        }

        const _: () = {
            #[derive(Default, serde::Deserialize, serde::Serialize)]
            #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
            struct Wire {
                $( #[serde(skip_serializing_if = "Option::is_none")] $member: Option<$vty>, )+
            }

            impl<'de> serde::Deserialize<'de> for $name {
                fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    let wire = Wire::deserialize(deserializer)?;
                    let set = [$( wire.$member.as_ref().map(|_| stringify!($member)), )+];
                    if set.iter().flatten().count() > 1 {
                        return Err(serde::de::Error::custom($crate::message::both_set(&set)));
                    }
                    Ok(None$(.or(wire.$member.map($name::$variant)))+.unwrap_or_default())
                }
            }

            impl serde::Serialize for $name {
                fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    let mut wire = Wire::default();
                    match self.clone() {
                        $name::Unset => {}
                        $( $name::$variant(value) => wire.$member = Some(value), )+
                    }
                    wire.serialize(serializer)
                }
            }
        };
    };
}

/// An enumeration: `Variant = NUMBER "NAME"`, the first being the default.
macro_rules! proto_enum {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $first:ident = $first_number:literal $first_name:literal,
            $( $variant:ident = $number:literal $value:literal, )*
        }
    ) => {
        $(#[$meta])*
        #[allow(missing_docs)]
        #[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum $name {
            #[default]
            $first = $first_number,
            $( $variant = $number, )*
        }

        impl $name {
            /// The value's name in the API.
            pub fn as_str(self) -> &'static str {
                match self {
                    Self::$first => $first_name,
                    $( Self::$variant => $value, )*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::message::ProtoEnum for $name {
            const NAMES: &'static [&'static str] = &[$first_name, $($value,)*];

            fn from_name(name: &str) -> Option<Self> {
                match name {
                    $first_name => Some(Self::$first),
                    $( $value => Some(Self::$variant), )*
                    _ => None,
                }
            }

            fn from_number(number: i64) -> Option<Self> {
                match number {
                    $first_number => Some(Self::$first),
                    $( $number => Some(Self::$variant), )*
                    _ => None,
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                use $crate::message::{EnumVisitor, ProtoEnum};
                deserializer.deserialize_enum(stringify!($name), Self::NAMES, EnumVisitor(std::marker::PhantomData))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

/// An empty option of a named type, for declarations whose type a macro knows.
pub(crate) fn none<T>() -> Option<T> {
    None
}

pub(crate) use {choice, message, message_with_oneof, proto_enum};
