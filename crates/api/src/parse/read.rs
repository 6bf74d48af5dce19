//! Text to marked trees: splits a file into documents, and reads each so that one broken document spoils no other.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput, Tag};

use super::diagnostic::{Diagnostic, Severity};
use super::tree::{Entry, File, Node, Position, Span, Value};

/// No file that people write is larger; Kubernetes refuses a twentieth of it.
const MAX_TEXT: usize = 32 << 20;
/// No resource nests nearly as deep.
const MAX_DEPTH: usize = 64;
/// How much aliases may add to a document, in bytes and nodes together.
const MAX_ALIASED: usize = 1 << 20;
/// How many bytes may be read again because of lines that begin too far left.
const MAX_REREAD: usize = 64 << 20;
/// What the YAML parser says of such a line.
const OUTDENTED: [&str; 2] = ["invalid indentation", "invalid indentation in flow construct"];
/// How far such a line is moved: further than anything is indented.
const INDENT: &str = "                                                                                ";

/// The documents of a file, in order, without the empty ones.
pub(crate) fn documents(file: &Arc<File>) -> Vec<Result<Node, Box<Diagnostic>>> {
    if file.text.len() > MAX_TEXT {
        let message = format!("the file has {} bytes; more than {MAX_TEXT} are not read", file.text.len());
        return vec![Err(Box::new(Diagnostic::about_file(Severity::Error, file.origin.clone(), message)))];
    }
    chunks(&file.text).into_iter().flat_map(|chunk| chunk.read(file)).collect()
}

/// A part of a file that begins at a `---`, so that it can be read by itself.
struct Chunk<'a> {
    /// The line it begins on, counted from 0.
    first_line: usize,
    text: &'a str,
}

impl Chunk<'_> {
    /// Reads the documents of the chunk; a broken one ends it.
    fn read(&self, file: &Arc<File>) -> Vec<Result<Node, Box<Diagnostic>>> {
        // A byte order mark is no part of the text.
        let mut text = Cow::Borrowed(self.text.strip_prefix('\u{feff}').unwrap_or(self.text));
        let mut reindented = HashSet::new();
        loop {
            let mut reader = Reader::new(file, self.first_line, &text, &reindented);
            let (mut found, problem) = reader.documents();
            let Some(problem) = problem else { return found.into_iter().map(Ok).collect() };
            // YAML wants lines inside of brackets indented; the library under kubectl does not, and people write
            //     hosts: [
            //       "a",
            //     ]
            // so such a line is moved to the right, and read again.
            let line = problem
                .outdented_line
                .filter(|line| reindented.len() * text.len() < MAX_REREAD && !reindented.contains(line));
            if let Some(line) = line {
                let at = start_of_line(&text, line - self.first_line);
                text.to_mut().insert_str(at, INDENT);
                reindented.insert(line);
                continue;
            }
            let diagnostic = reader.diagnostic(problem);
            return found.drain(..).map(Ok).chain([Err(diagnostic)]).collect();
        }
    }
}

fn start_of_line(text: &str, line: usize) -> usize {
    text.split_inclusive('\n').take(line - 1).map(str::len).sum()
}

/// YAML allows a line that begins with `---` and a space or nothing only between documents, so no scalar is cut.
fn chunks(text: &str) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let (mut begin, mut first_line) = (0, 0);
    let (mut at, mut only_prologue) = (0, true);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let is_marker =
            line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        // Comments and %YAML directives in front of a marker belong to its document.
        if is_marker && !only_prologue {
            chunks.push(Chunk { first_line, text: &text[begin..at] });
            (begin, first_line) = (at, number);
        }
        only_prologue &= !is_marker && (line.trim().is_empty() || line.starts_with(['#', '%']));
        at += line.len();
    }
    chunks.push(Chunk { first_line, text: &text[begin..] });
    chunks
}

/// What is wrong with a document as YAML.
struct Problem {
    span: Span,
    message: String,
    hint: Option<String>,
    /// The line whose only fault is that it begins too far left.
    outdented_line: Option<usize>,
}

struct Reader<'a> {
    file: &'a Arc<File>,
    /// Lines that were moved to the right, whose columns are not the file's.
    reindented: &'a HashSet<usize>,
    parser: Parser<'a, StrInput<'a>>,
    first_line: usize,
    anchors: HashMap<usize, Anchor>,
    aliased: usize,
    /// The last line of the chunk.
    last_line: usize,
    /// Whether the text seems to hold a Secret, whose lines must not be shown.
    secret: bool,
}

struct Anchor {
    node: Node,
    weight: usize,
}

impl<'a> Reader<'a> {
    fn new(file: &'a Arc<File>, first_line: usize, text: &'a str, reindented: &'a HashSet<usize>) -> Self {
        let parser = Parser::new_from_str(text);
        let secret = text.contains("Secret");
        let last_line = first_line + text.lines().count();
        Reader { file, reindented, parser, first_line, anchors: HashMap::new(), aliased: 0, last_line, secret }
    }

    fn documents(&mut self) -> (Vec<Node>, Option<Problem>) {
        let mut documents = Vec::new();
        loop {
            match self.document() {
                Ok(Some(node)) if node.is_null() => {}
                Ok(Some(node)) => documents.push(node),
                Ok(None) => return (documents, None),
                Err(problem) => return (documents, Some(problem)),
            }
        }
    }

    fn document(&mut self) -> Result<Option<Node>, Problem> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(None),
                (Event::DocumentStart(_), _) => break,
                _ => {}
            }
        }
        self.anchors.clear();
        self.aliased = 0;
        let (event, span) = self.next()?;
        self.node(event, span, 0).map(Some)
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Problem> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => {
                let span = Span { start: self.position(&span.start), end: self.position(&span.end) };
                Ok((event, span))
            }
            Some(Err(error)) => Err(self.syntax(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn position(&self, mark: &Marker) -> Position {
        let line = self.first_line + mark.line();
        let moved = if self.reindented.contains(&line) { INDENT.len() } else { 0 };
        Position { line, column: mark.col().saturating_sub(moved) + 1 }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Problem> {
        if depth > MAX_DEPTH {
            return Err(Problem::new(span, format!("this nests deeper than {MAX_DEPTH} levels")));
        }
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && !tag.is_some_and(|tag| is_string(&tag));
                (anchor, Value::Scalar { text: text.into_owned(), plain })
            }
            Event::SequenceStart(anchor, _) => (anchor, Value::Sequence(self.sequence(depth)?)),
            Event::MappingStart(anchor, _) => (anchor, Value::Mapping(self.mapping(depth)?)),
            Event::Alias(anchor) => return self.alias(anchor, span),
            // The parser pairs starts and ends, so no other event stands for a node.
            _ => return Err(Problem::new(span, "a value was expected here")),
        };
        let node = Node { span, value };
        if anchor != 0 {
            let weight = weight(&node);
            self.anchors.insert(anchor, Anchor { node: node.clone(), weight });
        }
        Ok(node)
    }

    fn sequence(&mut self, depth: usize) -> Result<Vec<Node>, Problem> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(address(self.node(event, span, depth + 1)?)),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Vec<Entry>, Problem> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut lines: HashMap<String, usize> = HashMap::new();
        let mut merges = Vec::new();
        loop {
            let (key, key_span, merge) = match self.next()? {
                (Event::MappingEnd, _) => break,
                (event, span) => match self.node(event, span, depth + 1)?.value {
                    Value::Scalar { text, plain } => {
                        let merge = plain && text == "<<";
                        (text, span, merge)
                    }
                    _ => return Err(Problem::new(span, "a key has to be a word, not a list or a mapping")),
                },
            };
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            if merge {
                merges.push(value);
                continue;
            }
            if let Some(line) = lines.insert(key.clone(), key_span.start.line) {
                return Err(Problem::new(key_span, format!("`{key}` is here twice; the first is in line {line}")));
            }
            entries.push(Entry { key, key_span, value });
        }
        for merge in merges {
            self.merge(&mut entries, &mut lines, merge)?;
        }
        Ok(entries)
    }

    /// `<<: *defaults`: the keys of the mappings named, unless they are here already.
    fn merge(
        &mut self,
        entries: &mut Vec<Entry>,
        lines: &mut HashMap<String, usize>,
        from: Node,
    ) -> Result<(), Problem> {
        match from.value {
            Value::Mapping(merged) => {
                for entry in merged {
                    if !lines.contains_key(&entry.key) {
                        lines.insert(entry.key.clone(), entry.key_span.start.line);
                        entries.push(entry);
                    }
                }
                Ok(())
            }
            Value::Sequence(items) if items.iter().all(|item| matches!(item.value, Value::Mapping(_))) => {
                items.into_iter().try_for_each(|item| self.merge(entries, lines, item))
            }
            _ => Err(Problem::new(from.span, "`<<` merges a mapping, or a list of mappings")),
        }
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<Node, Problem> {
        // An anchor is known once its node is complete: an alias inside of it would have no end.
        let Some(Anchor { node, weight }) = self.anchors.get(&anchor) else {
            return Err(Problem::new(span, "this alias stands inside of what it stands for"));
        };
        self.aliased += weight;
        if self.aliased > MAX_ALIASED {
            return Err(Problem::new(span, "aliases make this document too large"));
        }
        Ok(node.clone())
    }

    fn syntax(&self, error: &ScanError) -> Problem {
        let mut start = self.position(error.marker());
        let info = error.info();
        let last_line = self.last_line;
        let at_end = start.line > last_line
            || start.line == last_line && self.file.line(last_line).chars().count() < start.column;
        if at_end {
            // What is missing is missing after the last thing there is.
            let lines = (self.first_line + 1..=last_line).rev().map(|line| (line, self.file.line(line).trim_end()));
            if let Some((line, text)) = lines.into_iter().find(|(_, text)| !text.is_empty()) {
                start = Position { line, column: text.chars().count().max(1) };
            }
        }
        let begins_with_tab = |line: usize| self.file.line(line).trim_start_matches(' ').starts_with('\t');
        let hint = if info.contains("unprintable") {
            Some(
                "is this a text file at all? Only printable characters may stand in YAML; escape others in double quotes",
            )
        } else if info.contains("tab") || begins_with_tab(start.line) || begins_with_tab(start.line + 1) {
            Some("indent with spaces: YAML does not allow tabs for it")
        } else if info.contains("mapping values are not allowed") || self.file.line(start.line).contains("::") {
            Some("a text that contains `: ` or ends in `:` needs quotes; otherwise check the indentation of this line")
        } else if at_end {
            Some("is the file complete?")
        } else {
            None
        };
        let end = Position { line: start.line, column: start.column + 1 };
        Problem {
            span: Span { start, end },
            message: format!("this is not YAML: {info}"),
            hint: hint.map(str::to_owned),
            outdented_line: OUTDENTED.contains(&info).then_some(start.line),
        }
    }

    fn diagnostic(&self, problem: Problem) -> Box<Diagnostic> {
        let mut diagnostic = Diagnostic::at(Severity::Error, self.file, problem.span, problem.message);
        diagnostic.hint = problem.hint;
        if self.secret {
            diagnostic.source_line.clear();
        }
        Box::new(diagnostic)
    }
}

impl Problem {
    fn new(span: Span, message: impl Into<String>) -> Self {
        Problem { span, message: message.into(), hint: None, outdented_line: None }
    }
}

/// `[2001:db8::]` is an address to everybody but YAML 1.2, which sees a key without a value.
fn address(item: Node) -> Node {
    let Value::Mapping(entries) = &item.value else { return item };
    let [Entry { key, key_span, value }] = entries.as_slice() else { return item };
    let is_address = key.ends_with(':') && key.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
    if !is_address || !value.is_null() || item.span.start != key_span.start {
        return item;
    }
    Node { span: *key_span, value: Value::Scalar { text: format!("{key}:"), plain: true } }
}

/// `!!str 1.0` is a string though it has no quotes.
fn is_string(tag: &Tag) -> bool {
    tag.is_yaml_core_schema() && tag.suffix == "str"
}

/// What another copy of a node costs, at least.
fn weight(node: &Node) -> usize {
    let content = match &node.value {
        Value::Scalar { text, .. } => text.len(),
        Value::Sequence(items) => items.iter().map(weight).sum(),
        Value::Mapping(entries) => entries.iter().map(|entry| entry.key.len() + weight(&entry.value)).sum(),
    };
    content + 16
}
