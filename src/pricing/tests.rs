//! Rounding and bounds: what a client pays at most, and that the parts are the whole.

use proptest::prelude::*;

use super::*;

fn price(request: u64, input: u64, cached_input: u64, output: u64) -> Price {
    Price {
        request: Rate::from_nano_msat(request),
        input: Rate::from_nano_msat(input),
        cached_input: Rate::from_nano_msat(cached_input),
        cache_write: Rate::from_nano_msat(input),
        output: Rate::from_nano_msat(output),
        reasoning: Rate::from_nano_msat(output),
        ..Price::default()
    }
}

/// 150 sats per million of input, 75 cached, 600 of output, one sat per request.
fn usual() -> Price {
    price(1_000_000_000_000, 150_000_000, 75_000_000, 600_000_000)
}

fn ceiling(price: &Price, input: u64, output: u64, n: u64) -> Msat {
    price.ceiling(&used(input, 0, output * n))
}

fn used(input: u64, cached_input: u64, output: u64) -> Counts {
    Counts { input, cached_input, output, ..Counts::NONE }
}

fn parts(cost: &Cost) -> [u64; 5] {
    [cost.base, cost.input, cost.cache_read, cost.output, cost.total].map(Msat::get)
}

#[test]
fn a_cost_is_rate_times_usage_rounded_up_once() {
    assert_eq!(parts(&usual().cost(&used(1000, 0, 500))), [1000, 150, 0, 300, 1450]);
    // 7 × 0.15 + 3 × 0.6 = 2.85, charged as 3 above the fee.
    assert_eq!(usual().cost(&used(7, 0, 3)).total.get(), 1003);
}

#[test]
fn cached_input_is_charged_once_and_at_its_own_rate() {
    assert_eq!(parts(&usual().cost(&used(1000, 400, 0))), [1000, 90, 30, 0, 1120]);
    assert_eq!(parts(&usual().cost(&used(1000, 9999, 0))), [1000, 0, 75, 0, 1075]);
}

#[test]
fn a_price_of_zero_is_a_price() {
    let embeddings = price(0, 150_000_000, 150_000_000, 0);
    assert_eq!(parts(&embeddings.cost(&used(1000, 0, 0))), [0, 150, 0, 0, 150]);
    assert_eq!(Price::default().cost(&used(1000, 10, 1000)), Cost::default());
    assert_eq!(ceiling(&Price::default(), 1000, 1000, 1), Msat::ZERO);
}

#[test]
fn the_ceiling_counts_every_byte_every_choice_and_the_fee() {
    assert_eq!(ceiling(&usual(), 1000, 500, 1).get(), 1000 + 150 + 300);
    assert_eq!(ceiling(&usual(), 1000, 500, 4).get(), 1000 + 150 + 1200);
    let dear_cache = price(0, 100_000_000, 300_000_000, 0);
    assert_eq!(ceiling(&dear_cache, 1000, 0, 1).get(), 300);
}

#[test]
fn nothing_delivered_is_nothing_used() {
    let delivered = |events, text_bytes| Delivered { events, text_bytes };
    assert_eq!(estimate(1000, &delivered(0, 0)), used(0, 0, 0));
    assert_eq!(estimate(1001, &delivered(1, 1)), used(251, 0, 1));
    assert_eq!(estimate(1001, &delivered(10, 7)), used(251, 0, 10), "an event is at least one");
    assert_eq!(estimate(1001, &delivered(1, 401)), used(251, 0, 101), "large events count more");
    assert_eq!(estimate(1001, &delivered(0, 4)), used(251, 0, 1));
}

const RATE: std::ops::Range<u64> = 0..10_000_000_000_000;
const COUNT: std::ops::Range<u64> = 0..10_000_000;

prop_compose! {
    fn any_price()(request in RATE, input in RATE, cached in RATE, output in RATE) -> Price {
        price(request, input, cached, output)
    }
}

proptest! {
    #[test]
    fn the_parts_add_up_to_the_total(
        price in any_price(), input in COUNT, cached in COUNT, output in COUNT,
    ) {
        let cost = price.cost(&used(input, cached, output));
        let [base, fresh, read, written, total] = parts(&cost);
        prop_assert_eq!(base + fresh + read + written, total);
        let cached = cached.min(input);
        let exact = price.request.times(1)
            .plus(price.input.times(input - cached))
            .plus(price.cached_input.times(cached))
            .plus(price.output.times(output));
        prop_assert_eq!(cost.total, exact.round_up());
    }

    #[test]
    fn no_cost_is_above_the_ceiling(
        price in any_price(), body in COUNT, limit in COUNT, n in 1..10u64,
        input in 0..=100u64, cached in COUNT, output in 0..=100u64,
    ) {
        let tokens = used(body * input / 100, cached, limit * n * output / 100);
        prop_assert!(price.cost(&tokens).total <= ceiling(&price, body, limit, n));
    }

    #[test]
    fn using_more_never_costs_less(
        price in any_price(), input in COUNT, output in COUNT, more in COUNT,
    ) {
        let cost = |input, output| price.cost(&used(input, 0, output)).total;
        prop_assert!(cost(input, output) <= cost(input + more, output));
        prop_assert!(cost(input, output) <= cost(input, output + more));
        prop_assert!(ceiling(&price, input, output, 1) <= ceiling(&price, input + more, output, 2));
    }

    #[test]
    fn an_estimate_of_input_is_covered_by_the_ceiling(
        price in any_price(), body in 1..10_000_000u64, events in 1..1000u64, text in COUNT,
    ) {
        let tokens = estimate(body, &Delivered { events, text_bytes: text });
        prop_assert!(tokens.input <= body && tokens.output >= events);
        prop_assert!(price.cost(&tokens).total <= ceiling(&price, body, tokens.output, 1));
    }
}
