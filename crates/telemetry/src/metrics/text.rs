//! How metrics are shown: Prometheus' text format, Envoy's lines, Envoy's JSON.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use super::collection::{Kind, Sample, Value};
use super::{BUCKETS, Collection, Filter, Name};

/// Which quantiles Envoy shows of a histogram, in percent.
const QUANTILES: [f64; 10] = [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];

impl Collection {
    /// Prometheus' text format.
    pub fn prometheus(&self, filter: Filter<'_>) -> String {
        let mut out = String::new();
        for (name, (kind, samples)) in &self.families {
            let kind = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
                Kind::Text => continue,
            };
            let prometheus = name.prometheus();
            let mut named = false;
            for sample in samples.iter().filter(|sample| filter.wants(*name, sample)) {
                if !std::mem::replace(&mut named, true) {
                    // Writing to a String cannot fail.
                    let _ = writeln!(out, "# TYPE {prometheus} {kind}");
                }
                one(&mut out, &prometheus, &name.labels(&sample.subject, &sample.tag), &sample.value);
            }
        }
        out
    }

    /// `NAME: VALUE` lines, sorted by name.
    pub fn lines(&self, filter: Filter<'_>) -> String {
        let mut lines: Vec<String> = self
            .wanted(filter)
            .map(|(name, sample)| {
                let name = name.dotted(&sample.subject, &sample.tag);
                match &sample.value {
                    Value::Number(n) => format!("{name}: {n}"),
                    Value::Text(text) => format!("{name}: \"{text}\""),
                    Value::Histogram { counts, .. } => format!("{name}: {}", quantiles_line(counts)),
                }
            })
            .collect();
        // Histograms come last, as in Envoy.
        lines.sort_by(|a, b| a.contains(": P0(").cmp(&b.contains(": P0(")).then_with(|| a.cmp(b)));
        lines.into_iter().fold(String::new(), |out, line| out + &line + "\n")
    }

    /// Envoy's JSON.
    pub fn json(&self, filter: Filter<'_>) -> Json {
        let mut stats: Vec<Json> = Vec::new();
        let mut histograms: Vec<Json> = Vec::new();
        for (name, sample) in self.wanted(filter) {
            let name = name.dotted(&sample.subject, &sample.tag);
            match &sample.value {
                Value::Number(n) => stats.push(json!({"name": name, "value": n})),
                Value::Text(text) => stats.push(json!({"name": name, "value": text})),
                Value::Histogram { counts, .. } => {
                    let values: Vec<Json> = QUANTILES
                        .iter()
                        .map(|q| json!({"interval": Json::Null, "cumulative": quantile(counts, *q)}))
                        .collect();
                    histograms.push(json!({"name": name, "values": values}));
                }
            }
        }
        stats.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
        if !histograms.is_empty() {
            stats.push(json!({"histograms": {"supported_quantiles": QUANTILES, "computed_quantiles": histograms}}));
        }
        json!({"stats": stats})
    }

    fn wanted<'a>(&'a self, filter: Filter<'a>) -> impl Iterator<Item = (Name, &'a Sample)> {
        let all = self.families.iter().flat_map(|(name, (_, samples))| samples.iter().map(|sample| (*name, sample)));
        all.filter(move |(name, sample)| filter.wants(*name, sample))
    }
}

fn one(out: &mut String, name: &str, labels: &str, value: &Value) {
    let comma = if labels.is_empty() { "" } else { "," };
    match value {
        Value::Number(n) => {
            let _ = writeln!(out, "{name}{{{labels}}} {}", *n as i64);
        }
        Value::Text(_) => {}
        Value::Histogram { counts, sum } => {
            let mut count = 0;
            for (bucket, n) in counts.iter().enumerate() {
                count += n;
                let bound = BUCKETS.get(bucket).map_or_else(|| "+Inf".to_owned(), f64::to_string);
                let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}");
            }
            let _ = writeln!(out, "{name}_sum{{{labels}}} {}", *sum as f64 / 1000.0);
            let _ = writeln!(out, "{name}_count{{{labels}}} {count}");
        }
    }
}

fn quantiles_line(counts: &[u64]) -> String {
    let parts = QUANTILES.iter().map(|q| match quantile(counts, *q) {
        Some(value) => format!("P{q}(nan,{value:.1})"),
        None => format!("P{q}(nan,nan)"),
    });
    parts.collect::<Vec<_>>().join(" ")
}

/// Where a quantile lies, as far as buckets tell: evenly spread within its bucket.
fn quantile(counts: &[u64], percent: f64) -> Option<f64> {
    let all: u64 = counts.iter().sum();
    let rank = percent / 100.0 * all as f64;
    let mut below = 0u64;
    for (bucket, &n) in counts.iter().enumerate().filter(|(_, n)| **n > 0) {
        let low = bucket.checked_sub(1).and_then(|b| BUCKETS.get(b)).copied().unwrap_or(0.0);
        let high = BUCKETS.get(bucket).copied().unwrap_or(low);
        if (below + n) as f64 >= rank {
            let part = ((rank - below as f64) / n as f64).clamp(0.0, 1.0);
            return Some(low + (high - low) * part);
        }
        below += n;
    }
    None
}
