//! Stamps: when a change was made, UTC, as milliseconds since 1970 inside and as ISO 8601 with `Z` on the wire.
//!
//! A replica's stamps form a hybrid logical clock (Kulkarni et al. 2014) in the original's format: the wall clock, but never
//! below anything the replica has seen. Full ties are broken by the origin.

use jiff::Timestamp;
use jiff::civil::DateTime;

/// The instant of an ISO 8601 text with an offset or `Z`, as nanoseconds since 1970.
pub fn parse_nanoseconds(text: &str) -> Option<i128> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_nanosecond)
}

/// The instant of an ISO 8601 text with an offset or `Z`, in milliseconds; finer digits are cut off.
pub fn parse(text: &str) -> Option<i64> {
    parse_wire(text).or_else(|| text.parse::<Timestamp>().ok().map(|t| t.as_nanosecond().div_euclid(1_000_000) as i64))
}

/// `YYYY-MM-DDTHH:MM:SS.mmmZ`. A stamp outside the calendar's years is written as the nearest one.
pub fn format(milliseconds: i64) -> String {
    let clamped = milliseconds.clamp(Timestamp::MIN.as_millisecond() + 1, Timestamp::MAX.as_millisecond());
    let timestamp = Timestamp::from_millisecond(clamped).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{timestamp:.3}")
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
        fn a_formatted_stamp_reads_back(ms in -62_135_596_800_000i64..253_402_300_799_999) {
            prop_assert_eq!(parse(&format(ms)), Some(ms));
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
}
