//! Stamps: when a change was made, UTC, as milliseconds since 1970 inside and as ISO 8601 with `Z` on the wire.
//!
//! A replica's stamps form a hybrid logical clock (Kulkarni et al. 2014) in the original's format: the wall clock, but never
//! below anything the replica has seen. Full ties are broken by the origin.

use jiff::civil::DateTime;
use jiff::{SignedDuration, Timestamp};
use std::borrow::Cow;

/// 0000-01-01T00:00:00.000Z
const FIRST: i64 = -62_167_219_200_000;
/// 9999-12-31T23:59:59.999Z
const LAST: i64 = 253_402_300_799_999;

/// The instant of an ISO 8601 text with an offset or `Z`, as nanoseconds since 1970.
pub fn parse_nanoseconds(text: &str) -> Option<i128> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_nanosecond)
}

/// The instant of an ISO 8601 text with an offset or `Z`, in milliseconds; finer digits are cut off.
/// None also for what is no year of four digits in UTC.
pub fn parse(text: &str) -> Option<i64> {
    let parsed = || text.parse::<Timestamp>().ok().map(|t| t.as_nanosecond().div_euclid(1_000_000) as i64);
    parse_wire(text).or_else(|| parsed().filter(|ms| (FIRST..=LAST).contains(ms)))
}

/// `YYYY-MM-DDTHH:MM:SS.mmmZ`. A stamp outside the years of four digits is written as the nearest one.
pub fn format(milliseconds: i64) -> String {
    // A `Timestamp` ends a day before the last year does.
    let since_1970 = SignedDuration::from_millis(milliseconds.clamp(FIRST, LAST));
    let civil = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0).saturating_add(since_1970);
    format!("{civil:.3}Z")
}

/// The canonical form of a date and time: `T` between, milliseconds at least and microseconds at most, `Z` if the text has a zone.
/// What is no date and time stays as it is.
pub fn canonical_datetime(text: &str) -> String {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        let fine = timestamp.subsec_nanosecond() % 1_000_000 != 0;
        return if fine { format!("{timestamp:.6}") } else { format!("{timestamp:.3}") };
    }
    match text.parse::<DateTime>() {
        Ok(civil) if text.len() > 10 => {
            let fine = civil.subsec_nanosecond() % 1_000_000 != 0;
            if fine { format!("{civil:.6}") } else { format!("{civil:.3}") }
        }
        _ => text.to_owned(),
    }
}

/// The canonical form of a time of day: no zeros at the end of its fraction. What is no time stays as it is.
pub fn canonical_time(text: &str) -> Cow<'_, str> {
    let (Some(whole), Some(rest)) = (text.get(..8), text.get(8..).and_then(|rest| rest.strip_prefix('.'))) else { return Cow::Borrowed(text) };
    let is_time = whole.bytes().enumerate().all(|(place, b)| if place % 3 == 2 { b == b':' } else { b.is_ascii_digit() });
    let (fraction, zone) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
    let shortest = fraction.trim_end_matches('0');
    match is_time && shortest.len() < fraction.len() {
        true => Cow::Owned(format!("{whole}{}{shortest}{zone}", if shortest.is_empty() { "" } else { "." })),
        false => Cow::Borrowed(text),
    }
}

/// The exact wire form without a general parser: it is read once for every change.
fn parse_wire(text: &str) -> Option<i64> {
    let b: &[u8; 24] = text.as_bytes().try_into().ok()?;
    if !(b[4] == b'-' && b[7] == b'-' && b[10] == b'T' && b[13] == b':' && b[16] == b':' && b[19] == b'.' && b[23] == b'Z') {
        return None;
    }
    let number = |from: usize, to: usize| {
        b[from..to].iter().try_fold(0i64, |n, d| d.is_ascii_digit().then(|| n * 10 + i64::from(d - b'0')))
    };
    let date = jiff::civil::Date::new(number(0, 4)? as i16, number(5, 7)? as i8, number(8, 10)? as i8).ok()?;
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = i64::from((date - jiff::civil::date(1970, 1, 1)).get_days());
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + number(20, 23)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_formatted_stamp_reads_back(ms in FIRST..=LAST) {
            prop_assert_eq!(format(ms).len(), 24);
            prop_assert_eq!(parse(&format(ms)), Some(ms));
        }

        #[test]
        fn later_stamps_are_greater_texts(a in FIRST..=LAST, b in FIRST..=LAST) {
            prop_assert_eq!(a.cmp(&b), format(a).cmp(&format(b)));
        }

        #[test]
        fn what_the_wire_form_says_a_general_parser_says_too(text in r"[0-2][0-9]{3}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]\.[0-9]{3}Z") {
            let general = text.parse::<Timestamp>().ok().map(|t| t.as_millisecond());
            // A leap second is no instant of a log.
            prop_assert_eq!(parse_wire(&text), general.filter(|_| !text[17..].starts_with("60")));
        }

        #[test]
        fn digits_below_a_millisecond_are_cut_off(ms in FIRST..=LAST - 86_400_000, finer in "[0-9]{1,6}") {
            let text = format(ms).replace('Z', &finer);
            prop_assert_eq!(parse(&(text + "Z")), Some(ms));
        }

        #[test]
        fn an_offset_names_the_same_instant(ms in FIRST + 86_400_000..=LAST - 86_400_000, hours in -23i64..24, minutes in 0i64..60) {
            let ahead = if hours < 0 { hours * 60 - minutes } else { hours * 60 + minutes };
            let local = format(ms + ahead * 60_000).replace('Z', "");
            let sign = if hours < 0 { '-' } else { '+' };
            prop_assert_eq!(parse(&format!("{local}{sign}{:02}:{minutes:02}", hours.abs())), Some(ms));
        }
    }

    #[test]
    fn the_first_and_the_last_stamp_read_back() {
        for (ms, text) in [(FIRST, "0000-01-01T00:00:00.000Z"), (LAST, "9999-12-31T23:59:59.999Z"), (-1, "1969-12-31T23:59:59.999Z")] {
            assert_eq!((format(ms).as_str(), parse(text)), (text, Some(ms)));
        }
        assert_eq!((format(i64::MIN), format(i64::MAX)), (format(FIRST), format(LAST)));
    }

    #[test]
    fn a_year_that_has_not_four_digits_is_no_stamp() {
        for text in ["-000001-12-31T23:59:59.999Z", "0000-01-01T00:00:00+00:01", "+010000-01-01T00:00:00Z", "10000-01-01T00:00:00Z"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn stamps_of_mixed_precision_compare_as_instants() {
        assert!(parse_nanoseconds("2025-01-01T00:00:00.123Z") < parse_nanoseconds("2025-01-01T00:00:00.1239999Z"));
        assert!(parse_nanoseconds("2025-01-01T00:00:00Z") < parse_nanoseconds("2025-01-01T00:00:00.999Z"));
        assert_eq!(parse("2025-01-01T01:00:00+01:00"), parse("2025-01-01T00:00:00.000Z"));
        assert_eq!(parse("2025-02-30T00:00:00.000Z"), None);
        assert_eq!(parse("yesterday"), None);
    }

    #[test]
    fn a_date_and_time_has_one_canonical_form() {
        for text in ["2024-05-06 07:08:09Z", "2024-05-06T07:08:09.000Z", "2024-05-06T09:08:09+02:00"] {
            assert_eq!(canonical_datetime(text), "2024-05-06T07:08:09.000Z");
        }
        assert_eq!(canonical_datetime("2024-05-06 07:08:09"), "2024-05-06T07:08:09.000");
        assert_eq!(canonical_datetime("2024-05-06 07:08:09.123456"), "2024-05-06T07:08:09.123456");
        assert_eq!(canonical_datetime("soon"), "soon");
    }

    #[test]
    fn a_time_of_day_has_one_canonical_form() {
        for text in ["03:04:05.1", "03:04:05.100", "03:04:05.100000"] {
            assert_eq!(canonical_time(text), "03:04:05.1");
        }
        for (text, canonical) in [("03:04:05.000", "03:04:05"), ("03:04:05.50+05:30", "03:04:05.5+05:30"), ("100", "100"), ("in 3.00 h", "in 3.00 h")] {
            assert_eq!(canonical_time(text), canonical);
        }
    }
}
