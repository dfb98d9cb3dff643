//! How long an upstream takes to its first byte: a moving average, in whole microseconds.

use std::time::Duration;

/// Each measurement moves the average an eighth of the way, so that about the last dozen count.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Latency {
    average_us: Option<u64>,
}

impl Latency {
    pub(super) fn note(&mut self, first_byte: Duration) {
        let measured = u64::try_from(first_byte.as_micros()).unwrap_or(u64::MAX);
        self.average_us = Some(match self.average_us {
            None => measured,
            Some(average) if measured >= average => {
                average.saturating_add((measured - average).div_ceil(WEIGHT))
            }
            Some(average) => average.saturating_sub((average - measured).div_ceil(WEIGHT)),
        });
    }

    /// `None`: it has not been measured yet.
    pub(super) fn average(self) -> Option<Duration> {
        self.average_us.map(Duration::from_micros)
    }
}

/// Rounded away from the average, so that it arrives where measurements stay.
const WEIGHT: u64 = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn average(latency: Latency) -> u128 {
        latency.average().unwrap().as_micros()
    }

    #[test]
    fn the_first_measurement_is_the_average_and_later_ones_move_it_an_eighth() {
        let mut latency = Latency::default();
        assert_eq!(latency.average(), None);
        latency.note(Duration::from_micros(800));
        assert_eq!(average(latency), 800);
        latency.note(Duration::from_micros(1600));
        assert_eq!(average(latency), 900);
        latency.note(Duration::from_micros(100));
        assert_eq!(average(latency), 800);
        latency.note(Duration::MAX);
        latency.note(Duration::MAX);
        latency.note(Duration::ZERO);
    }

    proptest! {
        #[test]
        fn it_stays_between_what_was_measured_and_arrives_where_measurements_stay(
            measured in proptest::collection::vec(0..1_000_000_u64, 1..50),
            last in 0..1_000_000_u64,
        ) {
            let mut latency = Latency::default();
            for us in &measured {
                latency.note(Duration::from_micros(*us));
                let average = u64::try_from(average(latency)).unwrap();
                prop_assert!(measured.iter().min() <= Some(&average));
                prop_assert!(measured.iter().max() >= Some(&average));
            }
            for _ in 0..200 {
                latency.note(Duration::from_micros(last));
            }
            prop_assert_eq!(average(latency), u128::from(last));
        }
    }
}
