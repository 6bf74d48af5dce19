//! Protobuf's wire format, field by field. What is cut off or makes no sense is `None`.

/// How a field is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Varint,
    Fixed64,
    Bytes,
    Fixed32,
}

/// A field's value, not yet interpreted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Raw<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Raw<'a> {
    pub(super) fn varint(self) -> Option<u64> {
        match self {
            Raw::Varint(n) => Some(n),
            _ => None,
        }
    }

    pub(super) fn fixed64(self) -> Option<u64> {
        match self {
            Raw::Fixed64(n) => Some(n),
            _ => None,
        }
    }

    pub(super) fn fixed32(self) -> Option<u32> {
        match self {
            Raw::Fixed32(n) => Some(n),
            _ => None,
        }
    }

    pub(super) fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Raw::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// The fields of a message, in the order in which they come.
pub(super) fn fields(mut rest: &[u8]) -> impl Iterator<Item = Option<(u32, Raw<'_>)>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = one(&mut rest);
        if field.is_none() {
            rest = &[];
        }
        Some(field)
    })
}

/// Numbers without keys, one after the other.
pub(super) fn packed(mut rest: &[u8], wire: Type) -> impl Iterator<Item = Option<Raw<'_>>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let value = value(&mut rest, wire);
        if value.is_none() {
            rest = &[];
        }
        Some(value)
    })
}

fn one<'a>(rest: &mut &'a [u8]) -> Option<(u32, Raw<'a>)> {
    let key = varint(rest)?;
    let wire = match key & 7 {
        0 => Type::Varint,
        1 => Type::Fixed64,
        2 => Type::Bytes,
        5 => Type::Fixed32,
        _ => return None,
    };
    Some((u32::try_from(key >> 3).ok()?, value(rest, wire)?))
}

fn value<'a>(rest: &mut &'a [u8], wire: Type) -> Option<Raw<'a>> {
    Some(match wire {
        Type::Varint => Raw::Varint(varint(rest)?),
        Type::Fixed64 => Raw::Fixed64(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?)),
        Type::Fixed32 => Raw::Fixed32(u32::from_le_bytes(take(rest, 4)?.try_into().ok()?)),
        Type::Bytes => {
            let size = usize::try_from(varint(rest)?).ok()?;
            Raw::Bytes(take(rest, size)?)
        }
    })
}

fn take<'a>(rest: &mut &'a [u8], size: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(size)?;
    *rest = left;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut n = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, left) = rest.split_first()?;
        *rest = left;
        n |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return Some(n);
        }
    }
    None
}
