use proptest::prelude::*;

use super::Loads;
use crate::config::Health;
use crate::upstream::tests::set;

/// What Envoy's documentation says of priorities, done as slowly and plainly as possible: for each percent of the
/// traffic in turn, who has room for it.
fn oracle(hosts: &[(u32, Health)], threshold: f64) -> Option<(Vec<u32>, Vec<u32>)> {
    let priorities = hosts.iter().map(|(priority, _)| priority + 1).max()? as usize;
    let count = |p: usize, health: fn(Health) -> bool| {
        hosts.iter().filter(|(priority, h)| *priority as usize == p && health(*h)).count() as u32
    };
    let of = |p| count(p, |h| h != Health::Draining);
    let room = |p, n: u32| if of(p) == 0 { 0 } else { (140 * n / of(p)).min(100) };
    let healthy: Vec<u32> = (0..priorities).map(|p| room(p, count(p, |h| h == Health::Healthy))).collect();
    let degraded: Vec<u32> = (0..priorities).map(|p| room(p, count(p, |h| h == Health::Degraded))).collect();
    let total = (healthy.iter().sum::<u32>() + degraded.iter().sum::<u32>()).min(100);
    let able = |p| count(p, |h| matches!(h, Health::Healthy | Health::Degraded));
    let panics = |p: usize| of(p) == 0 || f64::from(100 * able(p)) / f64::from(of(p)) < threshold;
    if total < 100 && (total > 0 || threshold > 0.0) && (0..priorities).all(panics) {
        return None;
    }
    if total == 0 {
        let mut first = vec![0; priorities];
        first[0] = 100;
        return Some((first, vec![0; priorities]));
    }
    let mut out = (vec![0; priorities], vec![0; priorities]);
    let room = |n: u32| n * 100 / total;
    for _ in 0..100 {
        if let Some(p) = (0..priorities).find(|p| out.0[*p] < room(healthy[*p])) {
            out.0[p] += 1;
        } else if let Some(p) = (0..priorities).find(|p| out.1[*p] < room(degraded[*p])) {
            out.1[p] += 1;
        } else if let Some(p) = (0..priorities).find(|p| healthy[*p] > 0) {
            out.0[p] += 1;
        } else if let Some(p) = (0..priorities).find(|p| degraded[*p] > 0) {
            out.1[p] += 1;
        }
    }
    Some(out)
}

fn health() -> impl Strategy<Value = Health> {
    prop_oneof![
        4 => Just(Health::Healthy),
        1 => Just(Health::Degraded),
        3 => Just(Health::Unhealthy),
        1 => Just(Health::Draining)
    ]
}

proptest! {
    #[test]
    fn loads_are_the_oracles(hosts in prop::collection::vec((0..4u32, health()), 1..16), panic in 0..2u8) {
        let threshold = if panic == 1 { 50.0 } else { 0.0 };
        let all: Vec<_> = hosts.iter().map(|(priority, health)| (*priority, *health, 1, None)).collect();
        let common = maille_xds::types::cluster::cluster::CommonLbConfig {
            healthy_panic_threshold: Some(maille_xds::types::kind::Percent { value: threshold }),
            ..Default::default()
        };
        let set = set(|c| c.common_lb_config = Some(common), &all);
        let loads = &set.loads;
        prop_assert_eq!(loads.healthy.iter().chain(&loads.degraded).sum::<u32>(), 100);
        match oracle(&hosts, threshold) {
            Some((healthy, degraded)) => {
                prop_assert_eq!(&loads.healthy, &healthy);
                prop_assert_eq!(&loads.degraded, &degraded);
            }
            None => prop_assert!(set.priorities.iter().all(|hosts| hosts.panic)),
        }
        let mut drawn = (vec![0; loads.healthy.len()], vec![0; loads.degraded.len()]);
        for number in 0..100 {
            let (priority, low) = loads.choose(number);
            if low { drawn.1[priority] += 1 } else { drawn.0[priority] += 1 }
        }
        prop_assert_eq!(drawn, (loads.healthy.clone(), loads.degraded.clone()));
    }
}

#[test]
fn priorities_that_were_tried_can_be_left_out() {
    let ok = |priority| (priority, Health::Healthy, 1, None);
    let loads = set(|_| {}, &[ok(0), ok(1), ok(2)]).loads;
    let without = |excluded: &[bool]| loads.without(excluded).map(|loads: Loads| loads.healthy);
    assert_eq!(without(&[]), Some(vec![100, 0, 0]));
    assert_eq!(without(&[true]), Some(vec![0, 100, 0]));
    assert_eq!(without(&[true, true]), Some(vec![0, 0, 100]));
    assert_eq!(without(&[true, true, true]), None);
}
