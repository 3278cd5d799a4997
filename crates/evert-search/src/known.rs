//! Which hashes were met: a Bloom filter that grows.
//!
//! Owns: the filter, and what it may hold in memory.
//!
//! Invariants
//! - A hash that was put is never said to be new.
//!
//! After F. Putze, P. Sanders, J. Singler: Cache-, Hash- and Space-Efficient Bloom Filters (2007): a
//! hash has one block of 512 bits, and a bit in each of the block's words.

const WORDS: usize = 8;
const BITS_EACH: usize = 16;
const BLOCK_HASHES: usize = WORDS * u64::BITS as usize / BITS_EACH;
/// The first layer's blocks; each layer has twice as many as the one before it.
const FIRST_BLOCKS: usize = 1 << 11;
/// Blocks of all layers: 128 MiB, for sixty million hashes.
const BLOCKS_MAX: usize = 1 << 21;
/// Odd numbers, one for each word, that spread a hash's bits.
const SALTS: [u64; WORDS] = [
    0x9e37_79b9_7f4a_7c15,
    0xbf58_476d_1ce4_e5b9,
    0x94d0_49bb_1331_11eb,
    0xd6e8_feb8_6659_fd93,
    0xff51_afd7_ed55_8ccd,
    0xc4ce_b9fe_1a85_ec53,
    0xa076_1d64_78bd_642f,
    0xe703_7ed1_a0b4_28db,
];

/// The hashes that were put, or too many to tell.
pub(crate) struct Known {
    layers: Vec<Layer>,
    is_full: bool,
}

struct Layer {
    blocks: Vec<[u64; WORDS]>,
    /// How many more hashes it takes.
    left: usize,
}

impl Known {
    pub(crate) fn new() -> Self {
        Self { layers: Vec::new(), is_full: false }
    }

    /// Whether a hash may have been put. Of those that were not, a few in a thousand may.
    pub(crate) fn may_hold(&self, hash: u128) -> bool {
        let hash = mixed(hash);
        self.is_full || self.layers.iter().any(|layer| layer.may_hold(hash))
    }

    pub(crate) fn put(&mut self, hash: u128) {
        if self.may_hold(hash) {
            return;
        }
        if self.layers.last().is_none_or(|layer| layer.left == 0) {
            let blocks = FIRST_BLOCKS << self.layers.len();
            let before: usize = self.layers.iter().map(|layer| layer.blocks.len()).sum();
            if before + blocks > BLOCKS_MAX {
                *self = Self { layers: Vec::new(), is_full: true };
                return;
            }
            let left = blocks * BLOCK_HASHES;
            self.layers.push(Layer { blocks: vec![[0; WORDS]; blocks], left });
        }
        if let Some(layer) = self.layers.last_mut() {
            layer.put(mixed(hash));
        }
    }
}

impl Layer {
    fn block_of(&self, hash: u64) -> usize {
        // The high bits choose; the number of blocks is a power of two.
        (hash >> (u64::BITS - self.blocks.len().trailing_zeros())) as usize
    }

    fn may_hold(&self, hash: u64) -> bool {
        let block = &self.blocks[self.block_of(hash)];
        block.iter().zip(SALTS).all(|(word, salt)| word & bit(hash, salt) != 0)
    }

    fn put(&mut self, hash: u64) {
        self.left -= 1;
        let block = self.block_of(hash);
        for (word, salt) in self.blocks[block].iter_mut().zip(SALTS) {
            *word |= bit(hash, salt);
        }
    }
}

fn bit(hash: u64, salt: u64) -> u64 {
    1 << (hash.wrapping_mul(salt) >> (u64::BITS - 6))
}

/// All bits of a hash in each of fewer. (The finalizer of MurmurHash3)
fn mixed(hash: u128) -> u64 {
    let mut bits = (hash >> 64) as u64 ^ hash as u64;
    bits = (bits ^ (bits >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    bits = (bits ^ (bits >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ (bits >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::row_hash;

    #[test]
    fn what_was_put_is_known_and_little_else() {
        let hash = |number: u32| row_hash(&format!("{{\"id\":{number}}}"));
        let mut known = Known::new();
        const PUT: u32 = 300_000;
        for number in 0..PUT {
            known.put(hash(number));
        }
        assert!(known.layers.len() > 1, "it has grown");
        assert!((0..PUT).all(|number| known.may_hold(hash(number))));
        let wrong = (PUT..2 * PUT).filter(|&number| known.may_hold(hash(number))).count();
        assert!(wrong < PUT as usize / 50, "{wrong} of {PUT}");
    }

    #[test]
    fn beyond_its_bounds_everything_may_be_there() {
        let mut known = Known { layers: Vec::new(), is_full: true };
        known.put(1);
        assert!(known.may_hold(2) && known.layers.is_empty());
    }
}
