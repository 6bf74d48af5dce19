//! Numbers in an order that depends on nothing but a seed, and is the same as Envoy's: Mersenne Twister, the 32-bit one.

const N: usize = 624;
const M: usize = 397;

/// The numbers below a bound, each once.
pub(super) struct Shuffle {
    numbers: Vec<usize>,
    next: usize,
    random: Twister,
}

impl Shuffle {
    pub(super) fn new(seed: u64, bound: usize) -> Shuffle {
        // The generator takes 32 bits of the seed.
        Shuffle { numbers: (0..bound).collect(), next: 0, random: Twister::new(seed as u32) }
    }
}

impl Iterator for Shuffle {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let left = self.numbers.len().checked_sub(self.next).filter(|left| *left > 0)?;
        let other = self.next + self.random.below(left as u64) as usize;
        self.numbers.swap(self.next, other);
        let number = self.numbers[self.next];
        self.next += 1;
        Some(number)
    }
}

struct Twister {
    state: [u32; N],
    at: usize,
}

impl Twister {
    fn new(seed: u32) -> Twister {
        let mut state = [seed; N];
        for i in 1..N {
            let last = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(i as u32);
        }
        Twister { state, at: N }
    }

    fn draw(&mut self) -> u32 {
        if self.at == N {
            for i in 0..N {
                let mixed = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
                let twist = if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + M) % N] ^ (mixed >> 1) ^ twist;
            }
            self.at = 0;
        }
        let mut out = self.state[self.at];
        self.at += 1;
        out ^= out >> 11;
        out ^= (out << 7) & 0x9d2c_5680;
        out ^= (out << 15) & 0xefc6_0000;
        out ^ (out >> 18)
    }

    fn below(&mut self, bound: u64) -> u64 {
        loop {
            let number = u64::from(self.draw()) / ((1 << 32) / bound);
            if number < bound {
                return number;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_known_one() {
        // The standard's own check value: the 10 000th number from the default seed.
        let mut random = Twister::new(5489);
        assert_eq!((0..10_000).map(|_| random.draw()).last(), Some(4_123_659_995));
    }

    #[test]
    fn every_number_comes_once() {
        for (seed, bound) in [(0, 0), (1, 1), (7, 5), (u64::MAX, 100)] {
            let mut numbers: Vec<_> = Shuffle::new(seed, bound).collect();
            numbers.sort_unstable();
            assert_eq!(numbers, (0..bound).collect::<Vec<_>>());
        }
    }
}
