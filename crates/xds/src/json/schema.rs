//! The table of messages and their fields. A line without a space begins a message or an enum; what follows are its fields or constants.

use std::collections::HashMap;

use super::wire::Type;

/// Every message that configuration is made of. Made for one dump and dropped after it: it is not needed otherwise.
pub struct Schema {
    /// Names, and the lines that belong to them.
    entries: HashMap<&'static str, &'static str>,
}

/// A field of a message.
#[derive(Debug)]
pub(super) struct Field<'a> {
    pub(super) name: &'a str,
    pub(super) kind: Kind<'a>,
    pub(super) repeated: bool,
    /// Whether it holds a secret.
    pub(super) sensitive: bool,
}

/// What a field holds.
#[derive(Debug)]
pub(super) enum Kind<'a> {
    Scalar(Scalar),
    Message(&'a str),
    Enum(&'a str),
    Map(Scalar, Box<Kind<'a>>),
}

/// Numbers, truths and texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    Bool,
    Bytes,
    Double,
    Fixed32,
    Fixed64,
    Float,
    Int32,
    Int64,
    SFixed32,
    SFixed64,
    SInt32,
    SInt64,
    Text,
    UInt32,
    UInt64,
}

impl Scalar {
    pub(super) fn is_packable(self) -> bool {
        !matches!(self, Scalar::Text | Scalar::Bytes)
    }

    pub(super) fn wire(self) -> Type {
        match self {
            Scalar::Text | Scalar::Bytes => Type::Bytes,
            Scalar::Fixed32 | Scalar::SFixed32 | Scalar::Float => Type::Fixed32,
            Scalar::Fixed64 | Scalar::SFixed64 | Scalar::Double => Type::Fixed64,
            _ => Type::Varint,
        }
    }

    fn parse(code: char) -> Option<Scalar> {
        Some(match code {
            'b' => Scalar::Bool,
            'y' => Scalar::Bytes,
            'd' => Scalar::Double,
            'f' => Scalar::Float,
            'x' => Scalar::Fixed32,
            'X' => Scalar::Fixed64,
            'i' => Scalar::Int32,
            'l' => Scalar::Int64,
            'z' => Scalar::SFixed32,
            'Z' => Scalar::SFixed64,
            'n' => Scalar::SInt32,
            'N' => Scalar::SInt64,
            's' => Scalar::Text,
            'u' => Scalar::UInt32,
            'L' => Scalar::UInt64,
            _ => return None,
        })
    }
}

impl Schema {
    /// Reads the table.
    pub fn load() -> Schema {
        const TEXT: &str = include_str!("schema.txt");
        let mut entries = HashMap::new();
        let mut rest = TEXT;
        while let Some((name, after)) = rest.split_once('\n') {
            let mut end = 0;
            while after[end..].starts_with(' ') {
                end += after[end..].find('\n').map_or(after.len() - end, |line| line + 1);
            }
            entries.insert(name, &after[..end]);
            rest = &after[end..];
        }
        Schema { entries }
    }

    pub(super) fn fields(&self, message: &str) -> Option<&'static str> {
        self.entries.get(message).copied()
    }

    /// The name of an enum's constant.
    pub(super) fn constant(&self, name: &str, number: i32) -> Option<&'static str> {
        line(self.entries.get(name)?, number)
    }
}

/// The field of a number among a message's lines.
pub(super) fn find(lines: &str, number: u32) -> Option<Field<'_>> {
    let (name, kind) = line(lines, i32::try_from(number).ok()?)?.split_once(' ')?;
    let (kind, sensitive) = kind.strip_suffix('!').map_or((kind, false), |kind| (kind, true));
    let (kind, repeated) = kind.strip_prefix('[').map_or((kind, false), |kind| (kind, true));
    Some(Field { name, kind: parse(kind)?, repeated, sensitive })
}

fn line(lines: &str, number: i32) -> Option<&str> {
    lines.lines().find_map(|line| {
        let (own, rest) = line.trim_start().split_once(' ')?;
        (own.parse() == Ok(number)).then_some(rest)
    })
}

fn parse(kind: &str) -> Option<Kind<'_>> {
    let mut chars = kind.chars();
    match chars.next()? {
        '.' => Some(Kind::Message(chars.as_str())),
        '=' => Some(Kind::Enum(chars.as_str())),
        '{' => {
            let key = Scalar::parse(chars.next()?)?;
            Some(Kind::Map(key, Box::new(parse(chars.as_str())?)))
        }
        code => Scalar::parse(code).map(Kind::Scalar),
    }
}
