//! What bitcoin costs, out of what several sources say.
//!
//! Decides and never acts: what was fetched and how old it is are arguments. No float anywhere: a
//! number is read from its text.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::config::Decimal;

/// Why a text is no price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoNumber {
    /// Below zero; for some who publish prices, -1 means that there is none.
    Negative,
    /// No number, or one that is too long or too large to be a price.
    Unreadable,
}

/// Which way what does not fit is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    Down,
    Up,
}

/// A decimal in units of 10^-`places`, exactly but for what is finer than one unit.
///
/// Reads what JSON calls a number, and what people write in a text for one: `0.5`, `.5`, `5e-1`.
/// No grouping, no spaces, no plus. The digits that count are at most [`DIGITS_MAX`], the
/// exponent at most [`EXPONENT_MAX`].
pub fn exact(text: &str, places: u32, round: Round) -> Result<u128, NoNumber> {
    let wrong = NoNumber::Unreadable;
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) || whole.len().max(fraction.len()) == 0 {
        return Err(wrong);
    }
    let exponent: i64 = exponent.parse().map_err(|_| wrong)?;
    let fraction = fraction.trim_end_matches('0');
    let digits = [whole, fraction].concat();
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Ok(0);
    }
    if digits.len() > DIGITS_MAX || exponent.unsigned_abs() > EXPONENT_MAX {
        return Err(wrong);
    }
    let number: u128 = digits.parse().map_err(|_| wrong)?;
    let finer = i64::try_from(fraction.len()).map_err(|_| wrong)?;
    let shift = exponent.saturating_add(places.into()).saturating_sub(finer);
    let power = u32::try_from(shift.unsigned_abs()).ok().and_then(|by| 10_u128.checked_pow(by));
    let units = match (power, shift >= 0, round) {
        (Some(power), true, _) => number.checked_mul(power).ok_or(wrong)?,
        (Some(power), false, Round::Up) => number.div_ceil(power),
        (Some(power), false, Round::Down) => number.checked_div(power).unwrap_or(0),
        // More than 10^38 of the number make one unit.
        (None, false, Round::Up) => 1,
        (None, false, Round::Down) => 0,
        (None, true, _) => return Err(wrong),
    };
    if negative { Err(NoNumber::Negative) } else { Ok(units) }
}

/// The number at `path` in a JSON document, as the text it was written as, quoted there or not.
/// A step is a key of an object or an index of a list.
pub fn number_at(document: &[u8], path: &[String]) -> Option<String> {
    let mut here: &RawValue = serde_json::from_slice(document).ok()?;
    for step in path {
        here = if here.get().starts_with('[') {
            let list: Vec<&RawValue> = serde_json::from_str(here.get()).ok()?;
            list.get(step.parse::<usize>().ok()?).copied()?
        } else {
            let object: HashMap<String, &RawValue> = serde_json::from_str(here.get()).ok()?;
            object.get(step.as_str()).copied()?
        };
    }
    as_text(here)
}

/// A number or a text for one; `None` for everything else.
pub fn as_text(value: &RawValue) -> Option<String> {
    match value.get().bytes().next()? {
        b'"' => serde_json::from_str(value.get()).ok(),
        b'-' | b'0'..=b'9' => Some(value.get().to_owned()),
        _ => None,
    }
}

/// Cents per bitcoin, rounded down: what is less than a cent makes a price in dollars dearer in
/// sats by less than a ten-millionth, in favour of the operator, who pays the upstream in dollars.
/// Nothing below [`CENTS_MIN`] or above [`CENTS_MAX`]: such a rate is a mistake of whoever says it.
pub fn cents(text: &str) -> Result<u64, NoNumber> {
    let cents = exact(text, 2, Round::Down)?;
    let cents = u64::try_from(cents).map_err(|_| NoNumber::Unreadable)?;
    if (CENTS_MIN..=CENTS_MAX).contains(&cents) { Ok(cents) } else { Err(NoNumber::Unreadable) }
}

/// The rate that enough of these agree on, in cents; `None` when fewer than `min` do.
///
/// A rate further than `within_percent` from the median of all is a [`stray`] and does not count;
/// the answer is the median of the others, so it lies between the least and the greatest of them,
/// whatever the strays say, and the order of the sources is of no matter.
///
/// The median of an even number is the mean of the middle two, rounded down to the cent. The
/// lower of the two would favour the operator each time, the upper one the client; the mean favours
/// neither, and its half cent goes to the operator as in [`cents`]. It also makes two halves that
/// contradict each other agree on nothing: their mean is near to neither. A gateway that
/// cannot tell who is right sells nothing in dollars, which costs less than the wrong half would.
pub fn agree(rates: &[u64], within_percent: Decimal, min: usize) -> Option<u64> {
    let near = |rate: &u64| !stray(*rate, rates, within_percent);
    let agreeing: Vec<u64> = rates.iter().copied().filter(near).collect();
    if agreeing.len() < min {
        return None;
    }
    u64::try_from(doubled_median(&agreeing)?.div_euclid(2)).ok()
}

/// Whether `rate` is further than this from the median of all `rates`. Compared exactly: the
/// median is doubled and never rounded.
pub fn stray(rate: u64, rates: &[u64], within_percent: Decimal) -> bool {
    let Some(median) = doubled_median(rates) else { return true };
    let distance = u128::from(rate).saturating_mul(2).abs_diff(median);
    distance.saturating_mul(HUNDRED_PERCENT) > median.saturating_mul(within_percent.billionths)
}

/// For how long what is this old may still be used; `None` when it is stale.
pub fn lasts(age: Duration, stale_after: Duration) -> Option<Duration> {
    stale_after.checked_sub(age).filter(|left| !left.is_zero())
}

/// Twice the median, so that it is whole.
fn doubled_median(rates: &[u64]) -> Option<u128> {
    let mut sorted = rates.to_vec();
    sorted.sort_unstable();
    let upper = sorted.len().div_euclid(2);
    let lower = sorted.len().checked_sub(1)?.div_euclid(2);
    Some(u128::from(*sorted.get(lower)?).saturating_add((*sorted.get(upper)?).into()))
}

/// Every number of this many digits fits in 128 bits.
pub const DIGITS_MAX: usize = 38;

/// Beyond it nothing is a price in any unit.
pub const EXPONENT_MAX: u64 = 40;

pub const CENTS_MIN: u64 = 1;

/// Ten billion dollars.
pub const CENTS_MAX: u64 = 1_000_000_000_000;

/// In billionths of a percent, as a [`Decimal`] holds one.
const HUNDRED_PERCENT: u128 = 100_000_000_000;

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
