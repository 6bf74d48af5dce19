//! Tables of consistent hashing: the same hash finds the same host on every worker and every proxy, and most of them still do after hosts change.

use std::sync::Arc;

use xxhash_rust::xxh64::xxh64;

use crate::config::LbPolicy;
use crate::upstream::Host;

/// A ring or a Maglev table over the hosts of a priority.
#[derive(Debug)]
pub(crate) enum Table {
    /// Points of the circle and their hosts, in order.
    Ring(Vec<(u64, u32)>),
    /// A host for each slot.
    Maglev(Vec<u32>),
}

/// No ring grows beyond this, whatever the configuration says: it is memory per cluster.
const MAX_RING: u64 = 1 << 20;

impl Table {
    /// The table that a policy needs, if it needs one.
    pub(crate) fn new(lb: &LbPolicy, hosts: &[Arc<Host>]) -> Option<Table> {
        if hosts.is_empty() {
            return None;
        }
        match *lb {
            LbPolicy::RingHash { min_size, max_size, .. } => Some(Table::Ring(ring(hosts, min_size, max_size))),
            LbPolicy::Maglev { table_size } => Some(Table::Maglev(maglev(hosts, table_size))),
            _ => None,
        }
    }

    /// The number of the host that a hash stands for.
    pub(crate) fn find(&self, hash: u64) -> usize {
        match self {
            Table::Ring(points) => {
                let at = points.partition_point(|(point, _)| *point < hash);
                points.get(at).or(points.first()).map_or(0, |(_, host)| *host as usize)
            }
            Table::Maglev(slots) => slots[(hash % slots.len() as u64) as usize] as usize,
        }
    }
}

/// Each host gets points by weight, enough that the host of least weight gets one and the ring has its smallest size.
fn ring(hosts: &[Arc<Host>], min_size: u64, max_size: u64) -> Vec<(u64, u32)> {
    let sum: f64 = hosts.iter().map(|h| f64::from(h.weight)).sum();
    let least = hosts.iter().map(|h| f64::from(h.weight) / sum).fold(f64::MAX, f64::min);
    let scale = ((least * min_size as f64).ceil() / least).min(max_size.min(MAX_RING) as f64);
    let mut points = Vec::with_capacity(scale.ceil() as usize);
    let (mut current, mut target) = (0.0, 0.0);
    for (number, host) in hosts.iter().enumerate() {
        target += scale * f64::from(host.weight) / sum;
        let mut i = 0;
        while current < target {
            let name = format!("{}_{i}", host.address);
            points.push((xxh64(name.as_bytes(), 0), number as u32));
            (current, i) = (current + 1.0, i + 1);
        }
    }
    points.sort_unstable();
    points
}

/// Hosts take slots in turn, each in an order of its own, by weight.
fn maglev(hosts: &[Arc<Host>], size: u64) -> Vec<u32> {
    // A prime; where there are more hosts than slots, some get none.
    let size = size.max(1);
    let heaviest = hosts.iter().map(|h| f64::from(h.weight)).fold(1.0, f64::max);
    let mut builders: Vec<(u64, u64, u64, f64)> = hosts
        .iter()
        .map(|host| {
            let key = host.address.to_string();
            let offset = xxh64(key.as_bytes(), 0) % size;
            let skip = xxh64(key.as_bytes(), 1) % (size.saturating_sub(1)).max(1) + 1;
            (offset, skip, 0, 0.0)
        })
        .collect();
    let mut slots = vec![u32::MAX; size as usize];
    let (mut filled, mut round) = (0, 1.0);
    while filled < size {
        for (number, builder) in builders.iter_mut().enumerate() {
            if filled == size {
                break;
            }
            if round * f64::from(hosts[number].weight) < builder.3 {
                continue;
            }
            builder.3 += heaviest;
            loop {
                let slot = ((builder.0 + builder.1 * builder.2) % size) as usize;
                builder.2 += 1;
                if slots[slot] == u32::MAX {
                    slots[slot] = number as u32;
                    filled += 1;
                    break;
                }
            }
        }
        round += 1.0;
    }
    slots
}
