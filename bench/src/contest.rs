//! Contenders side by side: interleaved rounds, medians, and ratios as medians of the ratios round by round.

use crate::process::{PROXY_CORE, Process, cpu_nanos, pin};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// A proxy that is measured.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// Every process whose CPU time and memory is counted.
    pub(crate) pids: Vec<u32>,
    pub(crate) _processes: Vec<Process>,
}

impl Contender {
    /// Gives it the proxies' core.
    pub(crate) fn pin(&self) {
        self.pids.iter().for_each(|pid| pin(*pid, PROXY_CORE));
    }

    /// CPU time so far, in nanoseconds, all processes summed.
    pub(crate) fn cpu(&self) -> u64 {
        self.pids.iter().map(|pid| cpu_nanos(*pid)).sum()
    }

    /// Resident memory in MB, all processes summed.
    pub(crate) fn rss(&self) -> f64 {
        self.pids.iter().map(|pid| crate::process::rss_mb(*pid)).sum()
    }
}

/// What a row measures.
pub(crate) struct Row {
    pub(crate) title: String,
    /// Name and digits after the point.
    pub(crate) columns: &'static [(&'static str, usize)],
    /// The columns that are compared, maille's divided by the other's, and what of it is wanted: at most (or at least) so much of whom.
    pub(crate) ratios: &'static [Ratio],
}

/// A column that is compared.
pub(crate) struct Ratio {
    pub(crate) column: usize,
    pub(crate) wanted: &'static [(&'static str, Wanted)],
}

/// The figure a ratio is held against; missing it is said, and fails nothing: machines are noisy.
#[derive(Clone, Copy)]
pub(crate) enum Wanted {
    AtMost(f64),
    AtLeast(f64),
}

impl Wanted {
    fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(limit) => ratio <= limit,
            Self::AtLeast(limit) => ratio >= limit,
        }
    }

    fn words(self) -> String {
        match self {
            Self::AtMost(limit) => format!("at most {limit:.2}×"),
            Self::AtLeast(limit) => format!("at least {limit:.2}×"),
        }
    }
}

/// One row's figures.
pub(crate) struct Report {
    row: Row,
    rounds: usize,
    /// Per contender its name and a sample per round.
    samples: Vec<(&'static str, Vec<Vec<f64>>)>,
}

/// Visits every contender once a round; the first round warms up and is not counted.
pub(crate) fn run(
    row: Row,
    rounds: usize,
    contenders: &[Contender],
    mut visit: impl FnMut(&Contender) -> anyhow::Result<Vec<f64>>,
) -> anyhow::Result<Report> {
    anyhow::ensure!(!contenders.is_empty(), "nothing to measure");
    let mut samples: Vec<_> = contenders.iter().map(|c| (c.name, vec![])).collect();
    for round in 0..=rounds {
        for (c, (_, kept)) in contenders.iter().zip(&mut samples) {
            let sample = visit(c).map_err(|e| e.context(c.name))?;
            if round > 0 {
                kept.push(sample);
            }
        }
        eprint!("\r{}: round {round} of {rounds} ", row.title.split(',').next().unwrap_or_default());
    }
    eprintln!();
    Ok(Report { row, rounds, samples })
}

/// A report of figures that need no rounds.
pub(crate) fn once(row: Row, samples: Vec<(&'static str, Vec<f64>)>) -> Report {
    Report { row, rounds: 1, samples: samples.into_iter().map(|(name, s)| (name, vec![s])).collect() }
}

pub(crate) fn median(mut v: Vec<f64>) -> f64 {
    v.sort_by(f64::total_cmp);
    v.get(v.len() / 2).copied().unwrap_or(0.0)
}

impl Report {
    fn figure(&self, contender: usize, column: usize) -> f64 {
        median(self.samples[contender].1.iter().map(|s| s[column]).collect())
    }

    /// (column, whom, ratio, what is wanted)
    fn ratios(&self) -> Vec<(usize, &'static str, f64, Option<Wanted>)> {
        let Some((_, ours)) = self.samples.iter().find(|s| s.0 == "maille") else { return vec![] };
        let mut out = vec![];
        for ratio in self.row.ratios {
            for (name, theirs) in self.samples.iter().filter(|s| s.0 != "maille") {
                let values = ours.iter().zip(theirs).map(|(a, b)| a[ratio.column] / b[ratio.column]).collect();
                let wanted = ratio.wanted.iter().find(|w| w.0 == *name).map(|w| w.1);
                out.push((ratio.column, *name, median(values), wanted));
            }
        }
        out
    }

    /// The table in Markdown, the ratios under it.
    pub(crate) fn print(&self) {
        println!("\n{}, medians of {} rounds\n", self.row.title, self.rounds);
        println!("| proxy | {} |", self.row.columns.iter().map(|c| c.0).collect::<Vec<_>>().join(" | "));
        println!("|---|{}", "---:|".repeat(self.row.columns.len()));
        for (i, (name, _)) in self.samples.iter().enumerate() {
            let cells: Vec<_> = self
                .row
                .columns
                .iter()
                .enumerate()
                .map(|(column, c)| format!("{:.*}", c.1, self.figure(i, column)))
                .collect();
            println!("| {name} | {} |", cells.join(" | "));
        }
        let ratios = self.ratios();
        if !ratios.is_empty() {
            println!();
        }
        for (column, name, ratio, wanted) in ratios {
            let wanted = wanted.map_or(String::new(), |w| {
                format!(" ({}: {})", w.words(), if w.holds(ratio) { "holds" } else { "MISSED" })
            });
            println!("{}: {ratio:.2}× {name}{wanted}", self.row.columns[column].0);
        }
    }

    pub(crate) fn json(&self) -> Value {
        let figures: serde_json::Map<String, Value> = self
            .samples
            .iter()
            .enumerate()
            .map(|(i, (name, _))| {
                let columns: serde_json::Map<String, Value> =
                    self.row.columns.iter().enumerate().map(|(n, c)| (c.0.into(), json!(self.figure(i, n)))).collect();
                ((*name).into(), Value::Object(columns))
            })
            .collect();
        let ratios: Vec<_> = self
            .ratios()
            .into_iter()
            .map(|(column, name, ratio, wanted)| {
                json!({"column": self.row.columns[column].0, "against": name, "ratio": ratio,
                       "wanted": wanted.map(Wanted::words), "holds": wanted.map(|w| w.holds(ratio))})
            })
            .collect();
        json!({"row": self.row.title, "rounds": self.rounds, "figures": figures, "ratios": ratios})
    }
}
