//! Which local day, and which bucket, a moment falls into: tables made once a call, so that an event costs two loads.
//!
//! Looking a moment's stretch up by halving instead took 144.1 million instructions of the fixed log, this takes 136.8.

use crate::calendar::{Bucket, UNDATED};
use crate::error::Error;

const DAY: i64 = 86_400;

/// Seconds by which no local time is ahead or behind.
const MAX_SHIFT: u64 = 2 * 86_400;

/// The last local day that a history may name, in any time zone.
const MAX_DAY: i32 = 2_932_898;

/// Ranks and the local days that hold from them on, in the widths of `Dates`.
pub fn stretches(days: &[(i64, i64)]) -> Result<(Vec<u32>, Vec<i32>), Error> {
    let narrow = |&(start, day): &(i64, i64)| {
        let day = i32::try_from(day)
            .ok()
            .filter(|day| *day == UNDATED || (-2..=MAX_DAY).contains(day))?;
        Some((
            u32::try_from(start)
                .ok()
                .filter(|&start| start < u32::MAX)?,
            day,
        ))
    };
    days.iter()
        .enumerate()
        .map(|(position, pair)| {
            narrow(pair).ok_or_else(|| Error::Value {
                argument: "days",
                expected: "a rank below 2^32 - 1 and a day in the years 1970 to 9999".to_owned(),
                came: format!("{pair:?}"),
                position,
            })
        })
        .collect::<Result<Vec<_>, _>>()
        .map(|pairs| pairs.into_iter().unzip())
}

/// Local days as stretches of moments, and all buckets that a history may name.
pub struct Dates {
    /// First moment of each stretch, ascending, from 0 on; then `u32::MAX`.
    starts: Vec<u32>,
    /// Local day of each stretch.
    pub days: Vec<i32>,
    /// Bucket of each stretch, a row of `buckets`.
    pub bucket_of: Vec<u16>,
    /// The last stretch that begins at or before each multiple of `DAY`; empty where stretches are not near a day long.
    first: Vec<u32>,
    /// In the order of lines, closed under `coarser`.
    pub buckets: Vec<Bucket>,
    /// Row of each bucket's next wider one.
    pub coarser: Vec<u16>,
    /// Buckets from this row on are open.
    pub open: u16,
}

impl Dates {
    /// Days by UTC seconds from `origin` to `end`; from each of the given seconds on its offset holds.
    pub fn of_times(
        shifts: &[(i64, i64)],
        origin: i64,
        end: i64,
        today: i32,
        stable: bool,
    ) -> Result<Self, Error> {
        let span = end
            .checked_sub(origin)
            .filter(|&span| origin >= 0 && span <= 1 << 32);
        if span.is_none()
            || shifts
                .iter()
                .any(|shift| shift.1.unsigned_abs() > MAX_SHIFT)
        {
            return Err(Error::Value {
                argument: "clock",
                expected:
                    "an origin from 0 on, at most 2^32 s before now, and time zones within two days"
                        .to_owned(),
                came: format!("{origin} to {end}"),
                position: 0,
            });
        }
        let mut starts = Vec::new();
        let mut days = Vec::new();
        for (row, &(from, shift)) in shifts.iter().enumerate() {
            let to = shifts.get(row + 1).map_or(end, |next| next.0.min(end));
            let from = if row == 0 { origin } else { from.max(origin) };
            if from >= to {
                continue;
            }
            for day in (from + shift).div_euclid(DAY)..=(to - 1 + shift).div_euclid(DAY) {
                starts.push((from.max(day * DAY - shift) - origin) as u32);
                days.push(day as i32);
            }
        }
        let mut dates = Self::of_stretches(starts, days, today, stable)?;
        let slots = (end - origin).max(0) / DAY + 1;
        let mut stretch = 0;
        dates.first = (0..slots)
            .map(|slot| {
                while i64::from(dates.starts[stretch + 1]) <= slot * DAY
                    && stretch + 1 < dates.days.len()
                {
                    stretch += 1;
                }
                stretch as u32
            })
            .collect();
        Ok(dates)
    }

    /// Days by rank: from each of `starts` on its day holds.
    pub fn of_stretches(
        mut starts: Vec<u32>,
        mut days: Vec<i32>,
        today: i32,
        stable: bool,
    ) -> Result<Self, Error> {
        if starts.len() != days.len() {
            return Err(Error::Length {
                left: "starts",
                left_len: starts.len(),
                right: "days",
                right_len: days.len(),
            });
        }
        if starts.is_empty() {
            // A log without any moment before now: one day that nothing falls into.
            (starts, days) = (vec![0], vec![today]);
        }
        if starts[0] != 0 || starts.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(Error::Value {
                argument: "starts",
                expected: "ascending from 0".to_owned(),
                came: format!("{:?}", &starts[..starts.len().min(4)]),
                position: 0,
            });
        }
        starts.push(u32::MAX);
        let of_day: Vec<Bucket> = days
            .iter()
            .map(|&day| Bucket::of(day, today, stable))
            .collect();
        let mut buckets = of_day.clone();
        buckets.dedup();
        for bucket in buckets.clone() {
            buckets.extend([bucket.coarser(), bucket.coarser().coarser()]);
        }
        buckets.sort_unstable();
        buckets.dedup();
        let row = |bucket: Bucket| buckets.partition_point(|&other| other < bucket) as u16;
        if buckets.len() > usize::from(u16::MAX) {
            return Err(Error::Value {
                argument: "moments",
                expected: format!("in at most {} buckets", u16::MAX),
                came: buckets.len().to_string(),
                position: 0,
            });
        }
        let mut bucket_of: Vec<u16> = Vec::with_capacity(days.len());
        for (place, &bucket) in of_day.iter().enumerate() {
            bucket_of.push(match place.checked_sub(1) {
                Some(before) if of_day[before] == bucket => bucket_of[before],
                _ => row(bucket),
            });
        }
        Ok(Self {
            starts,
            days,
            bucket_of,
            first: Vec::new(),
            coarser: buckets.iter().map(|bucket| row(bucket.coarser())).collect(),
            open: buckets.partition_point(|bucket| !bucket.open) as u16,
            buckets,
        })
    }

    /// The stretch of a moment, and the moments in it.
    #[inline]
    pub fn stretch(&self, moment: u32) -> (usize, std::ops::Range<u32>) {
        let slot = moment as usize / DAY as usize;
        let mut stretch = match self.first.get(slot) {
            Some(&first) => first as usize,
            None => self.starts.partition_point(|&start| start <= moment) - 1,
        };
        while self.starts[stretch + 1] <= moment && stretch + 2 < self.starts.len() {
            stretch += 1;
        }
        (stretch, self.starts[stretch]..self.starts[stretch + 1])
    }
}
