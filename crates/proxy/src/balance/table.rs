//! Tables of consistent hashing: the same hash finds the same host on every worker and every proxy, Envoy among them, and most of them still do after
//! hosts change.

mod murmur;
mod shuffle;

use xxhash_rust::xxh64::xxh64;

use crate::config::{Hashing, LbPolicy};
use murmur::murmur2;
use shuffle::Shuffle;

/// A host that hashes are shared out to.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// Its place in its priority.
    pub(crate) place: u32,
    /// What it is known by.
    pub(crate) key: String,
    /// Its share of everything; the shares of all members are 1 together.
    pub(crate) weight: f64,
}

/// The hosts of a priority by hash.
#[derive(Debug)]
pub(crate) struct Table {
    slots: Slots,
    /// Places and shares of all, where each may be given only so much: in percent of the average.
    bound: Option<(u32, Vec<(u32, f64)>)>,
}

#[derive(Debug)]
enum Slots {
    /// Points of the circle and their hosts, in order.
    Ring(Vec<(u64, u32)>),
    /// A host for each slot.
    Maglev(Vec<u32>),
}

impl Table {
    /// The table that a policy needs, if it needs one.
    pub(crate) fn new(lb: &LbPolicy, members: Vec<Member>) -> Option<Table> {
        if members.is_empty() {
            return None;
        }
        let (slots, hashing) = match *lb {
            LbPolicy::RingHash { min_size, max_size, murmur, hashing } => {
                (Slots::Ring(ring(&members, min_size, max_size, murmur)), hashing)
            }
            LbPolicy::Maglev { table_size, hashing } => (Slots::Maglev(maglev(&members, table_size)), hashing),
            _ => return None,
        };
        let Hashing { balance_factor, .. } = hashing;
        let shares = || members.iter().map(|member| (member.place, member.weight)).collect();
        Some(Table { slots, bound: (balance_factor > 0).then(|| (balance_factor, shares())) })
    }

    /// The place of the host that a hash stands for; another one, if there is, the more attempts there were. `active` says how many requests a
    /// place has.
    pub(crate) fn find(&self, hash: u64, attempt: u32, active: impl Fn(u32) -> u32) -> u32 {
        let found = self.slots.find(hash, attempt);
        match &self.bound {
            None => found,
            Some((factor, shares)) => bounded(*factor, shares, found, hash, active),
        }
    }
}

impl Slots {
    fn find(&self, hash: u64, attempt: u32) -> u32 {
        match self {
            Slots::Ring(points) => {
                let at = points.partition_point(|(point, _)| *point < hash);
                let first = if at == points.len() { 0 } else { at };
                points[(first + attempt as usize) % points.len()].1
            }
            Slots::Maglev(slots) => {
                // Turning the upper bits changes much of the remainder.
                let hash = if attempt > 0 { hash ^ (u64::MAX - u64::from(attempt) + 1) } else { hash };
                slots[(hash % slots.len() as u64) as usize]
            }
        }
    }
}

/// The host itself unless it has more to do than its share of the average, stretched by the factor, allows; else another, always in the same order
/// for the same hash.
fn bounded(factor: u32, shares: &[(u32, f64)], found: u32, hash: u64, active: impl Fn(u32) -> u32) -> u32 {
    let total: u64 = shares.iter().map(|(place, _)| u64::from(active(*place))).sum();
    let slots = ((total + 1) * u64::from(factor)).div_ceil(100);
    let overload = |place: u32, share: f64| f64::from(active(place)) / (slots as f64 * share).ceil().max(1.0);
    let share = shares.iter().find(|(place, _)| *place == found).map_or(1.0, |(_, share)| *share);
    let mut least = (overload(found, share), found);
    if least.0 <= 1.0 {
        return found;
    }
    for next in Shuffle::new(hash, shares.len()) {
        let (place, share) = shares[next];
        if place == found {
            continue;
        }
        let overload = overload(place, share);
        if overload <= 1.0 {
            return place;
        }
        if overload < least.0 {
            least = (overload, place);
        }
    }
    least.1
}

/// Each host gets points by weight, enough that the host of least weight gets one and the ring has its smallest size.
fn ring(members: &[Member], min_size: u64, max_size: u64, murmur: bool) -> Vec<(u64, u32)> {
    let least = members.iter().map(|member| member.weight).fold(1.0, f64::min);
    let scale = ((least * min_size as f64).ceil() / least).min(max_size as f64);
    let mut points = Vec::with_capacity(scale.ceil() as usize);
    let (mut current, mut target) = (0.0, 0.0);
    let mut name = String::new();
    for member in members {
        target += scale * member.weight;
        let mut i = 0;
        while current < target {
            use std::fmt::Write as _;
            name.clear();
            let _ = write!(name, "{}_{i}", member.key);
            let point = if murmur { murmur2(name.as_bytes()) } else { xxh64(name.as_bytes(), 0) };
            points.push((point, member.place));
            (current, i) = (current + 1.0, i + 1);
        }
    }
    points.sort_unstable_by_key(|(point, _)| *point);
    points
}

/// Hosts take slots in turn, each in an order of its own, by weight.
fn maglev(members: &[Member], size: u64) -> Vec<u32> {
    // In the order of their keys: then it makes no difference in which order they were discovered.
    let mut members: Vec<&Member> = members.iter().collect();
    members.sort_by(|a, b| a.key.cmp(&b.key));
    let heaviest = members.iter().map(|member| member.weight).fold(0.0, f64::max);
    let mut steps: Vec<(u64, u64, u64, f64)> = members
        .iter()
        .map(|member| {
            let key = member.key.as_bytes();
            (xxh64(key, 0) % size, xxh64(key, 1) % (size - 1) + 1, 0, 0.0)
        })
        .collect();
    let mut slots = vec![u32::MAX; size as usize];
    let (mut filled, mut round) = (0, 1.0);
    while filled < size {
        for (member, (offset, skip, next, target)) in members.iter().zip(&mut steps) {
            if filled == size {
                break;
            }
            if round * member.weight < *target {
                continue;
            }
            *target += heaviest;
            loop {
                let slot = ((*offset + *skip * *next) % size) as usize;
                *next += 1;
                if slots[slot] == u32::MAX {
                    slots[slot] = member.place;
                    filled += 1;
                    break;
                }
            }
        }
        round += 1.0;
    }
    slots
}

#[cfg(test)]
mod tests;
