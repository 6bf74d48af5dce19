//! Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::metrics::{BUCKETS_MS, Buckets, Family, Labels, Series};

/// Labels as they are exported, without the braces.
pub(super) fn labels(labels: Labels<'_>) -> Box<str> {
    let mut out = String::new();
    for (i, (name, value)) in labels.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push_str(name);
        out.push_str("=\"");
        for c in value.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    out.into()
}

/// Appends every metric; those whose handles are gone are forgotten.
pub(super) fn write(families: &mut BTreeMap<&'static str, Family>, out: &mut String) {
    families.retain(|name, family| match family {
        Family::Counter(series) => write_series(out, name, "counter", series, write_sum),
        Family::Gauge(series) => write_series(out, name, "gauge", series, write_sum),
        Family::Histogram(series) => write_series(out, name, "histogram", series, write_histogram),
    });
}

fn write_series<C>(
    out: &mut String,
    name: &str,
    kind: &str,
    series: &mut Series<C>,
    write_one: fn(&mut String, &str, &str, &[Weak<C>]),
) -> bool {
    series.retain(|_, cells| {
        cells.retain(|cell| cell.strong_count() > 0);
        !cells.is_empty()
    });
    if !series.is_empty() {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# TYPE {name} {kind}");
    }
    for (labels, cells) in series.iter() {
        write_one(out, name, labels, cells);
    }
    !series.is_empty()
}

fn write_sum(out: &mut String, name: &str, labels: &str, cells: &[Weak<AtomicU64>]) {
    let values = cells.iter().filter_map(Weak::upgrade).map(|cell| cell.load(Ordering::Relaxed));
    let sum = values.fold(0, u64::wrapping_add);
    // Gauges count down below zero on one worker what went up on none: only the sum has a meaning.
    let _ = writeln!(out, "{name}{{{labels}}} {}", sum as i64);
}

fn write_histogram(out: &mut String, name: &str, labels: &str, cells: &[Weak<Buckets>]) {
    let cells: Vec<_> = cells.iter().filter_map(Weak::upgrade).collect();
    let comma = if labels.is_empty() { "" } else { "," };
    let mut count = 0;
    for bucket in 0..=BUCKETS_MS.len() {
        count += cells.iter().filter_map(|c| c.counts.get(bucket)).map(|c| c.load(Ordering::Relaxed)).sum::<u64>();
        let bound = BUCKETS_MS.get(bucket).map_or_else(|| "+Inf".to_owned(), f64::to_string);
        let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}");
    }
    let micros: u64 = cells.iter().map(|cell| cell.sum_micros.load(Ordering::Relaxed)).sum();
    let _ = writeln!(out, "{name}_sum{{{labels}}} {}", micros as f64 / 1000.0);
    let _ = writeln!(out, "{name}_count{{{labels}}} {count}");
}
