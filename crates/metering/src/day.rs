//! Days of UTC, which usage is totalled by.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

/// A day, counted from 1970-01-01; shown as `YYYY-MM-DD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Day(pub u32);

/// Why a text is no day.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a day: write YYYY-MM-DD, from 1970 to 9999")]
pub struct DayError(String);

const DAY_SECONDS: u64 = 86_400;

const fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn days_of_month(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from 1970-01-01 to the first of January of `year`.
const fn days_before(year: u32) -> u32 {
    (year - 1970) * 365 + leap_years_before(year) - leap_years_before(1970)
}

const fn leap_years_before(year: u32) -> u32 {
    let last = year - 1;
    last / 4 - last / 100 + last / 400
}

impl Day {
    /// The day at `unix_s` seconds after the epoch.
    pub fn of_unix_s(unix_s: u64) -> Self {
        Self(u32::try_from(unix_s / DAY_SECONDS).unwrap_or(u32::MAX))
    }

    /// The day by this machine's clock.
    pub fn today() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self::of_unix_s(since.map_or(0, |since| since.as_secs()))
    }

    fn civil(self) -> (u32, u32, u32) {
        // At most one year too late: a year has no fewer than 365 days.
        let mut year = 1970 + (u64::from(self.0) * 400 / 146_097) as u32;
        while days_before(year + 1) <= self.0 {
            year += 1;
        }
        while days_before(year) > self.0 {
            year -= 1;
        }
        let (mut rest, mut month) = (self.0 - days_before(year), 1);
        while rest >= days_of_month(year, month) {
            rest -= days_of_month(year, month);
            month += 1;
        }
        (year, month, rest + 1)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl FromStr for Day {
    type Err = DayError;

    fn from_str(text: &str) -> Result<Self, DayError> {
        parse(text).ok_or_else(|| DayError(text.chars().take(40).collect()))
    }
}

fn parse(text: &str) -> Option<Day> {
    let canonical = |(i, b): (usize, u8)| match i {
        4 | 7 => b == b'-',
        _ => b.is_ascii_digit(),
    };
    if text.len() != 10 || !text.bytes().enumerate().all(canonical) {
        return None;
    }
    let number = |from: usize, to: usize| text[from..to].parse::<u32>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let exists = year >= 1970
        && (1..=12).contains(&month)
        && (1..=days_of_month(year, month)).contains(&day);
    let months = (1..month).map(|month| days_of_month(year, month));
    exists.then(|| Day(days_before(year) + months.sum::<u32>() + day - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days_are_shown_and_read() {
        for (day, text) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (19_782, "2024-02-29"),
            (20_777, "2026-11-20"),
        ] {
            assert_eq!(Day(day).to_string(), text);
            assert_eq!(text.parse(), Ok(Day(day)));
        }
        assert_eq!(Day::of_unix_s(86_399), Day(0));
        assert_eq!(Day::of_unix_s(86_400), Day(1));
    }

    #[test]
    fn every_day_reads_back() {
        for day in 0..100_000 {
            assert_eq!(Day(day).to_string().parse(), Ok(Day(day)));
        }
    }

    #[test]
    fn what_is_no_day_is_refused() {
        for text in [
            "",
            "2026-02-29",
            "2026-13-01",
            "1969-12-31",
            "2026-1-01",
            "2026-01-0é",
        ] {
            assert!(text.parse::<Day>().is_err(), "{text}");
        }
    }
}
