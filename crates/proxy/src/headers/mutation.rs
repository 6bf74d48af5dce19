//! Header mutations of routes, virtual hosts and tables, in the order in which they apply.

use std::sync::Arc;

use maille_http::{Name, RequestHead, ResponseHead};
use maille_telemetry::format::{Escape, Format};

use crate::headers::{LogValues, StreamInfo};

/// All that is done to a head's fields, level by level (weighted cluster, route, virtual host, table).
#[derive(Clone, Debug, Default)]
pub struct HeaderMutations {
    levels: Vec<Arc<Level>>,
}

/// What one level does: first removals, then replacements, then additions; values see the fields as they are after the removals.
#[derive(Clone, Debug, Default)]
pub struct Level {
    /// The fields that are removed.
    pub remove: Vec<Name>,
    /// The fields that are written.
    pub add: Vec<Addition>,
}

/// One field that is written.
#[derive(Clone, Debug)]
pub struct Addition {
    /// Its name.
    pub name: Name,
    /// Its value.
    pub value: Format<Name>,
    /// What happens when there is one already.
    pub action: AppendAction,
    /// Whether it is written even when the value is empty.
    pub keep_empty: bool,
}

/// What happens when a field is there already, or is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppendAction {
    /// Another one is added.
    #[default]
    Append,
    /// It is only added when there is none.
    AddIfAbsent,
    /// It replaces what is there.
    Overwrite,
    /// It replaces what is there, and is not added when there is nothing.
    OverwriteIfExists,
}

/// Memory that is used again, so that mutations do not allocate.
#[derive(Debug, Default)]
pub struct Scratch {
    text: Vec<u8>,
    values: Vec<(usize, usize, usize)>,
}

impl HeaderMutations {
    /// From levels in the order in which they apply; the ones that do nothing are left out.
    pub fn new<'a>(levels: impl IntoIterator<Item = &'a Arc<Level>>) -> HeaderMutations {
        let busy = levels.into_iter().filter(|level| !level.remove.is_empty() || !level.add.is_empty());
        HeaderMutations { levels: busy.cloned().collect() }
    }

    /// Whether nothing is done.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    /// Changes a request's head.
    pub fn apply_to_request(&self, head: &mut RequestHead, stream: &StreamInfo<'_>, scratch: &mut Scratch) {
        for level in &self.levels {
            for name in &level.remove {
                head.headers.remove(name);
            }
            let values = LogValues { request: Some(head), response: None, stream };
            scratch.evaluate(level, &values, |name| head.headers.values(name).next().is_some());
            scratch.write(
                level,
                &mut head.headers,
                |headers, name, value| headers.set(name, value),
                |headers, name, value| headers.join(name, value, true),
            );
        }
    }

    /// Changes a response's head; `request` is the request as it went upstream.
    pub fn apply_to_response(
        &self,
        head: &mut ResponseHead,
        request: &RequestHead,
        stream: &StreamInfo<'_>,
        scratch: &mut Scratch,
    ) {
        for level in &self.levels {
            for name in &level.remove {
                head.headers.remove(name);
            }
            let values = LogValues { request: Some(request), response: Some(head), stream };
            scratch.evaluate(level, &values, |name| head.headers.values(name).next().is_some());
            scratch.write(
                level,
                &mut head.headers,
                |headers, name, value| headers.set(name, value),
                |headers, name, value| headers.join(name, value, false),
            );
        }
    }
}

impl Scratch {
    /// Writes down which additions apply and their values.
    fn evaluate(&mut self, level: &Level, values: &LogValues<'_>, present: impl Fn(&Name) -> bool) {
        self.text.clear();
        self.values.clear();
        for (i, addition) in level.add.iter().enumerate() {
            let applies = match addition.action {
                AppendAction::Append | AppendAction::Overwrite => true,
                AppendAction::AddIfAbsent => !present(&addition.name),
                AppendAction::OverwriteIfExists => present(&addition.name),
            };
            if applies {
                let start = self.text.len();
                addition.value.write(values, b"", Escape::None, &mut self.text);
                if self.text.len() > start || addition.keep_empty {
                    self.values.push((i, start, self.text.len()));
                }
            }
        }
    }

    /// Does what was written down: replacements first.
    fn write<H>(
        &self,
        level: &Level,
        headers: &mut H,
        set: impl Fn(&mut H, &Name, &[u8]),
        append: impl Fn(&mut H, &Name, &[u8]),
    ) {
        let replaces =
            |i: usize| matches!(level.add[i].action, AppendAction::Overwrite | AppendAction::OverwriteIfExists);
        for &(i, start, end) in self.values.iter().filter(|(i, ..)| replaces(*i)) {
            set(headers, &level.add[i].name, &self.text[start..end]);
        }
        for &(i, start, end) in self.values.iter().filter(|(i, ..)| !replaces(*i)) {
            append(headers, &level.add[i].name, &self.text[start..end]);
        }
    }
}

#[cfg(test)]
mod tests;
