//! The grammar of operators: `%NAME%`, `%NAME(ARGUMENTS)%`, `%NAME(ARGUMENTS):LENGTH%`, `%%`.

use crate::format::{Field, HeaderPair, Operator, Part, PathOption};
use crate::time::TimeFormat;

/// Why a text is no format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatError {
    /// Where, in bytes from the start.
    pub at: usize,
    /// What is wrong and what was expected.
    pub reason: String,
}

impl std::fmt::Display for FormatError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (at byte {})", self.reason, self.at)
    }
}

impl std::error::Error for FormatError {}

pub(crate) fn parse<N>(text: &str, name: &mut impl FnMut(&str) -> N) -> Result<Vec<Part<N>>, FormatError> {
    let mut parts = Vec::new();
    let mut literal = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        literal.extend_from_slice(before.as_bytes());
        if let Some(after) = after.strip_prefix('%') {
            literal.push(b'%');
            rest = after;
            continue;
        }
        let at = text.len() - after.len() - 1;
        let command = split(after).ok_or_else(|| FormatError {
            at,
            reason: "`%` starts no operator; a per cent sign is written `%%`".into(),
        })?;
        let operator = operator(&command, name).map_err(|reason| FormatError { at, reason })?;
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(&mut literal).into()));
        }
        parts.push(Part::Value { operator, max: command.length });
        rest = command.rest;
    }
    literal.extend_from_slice(rest.as_bytes());
    if !literal.is_empty() {
        parts.push(Part::Literal(literal.into()));
    }
    Ok(parts)
}

struct Command<'a> {
    name: &'a str,
    arguments: Option<&'a str>,
    length: Option<usize>,
    rest: &'a str,
}

/// What follows a `%`, split. Arguments end at the first `)` after which the operator is complete, since they may contain `%` and `)`.
fn split(text: &str) -> Option<Command<'_>> {
    let end = text.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))?;
    let (name, after) = text.split_at(end);
    if name.is_empty() {
        return None;
    }
    let Some(open) = after.strip_prefix('(') else {
        let (length, rest) = finish(after)?;
        return Some(Command { name, arguments: None, length, rest });
    };
    open.match_indices(')').find_map(|(at, _)| {
        let (length, rest) = finish(&open[at + 1..])?;
        Some(Command { name, arguments: Some(&open[..at]), length, rest })
    })
}

/// `:LENGTH` if it is there, then `%`.
fn finish(text: &str) -> Option<(Option<usize>, &str)> {
    if let Some(rest) = text.strip_prefix('%') {
        return Some((None, rest));
    }
    let (digits, rest) = text.strip_prefix(':')?.split_once('%')?;
    let length = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
    Some((Some(length), rest))
}

fn operator<N>(command: &Command<'_>, name: &mut impl FnMut(&str) -> N) -> Result<Operator<N>, String> {
    let what = command.name;
    let required = || match command.arguments {
        Some(arguments) if !arguments.is_empty() => Ok(arguments),
        _ => Err(format!("%{what}% needs arguments: %{what}(…)%")),
    };
    let no_length = || match command.length {
        Some(_) => Err(format!("%{what}% takes no length")),
        None => Ok(()),
    };
    let path = |arguments: &str| -> std::sync::Arc<[Box<str>]> { arguments.split(':').map(Box::from).collect() };
    match what {
        "REQ" => Ok(Operator::Request(headers(required()?, name)?)),
        "RESP" => Ok(Operator::Response(headers(required()?, name)?)),
        "TRAILER" => Ok(Operator::Trailer(headers(required()?, name)?)),
        "QUERY_PARAM" => Ok(Operator::QueryParam(required()?.into())),
        "UPSTREAM_METADATA" => Ok(Operator::UpstreamMetadata(path(required()?))),
        "CLUSTER_METADATA" => Ok(Operator::ClusterMetadata(path(required()?))),
        "ENVIRONMENT" => Ok(Operator::Environment(std::env::var(required()?).ok().map(Box::from))),
        "PATH" => path_operator(command.arguments.unwrap_or_default()),
        "START_TIME" | "EMIT_TIME" => {
            no_length()?;
            let format = TimeFormat::parse(command.arguments.unwrap_or_default())?;
            Ok(if what == "START_TIME" { Operator::StartTime(format) } else { Operator::EmitTime(format) })
        }
        _ => {
            let field =
                Field::parse(what).ok_or_else(|| format!("the operator %{what}% is not known or not supported"))?;
            no_length()?;
            match (field, command.arguments) {
                (_, None | Some("")) | (Field::GrpcStatus, Some("CAMEL_STRING")) => Ok(Operator::Field(field)),
                (Field::GrpcStatus, Some("NUMBER")) => Ok(Operator::Field(Field::GrpcStatusNumber)),
                (_, Some(arguments)) => Err(format!("%{what}% does not take the arguments ({arguments})")),
            }
        }
    }
}

fn headers<N>(arguments: &str, name: &mut impl FnMut(&str) -> N) -> Result<HeaderPair<N>, String> {
    let mut names = arguments.split('?');
    let main = names.next().unwrap_or_default();
    let other = names.next();
    if names.next().is_some() {
        return Err(format!("more than one alternative header in ({arguments})"));
    }
    let mut make = |text: &str| name(&text.to_ascii_lowercase());
    Ok(HeaderPair { main: make(main), other: other.filter(|o| !o.is_empty()).map(make) })
}

fn path_operator<N>(arguments: &str) -> Result<Operator<N>, String> {
    let (query, which) = arguments.split_once(':').unwrap_or((arguments, ""));
    let query = match query {
        "WQ" | "" => true,
        "NQ" => false,
        other => return Err(format!("%PATH({other})%: expected WQ or NQ")),
    };
    let which = match which {
        "ORIG" => PathOption::Original,
        "PATH" => PathOption::Current,
        "ORIG_OR_PATH" | "" => PathOption::OriginalOrCurrent,
        other => return Err(format!("%PATH(…:{other})%: expected ORIG, PATH or ORIG_OR_PATH")),
    };
    Ok(Operator::Path { query, which })
}
