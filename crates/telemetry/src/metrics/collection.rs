//! All metrics at one moment, those that nobody counts but that can be seen among them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::metrics::{BUCKETS, Buckets, Family, Name, Series, SeriesOf, Tag};

/// All metrics at one moment.
#[derive(Debug, Default)]
pub struct Collection {
    pub(super) families: BTreeMap<Name, (Kind, Vec<Sample>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Text,
}

#[derive(Debug)]
pub(super) struct Sample {
    pub(super) subject: Box<str>,
    pub(super) tag: Tag,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    Number(u64),
    Text(Box<str>),
    Histogram { counts: [u64; BUCKETS.len() + 1], sum: u64 },
}

impl Value {
    /// Whether anything was ever counted: zero and unused look the same here.
    pub(super) fn is_used(&self) -> bool {
        match self {
            Value::Number(n) => *n != 0,
            Value::Text(text) => !text.is_empty(),
            Value::Histogram { counts, .. } => counts.iter().any(|n| *n > 0),
        }
    }
}

/// Which metrics are shown.
#[derive(Clone, Copy, Default)]
pub struct Filter<'a> {
    /// Those whose dotted names this likes.
    pub name: Option<&'a dyn Fn(&str) -> bool>,
    /// Only those that something has happened to.
    pub used_only: bool,
}

impl Filter<'_> {
    pub(super) fn wants(&self, name: Name, sample: &Sample) -> bool {
        (!self.used_only || sample.value.is_used())
            && self.name.is_none_or(|likes| likes(&name.dotted(&sample.subject, &sample.tag)))
    }
}

impl Collection {
    pub(super) fn of(families: &mut BTreeMap<Name, Family>) -> Collection {
        let mut all = Collection::default();
        families.retain(|name, family| match family {
            Family::Counter(series) => all.take(*name, Kind::Counter, series, |c| c.load(Ordering::Relaxed), number),
            Family::Gauge(series) => all.take(*name, Kind::Gauge, series, |_| 0, number),
            Family::Histogram(series) => all.take(*name, Kind::Histogram, series, |_| 0, histogram),
        });
        all
    }

    /// Takes what there is of one name; says whether there is any.
    fn take<C>(
        &mut self,
        name: Name,
        kind: Kind,
        series: &mut SeriesOf<C>,
        count: fn(&C) -> u64,
        value: fn(&Series<C>) -> Value,
    ) -> bool {
        series.retain(|_, one| one.tidy(count));
        for ((subject, tag), one) in series.iter() {
            self.add(name, kind, subject, tag.clone(), value(one));
        }
        !series.is_empty()
    }

    /// Adds something that can be seen and that only ever grows.
    pub fn counter(&mut self, name: Name, subject: &str, value: u64) {
        self.add(name, Kind::Counter, subject, Tag::None, Value::Number(value));
    }

    /// Adds something that can be seen.
    pub fn gauge(&mut self, name: Name, subject: &str, value: u64) {
        self.add(name, Kind::Gauge, subject, Tag::None, Value::Number(value));
    }

    /// Adds a text, which Prometheus does not get.
    pub fn text_readout(&mut self, name: Name, subject: &str, value: &str) {
        self.add(name, Kind::Text, subject, Tag::None, Value::Text(value.into()));
    }

    /// Forgets all but one of Envoy's kinds (`Counters`, `Gauges`, `Histograms`, `TextReadouts`); `false` when that is none.
    pub fn only(&mut self, kind: &str) -> bool {
        let kind = match kind {
            "Counters" => Kind::Counter,
            "Gauges" => Kind::Gauge,
            "Histograms" => Kind::Histogram,
            "TextReadouts" => Kind::Text,
            _ => return false,
        };
        self.families.retain(|_, (own, _)| *own == kind);
        true
    }

    fn add(&mut self, name: Name, kind: Kind, subject: &str, tag: Tag, value: Value) {
        let (_, samples) = self.families.entry(name).or_insert_with(|| (kind, Vec::new()));
        samples.push(Sample { subject: subject.into(), tag, value });
    }

    /// The sum over all subjects of something that is counted.
    pub fn sum(&self, name: Name) -> u64 {
        let samples = self.families.get(&name).map(|(_, samples)| samples.as_slice()).unwrap_or_default();
        samples.iter().fold(0, |sum, sample| match sample.value {
            Value::Number(n) => sum.wrapping_add(n),
            _ => sum,
        })
    }
}

/// Gauges count down below zero on one worker what went up on none: only the sum has a meaning.
fn number(series: &Series<AtomicU64>) -> Value {
    Value::Number(series.total())
}

fn histogram(series: &Series<Buckets>) -> Value {
    let mut counts = [0; BUCKETS.len() + 1];
    let mut sum = 0u64;
    for cell in &series.cells {
        for (count, of_cell) in counts.iter_mut().zip(&cell.counts) {
            *count += of_cell.load(Ordering::Relaxed);
        }
        sum = sum.wrapping_add(cell.sum.load(Ordering::Relaxed));
    }
    Value::Histogram { counts, sum }
}
