//! Mints whose ecash is not accepted, and taken all the same when it is paid in: over Lightning.

use super::Mint;

/// Which, and what that may cost.
#[derive(Clone, Debug, Default)]
pub struct ForeignMints {
    /// None of those that are accepted.
    pub mints: Vec<Mint>,
    /// So many sats, and so many thousandths of what the ecash is worth, together.
    pub fee_sats_max: u64,
    pub fee_permille_max: u64,
}
