//! The mints whose ecash is taken over Lightning.

use super::super::mistake::KeyPath;
use super::super::{ForeignMints, Mint, schema};
use super::Checks;

impl Checks<'_> {
    pub(super) fn foreign_mints(
        &mut self,
        foreign: schema::ForeignMints,
        accepted: &[Mint],
    ) -> ForeignMints {
        let at = KeyPath::from("foreign_mints");
        let mints = self.mints(foreign.mints, &at.key("mints"));
        for (index, mint) in mints.iter().enumerate() {
            if !mint.url.is_empty() && accepted.iter().any(|accepted| accepted.url == mint.url) {
                let at = at.key("mints").index(index).key("url");
                self.found.add(at, "is accepted already: it is one of `mints`");
            }
        }
        if !mints.is_empty() && accepted.is_empty() {
            self.found.add(at.key("mints"), "needs a mint in `mints` that issues instead");
        }
        for (key, given, most) in [
            ("fee_sats_max", foreign.fee_sats_max.0, FEE_SATS_MOST),
            ("fee_permille_max", foreign.fee_permille_max.0, FEE_PERMILLE_MOST),
        ] {
            if given > most {
                self.found.add(at.key(key), format!("must be at most {most}"));
            }
        }
        ForeignMints {
            mints,
            fee_sats_max: foreign.fee_sats_max.0,
            fee_permille_max: foreign.fee_permille_max.0,
        }
    }
}

/// More than any payment over Lightning costs; beyond it the number is a mistake.
const FEE_SATS_MOST: u64 = 100_000;
const FEE_PERMILLE_MOST: u64 = 500;
