//! Makes new inputs out of old ones.

/// No input is longer; what parsers do with more is a matter of limits, which tables of tests look after.
const MAX_INPUT: usize = 4096;

/// Numbers that are the last of something or the first of something else.
const NUMBERS: [&str; 12] =
    ["0", "1", "-1", "9", "10", "f", "ff", "65535", "65536", "4294967296", "18446744073709551616", "ffffffffffffffff"];

/// Mutates inputs; the same seed makes the same ones.
pub(crate) struct Mutator {
    random: fastrand::Rng,
    dictionary: &'static [&'static [u8]],
}

impl Mutator {
    /// With the words of one target.
    pub(crate) fn new(seed: u64, dictionary: &'static [&'static [u8]]) -> Mutator {
        Mutator { random: fastrand::Rng::with_seed(seed), dictionary }
    }

    /// A new input, by one or more mutations of something in the pool.
    pub(crate) fn next(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.pick(pool);
        // Mostly few: what is changed a lot is refused at its first byte.
        let times = 1 + self.random.u32(..).trailing_zeros().min(6);
        for _ in 0..times {
            self.mutate(&mut input, pool);
        }
        input.truncate(MAX_INPUT);
        input
    }

    fn pick(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        if pool.is_empty() { Vec::new() } else { pool[self.random.usize(..pool.len())].clone() }
    }

    fn mutate(&mut self, input: &mut Vec<u8>, pool: &[Vec<u8>]) {
        let (from, to) = self.range(input.len());
        match self.random.u8(..13) {
            0 if from < input.len() => input[from] ^= 1 << self.random.u8(..8),
            1 if from < input.len() => input[from] = self.random.u8(..),
            2 => input.insert(from, self.random.u8(..)),
            3 => drop(input.drain(from..to)),
            4 => input.truncate(from),
            5 => {
                let again = input[from..to].to_vec();
                let at = self.place(input.len());
                input.splice(at..at, again);
            }
            6 => {
                let other = self.pick(pool);
                let (a, b) = self.range(other.len());
                input.splice(from..to, other[a..b].iter().copied());
            }
            7 => {
                let number = NUMBERS[self.random.usize(..NUMBERS.len())];
                input.splice(from..to, number.bytes());
            }
            // One byte more or less: lengths, ports, letters next to one another.
            8 if from < input.len() => input[from] = input[from].wrapping_add(if self.random.bool() { 1 } else { 255 }),
            9 if from < input.len() => input[from] ^= 0x20,
            10 => {
                let (from, to) = around(input, from);
                self.word(input, from, to);
            }
            _ => self.word(input, from, to),
        }
        input.truncate(MAX_INPUT);
    }

    fn word(&mut self, input: &mut Vec<u8>, from: usize, to: usize) {
        if self.dictionary.is_empty() {
            return;
        }
        let word = self.dictionary[self.random.usize(..self.dictionary.len())];
        let to = if self.random.bool() { from } else { to };
        input.splice(from..to, word.iter().copied());
    }

    fn place(&mut self, len: usize) -> usize {
        self.random.usize(..=len)
    }

    /// A piece, mostly a short one.
    fn range(&mut self, len: usize) -> (usize, usize) {
        let from = self.place(len);
        let most = if self.random.u8(..8) == 0 { len } else { 16 };
        (from, len.min(from + self.random.usize(..=most)))
    }
}

/// The word that a place is in.
fn around(input: &[u8], place: usize) -> (usize, usize) {
    let ends = |b: &u8| matches!(b, b' ' | b'\r' | b'\n' | b':' | b',' | b'"' | b'/');
    let from = input[..place].iter().rposition(ends).map_or(0, |at| at + 1);
    (from, input[place..].iter().position(ends).map_or(input.len(), |at| place + at))
}
