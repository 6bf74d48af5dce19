//! Case files: what is sent, and what was seen on both ends.

use std::fmt::Write as _;

/// One case.
#[derive(Debug, Default)]
pub(crate) struct Case {
    pub(crate) comment: String,
    pub(crate) name: String,
    /// Which listener it goes to: a name from `setups`.
    pub(crate) setup: String,
    /// What the client sends, piece by piece.
    pub(crate) send: Vec<Vec<u8>>,
    /// What the server answers to each request, and whether it closes then.
    pub(crate) reply: Vec<u8>,
    pub(crate) reply_closes: bool,
    /// How much of the heads is of interest.
    pub(crate) show: Show,
    /// Where ours is another on purpose: the id in docs/differences.md.
    pub(crate) ours: Option<String>,
    /// What other servers made of it: the name, and statuses, end and how many requests reached the server behind.
    pub(crate) peers: Vec<(String, String)>,
    /// What is still to be done before ours is asked.
    pub(crate) pending: Option<String>,
    pub(crate) envoy: Option<Seen>,
    /// What is seen of ours, where it is another.
    pub(crate) maille: Option<Seen>,
}

/// Which lines of heads are compared.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    #[default]
    All,
    /// First lines and locations.
    Brief,
    /// First lines, what frames and routes a message, and the body that reached the server.
    Framing,
}

impl Show {
    pub(crate) fn wants(self, line: &str) -> bool {
        const FRAMING: [&str; 6] = ["connection:", "content-length:", "host:", "transfer-encoding:", "upgrade:", "x-a"];
        let Some(rest) = line.get(6..) else { return true };
        let field = rest.strip_prefix("|   ");
        match self {
            Show::All => true,
            Show::Brief => !rest.starts_with("> ") && field.is_none_or(|field| field.starts_with("location:")),
            Show::Framing if line.starts_with("client") => !rest.starts_with("> ") && field.is_none(),
            Show::Framing => field.is_none_or(|field| FRAMING.iter().any(|name| field.starts_with(name))),
        }
    }
}

/// What was seen.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Seen {
    /// What reached the server, and the answers, each in lines, unstable values starred and header lines sorted.
    pub(crate) lines: Vec<String>,
}

pub(crate) const DEFAULT_REPLY: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

impl Case {
    /// What ours has to answer.
    pub(crate) fn ours(&self) -> Option<&Seen> {
        self.maille.as_ref().or(self.envoy.as_ref())
    }
}

impl Seen {
    /// How the client's connection ended: `open`, `closed` or `silent` (no answer yet).
    pub(crate) fn end(&self) -> &str {
        self.lines.iter().find_map(|line| line.strip_prefix("end: ")).unwrap_or("")
    }

    pub(crate) fn responses(&self) -> usize {
        self.lines.iter().filter(|line| line.starts_with("client| HTTP/1.")).count()
    }

    /// What was said, without what the log says of it.
    pub(crate) fn talk(&self) -> impl Iterator<Item = &String> {
        self.lines.iter().filter(|line| !line.starts_with("log: "))
    }

    /// Whether a request reached the server.
    pub(crate) fn reached(&self) -> bool {
        self.lines.iter().any(|line| line.starts_with("server"))
    }

    /// Statuses, end, and how many requests reached the server.
    pub(crate) fn gist(&self) -> String {
        let status = |line: &String| line.strip_prefix("client| HTTP/1.")?.get(2..5).map(str::to_owned);
        let statuses: Vec<String> = self.lines.iter().filter_map(status).collect();
        let requests = self.lines.iter().filter(|line| line.starts_with("server| ") && !line.starts_with("server|   "));
        format!("{} {} {}", statuses.join(","), self.end(), requests.count()).trim().to_owned()
    }

    pub(crate) fn logs(&self) -> usize {
        self.lines.iter().filter(|line| line.starts_with("log: ")).count()
    }

    /// Line by line; `None` when nothing differs.
    pub(crate) fn difference(&self, other: &Seen) -> Option<String> {
        if self == other {
            return None;
        }
        let mut out = String::new();
        for line in self.lines.iter().filter(|line| !other.lines.contains(line)) {
            let _ = writeln!(out, "- {line}");
        }
        for line in other.lines.iter().filter(|line| !self.lines.contains(line)) {
            let _ = writeln!(out, "+ {line}");
        }
        if out.is_empty() {
            let _ = write!(out, "- {}\n+ {}", self.lines.join("\n- "), other.lines.join("\n+ "));
        }
        Some(out)
    }
}

pub(crate) fn parse(text: &str) -> Result<Vec<Case>, String> {
    enum Part {
        Head,
        Envoy,
        Maille,
    }
    let mut cases: Vec<Case> = Vec::new();
    let mut part = Part::Head;
    let mut comment = String::new();
    for (number, line) in text.lines().enumerate() {
        let wrong = |what: &str| format!("line {}: {what}: {line}", number + 1);
        if let Some(name) = line.strip_prefix("=== ") {
            cases.push(Case {
                name: name.into(),
                comment: std::mem::take(&mut comment),
                setup: "edge".into(),
                reply: DEFAULT_REPLY.to_vec(),
                ..Case::default()
            });
            part = Part::Head;
            continue;
        }
        if line.starts_with('#') {
            comment.push_str(line);
            comment.push('\n');
            continue;
        }
        if line.is_empty() {
            continue;
        }
        let case = cases.last_mut().ok_or_else(|| wrong("before the first case"))?;
        if line == "---" {
            (part, case.envoy) = (Part::Envoy, Some(Seen::default()));
            continue;
        }
        if line == "maille:" {
            (part, case.maille) = (Part::Maille, Some(Seen::default()));
            continue;
        }
        match part {
            Part::Envoy => case.envoy.get_or_insert_default().lines.push(line.into()),
            Part::Maille => case.maille.get_or_insert_default().lines.push(line.into()),
            Part::Head => {
                let (key, value) = line.split_once(": ").ok_or_else(|| wrong("no key"))?;
                match key {
                    "setup" => case.setup = value.into(),
                    "send" => case.send.push(unescape(value).ok_or_else(|| wrong("bad escape"))?),
                    "reply" => case.reply = unescape(value).ok_or_else(|| wrong("bad escape"))?,
                    "ours" => case.ours = Some(value.into()),
                    "pending" => case.pending = Some(value.into()),
                    "brief" => case.show = if value == "framing" { Show::Framing } else { Show::Brief },
                    "nginx" | "haproxy" => case.peers.push((key.into(), value.into())),
                    "reply-closes" => case.reply_closes = value == "yes",
                    _ => return Err(wrong("unknown key")),
                }
            }
        }
    }
    Ok(cases)
}

pub(crate) fn print(cases: &[Case]) -> String {
    let mut out = String::new();
    for case in cases {
        let _ = writeln!(out, "{}=== {}", case.comment, case.name);
        match case.show {
            Show::All => {}
            Show::Brief => out.push_str("brief: yes\n"),
            Show::Framing => out.push_str("brief: framing\n"),
        }
        if case.setup != "edge" {
            let _ = writeln!(out, "setup: {}", case.setup);
        }
        for (key, value) in [("ours", &case.ours), ("pending", &case.pending)] {
            if let Some(value) = value {
                let _ = writeln!(out, "{key}: {value}");
            }
        }
        for piece in &case.send {
            let _ = writeln!(out, "send: {}", escape(piece));
        }
        if case.reply != DEFAULT_REPLY {
            let _ = writeln!(out, "reply: {}", escape(&case.reply));
        }
        if case.reply_closes {
            let _ = writeln!(out, "reply-closes: yes");
        }
        for (name, what) in &case.peers {
            let _ = writeln!(out, "{name}: {what}");
        }
        if let Some(seen) = &case.envoy {
            let _ = writeln!(out, "---\n{}", seen.lines.join("\n"));
        }
        if let Some(seen) = &case.maille {
            let _ = writeln!(out, "maille:\n{}", seen.lines.join("\n"));
        }
        out.push('\n');
    }
    out
}

/// Bytes as text: `\r`, `\n`, `\t`, `\\` and `\xNN`, `{N*TEXT}` for TEXT N times.
pub(crate) fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' => {
                let kind = rest.chars().next()?;
                rest = &rest[1..];
                match kind {
                    'r' => out.push(b'\r'),
                    'n' => out.push(b'\n'),
                    't' => out.push(b'\t'),
                    '\\' => out.push(b'\\'),
                    '{' => out.push(b'{'),
                    'x' => {
                        out.push(u8::from_str_radix(rest.get(..2)?, 16).ok()?);
                        rest = &rest[2..];
                    }
                    _ => return None,
                }
            }
            '{' => {
                let (inside, after) = rest.split_once('}')?;
                let (count, what) = inside.split_once('*')?;
                out.extend(unescape(what)?.repeat(count.parse().ok()?));
                rest = after;
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Some(out)
}

/// The other way; a byte repeated more than forty times is shortened.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut out = String::new();
    let mut at = 0;
    while let Some(&b) = bytes.get(at) {
        // The longest repetition of up to eight bytes that begins here.
        let repeated = (1..=16).find_map(|len| {
            let unit = bytes.get(at..at + len)?;
            let count = bytes[at..].chunks(len).take_while(|chunk| *chunk == unit).count();
            (count * len >= 60 && count >= 20).then_some((len, count))
        });
        if let Some((len, count)) = repeated {
            let _ = write!(out, "{{{count}*{}}}", escape(&bytes[at..at + len]));
            at += len * count;
            continue;
        }
        match b {
            b'\r' => out.push_str("\\r"),
            b'\n' => out.push_str("\\n"),
            b'\t' => out.push_str("\\t"),
            b'\\' => out.push_str("\\\\"),
            b'{' => out.push_str("\\{"),
            b' '..=b'~' => out.push(b.into()),
            b => {
                let _ = write!(out, "\\x{b:02x}");
            }
        }
        at += 1;
    }
    out
}

#[test]
fn escapes_go_both_ways() {
    for text in ["a\\r\\n\\x00b\\\\", "{100*ab}c", "GET /\\{x} {70*a: b\\r\\n}"] {
        assert_eq!(escape(&unescape(text).unwrap()), text);
    }
}
