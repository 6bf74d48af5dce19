//! When a certificate is renewed, and when what failed is tried again.

use std::time::Duration;

/// How long we wait for the control plane to hear that we end.
pub(super) const FAREWELL: Duration = Duration::from_millis(500);

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The longest that workloads take between them to get certificates from a new authority.
const LONGEST_REISSUE: Duration = Duration::from_secs(10);

/// Before half its life, by a twentieth of it to a tenth: not everybody who started at once asks again at once, and whoever was
/// about to ask when the control plane went away for half a life can still ask when it is back. `jitter` is uniform in 0..1.
pub(super) fn renew_after(life: Duration, jitter: f64) -> Duration {
    // A certificate that is over when it comes means a clock that is wrong; asking in a tight loop does not mend it.
    life.mul_f64(0.45 - 0.05 * jitter.clamp(0.0, 1.0)).max(Duration::from_secs(1))
}

/// Soon, but not everybody at once.
pub(super) fn reissue_after(life: Duration, jitter: f64) -> Duration {
    (life / 20).min(LONGEST_REISSUE).mul_f64(jitter.clamp(0.0, 1.0))
}

/// Doubles with every failure; the shorter a certificate lives, the less it may grow.
pub(super) fn retry_after(failures: u32, life: Option<Duration>, jitter: f64) -> Duration {
    let longest = life.map_or(LONGEST_WAIT, |life| (life / 40).clamp(FIRST_WAIT, LONGEST_WAIT));
    let bound = FIRST_WAIT.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(longest);
    bound.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_certificate_is_renewed_before_half_its_life_and_not_by_everybody_at_once() {
        for (life, jitter, expected) in
            [(s(86400), 0.0, s(38880)), (s(86400), 1.0, s(34560)), (s(20), 0.0, s(9)), (s(20), 1.0, s(8))]
        {
            assert_eq!(renew_after(life, jitter), expected, "{life:?} {jitter}");
        }
        assert_eq!(renew_after(Duration::ZERO, 0.5), s(1), "a wrong clock is no reason for a storm");
    }

    #[test]
    fn what_failed_is_tried_again_ever_less_often_but_often_enough() {
        let waits: Vec<u128> = (1..9).map(|failures| retry_after(failures, Some(s(86400)), 1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(retry_after(99, Some(s(20)), 1.0), Duration::from_millis(500));
        assert_eq!(retry_after(99, None, 0.0), Duration::from_millis(2500));
        // Away for half a life, from the last moment on: it is asked again before the certificate ends.
        for life in [10, 20, 3600, 86400].map(s) {
            assert!(renew_after(life, 0.0) + life / 2 + retry_after(99, Some(life), 1.0) < life);
        }
    }

    #[test]
    fn a_new_authority_is_asked_soon() {
        assert_eq!(reissue_after(s(86400), 1.0), s(10));
        assert_eq!(reissue_after(s(20), 1.0), s(1));
        assert_eq!(reissue_after(s(20), 0.0), Duration::ZERO);
    }
}
