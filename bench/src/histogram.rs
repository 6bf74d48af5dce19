//! A latency histogram with 0.4 % resolution and no allocation while recording.

/// Buckets per power of two.
const SUB: u64 = 256;

/// Counts of microseconds in log-linear buckets.
#[derive(Clone)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { buckets: vec![0; 64 * SUB as usize], count: 0 }
    }

    /// Records one value in nanoseconds.
    pub(crate) fn record(&mut self, nanos: u64) {
        let last = self.buckets.len() - 1;
        self.buckets[index(nanos).min(last)] += 1;
        self.count += 1;
    }

    /// Takes over what another one recorded.
    pub(crate) fn add(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(a, b)| *a += b);
        self.count += other.count;
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The value below which the share `q` (0 to 1) of all records lies, in microseconds.
    pub(crate) fn quantile(&self, q: f64) -> f64 {
        let wanted = (self.count as f64 * q).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (i, n) in self.buckets.iter().enumerate() {
            seen += n;
            if seen >= wanted {
                return middle(i as u64) / 1000.0;
            }
        }
        0.0
    }
}

fn index(v: u64) -> usize {
    if v < SUB {
        return v as usize;
    }
    let shift = 63 - v.leading_zeros() as u64 - SUB.trailing_zeros() as u64;
    (((shift + 1) * SUB) + (v >> shift) - SUB) as usize
}

fn middle(i: u64) -> f64 {
    if i < SUB {
        return i as f64;
    }
    let shift = i / SUB - 1;
    let low = (i % SUB + SUB) << shift;
    low as f64 + (1u64 << shift) as f64 / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_the_resolution() {
        let mut h = Histogram::new();
        for v in 1..=100_000u64 {
            h.record(v * 1000);
        }
        for q in [0.5, 0.9, 0.99] {
            let want = 100_000.0 * q;
            let got = h.quantile(q);
            assert!((got - want).abs() / want < 0.005, "{q}: {got} for {want}");
        }
        assert_eq!(h.count(), 100_000);
    }
}
