//! The terms that a key to be was asked for with, while its value is on the way: text that the
//! wallet keeps beside the value, for whoever opens the account.

use serde::{Deserialize, Serialize};

use crate::clock::UnixMs;
use crate::ledger::terms::{Cap, Reset, Terms};
use crate::money::Msat;

/// Terms as they stand in the wallet's row.
#[derive(Serialize, Deserialize)]
struct Kept {
    expires_ms: Option<u64>,
    cap: Option<(Msat, String)>,
}

/// Only what a key can be asked for with; limits of its own a key has from elsewhere.
pub(super) fn kept(terms: &Terms) -> Option<String> {
    let expires_ms = terms.expires.map(|expires| expires.0);
    let cap = terms.cap.map(|cap| (cap.amount, cap.reset.name().to_owned()));
    if expires_ms.is_none() && cap.is_none() {
        return None;
    }
    serde_json::to_string(&Kept { expires_ms, cap }).ok()
}

/// Terms that cannot be read are no terms at all: such a row is the operator's to look at.
pub(super) fn restored(text: &str) -> Result<Terms, String> {
    let unreadable = || "its terms cannot be read".to_owned();
    let Kept { expires_ms, cap } = serde_json::from_str(text).map_err(|_| unreadable())?;
    let cap = match cap {
        None => None,
        Some((amount, reset)) => {
            Some(Cap { amount, reset: Reset::named(&reset).ok_or_else(unreadable)? })
        }
    };
    Ok(Terms { expires: expires_ms.map(UnixMs), cap, ..Terms::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_wait_for_their_value_unchanged() {
        let amount = Msat::new(7).unwrap();
        for reset in [Reset::Never, Reset::Daily, Reset::Weekly, Reset::Monthly] {
            for expires in [None, Some(UnixMs(1))] {
                let cap = Some(Cap { amount, reset });
                let terms = Terms { expires, cap, ..Terms::default() };
                assert_eq!(restored(&kept(&terms).unwrap()).unwrap(), terms);
            }
        }
        assert_eq!(kept(&Terms::default()), None);
        assert!(restored("{}").is_ok_and(|terms| terms == Terms::default()));
        assert!(restored(r#"{"cap":[7,"hourly"]}"#).is_err());
    }
}
