//! Each case is a script: what happens, and which hosts are ejected afterwards.

mod served;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;

/// Envoy's defaults, but for the share of hosts that may be ejected.
fn defaults() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: 5,
        enforcing_consecutive_5xx: 100,
        consecutive_gateway_failure: 5,
        enforcing_consecutive_gateway_failure: 0,
        consecutive_local_origin_failure: 5,
        enforcing_consecutive_local_origin_failure: 100,
        split_external_local_origin_errors: false,
        interval: Duration::from_secs(10),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_time: Duration::from_secs(300),
        max_ejection_time_jitter: Duration::ZERO,
        max_ejection_percent: 100,
        always_eject_one_host: false,
        enforcing_success_rate: 0,
        success_rate_minimum_hosts: 5,
        success_rate_request_volume: 100,
        success_rate_stdev_factor: 1900,
        enforcing_local_origin_success_rate: 0,
        failure_percentage_threshold: 85,
        enforcing_failure_percentage: 0,
        enforcing_failure_percentage_local_origin: 0,
        failure_percentage_minimum_hosts: 5,
        failure_percentage_request_volume: 50,
    }
}

struct Scene {
    config: OutlierDetection,
    detector: Detector,
    monitors: Vec<Arc<Monitor>>,
    now: Instant,
    /// What every throw of the dice comes to.
    dice: u64,
}

impl Scene {
    fn new(config: OutlierDetection, hosts: usize, dice: u64) -> Scene {
        let now = Instant::now();
        let monitors: Vec<_> = (0..hosts).map(|_| Arc::new(Monitor::default())).collect();
        let mut scene = Scene { config, detector: Detector::default(), monitors, now, dice };
        scene.watch();
        assert_eq!(scene.detector.next(&config, now), now + config.interval);
        scene
    }

    fn watch(&mut self) {
        self.detector.watch(self.monitors.iter().enumerate().map(|(i, monitor)| (address(i), monitor)));
    }

    /// `+SECONDS`, or `HOSTS OUTCOME*TIMES…` where `ab` are the first two hosts.
    fn play(&mut self, step: &str) {
        let dice = self.dice;
        if let Some(seconds) = step.strip_prefix('+') {
            for _ in 0..seconds.parse().unwrap() {
                self.now += Duration::from_secs(1);
                self.detector.tick(&self.config, self.now, &mut || dice);
            }
            return;
        }
        let (hosts, outcomes) = step.split_once(' ').unwrap();
        for host in hosts.bytes().map(|b| usize::from(b - b'a')) {
            for outcome in outcomes.split(' ') {
                let (outcome, times) = outcome.split_once('*').unwrap_or((outcome, "1"));
                for _ in 0..times.parse().unwrap() {
                    if self.monitors[host].record(&self.config, parse(outcome)) {
                        self.detector.look(&self.config, self.now, &mut || dice);
                    }
                }
            }
        }
    }

    fn ejected(&self) -> String {
        let hosts = self.monitors.iter().enumerate().filter(|(_, monitor)| monitor.is_ejected());
        hosts.map(|(i, _)| char::from(b'a' + i as u8)).collect()
    }
}

fn address(i: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8000 + i as u16))
}

fn parse(outcome: &str) -> Outcome {
    match outcome {
        "connected" => Outcome::Connected,
        "established" => Outcome::Established,
        "failed" => Outcome::Failed,
        "timeout" => Outcome::TimedOut,
        status => Outcome::Response(status.parse().unwrap()),
    }
}

fn check_with(hosts: usize, dice: u64, change: impl FnOnce(&mut OutlierDetection), script: &[(&str, &str)]) {
    let mut config = defaults();
    change(&mut config);
    let mut scene = Scene::new(config, hosts, dice);
    for (i, (step, ejected)) in script.iter().enumerate() {
        scene.play(step);
        assert_eq!(scene.ejected(), *ejected, "after step {i}, {step:?}, of {script:?}");
    }
}

fn check(hosts: usize, change: impl FnOnce(&mut OutlierDetection), script: &[(&str, &str)]) {
    check_with(hosts, 0, change, script);
}

#[test]
fn failures_in_a_row() {
    check(2, |_| {}, &[("a 500*4", ""), ("a 200", ""), ("a 500*4", ""), ("b 500*5", "b"), ("a 500", "ab")]);
    // Four hundred and something is the client's fault.
    check(1, |_| {}, &[("a 404*9", ""), ("a 599*4 499 599*4", ""), ("a 599", "a")]);
    // Connections that fail and responses that do not come count as 503 and 504.
    check(1, |_| {}, &[("a failed*4 connected", ""), ("a timeout", "a")]);
    check(1, |_| {}, &[("a failed*4 established failed*4", ""), ("a failed", "a")]);
    // None is none: counting never comes to 0.
    check(1, |c| c.consecutive_5xx = 0, &[("a 500*50", "")]);
}

#[test]
fn gateway_failures_in_a_row() {
    let gateway = |c: &mut OutlierDetection| {
        c.consecutive_gateway_failure = 3;
        c.enforcing_consecutive_gateway_failure = 100;
    };
    check(1, gateway, &[("a 502 503", ""), ("a 504", "a")]);
    // Another kind of failure is not one of the gateway's.
    check(1, gateway, &[("a 503*2 500 503", ""), ("a 503", "a")]);
    check(1, gateway, &[("a 503*2 200 503*2", ""), ("a failed", "a")]);
    check(1, gateway, &[("a failed timeout", ""), ("a failed", "a")]);
}

#[test]
fn failures_on_the_way_apart_from_failures_of_the_server() {
    let split = |c: &mut OutlierDetection| {
        c.split_external_local_origin_errors = true;
        c.consecutive_local_origin_failure = 3;
    };
    check(1, split, &[("a 500*4 failed*2", ""), ("a connected", ""), ("a failed*2", ""), ("a timeout", "a")]);
    // A connection is a success of its own kind only.
    check(1, split, &[("a 500*4 connected", ""), ("a 500", "a")]);
    check(1, split, &[("a failed*2 established failed*2", ""), ("a failed", "a")]);
    // Failures on the way are no answers.
    check(1, |c| (split(c), c.consecutive_local_origin_failure = 50).0, &[("a failed*20", "")]);
}

#[test]
fn an_ejection_lasts_longer_each_time() {
    check(
        1,
        |_| {},
        &[
            ("a 500*5", "a"),
            ("+29", "a"),
            // The interval's end is when it is released, at 30 s.
            ("+1", ""),
            ("a 500*4", ""),
            ("a 500", "a"),
            ("+59", "a"),
            ("+1", ""),
            ("a 500*5", "a"),
            ("+89", "a"),
            ("+1", ""),
            // Quiet intervals are forgiven one by one: the next is the second again.
            ("+20", ""),
            ("a 500*5", "a"),
            ("+59", "a"),
            ("+1", ""),
        ],
    );
    // It does not end between intervals.
    check(
        1,
        |c| c.base_ejection_time = Duration::from_secs(1),
        &[("+1", ""), ("a 500*5", "a"), ("+8", "a"), ("+1", "")],
    );
}

#[test]
fn an_ejection_has_a_longest_time_and_jitter() {
    let short = |c: &mut OutlierDetection| c.max_ejection_time = Duration::from_secs(40);
    let script =
        [("a 500*5", "a"), ("+30", ""), ("a 500*5", "a"), ("+39", "a"), ("+1", ""), ("a 500*5", "a"), ("+40", "")];
    check(1, short, &script);
    // However often it was ejected, forgiving does not take for ever.
    let mut scene = Scene::new(defaults(), 1, 0);
    for _ in 0..50 {
        scene.play("a 500*5");
        scene.play("+300");
        assert_eq!(scene.ejected(), "");
    }
    scene.play("+110");
    scene.play("a 500*5");
    scene.play("+30");
    assert_eq!(scene.ejected(), "", "eleven quiet intervals: it is as if it had never happened");
    let jitter = |c: &mut OutlierDetection| c.max_ejection_time_jitter = Duration::from_millis(15_000);
    check_with(1, 12_000, jitter, &[("a 500*5", "a"), ("+40", "a"), ("+10", "")]);
}

#[test]
fn while_ejected_nothing_counts() {
    // Requests that were under way, or a panic.
    check(1, |_| {}, &[("a 500*12", "a"), ("+30", ""), ("a 500*4", ""), ("a 500", "a")]);
}

#[test]
fn only_so_many_hosts_are_ejected() {
    let percent = |n: u32| move |c: &mut OutlierDetection| c.max_ejection_percent = n;
    let (ten, all) = ("abcdefghij", "abcdefghi");
    // One in ten is ten percent, one in nine is more.
    check(10, percent(10), &[("a 500*5", "a"), ("b 500*50", "a")]);
    check(9, percent(10), &[(&format!("{all} 500*50"), "")]);
    check(10, percent(50), &[(&format!("{ten} 500*5"), "abcde")]);
    check(3, percent(300), &[("abc 500*5", "abc")]);
    check(3, percent(0), &[("abc 500*5", "")]);
    let one = |c: &mut OutlierDetection| (c.max_ejection_percent, c.always_eject_one_host) = (10, true);
    check(3, one, &[("b 500*5", "b"), ("ac 500*50", "b"), ("+30", ""), ("a 500*5", "a")]);
    // A host that stays although it has failed gets as many failures again.
    check(10, percent(10), &[("a 500*5", "a"), ("b 500*9", "a"), ("+30", ""), ("b 500", "b")]);
}

#[test]
fn the_dice_say_whether_it_is_enforced() {
    for (dice, enforcing, ejected) in
        [(0, 0, ""), (0, 1, "a"), (49, 50, "a"), (50, 50, ""), (99, 100, "a"), (199, 100, "a")]
    {
        check_with(1, dice, |c| c.enforcing_consecutive_5xx = enforcing, &[("a 500*5", ejected)]);
    }
}

#[test]
fn rates_of_success_are_compared() {
    let rate = |c: &mut OutlierDetection| (c.enforcing_success_rate, c.consecutive_5xx) = (100, 1000);
    // 100, 100, 100, 100 and 50 percent: the mean is 90, the deviation 20, the threshold 52.
    check(5, rate, &[("abcd 200*100", ""), ("e 200*50 500*50", ""), ("+9", ""), ("+1", "e")]);
    // With a larger factor the threshold is 48.
    check(
        5,
        |c| (rate(c), c.success_rate_stdev_factor = 2100).0,
        &[("abcd 200*100", ""), ("e 200*50 500*50", ""), ("+10", "")],
    );
    // Too few hosts with too few requests.
    check(5, rate, &[("abcd 200*100", ""), ("e 200*49 500*50", ""), ("+10", "")]);
    check(4, rate, &[("abc 200*100", ""), ("d 500*100", ""), ("+10", "")]);
    // Each interval on its own.
    check(
        5,
        rate,
        &[("abcd 200*50", ""), ("e 500*50", ""), ("+10", ""), ("abcd 200*50", ""), ("e 500*50", ""), ("+10", "")],
    );
    // Those that are ejected do not take part, so there are too few.
    check(
        5,
        rate,
        &[
            ("abcd 200*100", ""),
            ("e 500*100", ""),
            ("+10", "e"),
            ("abc 200*100", "e"),
            ("d 500*100", "e"),
            ("+10", "e"),
        ],
    );
    let local = |c: &mut OutlierDetection| {
        (c.split_external_local_origin_errors, c.enforcing_local_origin_success_rate) = (true, 100);
        c.consecutive_local_origin_failure = 1000;
    };
    check(5, local, &[("abcd connected*100", ""), ("e connected*50 failed*50", ""), ("+10", "e")]);
    check(5, local, &[("abcd 200*100", ""), ("e 500*4 200*96", ""), ("+10", "")]);
}

#[test]
fn shares_of_failure_have_a_limit() {
    let share = |c: &mut OutlierDetection| (c.enforcing_failure_percentage, c.consecutive_5xx) = (100, 1000);
    check(5, share, &[("abcd 500*42 200*8", ""), ("e 500*43 200*7", ""), ("+10", "e")]);
    check(5, share, &[("abcd 200*50", ""), ("e 500*49", ""), ("+10", "")]);
    check(4, share, &[("abc 200*50", ""), ("d 500*50", ""), ("+10", "")]);
    let local = |c: &mut OutlierDetection| {
        (c.split_external_local_origin_errors, c.enforcing_failure_percentage_local_origin) = (true, 100);
        c.consecutive_local_origin_failure = 1000;
    };
    check(5, local, &[("abcd established*50", ""), ("e timeout*50", ""), ("+10", "e")]);
}

#[test]
fn a_host_that_both_comparisons_find_is_ejected_once() {
    let both = |c: &mut OutlierDetection| {
        (c.enforcing_success_rate, c.enforcing_failure_percentage, c.consecutive_5xx) = (100, 100, 1000);
    };
    check(5, both, &[("abcd 200*100", ""), ("e 500*100", ""), ("+10", "e"), ("+30", "")]);
}

#[test]
fn hosts_that_stay_keep_their_record_and_others_begin_anew() {
    let mut scene = Scene::new(defaults(), 3, 0);
    scene.play("a 500*5");
    scene.play("b 500*4");
    // The third goes; the same address with another record is another host.
    scene.monitors.truncate(2);
    scene.monitors.push(Arc::default());
    scene.watch();
    assert_eq!(scene.ejected(), "a");
    scene.play("b 500");
    assert_eq!(scene.ejected(), "ab");
    scene.play("c 500*5");
    assert_eq!(scene.ejected(), "abc");
    // A host that comes back is not held to what it was.
    let old = std::mem::take(&mut scene.monitors[0]);
    scene.watch();
    assert_eq!(scene.ejected(), "bc");
    assert!(old.is_ejected());
}

#[test]
fn verdicts_name_host_and_reason() {
    let mut config = defaults();
    config.enforcing_consecutive_gateway_failure = 100;
    let mut scene = Scene::new(config, 2, 0);
    let reported: BTreeSet<bool> = (0..5).map(|_| scene.monitors[1].record(&config, Outcome::Failed)).collect();
    assert_eq!(reported, [false, true].into());
    let verdicts = scene.detector.look(&config, scene.now, &mut || 0);
    assert_eq!(verdicts, [Verdict::Ejected(address(1), Reason::Consecutive5xx)]);
    assert_eq!(scene.detector.look(&config, scene.now, &mut || 0), [], "once is enough");
    let then = scene.now + Duration::from_secs(30);
    assert_eq!(scene.detector.tick(&config, then, &mut || 0), [Verdict::Released(address(1))]);
    assert_eq!(scene.detector.next(&config, then), then + config.interval);
}
