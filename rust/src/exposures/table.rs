//! A table from numbers to small values: open addressing, one cache line a question, and a slot can be asked for early.

use crate::near::near;

/// No key may be this number: it marks an empty slot.
const EMPTY: u64 = 1 << 63;

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

    fn first(&self, key: u64) -> usize {
        let bits = self.slots.len().max(1).trailing_zeros();
        (mixed(key) >> 1 >> (63 - bits)) as usize
    }

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
pub fn mixed(key: u64) -> u64 {
    let key = (key ^ (key >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let key = (key ^ (key >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    key ^ (key >> 33)
}
