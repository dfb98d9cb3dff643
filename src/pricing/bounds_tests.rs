//! That no use is above what is reserved for it, and what is taken for use that nobody counted.

use lua_free_filters::{Counts, Delivered, Demand, WebSearches};
use proptest::prelude::*;

use super::tests::{COUNT, any_counts, any_price, share, used};
use super::*;
use crate::config::ImageTokens;

/// A model with a context of 10,000 and images of 100 or 1,000.
fn offer(image_tokens: Option<ImageTokens>) -> Offer {
    let context_length = 10_000;
    let model = config::Model { context_length, image_tokens, ..config::Model::default() };
    Offer { model, served: vec![Served::default()], btc_usd_cents: None }
}

fn with_images() -> Offer {
    offer(Some(ImageTokens { low: 100, high: 1_000 }))
}

#[test]
fn the_most_is_what_the_request_bounds_and_what_the_model_can_hold() {
    let demand = Demand {
        text_bytes: 500,
        images_low: 1,
        images_high: 2,
        audio_ms_max: 1_001,
        images: 3,
        characters: 4,
        search_units: 5,
        web_searches: WebSearches::UpTo(6),
        ..Demand::default()
    };
    let most = Counts {
        input: 500 + 100 + 2 * 1_000 + 100,
        output: 70,
        input_images: 3,
        images: 3,
        characters: 4,
        search_units: 5,
        web_searches: 6,
        // A second that has begun is told as a whole one.
        audio_ms: 2_000,
        ..Counts::NONE
    };
    assert_eq!(with_images().most(&demand, 70), most);
    let input = |demand: &Demand| with_images().most(demand, 0).input;
    assert_eq!(input(&Demand { text_bytes: u64::MAX, ..demand.clone() }), 10_000);
    assert_eq!(input(&Demand { is_open: true, ..Demand::default() }), 10_000);
    assert_eq!(offer(None).most(&demand, 0).input, 10_000, "an image of unknown size");
    let prompts = |text_bytes| Demand { text_bytes, prompts: 3, ..Demand::default() };
    assert_eq!(input(&prompts(25_000)), 25_000, "each of several has a context of its own");
    assert_eq!(input(&prompts(u64::MAX)), 30_000);
    assert_eq!(input(&Demand { is_open: true, ..prompts(1) }), 30_000);
    let searches = |web_searches| Demand { web_searches, ..Demand::default() };
    assert_eq!(offer(None).most(&searches(WebSearches::Unbounded), 0).web_searches, 10);
    assert_eq!(offer(None).most(&searches(WebSearches::None), 0), Counts::NONE);
}

fn delivered(events: u64, text_bytes: u64) -> Delivered {
    Delivered { events, text_bytes }
}

fn text(text_bytes: u64) -> Demand {
    Demand { text_bytes, ..Demand::default() }
}

#[test]
fn four_bytes_are_a_unit_and_an_event_is_at_least_one() {
    let offer = with_images();
    let most = used(10_000, 0, 10_000);
    let estimate =
        |bytes, given: Delivered| offer.estimate(&text(bytes), &Counts::NONE, &given, &most);
    assert_eq!(estimate(1000, delivered(0, 0)), used(250, 0, 0), "the input was read");
    assert_eq!(estimate(1001, delivered(1, 1)), used(251, 0, 1));
    assert_eq!(estimate(1001, delivered(10, 7)), used(251, 0, 10), "an event is at least one");
    assert_eq!(estimate(1001, delivered(1, 401)), used(251, 0, 101), "large events count more");
    assert_eq!(estimate(1001, delivered(0, 4)), used(251, 0, 1));
    let floor = |given: Delivered| offer.floor(&text(1001), &Counts::NONE, &given, &most);
    assert_eq!(floor(delivered(0, 0)), used(0, 0, 0));
    assert_eq!(floor(delivered(10, 4_000)), used(0, 0, 10), "no input, and an event is one");
}

#[test]
fn what_the_upstream_said_goes_before_what_is_guessed() {
    let offer = with_images();
    let most = Counts { images: 2, web_searches: 3, ..used(10_000, 0, 10_000) };
    let said = Counts { web_searches: 3, images: 1, ..used(700, 600, 9) };
    let demand = Demand { images: 2, ..text(4_000) };
    for guess in [Offer::estimate, Offer::floor] {
        assert_eq!(guess(&offer, &demand, &said, &delivered(2, 8), &most), said);
        assert_eq!(guess(&offer, &demand, &said, &delivered(12, 48), &most).output, 12);
        let before = guess(&offer, &demand, &said, &delivered(0, 0), &most);
        assert_eq!(before, said, "said before anything was delivered");
    }
    let guessed = offer.estimate(&demand, &Counts::NONE, &delivered(1, 0), &most);
    assert_eq!(guessed, Counts { images: 2, ..used(1_000, 0, 1) });
    let told = Counts { cost_nano_usd: Some(5), ..said };
    assert_eq!(offer.estimate(&demand, &told, &delivered(1, 0), &most).cost_nano_usd, None);
}

#[test]
fn what_needs_no_usage_is_counted_from_the_request_and_guesses_nothing() {
    let demand = Demand { characters: 30, search_units: 2, images: 3, images_low: 1, ..text(40) };
    let most = with_images().most(&demand, 5);
    let asked =
        Counts { characters: 30, search_units: 2, images: 3, input_images: 1, ..Counts::NONE };
    assert_eq!(counted(&demand, &Counts::NONE, &most), asked);
    let came = Counts { images: 2, ..Counts::NONE };
    assert_eq!(counted(&demand, &came, &most), Counts { images: 2, ..asked });
    let more = Counts { images: 4, ..Counts::NONE };
    assert_eq!(counted(&demand, &more, &most), asked, "never more than was asked for");
}

#[test]
fn an_estimate_counts_what_only_the_request_says() {
    let demand = Demand {
        images_low: 1,
        images_high: 1,
        audio_ms: 990,
        audio_ms_max: 2_000,
        characters: 30,
        search_units: 2,
        ..text(40)
    };
    let counted = Counts {
        input_images: 2,
        audio_ms: 990,
        characters: 30,
        search_units: 2,
        output: 1,
        ..Counts::NONE
    };
    for (offer, images) in [(with_images(), 1_100), (offer(None), 85 + 765)] {
        let most = offer.most(&demand, 5);
        let floor = offer.floor(&demand, &Counts::NONE, &delivered(1, 4), &most);
        assert_eq!(floor, counted);
        let estimate = offer.estimate(&demand, &Counts::NONE, &delivered(1, 4), &most);
        assert_eq!(estimate, Counts { input: 10 + images + 10, ..counted });
    }
}

#[test]
fn a_search_that_is_made_whatever_is_asked_is_charged_once_told_or_not() {
    let demand = Demand { web_searches: WebSearches::Always(1), is_open: true, ..text(40) };
    let untold = used(10, 0, 5);
    assert_eq!(completed(&demand, &untold), Counts { web_searches: 1, ..untold });
    let told = Counts { web_searches: 3, ..untold };
    assert_eq!(completed(&demand, &told), told);
    let most = with_images().most(&demand, 5);
    let estimate = with_images().estimate(&demand, &Counts::NONE, &delivered(1, 4), &most);
    assert_eq!(estimate.web_searches, 1);
    let price = Price { web_search: Rate::from_nano_msat(1), ..Price::default() };
    assert!(price.cost(&completed(&demand, &untold)).total > Msat::ZERO);
}

#[test]
fn a_limit_of_use_is_held_against_by_what_is_in_the_body() {
    let held = |offer: Offer, demand: Demand| {
        let most = offer.most(&demand, 7);
        (most.input, offer.input_of_body(&demand, &most))
    };
    assert_eq!(held(offer(None), text(40)), (40, 40));
    assert_eq!(held(offer(None), text(40_000)), (10_000, 10_000));
    assert_eq!(held(offer(None), Demand { is_open: true, ..text(40) }), (10_000, 40));
    assert_eq!(held(offer(None), Demand { images_high: 1, ..text(40) }), (10_000, 40 + 765));
    assert_eq!(held(with_images(), Demand { images_high: 1, ..text(40) }), (1_040, 1_040));
}

prop_compose! {
    fn any_demand()(
        input in prop::array::uniform4(0..20_000u64), audio in 0..=100u64,
        pieces in prop::array::uniform3(0..1_000u64), searches in 0..5u64,
        unbounded in any::<bool>(), is_open in any::<bool>(),
    ) -> Demand {
        let [text_bytes, images_low, images_high, audio_ms_max] = input;
        let [images, characters, search_units] = pieces;
        let web_searches = match searches {
            _ if unbounded => WebSearches::Unbounded,
            0 => WebSearches::None,
            searches => WebSearches::UpTo(searches),
        };
        Demand {
            text_bytes, is_open, images_low: images_low / 1000, images_high: images_high / 1000,
            audio_ms_max, audio_ms: audio_ms_max * audio / 100, characters, search_units,
            web_searches, images, ..Demand::default()
        }
    }
}

fn is_within(counts: &Counts, most: &Counts) -> bool {
    counts.input <= most.input
        && counts.cached_input + counts.cache_write <= counts.input
        && counts.output <= most.output
        && counts.reasoning <= counts.output
        && counts.input_images <= most.input_images
        && counts.images <= most.images
        && counts.web_searches <= most.web_searches
        && counts.audio_ms <= most.audio_ms
        && counts.characters <= most.characters
        && counts.search_units <= most.search_units
}

proptest! {
    #[test]
    fn whatever_a_request_demands_its_use_is_covered_by_its_ceiling(
        price in any_price(), demand in any_demand(), limit in COUNT,
        shares in prop::array::uniform11(0..=100u64), knows_images in any::<bool>(),
    ) {
        let offer = if knows_images { with_images() } else { offer(None) };
        let most = offer.most(&demand, limit);
        prop_assert!(price.cost(&share(&most, shares)).total <= price.ceiling(&most));
    }

    #[test]
    fn a_guess_is_never_above_the_most_and_the_floor_never_above_the_estimate(
        price in any_price(), demand in any_demand(), known in any_counts(), limit in COUNT,
        events in 0..1000u64, text in COUNT, is_told in any::<bool>(),
    ) {
        let offer = with_images();
        let most = offer.most(&demand, limit);
        let known = if is_told { known } else { Counts::NONE };
        let given = delivered(events, text);
        let estimate = offer.estimate(&demand, &known, &given, &most);
        let floor = offer.floor(&demand, &known, &given, &most);
        prop_assert!(is_within(&estimate, &most) && is_within(&floor, &most));
        prop_assert!(is_within(&floor, &estimate));
        prop_assert!(price.cost(&estimate).total <= price.ceiling(&most));
    }
}
