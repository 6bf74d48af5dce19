//! The header fields of one message: an offset table over one text, never a map.
//!
//! The text holds every field as the line that goes on the wire (`name: value\r\n`, name in lower case). Reading and
//! changing a message only moves offsets; writing it copies the longest runs of lines that lie side by side, which for an
//! untouched message is all of them at once. A cleared `Headers` keeps its memory, so a worker that reuses them does not allocate.

use std::borrow::Cow;

use crate::name::{HeaderId, HeaderIds, Name};
use crate::words::{extend_lower, has_low_control};

/// The header fields of one message, in order.
#[derive(Clone, Default)]
pub struct Headers {
    text: Vec<u8>,
    fields: Vec<Field>,
    present: u128,
    /// Names that were not spelled in lower case, where that is asked for.
    spellings: Vec<Span>,
}

/// One line of the text: `start..` the name, `: `, the value, `..end`, then CR LF.
#[derive(Clone, Copy)]
struct Field {
    start: u32,
    end: u32,
    name: u16,
    id: HeaderId,
}

/// A field whose name is at the end of the text.
#[derive(Clone, Copy)]
pub(crate) struct Begun {
    start: usize,
    pub(crate) id: HeaderId,
}

/// A piece of the text.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Headers {
    /// No fields.
    pub fn new() -> Headers {
        Headers::default()
    }

    /// Forgets everything but the memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.fields.clear();
        self.present = 0;
        self.spellings.clear();
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Every field in order: lower-case name, value.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|f| (self.name_of(f), self.value_of(f)))
    }

    /// Whether a well-known header is present: one bit.
    #[inline]
    pub fn has(&self, id: HeaderId) -> bool {
        self.present & id.bit() != 0
    }

    /// The first value of a well-known header.
    #[inline]
    pub fn get(&self, id: HeaderId) -> Option<&[u8]> {
        if !self.has(id) {
            return None;
        }
        self.fields.iter().find(|f| f.id == id).map(|f| self.value_of(f))
    }

    /// Every value of a well-known header.
    pub fn all(&self, id: HeaderId) -> impl Iterator<Item = &[u8]> {
        self.fields.iter().filter(move |f| f.id == id).map(|f| self.value_of(f))
    }

    /// Every value under a name.
    pub fn values<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = &'a [u8]> {
        let fields: &[Field] = if self.has(name.id()) { &self.fields } else { &[] };
        fields.iter().filter(|f| self.is(f, name)).map(|f| self.value_of(f))
    }

    /// The first value under a name.
    pub fn first(&self, name: &Name) -> Option<&[u8]> {
        let found = self.has(name.id()).then(|| self.fields.iter().find(|f| self.is(f, name)))?;
        found.map(|f| self.value_of(f))
    }

    /// All values under a name as matchers see them: joined by `,`, so that none can hide behind another.
    #[inline]
    pub fn joined(&self, name: &Name) -> Option<Cow<'_, [u8]>> {
        if !self.has(name.id()) {
            return None;
        }
        let mut values = self.fields.iter().filter(|f| self.is(f, name)).map(|f| self.value_of(f));
        let first = values.next()?;
        let Some(second) = values.next() else { return Some(Cow::Borrowed(first)) };
        let mut out = [first, second].join(&b","[..]);
        for value in values {
            out.push(b',');
            out.extend_from_slice(value);
        }
        Some(Cow::Owned(out))
    }

    /// Adds a field at the end.
    pub fn append(&mut self, name: &Name, value: &[u8]) {
        self.push(name.as_str().as_bytes(), name.id(), value);
    }

    /// Adds a well-known field at the end.
    #[inline]
    pub fn append_id(&mut self, id: HeaderId, value: &[u8]) {
        self.push(id.as_str().as_bytes(), id, value);
    }

    /// Leaves one field of this name, with this value, where the first one was, or at the end.
    pub fn set(&mut self, name: &Name, value: &[u8]) {
        if !self.has(name.id()) {
            return self.append(name, value);
        }
        let place = self.fields.iter().position(|f| self.is(f, name));
        self.append(name, value);
        let Some(place) = place else { return };
        if let Some(new) = self.fields.pop()
            && let Some(old) = self.fields.get_mut(place)
        {
            *old = new;
        }
        let mut at = 0;
        let (text, id) = (&self.text, name.id());
        self.fields.retain(|f| {
            at += 1;
            at - 1 <= place || !same(text, f, id, name.as_str())
        });
    }

    /// [`Headers::set`] for a well-known header.
    pub fn set_id(&mut self, id: HeaderId, value: &[u8]) {
        if self.has(id) {
            self.remove_id(id);
        }
        self.append_id(id, value);
    }

    /// Removes every field of this name; says whether there was one.
    pub fn remove(&mut self, name: &Name) -> bool {
        if name.id() != HeaderId::Other {
            return self.remove_id(name.id());
        }
        if !self.has(HeaderId::Other) {
            return false;
        }
        let before = self.fields.len();
        let text = &self.text;
        self.fields.retain(|f| !same(text, f, HeaderId::Other, name.as_str()));
        before != self.fields.len()
    }

    /// Removes every field of a well-known header; says whether there was one.
    #[inline]
    pub fn remove_id(&mut self, id: HeaderId) -> bool {
        let was = self.has(id);
        if was {
            self.fields.retain(|f| f.id != id);
            self.present &= !id.bit();
        }
        was
    }

    /// Removes every field of these names.
    #[inline]
    pub fn remove_all(&mut self, ids: HeaderIds) {
        if self.present & ids.bits() != 0 {
            self.fields.retain(|f| f.id.bit() & ids.bits() == 0);
            self.present &= !ids.bits();
        }
    }

    /// Adds a field as Envoy does: a value of which it keeps one joins what is there.
    pub fn join(&mut self, name: &Name, value: &[u8], of_request: bool) {
        match self.get(name.id()) {
            Some(others) if name.id().is_list(of_request) => {
                let mut all = others.to_vec();
                join(&mut all, value);
                self.set(name, &all);
            }
            _ => self.append(name, value),
        }
    }

    /// Leaves one field of a well-known name, where the first one was, with all values that are not empty joined by `,`.
    pub fn fold(&mut self, id: HeaderId) {
        let mut values = self.fields.iter().filter(|f| f.id == id).map(|f| self.value_of(f));
        let Some(mut joined) = values.next().map(<[u8]>::to_vec) else { return };
        let mut more = false;
        for value in values {
            join(&mut joined, value);
            more = true;
        }
        if more {
            self.set(&id.into(), &joined);
        }
    }

    /// Folds every name of which Envoy keeps one field.
    #[cold]
    pub fn fold_lists(&mut self, of_request: bool) {
        for id in HeaderId::all().filter(|id| id.is_list(of_request)) {
            self.fold(id);
        }
    }

    /// Keeps the fields for which `keep(name, id, value)` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], HeaderId, &[u8]) -> bool) {
        let text = &self.text;
        self.fields.retain(|f| keep(slice(text, f.name_span()), f.id, slice(text, f.value_span())));
        self.present = self.fields.iter().fold(0, |bits, f| bits | f.id.bit());
    }

    /// Appends every field as it goes on the wire, each line with its CR LF; the empty line that ends a head is not written.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut run: Option<Span> = None;
        for f in &self.fields {
            let line = Span { start: f.start, end: f.end + 2 };
            run = Some(match run {
                Some(r) if r.end == line.start => Span { start: r.start, end: line.end },
                Some(r) => {
                    out.extend_from_slice(slice(&self.text, r));
                    line
                }
                None => line,
            });
        }
        if let Some(r) = run {
            out.extend_from_slice(slice(&self.text, r));
        }
    }

    /// Bytes that the fields take on the wire.
    pub fn wire_len(&self) -> usize {
        self.fields.iter().map(|f| (f.end + 2 - f.start) as usize).sum()
    }

    /// A parsed field: the name is put into lower case, the value is taken as it stands. The codec has validated both.
    #[inline]
    pub fn push_parsed(&mut self, name: &[u8], value: &[u8]) -> HeaderId {
        let begun = self.begin(name);
        self.finish(begun, value);
        begun.id
    }

    /// Begins a parsed field, when it depends on which it is whether it is one. [`Headers::finish`] or [`Headers::abandon`] follows.
    #[inline]
    pub(crate) fn begin(&mut self, name: &[u8]) -> Begun {
        let start = self.text.len();
        extend_lower(&mut self.text, name);
        Begun { start, id: HeaderId::of(self.text.get(start..).unwrap_or_default()) }
    }

    /// The field has this value.
    #[inline]
    pub(crate) fn finish(&mut self, begun: Begun, value: &[u8]) {
        let name = self.text.len() - begun.start;
        self.finish_line(begun.start, name, begun.id, value);
    }

    /// It is none of the message's own.
    #[inline]
    pub(crate) fn abandon(&mut self, begun: Begun) {
        self.text.truncate(begun.start);
    }

    /// Remembers how a name was spelled; the first spelling counts.
    pub(crate) fn remember_spelling(&mut self, name: &[u8]) {
        if name.iter().any(u8::is_ascii_uppercase) && self.spelling(name).is_none() {
            let span = self.keep(name);
            self.spellings.push(span);
        }
    }

    pub(crate) fn has_spellings(&self) -> bool {
        !self.spellings.is_empty()
    }

    /// How a name was spelled, if it was not in lower case.
    pub(crate) fn spelling(&self, name: &[u8]) -> Option<&[u8]> {
        self.spellings.iter().map(|span| self.span(*span)).find(|spelling| spelling.eq_ignore_ascii_case(name))
    }

    /// Adds some text that is not a field (a path, an authority) and says where it is.
    #[inline]
    pub(crate) fn keep(&mut self, text: &[u8]) -> Span {
        let start = self.text.len() as u32;
        self.text.extend_from_slice(text);
        Span { start, end: self.text.len() as u32 }
    }

    #[inline]
    pub(crate) fn span(&self, span: Span) -> &[u8] {
        slice(&self.text, span)
    }

    fn push(&mut self, name: &[u8], id: HeaderId, value: &[u8]) {
        let start = self.text.len();
        self.text.extend_from_slice(name);
        self.finish_line(start, name.len(), id, value);
        // What was not parsed was put together here from parts: a line break among them must not become a second header.
        if has_low_control(value) {
            let (from, to) = (start + name.len() + 2, self.text.len() - 2);
            let written = self.text.get_mut(from..to).unwrap_or_default();
            written.iter_mut().filter(|b| matches!(b, b'\r' | b'\n' | 0)).for_each(|b| *b = b' ');
        }
    }

    #[inline]
    fn finish_line(&mut self, start: usize, name: usize, id: HeaderId, value: &[u8]) {
        self.text.extend_from_slice(b": ");
        self.text.extend_from_slice(value);
        let end = self.text.len() as u32;
        self.text.extend_from_slice(b"\r\n");
        self.fields.push(Field { start: start as u32, end, name: name as u16, id });
        self.present |= id.bit();
    }

    #[inline]
    fn name_of(&self, f: &Field) -> &[u8] {
        slice(&self.text, f.name_span())
    }

    #[inline]
    fn value_of(&self, f: &Field) -> &[u8] {
        slice(&self.text, f.value_span())
    }

    #[inline]
    fn is(&self, f: &Field, name: &Name) -> bool {
        same(&self.text, f, name.id(), name.as_str())
    }
}

impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |b| String::from_utf8_lossy(b).into_owned();
        f.debug_list().entries(self.iter().map(|(n, v)| (text(n), text(v)))).finish()
    }
}

impl Field {
    #[inline]
    fn name_span(&self) -> Span {
        Span { start: self.start, end: self.start + u32::from(self.name) }
    }

    #[inline]
    fn value_span(&self) -> Span {
        Span { start: self.start + u32::from(self.name) + 2, end: self.end }
    }
}

#[inline]
fn same(text: &[u8], f: &Field, id: HeaderId, name: &str) -> bool {
    f.id == id && (id != HeaderId::Other || slice(text, f.name_span()) == name.as_bytes())
}

/// One value behind others.
fn join(all: &mut Vec<u8>, value: &[u8]) {
    if !all.is_empty() && !value.is_empty() {
        all.push(b',');
    }
    all.extend_from_slice(value);
}

#[inline]
fn slice(text: &[u8], span: Span) -> &[u8] {
    text.get(span.start as usize..span.end as usize).unwrap_or_default()
}

#[cfg(test)]
mod tests;
