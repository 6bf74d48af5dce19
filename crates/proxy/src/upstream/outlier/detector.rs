//! The judge: which hosts of a cluster are ejected, and for how long. Runs on the main thread; reads no clock.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Monitor, Tally, reset};
use crate::config::OutlierDetection;

/// Watches the hosts of one cluster.
#[derive(Debug, Default)]
pub(crate) struct Detector {
    hosts: BTreeMap<SocketAddr, Watched>,
    /// When the interval is over; `None` before the first.
    next: Option<Instant>,
    /// What has been decided since somebody counted it.
    pub(crate) counts: Counts,
}

/// How often what has been decided, by [`Reason`].
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) detected: [u32; 7],
    pub(crate) enforced: [u32; 7],
    /// Not ejected since too many are already.
    pub(crate) overflow: u32,
}

#[derive(Debug)]
struct Watched {
    monitor: Arc<Monitor>,
    ejected: Option<Ejection>,
    /// By how many times the base time an ejection lasts longer: grows with each, shrinks with each quiet interval.
    multiplier: u32,
    released: Option<Instant>,
}

#[derive(Debug)]
struct Ejection {
    since: Instant,
    jitter: Duration,
}

/// Why a host is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "Envoy's own names")]
pub(crate) enum Reason {
    Consecutive5xx,
    ConsecutiveGatewayFailure,
    ConsecutiveLocalOriginFailure,
    SuccessRate,
    SuccessRateLocalOrigin,
    FailurePercentage,
    FailurePercentageLocalOrigin,
}

/// What has been decided about a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is left alone from now on.
    Ejected(SocketAddr, Reason),
    /// It gets requests again.
    Released(SocketAddr),
}

impl Detector {
    /// Watches these hosts from now on. What is known of those that stay is kept.
    pub(crate) fn watch<'a>(&mut self, hosts: impl IntoIterator<Item = (SocketAddr, &'a Arc<Monitor>)>) {
        let mut old = std::mem::take(&mut self.hosts);
        for (address, monitor) in hosts {
            let same = old.remove(&address).filter(|watched| Arc::ptr_eq(&watched.monitor, monitor));
            let watched = same.unwrap_or_else(|| Watched {
                monitor: monitor.clone(),
                ejected: None,
                multiplier: 0,
                released: None,
            });
            self.hosts.entry(address).or_insert(watched);
        }
    }

    /// When [`Detector::tick`] has something to do. The first interval begins when this is first asked.
    pub(crate) fn next(&mut self, config: &OutlierDetection, now: Instant) -> Instant {
        *self.next.get_or_insert(now + interval(config))
    }

    /// Looks at the hosts that have just failed once too often.
    pub(crate) fn look(
        &mut self,
        config: &OutlierDetection,
        now: Instant,
        random: &mut impl FnMut() -> u64,
    ) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        let reached: Vec<_> =
            self.hosts.iter().map(|(a, h)| (*a, h.monitor.reached.swap(0, Ordering::Acquire))).collect();
        for (address, bits) in reached {
            for reason in Reason::CONSECUTIVE.into_iter().filter(|reason| bits & reason.bit() != 0) {
                if self.hosts.get(&address).is_none_or(|host| host.ejected.is_some()) {
                    continue;
                }
                self.eject(address, reason, config, now, random, &mut verdicts);
                // Ejected or not, it takes as many failures again.
                if let Some(host) = self.hosts.get(&address) {
                    host.monitor.counter(reason).into_iter().for_each(reset);
                }
            }
        }
        verdicts
    }

    /// At the end of an interval: releases hosts whose time is over, compares the others.
    pub(crate) fn tick(
        &mut self,
        config: &OutlierDetection,
        now: Instant,
        random: &mut impl FnMut() -> u64,
    ) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        if now < self.next(config, now) {
            return verdicts;
        }
        self.next = Some(now + interval(config));
        for (address, host) in &mut self.hosts {
            if host.is_due(config, now) {
                host.release(now);
                verdicts.push(Verdict::Released(*address));
            }
        }
        let external = (Reason::SuccessRate, Reason::FailurePercentage);
        self.compare(|monitor| &monitor.external, external, config, now, random, &mut verdicts);
        let local = (Reason::SuccessRateLocalOrigin, Reason::FailurePercentageLocalOrigin);
        self.compare(|monitor| &monitor.local, local, config, now, random, &mut verdicts);
        for host in self.hosts.values_mut().filter(|host| host.ejected.is_none()) {
            if host.released.is_some_and(|at| now.duration_since(at) >= config.interval) {
                host.multiplier = host.multiplier.saturating_sub(1);
            }
        }
        verdicts
    }

    fn compare(
        &mut self,
        tally: impl Fn(&Monitor) -> &Tally,
        (by_deviation, by_share): (Reason, Reason),
        config: &OutlierDetection,
        now: Instant,
        random: &mut impl FnMut() -> u64,
        verdicts: &mut Vec<Verdict>,
    ) {
        // Taken from all, so that each interval begins with nothing; those that are ejected do not take part.
        let rates: Vec<_> = self
            .hosts
            .iter()
            .filter_map(|(address, host)| Some((*address, host, tally(&host.monitor).take()?)))
            .filter(|(_, host, _)| host.ejected.is_none())
            .map(|(address, _, (rate, volume))| (address, rate, volume))
            .collect();
        let of_volume = |least: u32| -> Vec<(SocketAddr, f64)> {
            rates.iter().filter(|(_, _, volume)| *volume >= least).map(|(a, rate, _)| (*a, *rate)).collect()
        };

        let hosts = of_volume(config.success_rate_request_volume);
        if !hosts.is_empty() && hosts.len() >= config.success_rate_minimum_hosts as usize {
            let factor = f64::from(config.success_rate_stdev_factor) / 1000.0;
            let threshold = threshold(&hosts, factor);
            for (address, _) in hosts.iter().filter(|(_, rate)| *rate < threshold) {
                self.eject(*address, by_deviation, config, now, random, verdicts);
            }
        }
        let hosts = of_volume(config.failure_percentage_request_volume);
        if !hosts.is_empty() && hosts.len() >= config.failure_percentage_minimum_hosts as usize {
            let most = f64::from(config.failure_percentage_threshold);
            for (address, _) in hosts.iter().filter(|(_, rate)| 100.0 - rate >= most) {
                self.eject(*address, by_share, config, now, random, verdicts);
            }
        }
    }

    /// Ejects a host, if that still leaves enough of them and the dice say so.
    fn eject(
        &mut self,
        address: SocketAddr,
        reason: Reason,
        config: &OutlierDetection,
        now: Instant,
        random: &mut impl FnMut() -> u64,
        verdicts: &mut Vec<Verdict>,
    ) {
        let ejected = self.hosts.values().filter(|host| host.ejected.is_some()).count();
        let share = 100.0 * (ejected + 1) as f64 / self.hosts.len() as f64;
        let allowed =
            share <= f64::from(config.max_ejection_percent.min(100)) || (config.always_eject_one_host && ejected == 0);
        if !allowed {
            self.counts.overflow += 1;
            return;
        }
        self.counts.detected[reason as usize] += 1;
        if random() % 100 >= u64::from(reason.enforcing(config)) {
            return;
        }
        let Some(host) = self.hosts.get_mut(&address).filter(|host| host.ejected.is_none()) else { return };
        let jitter_range =
            u64::try_from(config.max_ejection_time_jitter.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        host.ejected = Some(Ejection { since: now, jitter: Duration::from_millis(random() % jitter_range) });
        host.monitor.ejected.store(true, Ordering::Relaxed);
        // Once the longest time is reached, more ejections need not be remembered.
        if config.base_ejection_time.saturating_mul(host.multiplier)
            < config.max_ejection_time.saturating_add(config.base_ejection_time)
        {
            host.multiplier = host.multiplier.saturating_add(1);
        }
        self.counts.enforced[reason as usize] += 1;
        verdicts.push(Verdict::Ejected(address, reason));
    }
}

impl Watched {
    fn is_due(&self, config: &OutlierDetection, now: Instant) -> bool {
        self.ejected.as_ref().is_some_and(|ejection| {
            let time = config.base_ejection_time.saturating_mul(self.multiplier).min(config.max_ejection_time);
            now.duration_since(ejection.since) >= time.saturating_add(ejection.jitter)
        })
    }

    /// Gives a host another chance, with nothing held against it but how often it was ejected.
    fn release(&mut self, now: Instant) {
        self.ejected = None;
        self.released = Some(now);
        for reason in Reason::CONSECUTIVE {
            self.monitor.counter(reason).into_iter().for_each(reset);
        }
        self.monitor.ejected.store(false, Ordering::Relaxed);
    }
}

impl Reason {
    const CONSECUTIVE: [Reason; 3] =
        [Reason::Consecutive5xx, Reason::ConsecutiveGatewayFailure, Reason::ConsecutiveLocalOriginFailure];

    pub(super) fn bit(self) -> u8 {
        1 << self as u8
    }

    /// How often it is acted upon, in percent.
    fn enforcing(self, config: &OutlierDetection) -> u32 {
        match self {
            Reason::Consecutive5xx => config.enforcing_consecutive_5xx,
            Reason::ConsecutiveGatewayFailure => config.enforcing_consecutive_gateway_failure,
            Reason::ConsecutiveLocalOriginFailure => config.enforcing_consecutive_local_origin_failure,
            Reason::SuccessRate => config.enforcing_success_rate,
            Reason::SuccessRateLocalOrigin => config.enforcing_local_origin_success_rate,
            Reason::FailurePercentage => config.enforcing_failure_percentage,
            Reason::FailurePercentageLocalOrigin => config.enforcing_failure_percentage_local_origin,
        }
    }
}

/// The interval, within what a clock can add.
fn interval(config: &OutlierDetection) -> Duration {
    config.interval.clamp(Duration::from_millis(1), Duration::from_secs(365 * 24 * 3600))
}

/// The rate of success below which a host is an outlier: so many standard deviations below the mean.
fn threshold(hosts: &[(SocketAddr, f64)], factor: f64) -> f64 {
    let n = hosts.len() as f64;
    let mean = hosts.iter().map(|(_, rate)| rate).sum::<f64>() / n;
    let variance = hosts.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / n;
    mean - factor * variance.sqrt()
}
