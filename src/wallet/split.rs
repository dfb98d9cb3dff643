//! Which amounts a value is kept as, so that any change can be paid without the mint.
//!
//! [`complete`] splits a value V into powers of two such that every amount 0..=V is a sum of
//! some of them. [`super::claim`] composes an amount from what is there, largest first. Powers
//! of two divide one another, therefore largest-first finds a composition whenever there is
//! one.
//!
//! Withdrawals are taken from the pool of all accounts together. Largest-first then takes
//! larger proofs in place of smaller ones, and the smaller a proof is the more amounts it
//! helps to compose, so what it leaves composes at least what every account's own proofs
//! would have. Hence an account's full refund never needs the mint (both are property tests).

/// The outputs of a redemption: powers of two up to `largest`, ascending, worth `value`
/// together, with every amount 0..=`value` among their sums.
///
/// 1, 2, 4 … as long as they fit make every amount up to their sum; what remains is at most
/// that sum plus one, and its binary digits reach the rest.
pub(super) fn complete(value: u64, largest: u64) -> Vec<u64> {
    let mut parts = Vec::new();
    let mut rest = value;
    let mut part = 1_u64;
    while part <= rest && part <= largest {
        parts.push(part);
        rest -= part;
        match part.checked_mul(2) {
            Some(next) => part = next,
            None => break,
        }
    }
    parts.extend(binary(rest, largest));
    parts.sort_unstable();
    parts
}

/// The fewest powers of two up to `largest` that are worth `value`, ascending.
pub(super) fn binary(value: u64, largest: u64) -> Vec<u64> {
    let mut parts = Vec::new();
    let mut rest = value;
    let mut part = largest;
    while rest > 0 && part > 0 {
        while part <= rest {
            parts.push(part);
            rest -= part;
        }
        part /= 2;
    }
    parts.reverse();
    parts
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// How many of each denomination.
    pub(in crate::wallet) type Pool = BTreeMap<u64, u64>;

    pub(in crate::wallet) fn pool_of(parts: &[u64]) -> Pool {
        let mut pool = Pool::new();
        for part in parts {
            *pool.entry(*part).or_default() += 1;
        }
        pool
    }

    /// Takes `amount` out of the pool, largest first, or leaves it as it was. `claim` does the
    /// same in SQL, and is held against this.
    pub(in crate::wallet) fn withdraw(pool: &mut Pool, amount: u64) -> bool {
        let mut left = pool.clone();
        let mut wanted = amount;
        for (denomination, count) in left.iter_mut().rev() {
            let taken = (wanted / denomination).min(*count);
            *count -= taken;
            wanted -= taken * denomination;
        }
        if wanted == 0 {
            *pool = left;
        }
        wanted == 0
    }

    #[test]
    fn every_amount_up_to_the_value_is_composable() {
        for value in 0..=300 {
            let parts = complete(value, 1 << 62);
            assert_eq!(parts.iter().sum::<u64>(), value);
            assert!(parts.is_sorted());
            for amount in 0..=value {
                assert!(withdraw(&mut pool_of(&parts), amount), "{amount} of {value}: {parts:?}");
            }
        }
    }

    #[test]
    fn the_fewest_parts_are_the_binary_digits() {
        assert_eq!(binary(0, 64), Vec::<u64>::new());
        assert_eq!(binary(11, 64), [1, 2, 8]);
        assert_eq!(binary(11, 4), [1, 2, 4, 4]);
    }

    proptest! {
        #[test]
        fn a_split_of_any_value_is_complete_and_short(
            value in 1..u64::MAX >> 8,
            amount in any::<u64>(),
            bits in 40..62_u32,
        ) {
            let parts = complete(value, 1 << bits);
            prop_assert_eq!(parts.iter().map(|part| u128::from(*part)).sum::<u128>(), value.into());
            prop_assert!(parts.iter().all(|part| part.is_power_of_two()));
            prop_assert!(withdraw(&mut pool_of(&parts), amount % (value + 1)));
            prop_assert!(parts.len() as u64 <= 128 + (value >> bits));
        }

        #[test]
        fn a_pool_of_many_accounts_never_refuses_one_withdrawal_of_each(
            accounts in proptest::collection::vec((1..5_000_u64, 0..=1_000_u64), 1..60),
            order in any::<prop::sample::Index>(),
        ) {
            let mut pool = Pool::new();
            for (value, _) in &accounts {
                for (part, count) in pool_of(&complete(*value, 1 << 20)) {
                    *pool.entry(part).or_default() += count;
                }
            }
            let first = order.index(accounts.len());
            for (value, permille) in accounts[first..].iter().chain(&accounts[..first]) {
                let amount = value * permille / 1_000;
                prop_assert!(withdraw(&mut pool, amount), "{} of {}", amount, value);
            }
        }
    }
}
