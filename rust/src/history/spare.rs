//! Memory of earlier calls, for the next one.
//!
//! The system clears each new page and enters it in its tables. On the bench's virtual machine that is 2.5 us for 4 KiB,
//! so up to 48 of the 200 ms of a call on one thread; how many pages a call took, 12 to 19,000, was up to what the
//! allocator had just given back.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use super::partition::Record;

/// Vectors that nobody holds.
pub struct Stock<T>(Mutex<Vec<Vec<T>>>);

/// What is kept between calls, at most `MOST` bytes of it.
pub trait Kept: Sized + 'static {
    const MOST: usize = 64 << 20;
    fn stock() -> &'static Stock<Self>;
}

impl Kept for u8 {
    fn stock() -> &'static Stock<Self> {
        static TEXTS: Stock<u8> = Stock::new();
        &TEXTS
    }
}

impl Kept for Record {
    fn stock() -> &'static Stock<Self> {
        static RECORDS: Stock<Record> = Stock::new();
        &RECORDS
    }
}

/// Less is not worth a lock.
const LEAST: usize = 1 << 16;

impl<T: Kept> Stock<T> {
    const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The smallest one with so much room, unless most of it would lie idle.
    fn take(&self, room: usize) -> Option<Vec<T>> {
        let mut spare = self.lock();
        let fits = |vector: &Vec<T>| (room..=2 * room).contains(&vector.capacity());
        let (place, _) = spare
            .iter()
            .enumerate()
            .filter(|(_, vector)| fits(vector))
            .min_by_key(|(_, vector)| vector.capacity())?;
        Some(spare.remove(place))
    }

    /// Takes a vector back if there is place for it.
    fn give(&self, vector: Vec<T>) {
        let size = |vector: &Vec<T>| vector.capacity() * size_of::<T>();
        if (LEAST..=T::MOST).contains(&size(&vector)) {
            let mut spare = self.lock();
            spare.push(vector);
            // The oldest ones go first: what later calls do not ask for does not stay.
            let mut held: usize = spare.iter().map(size).sum();
            let gone = spare
                .iter()
                .take_while(|vector| {
                    let over = held > T::MOST;
                    held -= size(vector);
                    over
                })
                .count();
            spare.drain(..gone);
        }
    }
}

/// A vector from the stock, which goes back there when it is dropped.
#[derive(Debug)]
pub struct Spare<T: Kept>(Vec<T>);

impl<T: Kept> Spare<T> {
    /// An empty one.
    pub fn with_room(room: usize) -> Self {
        let mut vector = Self::find(room).unwrap_or_else(|| Vec::with_capacity(room));
        vector.clear();
        Self(vector)
    }

    fn find(room: usize) -> Option<Vec<T>> {
        let pooled = room * size_of::<T>() >= LEAST;
        pooled.then(|| T::stock().take(room)).flatten()
    }
}

/// Room for so many records that threads write at once: what an earlier call left, or new memory that nobody has touched
/// yet. Both ways between records and atomic numbers compile to nothing: the vector stays where it is.
pub fn shared(len: usize) -> Vec<AtomicU64> {
    let Some(mut records) = Spare::<Record>::find(len) else {
        return bytemuck::zeroed_vec(len);
    };
    records.resize(len, Record(0));
    records.into_iter().map(|it| AtomicU64::new(it.0)).collect()
}

/// The records that were written.
pub fn unshared(records: Vec<AtomicU64>) -> Spare<Record> {
    let records = records.into_iter().map(|it| Record(it.into_inner()));
    Spare(records.collect())
}

impl<T: Kept> Default for Spare<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Kept> Deref for Spare<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T: Kept> DerefMut for Spare<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.0
    }
}

impl<T: Kept> Drop for Spare<T> {
    fn drop(&mut self) {
        T::stock().give(std::mem::take(&mut self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_dropped_is_taken_again_if_it_fits() {
        let room = 5 << 20;
        let first = Spare::<Record>::with_room(room / 8);
        let address = first.as_ptr();
        drop(first);
        assert!(
            Record::stock().take(room / 64).is_none(),
            "most of it would lie idle"
        );
        let again = Spare::<Record>::with_room(room / 8 - 100);
        assert_eq!(again.as_ptr(), address);
        assert!(again.is_empty());
    }

    #[test]
    fn old_numbers_may_stay_but_there_are_as_many_as_asked() {
        for len in [20_000, 30_000, 17_000, 0, 3] {
            let numbers = shared(len);
            assert_eq!(numbers.len(), len);
            let address = numbers.as_ptr().cast();
            for number in &numbers {
                number.store(7, std::sync::atomic::Ordering::Relaxed);
            }
            let records = unshared(numbers);
            assert_eq!(records.as_ptr(), address, "they were not copied");
            assert_eq!(*records, vec![Record(7); len]);
        }
    }

    #[test]
    fn little_is_kept() {
        let stock = Stock::<u8>::new();
        for megabytes in [1, 20, 30, 40, 65] {
            stock.give(Vec::with_capacity(megabytes << 20));
        }
        stock.give(vec![0; 100]);
        let mut sizes: Vec<_> = stock.lock().iter().map(Vec::capacity).collect();
        sizes.sort_unstable();
        assert_eq!(
            sizes,
            [40 << 20],
            "30 and 40 are more than 64, 65 alone too, and 100 bytes are not worth it"
        );
    }
}
