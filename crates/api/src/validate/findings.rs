//! What validation has to say about a resource, and the cursor that knows where it is being said.

use std::fmt::{self, Display};

/// Everything wrong with a resource, and everything that works but is probably not meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Why the resource is refused.
    pub errors: Vec<Finding>,
    /// What should be looked at although the resource is accepted.
    pub warnings: Vec<Finding>,
}

/// One thing to say about one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The field as written in YAML: `spec.http[0].route[1].weight`, `metadata.labels["app/x"]`.
    pub path: String,
    /// What is wrong and what was expected.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Findings {
    /// Whether the resource can be used.
    pub fn is_accepted(&self) -> bool {
        self.errors.is_empty()
    }
}

impl Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// What a rule has to say about a value, before anybody knows which field the value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Problem {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Problem { message: message.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<String> for Problem {
    fn from(message: String) -> Self {
        Problem::new(message)
    }
}

impl From<&str> for Problem {
    fn from(message: &str) -> Self {
        Problem::new(message)
    }
}

/// What every rule answers.
pub(crate) type Verdict = Result<(), Problem>;

/// A field under validation: findings reported here carry its path.
pub(crate) struct At<'a> {
    findings: &'a mut Findings,
    path: String,
    quiet: bool,
}

impl<'a> At<'a> {
    pub(crate) fn new(findings: &'a mut Findings, path: &str) -> Self {
        At { findings, path: path.to_owned(), quiet: false }
    }

    /// The field `name` of the message this cursor stands on.
    pub(crate) fn field(&mut self, name: &str) -> At<'_> {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        At { findings: self.findings, path, quiet: self.quiet }
    }

    /// The element `index` of the list this cursor stands on.
    pub(crate) fn index(&mut self, index: usize) -> At<'_> {
        At { path: format!("{}[{index}]", self.path), findings: self.findings, quiet: self.quiet }
    }

    /// The entry `key` of the map this cursor stands on.
    pub(crate) fn key(&mut self, key: &str) -> At<'_> {
        At { path: format!("{}[{key:?}]", self.path), findings: self.findings, quiet: self.quiet }
    }

    /// Another field of the resource, by its full path.
    pub(crate) fn sibling(&mut self, path: &str) -> At<'_> {
        At { path: path.to_owned(), findings: self.findings, quiet: self.quiet }
    }

    /// The same place, where only errors count: Istio says no warnings about nested policies.
    pub(crate) fn errors_only(&mut self) -> At<'_> {
        At { path: self.path.clone(), findings: self.findings, quiet: true }
    }

    pub(crate) fn error(&mut self, problem: impl Into<Problem>) {
        let Problem { message, hint } = problem.into();
        self.findings.errors.push(Finding { path: self.path.clone(), message, hint });
    }

    pub(crate) fn warn(&mut self, problem: impl Into<Problem>) {
        if !self.quiet {
            let Problem { message, hint } = problem.into();
            self.findings.warnings.push(Finding { path: self.path.clone(), message, hint });
        }
    }

    pub(crate) fn check(&mut self, verdict: Verdict) {
        if let Err(problem) = verdict {
            self.error(problem);
        }
    }

    pub(crate) fn advise(&mut self, verdict: Verdict) {
        if let Err(problem) = verdict {
            self.warn(problem);
        }
    }
}
