//! Numbers as answers write them, read exactly: no figure passes through a float.

/// A number that was scaled, as a whole one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scaled {
    pub(super) rounded_up: u64,
    /// Whether nothing had to be rounded.
    pub(super) is_exact: bool,
}

/// A JSON number times 10^`places`. `None` for what is negative, no number, or more than
/// [`COUNT_MAX`].
pub(super) fn scaled(raw: &str, places: i64) -> Option<Scaled> {
    let (mantissa, exponent) = match raw.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (raw, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    // How many of the digits stand before the point once it has moved.
    let mut before = i64::try_from(whole.len()).ok()?.checked_add(exponent)?.checked_add(places)?;
    let (mut value, mut rest) = (0_u64, 0);
    for byte in whole.bytes().chain(fraction.bytes()) {
        let digit = char::from(byte).to_digit(10)?;
        match before > 0 {
            true => value = value.checked_mul(10)?.checked_add(u64::from(digit))?,
            false => rest |= digit,
        }
        before = before.checked_sub(1)?;
    }
    while before > 0 && value > 0 {
        value = value.checked_mul(10)?;
        before -= 1;
    }
    let rounded_up = value.checked_add(u64::from(rest > 0))?;
    let is_number = !whole.is_empty() && rounded_up <= COUNT_MAX;
    is_number.then_some(Scaled { rounded_up, is_exact: rest == 0 })
}

/// Larger counts are nonsense. Up to here a float, which most clients read them into, holds every
/// whole number exactly.
pub const COUNT_MAX: u64 = (1 << 53) - 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(raw: &str, places: i64, expected: Option<(u64, bool)>) {
        let read = scaled(raw, places).map(|read| (read.rounded_up, read.is_exact));
        assert_eq!(read, expected, "{raw} times 10^{places}");
    }

    #[test]
    fn every_way_to_write_a_number_is_read() {
        for (raw, expected) in [
            ("0", (0, true)),
            ("12", (12, true)),
            ("12.0", (12, true)),
            ("2e2", (200, true)),
            ("1.5E+1", (15, true)),
            ("1200e-2", (12, true)),
            ("0e300", (0, true)),
            ("12.000000000000000000000000000001", (13, false)),
            ("1e-300", (1, false)),
        ] {
            check(raw, 0, Some(expected));
        }
        check("0.00014", 9, Some((140_000, true)));
        check("1.4e-4", 9, Some((140_000, true)));
        check("0.0000000001", 9, Some((1, false)));
        check("8.470000267028809", 3, Some((8471, false)));
    }

    #[test]
    fn what_is_no_number_of_something_is_none() {
        for raw in [
            "",
            "-1",
            "-0",
            ".5",
            "x",
            "1x",
            "\"1\"",
            "null",
            "[1]",
            "1e",
            "1e300",
            "1e99999999999999999999",
        ] {
            check(raw, 0, None);
        }
    }

    #[test]
    fn the_largest_count_is_read_and_one_more_is_not() {
        check(&COUNT_MAX.to_string(), 0, Some((COUNT_MAX, true)));
        check(&format!("{}.0", COUNT_MAX - 1), 0, Some((COUNT_MAX - 1, true)));
        check(&(COUNT_MAX + 1).to_string(), 0, None);
        check(&format!("{COUNT_MAX}.1"), 0, None);
        check("9007199.254740991", 9, Some((COUNT_MAX, true)));
        check("9007199.254740992", 9, None);
    }

    proptest! {
        #[test]
        fn where_the_point_stands_makes_no_difference(
            value in 0..1_000_000_u64,
            places in 0..9_i64,
        ) {
            let point = usize::try_from(places).expect("it is small");
            let digits = format!("{value:0>10}");
            let (whole, fraction) = digits.split_at(10 - point);
            check(&format!("{whole}.{fraction}"), places, Some((value, true)));
            check(&format!("{value}e-{places}"), places, Some((value, true)));
        }

        #[test]
        fn no_text_makes_it_panic(raw in "[0-9eE.+\\-]{0,40}", places in 0..12_i64) {
            prop_assert!(scaled(&raw, places).is_none_or(|read| read.rounded_up <= COUNT_MAX));
        }
    }
}
