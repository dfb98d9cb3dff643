//! Which upstream is asked first, second and so on: a pure function of what is known of each.

use std::time::Duration;

use crate::config::Select;
use crate::money::Msat;

/// What is known of a candidate when the order is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// Until when it is better left alone; `None`: it can be asked now.
    pub(super) waits_until: Option<Duration>,
    /// Its share where they are chosen by weight; nothing counts as 1.
    pub(super) weight: u32,
    /// The most that this request may cost there.
    pub(super) ceiling: Msat,
    /// How long its answers take to begin, on average.
    pub(super) first_byte: Option<Duration>,
}

/// The order in which candidates are asked, as places in `candidates`; each is there once. Those
/// that are better left alone come last, the one that may be asked soonest first. Where nothing
/// else decides, they stay as they are. `dice` are any 64 random bits.
pub(super) fn order(candidates: &[Known], select: Select, dice: u64) -> Vec<usize> {
    let places = candidates.iter().copied().enumerate();
    let (mut ready, mut waiting): (Vec<_>, Vec<_>) =
        places.partition(|(_, known)| known.waits_until.is_none());
    waiting.sort_by_key(|(_, known)| known.waits_until);
    match select {
        Select::Order => {}
        Select::Weight => shuffle(&mut ready, Dice(dice)),
        Select::Price => ready.sort_by_key(|(_, known)| known.ceiling),
        Select::Latency => {
            // What was never measured is less than everything.
            ready.sort_by_key(|(_, known)| known.first_byte);
            measure_again(&mut ready, Dice(dice));
        }
    }
    ready.into_iter().chain(waiting).map(|(place, _)| place).collect()
}

/// Draws one after the other, each by its weight among those that are left.
fn shuffle(ready: &mut [(usize, Known)], mut dice: Dice) {
    for at in 0..ready.len() {
        let left = ready.get_mut(at..).unwrap_or_default();
        let weight = |(_, known): &(usize, Known)| u64::from(known.weight.max(1));
        let mut drawn = dice.below(left.iter().map(weight).sum());
        let chosen = left.iter().position(|candidate| {
            let weight = weight(candidate);
            let found = drawn < weight;
            drawn = drawn.saturating_sub(weight);
            found
        });
        // Rotated and not swapped, so that the rest keeps its order.
        if let Some(drawn) = chosen.and_then(|chosen| left.get_mut(..=chosen)) {
            drawn.rotate_right(1);
        }
    }
}

/// Now and then another one than the fastest goes first: an average says nothing of today when
/// nobody is asked any more.
fn measure_again(ready: &mut [(usize, Known)], mut dice: Dice) {
    let others = u64::try_from(ready.len()).unwrap_or(u64::MAX).saturating_sub(1);
    if others == 0 || dice.below(MEASURED_AGAIN_ONE_IN) != 0 {
        return;
    }
    let chosen = usize::try_from(dice.below(others).saturating_add(1)).unwrap_or(0);
    if let Some(until) = ready.get_mut(..=chosen) {
        until.rotate_right(1);
    }
}

/// A sequence of random numbers from one of them (SplitMix64).
struct Dice(u64);

impl Dice {
    /// A number below `limit`, or 0. The bias is below 2^-24 for every limit here.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).checked_rem(limit).unwrap_or(0)
    }
}

/// Of so many requests that go to the fastest, one goes to another.
const MEASURED_AGAIN_ONE_IN: u64 = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const READY: Known =
        Known { waits_until: None, weight: 1, ceiling: Msat::ZERO, first_byte: None };

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn ceilings<const N: usize>(ceilings: [u64; N]) -> [Known; N] {
        ceilings.map(|amount| Known { ceiling: Msat::new(amount).unwrap(), ..READY })
    }

    fn waiting(until: u64) -> Known {
        Known { waits_until: Some(ms(until)), ..READY }
    }

    #[test]
    fn by_order_they_are_asked_as_configured_and_those_that_wait_last() {
        assert_eq!(order(&[READY; 3], Select::Order, 0), [0, 1, 2]);
        let some_wait = [waiting(9), READY, waiting(3), READY];
        for select in [Select::Order, Select::Price] {
            assert_eq!(order(&some_wait, select, 0), [1, 3, 2, 0]);
        }
        assert_eq!(order(&[], Select::Weight, 0), [0; 0]);
    }

    #[test]
    fn by_price_the_cheapest_for_this_request_is_first() {
        assert_eq!(order(&ceilings([5, 3, 9, 3]), Select::Price, 0), [1, 3, 0, 2]);
    }

    #[test]
    fn by_latency_who_was_never_measured_is_first_and_then_the_fastest() {
        let known =
            [Some(ms(9)), None, Some(ms(3))].map(|first_byte| Known { first_byte, ..READY });
        let firsts = (0..32_000).map(|dice| order(&known, Select::Latency, dice)[0]);
        let mut counts = [0_u32; 3];
        firsts.for_each(|first| counts[first] += 1);
        assert!((30_800..31_200).contains(&counts[1]), "{counts:?}");
        assert!((400..600).contains(&counts[0]) && (400..600).contains(&counts[2]), "{counts:?}");
        let usual = (0..100).filter(|dice| order(&known, Select::Latency, *dice) == [1, 2, 0]);
        assert!(usual.count() > 80);
        assert_eq!(order(&known[..1], Select::Latency, 7), [0]);
    }

    #[test]
    fn by_weight_each_is_first_as_often_as_its_share_says() {
        let known = [1, 0, 8].map(|weight| Known { weight, ..READY });
        let mut first = [0_u32; 3];
        let mut second_after_last = [0_u32; 3];
        for dice in 0..100_000 {
            let order = order(&known, Select::Weight, dice);
            first[order[0]] += 1;
            if order[0] == 2 {
                second_after_last[order[1]] += 1;
            }
        }
        assert!((9_500..10_500).contains(&first[0]), "{first:?}");
        assert!((9_500..10_500).contains(&first[1]), "nothing counts as one: {first:?}");
        assert!((39_000..41_000).contains(&second_after_last[0]), "{second_after_last:?}");
    }

    proptest! {
        #[test]
        fn everyone_is_there_once_and_whoever_waits_is_last(
            known in proptest::collection::vec(
                (any::<Option<u16>>(), any::<u32>(), any::<u32>(), any::<Option<u32>>()), 0..9),
            dice in any::<u64>(),
        ) {
            let known: Vec<Known> = known
                .into_iter()
                .map(|(waits, weight, ceiling, first_byte)| Known {
                    waits_until: waits.map(|until| ms(until.into())),
                    weight,
                    ceiling: Msat::new(ceiling.into()).unwrap(),
                    first_byte: first_byte.map(|us| Duration::from_micros(us.into())),
                })
                .collect();
            for select in [Select::Order, Select::Weight, Select::Price, Select::Latency] {
                let order = order(&known, select, dice);
                let mut places = order.clone();
                places.sort_unstable();
                prop_assert!(places.into_iter().eq(0..known.len()));
                prop_assert!(order.is_sorted_by_key(|place| known[*place].waits_until));
                if select == Select::Price {
                    let ready = order.iter().filter(|place| known[**place].waits_until.is_none());
                    prop_assert!(ready.is_sorted_by_key(|place| known[*place].ceiling));
                }
            }
        }
    }
}
