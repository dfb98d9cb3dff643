//! How clients' endpoints are delivered to.

use super::super::mistake::KeyPath;
use super::super::schema;
use super::super::webhooks::{RETRIES_MAX, TIMEOUT_MAX, Webhooks};
use super::Checks;
use crate::money::Msat;

impl Checks<'_> {
    pub(super) fn webhooks(&mut self, webhooks: schema::Webhooks) -> Webhooks {
        let at = KeyPath::from("webhooks");
        let low_balance = Msat::new(webhooks.low_balance_msats.0).unwrap_or_else(|| {
            self.found.add(at.key("low_balance_msats"), "is more than there can be");
            Msat::ZERO
        });
        let timeout = webhooks.timeout.0;
        if timeout > TIMEOUT_MAX {
            let problem = format!("must be at most {}s", TIMEOUT_MAX.as_secs());
            self.found.add(at.key("timeout"), problem);
        }
        if !(1..=RETRIES_MAX).contains(&webhooks.retries.len()) {
            self.found.add(at.key("retries"), format!("must be from 1 to {RETRIES_MAX} delays"));
        }
        let retries = self.elements(webhooks.retries, &at.key("retries"));
        Webhooks {
            enabled: webhooks.enabled,
            allow_private: webhooks.allow_private,
            low_balance,
            timeout,
            retries: retries.into_iter().map(|(delay, _)| delay.0).collect(),
        }
    }
}
