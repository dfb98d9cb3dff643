//! The limits that a new key is asked for with, wherever keys are made.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::clock::UnixMs;
use crate::error::Refusal;
use crate::ledger::terms::{Cap, Reset, Terms};
use crate::money::Msat;

/// When what was spent under a `balance_limit` is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "BalanceLimitReset")]
pub(super) enum ResetName {
    Daily,
    Weekly,
    Monthly,
}

/// The terms that `balance_limit`, `balance_limit_reset` and `validity_date` (epoch seconds) ask
/// for.
pub(super) fn terms_of(
    balance_limit: Option<Msat>,
    balance_limit_reset: Option<ResetName>,
    validity_date: Option<u64>,
) -> Result<Terms, Refusal> {
    let reset = match balance_limit_reset {
        None => Reset::Never,
        Some(ResetName::Daily) => Reset::Daily,
        Some(ResetName::Weekly) => Reset::Weekly,
        Some(ResetName::Monthly) => Reset::Monthly,
    };
    if balance_limit.is_none() && balance_limit_reset.is_some() {
        return Err(Refusal::field("balance_limit", "is required: what is to be reset"));
    }
    let expires = validity_date.map(|seconds| UnixMs(seconds.saturating_mul(1000)));
    match expires {
        Some(expires) if expires <= UnixMs::now() => {
            return Err(Refusal::field("validity_date", "must be in the future, in epoch seconds"));
        }
        Some(expires) if expires > LATEST => {
            return Err(Refusal::field("validity_date", "must be in epoch seconds"));
        }
        Some(_) | None => {}
    }
    let cap = balance_limit.map(|amount| Cap { amount, reset });
    Ok(Terms { expires, cap, ..Terms::default() })
}

/// The name under which a client asked for it.
pub(super) fn reset_name(cap: Cap) -> Option<&'static str> {
    match cap.reset {
        Reset::Never => None,
        Reset::Daily | Reset::Weekly | Reset::Monthly => Some(cap.reset.name()),
    }
}

/// The last instant that every ledger counts exactly; some 285,000 years from now.
const LATEST: UnixMs = UnixMs(Msat::MAX.get());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_be_valid_as_long_as_can_be_counted_and_no_longer() {
        let latest = LATEST.whole_seconds();
        let terms = terms_of(None, None, Some(latest)).unwrap();
        assert_eq!(terms.expires.map(UnixMs::whole_seconds), Some(latest));
        for wrong in [0, 1, latest + 1, u64::MAX] {
            assert_eq!(terms_of(None, None, Some(wrong)).unwrap_err().status_code(), 400);
        }
    }

    #[test]
    fn a_reset_is_told_by_the_name_it_was_asked_by() {
        for (asked, name) in [
            (None, None),
            (Some(ResetName::Daily), Some("daily")),
            (Some(ResetName::Weekly), Some("weekly")),
            (Some(ResetName::Monthly), Some("monthly")),
        ] {
            let terms = terms_of(Some(Msat::ZERO), asked, None).unwrap();
            assert_eq!(reset_name(terms.cap.unwrap()), name);
        }
        let nothing_to_reset = terms_of(None, Some(ResetName::Daily), None).unwrap_err();
        assert_eq!(nothing_to_reset.status_code(), 400);
    }
}
