//! A table from numbers to small values: open addressing, one cache line a question, and a slot can be asked for early.

use crate::near::near;

/// No key may be this number: it marks an empty slot.
const EMPTY: u64 = 0;

/// Pairs of a key and a value, together, so that both are one wait.
pub struct Table<V> {
    slots: Vec<(u64, V)>,
    len: usize,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            len: 0,
        }
    }
}

impl<V: Copy + Default> Table<V> {
    /// Gives the value of a key, which becomes `value` if the key is new, and whether it is.
    #[inline]
    pub fn entry(&mut self, key: u64, value: V) -> (&mut V, bool) {
        debug_assert_ne!(key, EMPTY);
        // At most three quarters full: probes stay within a cache line or two.
        if 4 * (self.len + 1) > 3 * self.slots.len() {
            self.grow();
        }
        let slot = self.slot(key);
        let held = &mut self.slots[slot];
        let new = held.0 != key;
        if new {
            *held = (key, value);
            self.len += 1;
        }
        (&mut held.1, new)
    }

    /// Brings the place of a key near.
    pub fn bring(&self, key: u64) {
        if let Some(first) = self.slots.get(self.first(key)) {
            near(first);
        }
    }

    pub fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<(u64, V)>()
    }

    /// Where a key is or would be put.
    fn slot(&self, key: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = self.first(key);
        while self.slots[slot].0 != EMPTY && self.slots[slot].0 != key {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// Keys are mixed before they come, or count up; for both a product is enough.
    fn first(&self, key: u64) -> usize {
        let bits = self.slots.len().max(1).trailing_zeros();
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1 >> (63 - bits)) as usize
    }

    #[cold]
    fn grow(&mut self) {
        let size = (2 * self.slots.len()).max(64);
        let slots = std::mem::replace(&mut self.slots, vec![(EMPTY, V::default()); size]);
        for held in slots.into_iter().filter(|held| held.0 != EMPTY) {
            let slot = self.slot(held.0);
            self.slots[slot] = held;
        }
    }
}

/// Spreads a number over all bits (the finalizer of `MurmurHash3`), so that neighbors do not meet.
pub fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 33)).wrapping_mul(FIRST);
    let number = (number ^ (number >> 33)).wrapping_mul(SECOND);
    number ^ (number >> 33)
}

/// The number that was mixed: nothing is lost by it, so what is mixed can stand for it.
pub fn unmixed(number: u64) -> u64 {
    let number = (number ^ (number >> 33)).wrapping_mul(inverse(SECOND));
    let number = (number ^ (number >> 33)).wrapping_mul(inverse(FIRST));
    number ^ (number >> 33)
}

const FIRST: u64 = 0xff51_afd7_ed55_8ccd;
const SECOND: u64 = 0xc4ce_b9fe_1a85_ec53;

/// The number whose product with an odd one is 1, by Newton's steps: each doubles the bits that are right, from 3 on.
const fn inverse(odd: u64) -> u64 {
    let (mut found, mut bits) = (odd, 3);
    while bits < 64 {
        found = found.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(found)));
        bits *= 2;
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn mixing_loses_nothing(number in any::<u64>()) {
            prop_assert_eq!(unmixed(mixed(number)), number);
        }
    }
}
