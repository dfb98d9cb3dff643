//! Single values: durations, decimals, whole numbers, addresses, choices, secrets.
//!
//! Each is read from text, quoted or not, so that `${NAME}` may stand for any of them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use lua_free_filters::Route;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

use super::mistake::did_you_mean;
use super::{
    Abort, Auth, CostChunk, Currency, Decimal, Dialect, Http, MissingUsage, OutputLimitField,
    ROUTE_NAMES, Secret, Select,
};

/// A length of time, as in `250ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lasting(pub(super) Duration);

/// A length of time, or 0 for never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Every(pub(super) Option<Duration>);

/// A whole number, as in `10_000_000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whole(pub(super) u64);

/// Where to listen, as in `127.0.0.1:8080`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address(pub(super) SocketAddr);

/// A range of addresses, as in `10.0.0.0/8`, or one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network(pub(super) IpNet);

/// A level of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Level(pub(super) String);

/// A route that a model is sold on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sold(pub(super) Route);

trait FromWritten: Sized {
    const EXPECTED: &str;

    fn from_written(text: &str) -> Result<Self, String>;
}

impl FromWritten for Lasting {
    const EXPECTED: &str = "a duration like `250ms`, `10s` or `5m`";

    fn from_written(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not {}", Self::EXPECTED);
        let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (count, unit) = text.split_at(unit_at);
        let (_, unit_ms) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let count: u64 = count.parse().map_err(|_| wrong())?;
        match count.checked_mul(*unit_ms).map(Duration::from_millis) {
            Some(Duration::ZERO) => Err("must be longer than nothing".to_owned()),
            Some(duration) if duration <= DURATION_MAX => Ok(Self(duration)),
            _ => Err(format!("`{text}` is longer than a week")),
        }
    }
}

impl FromWritten for Every {
    const EXPECTED: &str = "0, or a duration like `10s` or `5m`";

    fn from_written(text: &str) -> Result<Self, String> {
        match text {
            "0" => Ok(Self(None)),
            _ => Lasting::from_written(text).map(|Lasting(every)| Self(Some(every))),
        }
    }
}

impl FromWritten for Whole {
    const EXPECTED: &str = "a whole number";

    fn from_written(text: &str) -> Result<Self, String> {
        let digits = text.replace('_', "");
        match digits.parse() {
            Ok(number) if !digits.starts_with('+') => Ok(Self(number)),
            _ => Err(format!("`{text}` is not {} from 0 on", Self::EXPECTED)),
        }
    }
}

impl FromWritten for Decimal {
    const EXPECTED: &str = "a number";

    fn from_written(text: &str) -> Result<Self, String> {
        if text.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        {
            return Err("must not be negative".to_owned());
        }
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || whole.len() + fraction.len() == 0 {
            return Err(format!("`{text}` is not a number like 0.15, without an exponent"));
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > DECIMALS_MAX {
            return Err(format!("`{text}` has more than nine decimals"));
        }
        let whole = whole.trim_start_matches('0');
        if whole.len() > WHOLE_DIGITS_MAX {
            return Err(format!("`{text}` is a billion or more"));
        }
        let billionths = format!("{whole}{fraction:0<DECIMALS_MAX$}");
        let billionths = billionths.parse().map_err(|_| format!("`{text}` is not a number"))?;
        Ok(Self { billionths })
    }
}

impl FromWritten for Address {
    const EXPECTED: &str = "an address with a port, like `127.0.0.1:8080`";

    fn from_written(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("`{text}` is not {}", Self::EXPECTED))
    }
}

impl FromWritten for Network {
    const EXPECTED: &str = "an address like `10.0.0.7`, or a range of them like `10.0.0.0/8`";

    fn from_written(text: &str) -> Result<Self, String> {
        let wrong = |_| format!("`{text}` is not {}", Self::EXPECTED);
        let network = match text.parse::<IpNet>() {
            Ok(network) => network.trunc(),
            Err(_) => text.parse::<IpAddr>().map_err(wrong)?.into(),
        };
        // Clients of IPv4 are known by that address, however their connection writes it.
        match network.addr() {
            IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
                Err(format!("`{text}` is IPv4 in the clothes of IPv6; write it as IPv4"))
            }
            IpAddr::V4(_) | IpAddr::V6(_) => Ok(Self(network)),
        }
    }
}

impl FromWritten for Level {
    const EXPECTED: &str = "a level";

    fn from_written(text: &str) -> Result<Self, String> {
        let levels = ["off", "error", "warn", "info", "debug", "trace"];
        choose(text, levels.map(|level| (level, level))).map(|level| Self(level.to_owned()))
    }
}

impl FromWritten for Dialect {
    const EXPECTED: &str = "a dialect";

    fn from_written(text: &str) -> Result<Self, String> {
        choose(text, [("reference", Self::Reference), ("routstr", Self::Routstr)])
    }
}

impl FromWritten for CostChunk {
    const EXPECTED: &str = "`asked` or `always`";

    fn from_written(text: &str) -> Result<Self, String> {
        choose(text, [("asked", Self::Asked), ("always", Self::Always)])
    }
}

impl FromWritten for Currency {
    const EXPECTED: &str = "a currency";

    fn from_written(text: &str) -> Result<Self, String> {
        choose(text, [("sat", Self::Sat), ("usd", Self::Usd)])
    }
}

impl FromWritten for Sold {
    const EXPECTED: &str = "a route";

    fn from_written(text: &str) -> Result<Self, String> {
        choose(text, ROUTE_NAMES).map(Self)
    }
}

impl FromWritten for Select {
    const EXPECTED: &str = "a word";

    fn from_written(text: &str) -> Result<Self, String> {
        let choices = [
            ("order", Self::Order),
            ("weight", Self::Weight),
            ("price", Self::Price),
            ("latency", Self::Latency),
        ];
        choose(text, choices)
    }
}

impl FromWritten for Auth {
    const EXPECTED: &str = "how a key is shown";

    fn from_written(text: &str) -> Result<Self, String> {
        let choices = [
            ("bearer", Self::Bearer),
            ("api-key", Self::ApiKey),
            ("x-api-key", Self::XApiKey),
            ("none", Self::None),
        ];
        choose(text, choices)
    }
}

impl FromWritten for OutputLimitField {
    const EXPECTED: &str = "`max_tokens` or `max_completion_tokens`";

    fn from_written(text: &str) -> Result<Self, String> {
        let choices =
            [("max_tokens", Self::MaxTokens), ("max_completion_tokens", Self::MaxCompletionTokens)];
        choose(text, choices)
    }
}

impl FromWritten for Abort {
    const EXPECTED: &str = "`cancel` or `drain`";

    fn from_written(text: &str) -> Result<Self, String> {
        choose(text, [("cancel", Self::Cancel), ("drain", Self::Drain)])
    }
}

impl FromWritten for MissingUsage {
    const EXPECTED: &str = "a word";

    fn from_written(text: &str) -> Result<Self, String> {
        let choices =
            [("estimate", Self::Estimate), ("floor", Self::Floor), ("ceiling", Self::Ceiling)];
        choose(text, choices)
    }
}

impl FromWritten for Http {
    const EXPECTED: &str = "`auto`, `1` or `2`";

    fn from_written(text: &str) -> Result<Self, String> {
        choose(text, [("auto", Self::Auto), ("1", Self::One), ("2", Self::Two)])
    }
}

/// One of a closed list of words.
fn choose<T, const N: usize>(text: &str, choices: [(&str, T); N]) -> Result<T, String> {
    let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
    let list = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    let hint = did_you_mean(text, words);
    let chosen = choices.into_iter().find(|(word, _)| *word == text);
    chosen.map(|(_, value)| value).ok_or(format!("`{text}` is not one of {list}{hint}"))
}

/// Reads a scalar as the text it was written as.
struct Written<T>(std::marker::PhantomData<T>);

impl<T: FromWritten> Visitor<'_> for Written<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::from_written(text).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        T::from_written(&number.to_string()).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        T::from_written(&number.to_string()).map_err(E::custom)
    }
}

macro_rules! deserialize_written {
    ($($scalar:ty),*) => {$(
        impl<'de> Deserialize<'de> for $scalar {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Written(std::marker::PhantomData))
            }
        }
    )*};
}

deserialize_written!(Lasting, Every, Whole, Decimal, Address, Level, Dialect, CostChunk, Currency);
deserialize_written!(Sold, Select, OutputLimitField, Abort, MissingUsage);
deserialize_written!(Auth, Http, Network);

/// Accepts text only, and its errors never show the value.
impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Hidden(|byte| byte.is_ascii_graphic()))
    }
}

/// What stands in a header; it may be a secret, and may have spaces within.
#[derive(Clone, Debug)]
pub(super) struct HeaderText(pub(super) Secret);

impl<'de> Deserialize<'de> for HeaderText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let is_printed = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        let text = deserializer.deserialize_any(Hidden(is_printed))?;
        match text.reveal() {
            text if text.trim_ascii() != text => Err(D::Error::custom("begins or ends in spaces")),
            _ => Ok(Self(text)),
        }
    }
}

/// Reads text of such bytes, and never repeats it.
struct Hidden(fn(u8) -> bool);

impl Visitor<'_> for Hidden {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Secret, E> {
        if text.bytes().all(self.0) {
            Ok(Secret::new(text))
        } else {
            Err(E::custom("has characters that cannot stand in a header"))
        }
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Secret, E> {
        Err(E::custom("is text; put it in quotes"))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Secret, E> {
        Err(E::custom("is text; put it in quotes"))
    }
}

const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];

/// Nothing here is meant to last longer, and deadlines stay far from the ends of the clock.
const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

const DECIMALS_MAX: usize = 9;

/// Keeps every product in [`crate::pricing`] within 128 bits.
const WHOLE_DIGITS_MAX: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        let ms = |text| Lasting::from_written(text).map(|lasting| lasting.0.as_millis());
        assert_eq!(ms("250ms"), Ok(250));
        assert_eq!(ms("10s"), Ok(10_000));
        assert_eq!(ms("5m"), Ok(300_000));
        assert_eq!(ms("1h"), Ok(3_600_000));
        for wrong in ["10", "s", "", "1.5s", "-1s", "10 s", "1d", "0s", "99999999999999999999s"] {
            assert!(ms(wrong).is_err(), "{wrong}");
        }
        assert!(ms("169h").is_err());
    }

    #[test]
    fn whole_numbers_may_be_grouped() {
        assert_eq!(Whole::from_written("10_000_000"), Ok(Whole(10_000_000)));
        for wrong in ["", "-1", "+1", "1.5", "1e3", "10MB", "99999999999999999999"] {
            assert!(Whole::from_written(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn decimals_are_exact_or_refused() {
        let billionths = |text| Decimal::from_written(text).map(|decimal| decimal.billionths);
        assert_eq!(billionths("0.15"), Ok(150_000_000));
        assert_eq!(billionths("0.000000001"), Ok(1));
        assert_eq!(billionths(".5"), Ok(500_000_000));
        assert_eq!(billionths("007.10000000000"), Ok(7_100_000_000));
        assert_eq!(billionths("999999999.999999999"), Ok(999_999_999_999_999_999));
        assert_eq!(billionths("0"), Ok(0));
        let wrong = ["-0.1", "", ".", "1e-3", "NaN", ".inf", "-.inf", "0.0000000001", "1000000000"];
        for wrong in wrong {
            assert!(billionths(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_decimal_is_what_was_written(
            whole in 0..1_000_000_000u128, rest in 0..1_000_000_000u128,
        ) {
            let read = Decimal::from_written(&format!("{whole}.{rest:09}"));
            prop_assert_eq!(read, Ok(Decimal { billionths: whole * 1_000_000_000 + rest }));
        }
    }
}
