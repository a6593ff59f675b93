//! Seeded random numbers for tests: a failing seed can be run again.

/// xorshift64* (Vigna, 2016).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A stream of its own for every seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Any 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// An index below `len`.
    pub fn below(&mut self, len: usize) -> usize {
        (self.next_u64() >> 32) as usize % len
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// `len` token ids of a vocabulary.
pub fn tokens(seed: u64, len: usize, vocab_size: u32) -> Vec<u32> {
    let mut random = Random::new(seed);
    (0..len).map(|_| random.below(vocab_size as usize) as u32).collect()
}
