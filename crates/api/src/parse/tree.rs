//! A YAML document with the place of every key and value, so that any later finding can point at its line.

use std::fmt;
use std::sync::Arc;

use crate::message::camel_case;

/// A position in a file: line and column, counted from 1; columns count characters.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// A stretch of a file; `end` is the first position after it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Span {
    /// The first position.
    pub start: Position,
    /// The first position after it.
    pub end: Position,
}

/// The text a document was read from, shared by its documents.
pub struct File {
    /// The file's name, as it was given to us.
    pub origin: Arc<str>,
    /// The whole text.
    pub text: String,
    /// Where each line begins.
    lines: Vec<usize>,
}

impl File {
    pub(crate) fn new(origin: &str, text: &str) -> Arc<File> {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Arc::new(File { origin: origin.into(), text: text.to_owned(), lines })
    }

    /// The text of a line, counted from 1.
    pub fn line(&self, line: usize) -> &str {
        let begin = line.checked_sub(1).and_then(|index| self.lines.get(index));
        begin.and_then(|begin| self.text[*begin..].lines().next()).unwrap_or_default()
    }
}

/// A file's text may hold keys, so it is not shown.
impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File({})", self.origin)
    }
}

/// One resource as it was written.
#[derive(Clone)]
pub struct Tree {
    pub(crate) file: Arc<File>,
    pub(crate) root: Node,
    /// Whether the lines must not be shown, because there are keys among them.
    pub(crate) secret: bool,
}

impl Tree {
    /// Where the field at a path such as `spec.http[0].route[1].weight` is, or the nearest thing around it that exists.
    ///
    /// A scalar is pointed at itself, everything else by its key.
    pub fn locate(&self, path: &str) -> Span {
        let mut node = &self.root;
        let mut span = node.span_or_first_key();
        let mut rest = path;
        while let Some((next, here, after)) = node.step(rest) {
            (node, span, rest) = (next, here, after);
        }
        span
    }

    /// The file it was read from.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tree({}:{})", self.file.origin, self.root.span_or_first_key().start.line)
    }
}

/// A value and its place.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) value: Value,
}

#[derive(Clone)]
pub(crate) enum Value {
    /// `plain` is a scalar without quotes, whose text decides its type.
    Scalar {
        text: String,
        plain: bool,
    },
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Span,
    pub(crate) value: Node,
}

impl Entry {
    /// What to point at: the value where it is one word, else the key.
    pub(crate) fn span(&self) -> Span {
        match &self.value.value {
            Value::Scalar { text, plain } if !(text.is_empty() && *plain) => self.value.span,
            _ => self.key_span,
        }
    }
}

impl Node {
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Mapping(entries) => entries,
            _ => &[],
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if super::scalar::is_null(text))
    }

    /// A block collection has no extent of its own: its first key or element stands for it.
    pub(crate) fn span_or_first_key(&self) -> Span {
        match &self.value {
            Value::Mapping(entries) => entries.first().map_or(self.span, |entry| entry.key_span),
            Value::Sequence(items) => items.first().map_or(self.span, Node::span_or_first_key),
            Value::Scalar { .. } => self.span,
        }
    }

    /// One step along a path: where it leads, what to point at there, and what is left of the path.
    fn step<'n, 'p>(&'n self, path: &'p str) -> Option<(&'n Node, Span, &'p str)> {
        let path = path.strip_prefix('.').unwrap_or(path);
        if let Some(rest) = path.strip_prefix('[') {
            if let Some(rest) = rest.strip_prefix('"') {
                let (key, rest) = rest.split_once("\"]")?;
                let entry = self.get(key)?;
                return Some((&entry.value, entry.span(), rest));
            }
            let (index, rest) = rest.split_once(']')?;
            let Value::Sequence(items) = &self.value else { return None };
            let item = items.get(index.parse::<usize>().ok()?)?;
            return Some((item, item.span_or_first_key(), rest));
        }
        // Label keys have dots of their own, so the longest key that fits is the one meant.
        let fits = |key: &str| {
            let rest = path.strip_prefix(key)?;
            (rest.is_empty() || rest.starts_with(['.', '['])).then_some(rest)
        };
        self.entries()
            .iter()
            .filter(|entry| !entry.key.is_empty())
            .filter_map(|entry| Some((entry, fits(&entry.key).or_else(|| fits(&camel_case(&entry.key)))?)))
            .min_by_key(|(_, rest)| rest.len())
            .map(|(entry, rest)| (&entry.value, entry.span(), rest))
    }
}
