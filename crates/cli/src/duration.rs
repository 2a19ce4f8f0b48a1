//! Durations as Go prints and reads them: `1h30m`, `300ms`, `1.5h`.
//!
//! Exact integer arithmetic; a value that does not fit is refused, never cut short. Start at [`parse`].

use std::time::Duration;

/// Why a text is no duration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DurationError {
    /// Nothing, or a sign alone.
    #[error("a duration is missing (write it like 1h30m or 300ms)")]
    Empty,
    /// A sign that no setting of ours can mean.
    #[error("duration {0:?} is negative")]
    Negative(String),
    /// A number was expected.
    #[error("duration {0:?} has no number where one is needed (write it like 1h30m or 300ms)")]
    NoNumber(String),
    /// A number without a unit.
    #[error("duration {0:?} lacks a unit (write 90s, 15m or 24h)")]
    NoUnit(String),
    /// A unit that Go does not know.
    #[error("duration {text:?} has the unknown unit {unit:?} (known: ns, us, ms, s, m, h)")]
    UnknownUnit {
        /// The whole text.
        text: String,
        /// The unit.
        unit: String,
    },
    /// More than about 292 years.
    #[error("duration {0:?} is too long")]
    TooLong(String),
    /// A fraction of a second where only whole seconds count.
    #[error("duration {0:?} is not a whole number of seconds")]
    NotWholeSeconds(String),
}

/// The longest duration that Go can hold, in nanoseconds.
const NANOS_MAX: u128 = i64::MAX as u128;

/// Reads a duration of zero or more.
///
/// # Errors
/// As [`DurationError`] lists.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    if text.starts_with('-') {
        return Err(DurationError::Negative(text.into()));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(DurationError::Empty);
    }
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let (part, after) = one_part(text, rest)?;
        nanos = nanos.saturating_add(part);
        if nanos > NANOS_MAX {
            return Err(DurationError::TooLong(text.into()));
        }
        rest = after;
    }
    let nanos = u64::try_from(nanos).map_err(|_| DurationError::TooLong(text.into()))?;
    Ok(Duration::from_nanos(nanos))
}

/// Reads a duration that must be whole seconds, such as a lifetime.
///
/// # Errors
/// As [`DurationError`] lists.
pub fn parse_secs(text: &str) -> Result<i64, DurationError> {
    let duration = parse(text)?;
    if duration.subsec_nanos() != 0 {
        return Err(DurationError::NotWholeSeconds(text.into()));
    }
    i64::try_from(duration.as_secs()).map_err(|_| DurationError::TooLong(text.into()))
}

/// One number with its unit, in nanoseconds, and what stands behind it.
fn one_part<'a>(text: &str, rest: &'a str) -> Result<(u128, &'a str), DurationError> {
    let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, after) = rest.split_at(digits(rest));
    let (fraction, after) = match after.strip_prefix('.') {
        Some(tail) => tail.split_at(digits(tail)),
        None => ("", after),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError::NoNumber(text.into()));
    }
    let unit_len = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
    let (unit, after) = after.split_at(unit_len);
    let unit_nanos = unit_nanos(text, unit)?;
    let too_long = || DurationError::TooLong(text.into());
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| too_long())? };
    let whole_nanos = whole.checked_mul(unit_nanos).ok_or_else(too_long)?;
    Ok((whole_nanos.saturating_add(fraction_nanos(fraction, unit_nanos)), after))
}

fn unit_nanos(text: &str, unit: &str) -> Result<u128, DurationError> {
    Ok(match unit {
        "ns" => 1,
        // Both spellings of micro: the micro sign and the Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3600 * 1_000_000_000,
        "" => return Err(DurationError::NoUnit(text.into())),
        _ => return Err(DurationError::UnknownUnit { text: text.into(), unit: unit.into() }),
    })
}

/// Digits behind the point; what is below a nanosecond is dropped, as Go does.
fn fraction_nanos(digits: &str, unit_nanos: u128) -> u128 {
    let (mut nanos, mut scale) = (0, unit_nanos);
    for digit in digits.bytes().take(18) {
        scale /= 10;
        nanos += u128::from(digit - b'0') * scale;
    }
    nanos
}

/// The Go form of a number of seconds, such as `1h30m0s`.
pub fn print_secs(secs: i64) -> String {
    let (h, m, s) = (secs / 3600, secs % 3600 / 60, secs % 60);
    match (h, m) {
        (0, 0) => format!("{s}s"),
        (0, _) => format!("{m}m{s}s"),
        _ => format!("{h}h{m}m{s}s"),
    }
}

/// The Go form of a short time span, such as `1.203ms` or `2.5s`.
pub fn print(span: Duration) -> String {
    let nanos = span.as_nanos();
    if nanos >= 60_000_000_000 {
        return print_secs(i64::try_from(span.as_secs()).unwrap_or(i64::MAX));
    }
    let (unit, scale) = match nanos {
        0 => return "0s".into(),
        1..1_000 => ("ns", 1.0),
        1_000..1_000_000 => ("µs", 1e3),
        1_000_000..1_000_000_000 => ("ms", 1e6),
        _ => ("s", 1e9),
    };
    #[expect(clippy::cast_precision_loss, reason = "below 2^36, which f64 holds exactly")]
    let value = nanos as f64 / scale;
    format!("{value}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, millis: u64) {
        assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
    }

    #[test]
    fn go_durations_are_read() {
        check("0", 0);
        check("0s", 0);
        check("300ms", 300);
        check("1h30m", 90 * 60_000);
        check("1.5h", 90 * 60_000);
        check(".5s", 500);
        check("1.s", 1000);
        check("+2m", 120_000);
        check("1m1s", 61_000);
        assert_eq!(parse("3µs"), Ok(Duration::from_micros(3)));
    }

    #[test]
    fn what_is_no_duration_is_refused_with_the_cause() {
        let refused = |text: &str| parse(text).expect_err(text).to_string();
        assert!(refused("").contains("missing"));
        assert!(refused("+").contains("missing"));
        assert!(refused("-1s").contains("negative"));
        assert!(refused("10").contains("lacks a unit"));
        assert!(refused("1h30").contains("lacks a unit"));
        assert!(refused("h").contains("no number"));
        assert!(refused(".s").contains("no number"));
        assert!(refused("1d").contains("\"d\""));
        assert!(refused("1 h").contains("unknown unit"));
        assert!(refused("1H").contains("unknown unit"));
        assert!(refused("3000000h").contains("too long"));
        assert!(refused("99999999999999999999999999999999999999999h").contains("too long"));
        assert!(refused("ten minutes").contains("no number"));
    }

    #[test]
    fn lifetimes_must_be_whole_seconds() {
        assert_eq!(parse_secs("1h"), Ok(3600));
        assert!(matches!(parse_secs("1500ms"), Err(DurationError::NotWholeSeconds(_))));
    }

    #[test]
    fn seconds_are_printed_as_go_prints_them() {
        assert_eq!(print_secs(5), "5s");
        assert_eq!(print_secs(300), "5m0s");
        assert_eq!(print_secs(86_400), "24h0m0s");
        assert_eq!(print(Duration::from_micros(1203)), "1.203ms");
        assert_eq!(print(Duration::from_millis(2500)), "2.5s");
    }
}
