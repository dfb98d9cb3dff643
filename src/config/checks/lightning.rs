//! What may be paid in and out over Lightning, checked.

use super::Checks;
use crate::config::mistake::KeyPath;
use crate::config::scalars::Whole;
use crate::config::{Lightning, LightningRefunds, schema};

impl Checks<'_> {
    pub(super) fn lightning(&mut self, lightning: &schema::Lightning) -> Lightning {
        let at = KeyPath::from("lightning");
        let most = Some(lightning.amount_sats_max);
        Lightning {
            enabled: lightning.enabled,
            amount_sats_max: self.count(most, &at.key("amount_sats_max")),
            refunds: self.lightning_refunds(&lightning.refunds, &at.key("refunds")),
        }
    }

    /// What is wrong is told also where nothing is paid out.
    fn lightning_refunds(
        &mut self,
        refunds: &schema::LightningRefunds,
        at: &KeyPath,
    ) -> Option<LightningRefunds> {
        let mut up_to = |most: u64, given: Whole, name| {
            if given.0 > most {
                self.found.add(at.key(name), format!("must be from 0 to {most}"));
            }
            given.0
        };
        let checked = LightningRefunds {
            fee_sats_max: up_to(FEE_SATS_MAX, refunds.fee_sats_max, "fee_sats_max"),
            fee_percent_max: up_to(FEE_PERCENT_MAX, refunds.fee_percent_max, "fee_percent_max"),
            private_hosts: refunds.private_hosts,
        };
        refunds.enabled.then_some(checked)
    }
}

/// A fee of more is a mistake of whoever wrote it: nothing small could be paid.
const FEE_SATS_MAX: u64 = 1_000_000;
const FEE_PERCENT_MAX: u64 = 100;
