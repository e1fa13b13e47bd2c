//! Calendar units on local day numbers: days since 1970-01-01 in the shop's time zone, proleptic Gregorian.

/// The day number that stands for "no time given".
pub const UNDATED: i32 = i32::MIN;

/// Year, month (1 to 12) and day (1 to 31) of a day number.
pub fn civil(day: i32) -> (i64, u32, u32) {
    // Howard Hinnant's algorithm: years begin in March, so that the leap day is the last one.
    let shifted = i64::from(day) + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let date = (of_year - (153 * shifted_month + 2) / 5 + 1) as u32;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    } as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, date)
}

/// The day number of a date.
pub fn day_number(year: i64, month: u32, date: u32) -> i32 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = i64::from(if month > 2 { month - 3 } else { month + 9 });
    let of_year = (153 * shifted_month + 2) / 5 + i64::from(date) - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    (era * 146_097 + of_era - 719_468) as i32
}

/// `YYYY-MM-DD`, or `undated`.
pub fn iso(day: i32) -> String {
    Bucket {
        open: false,
        start: day,
        level: if day == UNDATED {
            Level::Undated
        } else {
            Level::Day
        },
    }
    .label(true)
}

/// How wide a bucket is; at the same start the wider one holds the older events and stands first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    Undated,
    Year,
    Month,
    Day,
}

/// A calendar unit of a history. The field order is the order of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket {
    /// With `stable`: the part that still changes within this month; it stands after the closed part.
    pub open: bool,
    /// First day of the unit.
    pub start: i32,
    pub level: Level,
}

impl Bucket {
    /// The bucket of a day: a day up to 30 days before today, a month up to 365, else a year. With `stable` days in
    /// today's month, else months, however old: years made of months kept 11 % of a text on New Year's Day.
    pub fn of(day: i32, today: i32, stable: bool) -> Self {
        if day == UNDATED {
            return Self {
                open: stable,
                start: UNDATED,
                level: Level::Undated,
            };
        }
        let exact = Self {
            open: false,
            start: day,
            level: Level::Day,
        };
        if stable {
            let month = exact.coarser();
            return if month.start
                == (Self {
                    start: today,
                    ..exact
                })
                .coarser()
                .start
            {
                Self {
                    open: true,
                    ..exact
                }
            } else {
                month
            };
        }
        match i64::from(today) - i64::from(day) {
            ..=30 => exact,
            31..=365 => exact.coarser(),
            _ => exact.coarser().coarser(),
        }
    }

    /// The next wider unit: day to month, month to year.
    #[must_use]
    pub fn coarser(self) -> Self {
        let (year, month, _) = civil(self.start);
        match self.level {
            Level::Day => Self {
                start: day_number(year, month, 1),
                level: Level::Month,
                ..self
            },
            Level::Month => Self {
                start: day_number(year, 1, 1),
                level: Level::Year,
                ..self
            },
            Level::Year | Level::Undated => self,
        }
    }

    /// `17-12-03`, `17-11`, `17`; four digits when long or outside 2000 to 2099, where two would be ambiguous.
    pub fn label(self, long: bool) -> String {
        if self.level == Level::Undated {
            return "undated".to_owned();
        }
        let (year, month, date) = civil(self.start);
        let year = if long || !(2000..2100).contains(&year) {
            format!("{year:04}")
        } else {
            format!("{:02}", year % 100)
        };
        match self.level {
            Level::Day => format!("{year}-{month:02}-{date:02}"),
            Level::Month => format!("{year}-{month:02}"),
            Level::Year | Level::Undated => year,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_round_trip_over_four_centuries() {
        for day in -146_097..146_097 {
            let (year, month, date) = civil(day);
            assert_eq!(day_number(year, month, date), day);
        }
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
    }

    #[test]
    fn the_edges_are_30_and_365_days() {
        let today = day_number(2017, 12, 31);
        let label = |age: i32| Bucket::of(today - age, today, false).label(false);
        assert_eq!(label(0), "17-12-31");
        assert_eq!(label(30), "17-12-01");
        assert_eq!(label(31), "17-11");
        assert_eq!(label(365), "16-12");
        assert_eq!(label(366), "16");
    }

    #[test]
    fn years_outside_this_century_keep_four_digits() {
        let old = Bucket {
            open: false,
            start: day_number(1998, 1, 1),
            level: Level::Year,
        };
        assert_eq!(old.label(false), "1998");
        assert_eq!(iso(UNDATED), "undated");
    }
}
