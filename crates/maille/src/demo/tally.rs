//! What the access logs say, added up per service and version.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::shop::LOG_MARK;

/// Rates and percentiles are of the requests of this long.
const WINDOW: Duration = Duration::from_secs(5);

/// One request, from a line of an access log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Seen {
    /// Whether the answer was no failure of the server's.
    ok: bool,
    /// How long it took.
    ms: u32,
}

/// Which line of the log counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Side {
    /// What a sidecar let in to its workload.
    Inbound,
    /// What a gateway sent on.
    Outbound,
}

impl Seen {
    /// Reads a line as `MESH` in the shop's configuration has it written.
    pub(super) fn parse(line: &str, side: Side) -> Option<Self> {
        let mut words = line.strip_prefix(LOG_MARK)?.split_ascii_whitespace();
        let (cluster, status, ms) = (words.next()?, words.next()?.parse::<u16>().ok()?, words.next()?.parse().ok()?);
        let fits = cluster.starts_with("inbound") == (side == Side::Inbound);
        fits.then_some(Self { ok: (100..500).contains(&status), ms })
    }
}

/// Everything seen so far.
#[derive(Default)]
pub(super) struct Tally {
    rows: BTreeMap<(usize, &'static str, &'static str), Row>,
    begun: Option<Instant>,
}

#[derive(Default)]
struct Row {
    requests: u64,
    failures: u64,
    recent: VecDeque<(Instant, Seen)>,
}

/// A row as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) service: &'static str,
    pub(super) version: &'static str,
    pub(super) requests: u64,
    pub(super) failures: u64,
    /// Requests a second.
    pub(super) rate: f64,
    /// The share that did not fail; `None` when there was no request.
    pub(super) success: Option<f64>,
    pub(super) p50: u32,
    pub(super) p99: u32,
}

impl Tally {
    /// Makes a row, so that it is shown before its first request. Rows are shown in the order they were made in.
    pub(super) fn expect(&mut self, service: &'static str, version: &'static str) {
        let place = self.rows.len();
        self.rows.insert((place, service, version), Row::default());
    }

    pub(super) fn add(&mut self, service: &str, version: &str, seen: Seen, now: Instant) {
        self.begun.get_or_insert(now);
        let row = self.rows.iter_mut().find(|((_, s, v), _)| *s == service && *v == version);
        let Some((_, row)) = row else { return };
        row.requests += 1;
        row.failures += u64::from(!seen.ok);
        row.recent.push_back((now, seen));
    }

    /// The table as of now.
    pub(super) fn lines(&mut self, now: Instant) -> Vec<Line> {
        let since = self.begun.map_or(Duration::ZERO, |begun| now - begun).clamp(Duration::from_secs(1), WINDOW);
        let line = |((_, service, version), row): (&(usize, &'static str, &'static str), &mut Row)| {
            while row.recent.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
                row.recent.pop_front();
            }
            let mut times: Vec<u32> = row.recent.iter().map(|(_, seen)| seen.ms).collect();
            times.sort_unstable();
            let quantile =
                |q: f64| times.get(((times.len() as f64 * q) as usize).min(times.len().saturating_sub(1))).copied();
            let ok = row.recent.iter().filter(|(_, seen)| seen.ok).count();
            Line {
                service,
                version,
                requests: row.requests,
                failures: row.failures,
                rate: times.len() as f64 / since.as_secs_f64(),
                success: (!times.is_empty()).then(|| ok as f64 / times.len() as f64),
                p50: quantile(0.5).unwrap_or(0),
                p99: quantile(0.99).unwrap_or(0),
            }
        };
        self.rows.iter_mut().map(line).collect()
    }
}

impl Line {
    pub(super) fn to_json(&self) -> Value {
        json!({
            "service": self.service,
            "version": self.version,
            "requests": self.requests,
            "failures": self.failures,
            "rate": (self.rate * 10.0).round() / 10.0,
            "success": self.success.map(|share| (share * 1000.0).round() / 1000.0),
            "p50_ms": self.p50,
            "p99_ms": self.p99,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_log_are_told_apart() {
        let rows = [
            ("maille-demo inbound|9080|| 200 12", Side::Inbound, Some(Seen { ok: true, ms: 12 })),
            ("maille-demo inbound|9080|| 500 3", Side::Inbound, Some(Seen { ok: false, ms: 3 })),
            ("maille-demo - 404 0", Side::Outbound, Some(Seen { ok: true, ms: 0 })),
            ("maille-demo outbound|9080||ratings 200 12", Side::Inbound, None),
            ("maille-demo outbound|9080||ratings 200 12", Side::Outbound, Some(Seen { ok: true, ms: 12 })),
            ("maille-demo outbound|9080||ratings 0 12", Side::Outbound, Some(Seen { ok: false, ms: 12 })),
            ("maille-demo inbound|9080|| 200", Side::Inbound, None),
            ("listening on 9080", Side::Inbound, None),
        ];
        for (line, side, expected) in rows {
            assert_eq!(Seen::parse(line, side), expected, "{line}");
        }
    }

    #[test]
    fn rates_are_recent_and_totals_are_not() {
        let mut tally = Tally::default();
        tally.expect("reviews", "v3");
        let begin = Instant::now();
        for n in 0..100u32 {
            let seen = Seen { ok: n % 4 != 0, ms: n };
            tally.add("reviews", "v3", seen, begin + Duration::from_millis(u64::from(n) * 10));
        }
        let line = tally.lines(begin + Duration::from_secs(1)).remove(0);
        assert_eq!((line.requests, line.failures, line.p50, line.p99), (100, 25, 50, 99));
        assert_eq!((line.rate, line.success), (100.0, Some(0.75)));
        let line = tally.lines(begin + Duration::from_secs(60)).remove(0);
        assert_eq!((line.requests, line.rate, line.success), (100, 0.0, None));
    }
}
