//! XEP-0082: date and time as XMPP writes them.

use crate::rows::Timestamp;

/// XEP-0082 §3.2, in UTC, to the second.
pub(crate) fn date_time(at: Timestamp) -> String {
    let seconds = at.0 / 1_000_000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// The civil date of a day counted from 1970-01-01 (H. Hinnant's `civil_from_days`, for days that are not negative).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// Reads a DateTime (XEP-0082 §3.2), with any offset and fraction of a second; years from 1970 to 9999.
pub(crate) fn parse_date_time(text: &str) -> Option<Timestamp> {
    let (date, time) = text.split_once('T')?;
    let mut date = date.split('-').map(digits);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let month_days = [
        31,
        28 + u64::from(is_leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let days = *month_days.get(usize::try_from(month.checked_sub(1)?).ok()?)?;
    if date.next().is_some() || !(1970..=9999).contains(&year) || !(1..=days).contains(&day) {
        return None;
    }
    let at = time.find(['Z', '+', '-'])?;
    let (time, zone) = time.split_at_checked(at)?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut clock = time.split(':').map(digits);
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if clock.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days_before(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    let utc = i64::try_from(seconds).ok()? - offset(zone)?;
    Some(Timestamp(u64::try_from(utc).ok()? * 1_000_000 + micros(fraction)?))
}

/// Seconds that a zone is ahead of UTC.
fn offset(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let (sign, zone) = match zone.split_at_checked(1)? {
        ("+", zone) => (1, zone),
        ("-", zone) => (-1, zone),
        _ => return None,
    };
    let (hours, minutes) = zone.split_once(':')?;
    let (hours, minutes) = (digits(hours)?, digits(minutes)?);
    (hours < 24 && minutes < 60).then(|| sign * (hours * 3600 + minutes * 60) as i64)
}

/// A fraction of a second in microseconds; what is finer is left out.
fn micros(fraction: &str) -> Option<u64> {
    digits(fraction)?;
    let six: String = fraction.chars().chain("000000".chars()).take(6).collect();
    digits(&six)
}

fn digits(text: &str) -> Option<u64> {
    let are = !text.is_empty() && text.len() < 10 && text.bytes().all(|byte| byte.is_ascii_digit());
    are.then(|| text.parse().ok()).flatten()
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

/// Days from 1970-01-01 (H. Hinnant's `days_from_civil`, for days that are not negative).
fn days_before(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let shifted = (month + 9) % 12;
    let year_of_era = year % 400;
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    year / 400 * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_written_in_the_profile_of_xep_0082() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_031_669_011, "2002-09-10T14:43:31Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(date_time(Timestamp(seconds * 1_000_000)), text);
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for day in 0..40_000 {
            let at = Timestamp((day * 86_400 + day % 86_400) * 1_000_000);
            assert_eq!(parse_date_time(&date_time(at)), Some(at));
        }
    }

    #[test]
    fn offsets_and_fractions_are_read() {
        let at = Timestamp(1_031_669_011_000_000);
        for text in [
            "2002-09-10T14:43:31Z",
            "2002-09-10T16:43:31+02:00",
            "2002-09-10T09:13:31-05:30",
        ] {
            assert_eq!(parse_date_time(text), Some(at), "{text}");
        }
        let fraction = parse_date_time("2002-09-10T14:43:31.1234567Z");
        assert_eq!(fraction, Some(Timestamp(1_031_669_011_123_456)));
    }

    #[test]
    fn what_is_no_date_and_time_is_refused() {
        for text in [
            "",
            "presence",
            "2002-09-10",
            "2002-09-10T14:43:31",
            "2002-13-10T14:43:31Z",
            "2002-00-10T14:43:31Z",
            "2001-02-29T00:00:00Z",
            "2002-09-10T24:43:31Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+01:00",
            "2002-09-10T14:43:31.Z",
            "2002-09-10T14:43:31+0200",
            "99999999999-09-10T14:43:31Z",
            "2002-09-10T14:43:3\u{e9}Z",
        ] {
            assert_eq!(parse_date_time(text), None, "{text}");
        }
    }
}
