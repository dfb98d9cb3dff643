//! Money, and every rounding in the program.
//!
//! [`Msat`] is an amount, [`Rate`] is a price per unit. An amount is never negative, never
//! above 2^53 - 1 and never made by an unchecked operation. Costs round up (the exact sum,
//! once), what leaves in whole sats rounds down; nothing else rounds.

#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::float_arithmetic)
)]

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Millisatoshi: the only unit of account.
///
/// Bounded by 2^53 - 1 so that a Redis script, whose numbers are doubles, compares
/// exactly. There is no `Add` or `Sub`: a sum that can fail says so.
///
/// ```compile_fail
/// use nutgate::money::Msat;
/// let _ = Msat::ZERO + Msat::ZERO;
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Msat(u64);

impl Msat {
    pub const ZERO: Self = Self(0);
    pub const MAX: Self = Self((1 << 53) - 1);

    /// An amount, or nothing when it is above [`Msat::MAX`].
    pub const fn new(msat: u64) -> Option<Self> {
        if msat <= Self::MAX.0 { Some(Self(msat)) } else { None }
    }

    pub fn from_sats(sats: u64) -> Option<Self> {
        sats.checked_mul(MSAT_PER_SAT).and_then(Self::new)
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    /// For SQLite, whose integers are signed; lossless by the bound.
    pub const fn to_i64(self) -> i64 {
        self.0.cast_signed()
    }

    /// From SQLite: nothing when the row is negative or out of range, so tampering is seen.
    pub fn from_i64(value: i64) -> Option<Self> {
        u64::try_from(value).ok().and_then(Self::new)
    }

    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).and_then(Self::new)
    }

    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// `self - other`, or zero: for what is shown, never for what is booked.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// `self + other`, or [`Msat::MAX`]: for bounds, never for what is booked.
    pub fn saturating_add(self, other: Self) -> Self {
        self.checked_add(other).unwrap_or(Self::MAX)
    }

    /// Whole sats, rounded down: what can leave in a token counted in sats.
    pub const fn whole_sats(self) -> u64 {
        self.0 / MSAT_PER_SAT
    }

    /// This amount without what is less than `unit`; the remainder stays where it is.
    pub fn floor_to(self, unit: Self) -> Self {
        match self.0.checked_rem(unit.0) {
            Some(rest) => Self(self.0.saturating_sub(rest)),
            None => self,
        }
    }
}

impl fmt::Display for Msat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} msat", self.0)
    }
}

impl<'de> Deserialize<'de> for Msat {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let msat = u64::deserialize(deserializer)?;
        Self::new(msat).ok_or_else(|| serde::de::Error::custom("amount above 2^53 - 1 msat"))
    }
}

/// The price of one unit (an input token, an output token, a request) in nano-millisatoshi.
///
/// 1 sat per million tokens is 0.001 msat per token, hence 1,000,000 here: integers carry every
/// price on the market without a float. Never negative; zero is a price.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

impl Rate {
    pub const FREE: Self = Self(0);

    pub const fn from_nano_msat(nano_msat_per_unit: u64) -> Self {
        Self(nano_msat_per_unit)
    }

    pub const fn nano_msat(self) -> u64 {
        self.0
    }

    /// The exact price of `units`, not yet rounded.
    pub fn times(self, units: u64) -> Exact {
        Exact(u128::from(self.0).saturating_mul(u128::from(units)))
    }
}

/// An unrounded sum in nano-millisatoshi; saturates far above any [`Msat`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exact(u128);

impl Exact {
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    pub fn repeated(self, times: u64) -> Self {
        Self(self.0.saturating_mul(u128::from(times)))
    }

    /// The amount charged for this sum: rounded up, so by less than one msat in the operator's
    /// favour. A sum above [`Msat::MAX`] is charged as that.
    pub fn round_up(self) -> Msat {
        let msat = self.0.div_ceil(NANO);
        u64::try_from(msat).ok().and_then(Msat::new).unwrap_or(Msat::MAX)
    }
}

pub const MSAT_PER_SAT: u64 = 1000;

const NANO: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_amount_is_refused_above_the_bound_and_taken_at_it() {
        assert_eq!(Msat::new(Msat::MAX.get()), Some(Msat::MAX));
        assert_eq!(Msat::new(Msat::MAX.get() + 1), None);
        assert_eq!(Msat::MAX.checked_add(Msat(1)), None);
        assert_eq!(Msat::ZERO.checked_sub(Msat(1)), None);
        assert_eq!(Msat::from_i64(-1), None);
        assert!(serde_json::from_str::<Msat>("9007199254740992").is_err());
        assert!(serde_json::from_str::<Msat>("-1").is_err());
    }

    #[test]
    fn a_cost_rounds_up_once_and_a_payment_rounds_down() {
        assert_eq!(Rate::from_nano_msat(1).times(1).round_up(), Msat(1));
        assert_eq!(Rate::from_nano_msat(1).times(0).round_up(), Msat::ZERO);
        let thirds = Rate::from_nano_msat(333_333_333).times(3);
        assert_eq!(thirds.round_up(), Msat(1), "three thirds are one, not three");
        assert_eq!(Msat(1_999).whole_sats(), 1);
        assert_eq!(Msat(1_999).floor_to(Msat(1000)), Msat(1000));
        assert_eq!(Msat(1_999).floor_to(Msat(1)), Msat(1_999));
    }

    proptest! {
        #[test]
        fn rounding_up_adds_less_than_one_msat(rate in 0..u64::MAX, units in 0..1u64 << 32) {
            let exact = u128::from(rate) * u128::from(units);
            let charged = u128::from(Rate(rate).times(units).round_up().get());
            if charged < u128::from(Msat::MAX.get()) {
                prop_assert!(charged * NANO >= exact);
                prop_assert!(charged * NANO - exact < NANO);
            }
        }

        #[test]
        fn adding_and_taking_away_gives_back(a in 0..=Msat::MAX.get(), b in 0..=Msat::MAX.get()) {
            if let Some(sum) = Msat(a).checked_add(Msat(b)) {
                prop_assert_eq!(sum.checked_sub(Msat(b)), Some(Msat(a)));
            }
        }

        #[test]
        fn the_floor_and_the_rest_are_the_whole(a in 0..=Msat::MAX.get(), unit in 1..10_000u64) {
            let floor = Msat(a).floor_to(Msat(unit));
            prop_assert!(floor.get().is_multiple_of(unit) && a - floor.get() < unit);
        }
    }
}
