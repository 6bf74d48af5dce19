//! MurmurHash2 in 64 bits, with the seed of GNU's `std::hash`: what Envoy's rings take when they are told to.

const SEED: u64 = 0xc70f_6907;
const MUL: u64 = 0xc6a4_a793_5bd1_e995;

pub(super) fn murmur2(key: &[u8]) -> u64 {
    let mix = |v: u64| v ^ (v >> 47);
    let mut hash = SEED ^ (key.len() as u64).wrapping_mul(MUL);
    let (words, rest) = key.as_chunks::<8>();
    for word in words {
        let data = mix(u64::from_le_bytes(*word).wrapping_mul(MUL)).wrapping_mul(MUL);
        hash = (hash ^ data).wrapping_mul(MUL);
    }
    if !rest.is_empty() {
        let data = rest.iter().rev().fold(0, |data, byte| data << 8 | u64::from(*byte));
        hash = (hash ^ data).wrapping_mul(MUL);
    }
    mix(mix(hash).wrapping_mul(MUL))
}
