//! Rounding, that the parts are the whole, and which price a request has.

use std::sync::Arc;

use lua_free_filters::{Counts, Demand};
use proptest::prelude::*;

use super::*;
use crate::config::{Currency, Decimal, ServedBy};
use crate::money::Exact;

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

/// A different power of ten for every unit, so that a sum shows what it was made of.
fn powers() -> Price {
    let msat = |power| Rate::from_nano_msat(1_000_000_000 * 10_u64.pow(power));
    Price {
        request: msat(0),
        input: msat(1),
        cached_input: msat(2),
        cache_write: msat(3),
        output: msat(4),
        reasoning: msat(5),
        input_image: msat(6),
        image: msat(7),
        web_search: msat(8),
        audio: msat(9),
        // The rest would not fit below 2^53 one above the other.
        character: Rate::from_nano_msat(2 * 1_000_000_000),
        search_unit: Rate::from_nano_msat(3 * 1_000_000_000),
        upstream_cost: Rate::FREE,
    }
}

fn ceiling(price: &Price, input: u64, output: u64, n: u64) -> Msat {
    price.ceiling(&used(input, 0, output * n))
}

pub(super) fn used(input: u64, cached_input: u64, output: u64) -> Counts {
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
fn every_unit_is_charged_once_and_in_its_part() {
    let counts = Counts {
        input: 6,
        cached_input: 2,
        cache_write: 3,
        output: 5,
        reasoning: 4,
        input_images: 2,
        images: 3,
        web_searches: 4,
        audio_ms: 5,
        ..Counts::NONE
    };
    let cost = powers().cost(&counts);
    assert_eq!(cost.base.get(), 400_000_001);
    assert_eq!(cost.input.get(), 5_002_000_010);
    assert_eq!(cost.cache_read.get(), 200);
    assert_eq!(cost.cache_creation.get(), 3_000);
    assert_eq!(cost.output.get(), 30_410_000);
    assert_eq!(cost.total.get(), 5_432_413_211);
    let pieces = Counts { characters: 10, search_units: 100, ..Counts::NONE };
    assert_eq!(parts(&powers().cost(&pieces)), [1, 320, 0, 0, 321]);
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
fn the_upstream_s_own_cost_is_charged_where_it_is_asked_about_and_told() {
    let told = Counts { cost_nano_usd: Some(2_500_001), ..used(1000, 0, 500) };
    assert_eq!(usual().cost(&told), usual().cost(&used(1000, 0, 500)), "not asked about");
    let by_cost = Price { upstream_cost: Rate::from_nano_msat(1_100_000), ..usual() };
    // 2,500,001 × 0.0011 msat = 2750.0011, rounded up once with the fee.
    assert_eq!(parts(&by_cost.cost(&told)), [3751, 0, 0, 0, 3751]);
    let free = Counts { cost_nano_usd: Some(0), ..told };
    assert_eq!(by_cost.cost(&free).total.get(), 1000, "a cost of zero is a cost");
    assert_eq!(by_cost.cost(&used(1000, 0, 500)).total.get(), 1450, "not told");
    assert_eq!(by_cost.ceiling(&told), usual().ceiling(&told), "what bounds it is the rest");
}

#[test]
fn the_ceiling_counts_every_byte_every_choice_and_the_fee() {
    assert_eq!(ceiling(&usual(), 1000, 500, 1).get(), 1000 + 150 + 300);
    assert_eq!(ceiling(&usual(), 1000, 500, 4).get(), 1000 + 150 + 1200);
    let dear_cache = price(0, 100_000_000, 300_000_000, 0);
    assert_eq!(ceiling(&dear_cache, 1000, 0, 1).get(), 300);
    let reasoning = Rate::from_nano_msat(900_000_000);
    assert_eq!(ceiling(&Price { reasoning, ..usual() }, 0, 1000, 1).get(), 1000 + 900);
}

fn rows(rows: &[(Option<&str>, Option<&str>, u64)]) -> Prices {
    let row = |(size, quality, rate): &(Option<&str>, Option<&str>, u64)| ImageRow {
        size: size.map(str::to_owned),
        quality: quality.map(str::to_owned),
        rate: Rate::from_nano_msat(*rate),
    };
    Prices { price: usual(), images: rows.iter().map(row).collect() }
}

fn wanted(size: Option<&str>, quality: Option<&str>) -> Demand {
    let [image_size, image_quality] = [size, quality].map(|text| text.map(str::to_owned));
    Demand { images: 1, image_size, image_quality, ..Demand::default() }
}

#[test]
fn an_image_costs_what_its_row_says() {
    let (small, wide) = (Some("1024x1024"), Some("1536x1024"));
    let prices = rows(&[
        (small, Some("low"), 1),
        (small, None, 2),
        (None, Some("high"), 3),
        (wide, Some("high"), 4),
    ]);
    for (size, quality, rate) in [
        (small, Some("low"), Some(1)),
        (small, Some("medium"), Some(2)),
        (small, Some("high"), Some(2)),
        (Some("512x512"), Some("high"), Some(3)),
        (wide, Some("high"), Some(4)),
        (wide, Some("low"), None),
        (Some("512x512"), None, Some(3)),
        (None, Some("high"), Some(3)),
        (None, Some("medium"), Some(2)),
        (None, None, Some(1)),
        (Some("auto"), Some("auto"), Some(1)),
        (wide, Some("auto"), Some(4)),
        (Some("1024X1024"), Some("low"), None),
    ] {
        let price = prices.of(&wanted(size, quality));
        let image = price.map(|price| price.image.nano_msat());
        assert_eq!(image, rate, "{size:?} {quality:?}");
    }
    let most = Counts { images: 3, ..Counts::NONE };
    let price = prices.of(&wanted(wide, Some("high"))).unwrap();
    assert_eq!(price.cost(&most).output, price.image.times(3).round_up());
}

#[test]
fn images_are_free_only_where_none_are_priced_or_made() {
    let prices = rows(&[(Some("1024x1024"), None, 7)]);
    let none = Demand { images: 0, ..wanted(Some("9x9"), None) };
    assert_eq!(prices.of(&none), Some(usual()));
    assert_eq!(prices.of(&wanted(Some("9x9"), None)), None);
    assert_eq!(rows(&[]).of(&wanted(Some("9x9"), None)), Some(usual()));
}

fn model(id: &str, currency: Currency, upstreams: Vec<ServedBy>) -> config::Model {
    let price = config::Price { currency, input: sats(1), ..config::Price::default() };
    config::Model {
        id: id.to_owned(),
        alias_ids: vec![format!("{id}-alias")],
        upstreams,
        price,
        ..config::Model::default()
    }
}

fn sats(whole: u128) -> Decimal {
    Decimal { billionths: whole * 1_000_000_000 }
}

fn at(upstream: &str, price: Option<config::Price>) -> ServedBy {
    ServedBy { upstream: upstream.to_owned(), weight: 3, upstream_model: "their-m".into(), price }
}

#[test]
fn a_price_in_dollars_is_on_offer_only_while_there_is_a_rate() {
    let models = [
        model("sat", Currency::Sat, vec![at("up", None)]),
        model("usd", Currency::Usd, vec![at("up", None)]),
    ];
    for name in ["sat", "sat-alias"] {
        for cents in [None, Some(0), Some(10_000_000)] {
            let list = PriceList::new(&models, cents);
            let offer = list.find(name).offer().unwrap();
            assert_eq!((offer.btc_usd_cents, offer.price().input.nano_msat()), (None, 1_000_000));
        }
    }
    for name in ["usd", "usd-alias"] {
        let list = PriceList::new(&models, None);
        assert!(matches!(list.find(name), Lookup::NoRate));
        assert_eq!(list.offers.len(), 1);
        let list = PriceList::new(&models, Some(10_000_000));
        let offer = list.find(name).offer().unwrap();
        assert_eq!(offer.btc_usd_cents, Some(10_000_000));
        assert_eq!(offer.price().input.nano_msat(), 1_000_000_000);
        assert_eq!(list.offers.len(), 2);
    }
    assert!(matches!(PriceList::new(&models, None).find("us"), Lookup::Unknown));
}

#[test]
fn an_upstream_serves_at_its_own_price_while_that_is_known() {
    let dear = config::Price { currency: Currency::Usd, input: sats(2), ..Default::default() };
    let mixed = model("m", Currency::Sat, vec![at("dear", Some(dear)), at("plain", None)]);
    let served = |cents| {
        let list = PriceList::new(std::slice::from_ref(&mixed), cents);
        list.find("m").offer().map(Arc::clone).unwrap().served.clone()
    };
    let both = served(Some(10_000_000));
    let names: Vec<_> = both.iter().map(|served| served.upstream.as_str()).collect();
    assert_eq!(names, ["dear", "plain"]);
    assert_eq!(both[0].prices.price.input.nano_msat(), 2_000_000_000);
    assert_eq!((both[0].upstream_model.as_str(), both[0].weight), ("their-m", 3));
    assert_eq!(served(None), both[1..]);
}

#[test]
fn of_two_models_with_one_name_the_first_has_it() {
    let mut second = model("second", Currency::Sat, vec![at("up", None)]);
    second.alias_ids = vec!["first".to_owned()];
    let models = [model("first", Currency::Sat, vec![at("up", None)]), second];
    let list = PriceList::new(&models, None);
    assert_eq!(list.find("first").offer().unwrap().model.id, "first");
    assert_eq!(list.offers.len(), 2);
}

const RATE: std::ops::Range<u64> = 0..10_000_000_000_000;
pub(super) const COUNT: std::ops::Range<u64> = 0..10_000_000;

prop_compose! {
    pub(super) fn any_price()(rates in prop::array::uniform12(RATE)) -> Price {
        let [request, input, cached_input, cache_write, output, reasoning, input_image, image,
            web_search, audio, character, search_unit] = rates.map(Rate::from_nano_msat);
        Price { request, input, cached_input, cache_write, output, reasoning, input_image, image,
            web_search, audio, character, search_unit, upstream_cost: Rate::FREE }
    }
}

prop_compose! {
    /// As upstreams report it: parts may be larger than what they are parts of.
    pub(super) fn any_counts()(counts in prop::array::uniform11(COUNT)) -> Counts {
        let [input, cached_input, cache_write, output, reasoning, input_images, images,
            web_searches, audio_ms, characters, search_units] = counts;
        Counts { input, cached_input, cache_write, output, reasoning, input_images, images,
            web_searches, audio_ms, characters, search_units, cost_nano_usd: None }
    }
}

/// `share` percent of every count.
pub(super) fn share(most: &Counts, share: [u64; 11]) -> Counts {
    let [
        input,
        cached,
        written,
        output,
        reasoning,
        input_images,
        images,
        searches,
        audio,
        chars,
        units,
    ] = share;
    let part = |whole: u64, percent: u64| whole * percent / 100;
    let used_input = part(most.input, input);
    let cached_input = part(used_input, cached);
    let used_output = part(most.output, output);
    Counts {
        input: used_input,
        cached_input,
        cache_write: part(used_input - cached_input, written),
        output: used_output,
        reasoning: part(used_output, reasoning),
        input_images: part(most.input_images, input_images),
        images: part(most.images, images),
        web_searches: part(most.web_searches, searches),
        audio_ms: part(most.audio_ms, audio),
        characters: part(most.characters, chars),
        search_units: part(most.search_units, units),
        cost_nano_usd: None,
    }
}

proptest! {
    #[test]
    fn the_parts_add_up_to_the_total(price in any_price(), counts in any_counts()) {
        let cost = price.cost(&counts);
        let [base, input, read, output, total] = parts(&cost);
        prop_assert_eq!(base + input + read + cost.cache_creation.get() + output, total);
        let cached = counts.cached_input.min(counts.input);
        let written = counts.cache_write.min(counts.input - cached);
        let reasoning = counts.reasoning.min(counts.output);
        let exact = [
            price.request.times(1),
            price.input.times(counts.input - cached - written),
            price.cached_input.times(cached),
            price.cache_write.times(written),
            price.output.times(counts.output - reasoning),
            price.reasoning.times(reasoning),
            price.input_image.times(counts.input_images),
            price.image.times(counts.images),
            price.web_search.times(counts.web_searches),
            price.audio.times(counts.audio_ms),
            price.character.times(counts.characters),
            price.search_unit.times(counts.search_units),
        ];
        let sum = exact.into_iter().fold(Exact::default(), Exact::plus);
        prop_assert_eq!(cost.total, sum.round_up());
    }

    #[test]
    fn no_cost_is_above_the_ceiling(
        price in any_price(), most in any_counts(), shares in prop::array::uniform11(0..=100u64),
    ) {
        let counts = share(&most, shares);
        prop_assert!(price.cost(&counts).total <= price.ceiling(&most));
        prop_assert!(price.cost(&most).total <= price.ceiling(&most));
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
}
