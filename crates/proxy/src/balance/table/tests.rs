use super::*;

fn members(weights: &[f64]) -> Vec<Member> {
    from_port(90, weights)
}

fn from_port(port: u32, weights: &[f64]) -> Vec<Member> {
    let sum: f64 = weights.iter().sum();
    let member = |(place, weight): (u32, &f64)| Member {
        place,
        key: format!("127.0.0.1:{}", port + place),
        weight: weight / sum,
    };
    (0..).zip(weights).map(member).collect()
}

fn ring_of(min_size: u64, max_size: u64, murmur: bool, balance_factor: u32) -> LbPolicy {
    LbPolicy::RingHash { min_size, max_size, murmur, hashing: Hashing { by_hostname: false, balance_factor } }
}

/// The rings of Envoy's own tests: six hosts, twelve points.
#[test]
fn rings_are_envoys() {
    for (murmur, hash, host) in [
        (false, 0, 4),
        (false, u64::MAX, 4),
        (false, 3_551_244_743_356_806_947, 5),
        (false, 3_551_244_743_356_806_948, 3),
        (true, 0, 5),
        (true, u64::MAX, 5),
        (true, 1_358_027_074_129_602_068, 5),
        (true, 1_358_027_074_129_602_069, 3),
    ] {
        let table =
            Table::new(&ring_of(12, 8 << 20, murmur, 0), from_port(if murmur { 80 } else { 90 }, &[1.0; 6])).unwrap();
        assert_eq!(table.find(hash, 0, |_| 0), host, "murmur {murmur}, {hash}");
    }
}

#[test]
fn a_ring_is_no_larger_than_it_may_be() {
    let points = |policy| match Table::new(&policy, members(&[1.0, 1.0, 1.0])).unwrap().slots {
        Slots::Ring(points) => points.len(),
        Slots::Maglev(slots) => slots.len(),
    };
    for (min, max, size) in [(3, 3, 3), (4, 100, 6), (1024, 8 << 20, 1026), (1024, 2048, 1026), (100, 101, 101)] {
        assert_eq!(points(ring_of(min, max, false, 0)), size, "{min} to {max}");
    }
}

#[test]
fn maglev_gives_slots_by_weight_in_any_order_of_hosts() {
    let lb = LbPolicy::Maglev { table_size: 65_537, hashing: Hashing::default() };
    let members = members(&[1.0, 2.0, 5.0]);
    let reversed: Vec<_> = members.iter().rev().cloned().collect();
    let (table, other) = (Table::new(&lb, members).unwrap(), Table::new(&lb, reversed).unwrap());
    let mut counts = [0; 3];
    for hash in 0..65_537 {
        let place = table.find(hash, 0, |_| 0);
        assert_eq!(place, other.find(hash, 0, |_| 0));
        counts[place as usize] += 1;
    }
    for (count, share) in counts.into_iter().zip([0.125, 0.25, 0.625]) {
        assert!((f64::from(count) / 65_537.0 - share).abs() < 0.001, "{counts:?}");
    }
}

#[test]
fn a_full_host_hands_on() {
    let table = Table::new(&ring_of(1024, 8 << 20, false, 150), members(&[1.0; 4])).unwrap();
    let busy = |place: u32, requests: u32| move |asked: u32| if asked == place { requests } else { 2 };
    for hash in [1, 7 << 40, u64::MAX / 3] {
        let own = table.find(hash, 0, |_| 0);
        // 8 requests: each may have 1.5 × 9 / 4, which is 4.
        assert_eq!(table.find(hash, 0, busy(own, 2)), own);
        let other = table.find(hash, 0, busy(own, 9));
        assert_ne!(other, own);
        assert_eq!(table.find(hash, 0, busy(own, 9)), other, "always the same other");
    }
}
