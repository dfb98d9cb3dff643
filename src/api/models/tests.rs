//! That what is published is what is charged.

use std::collections::HashMap;

use lua_free_filters::{Counts, Demand};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::config::{self, AudioPrice, Currency, Decimal, ImagePrice, ServedBy};
use crate::pricing::Price;

/// The numbers of an object, as they are printed.
type Numbers = HashMap<String, Box<RawValue>>;

/// A printed decimal times 10^12, exactly.
fn exactly(number: &RawValue) -> u128 {
    let (whole, fraction) = number.get().split_once('.').unwrap_or((number.get(), ""));
    assert!(fraction.len() <= 12, "{number} has more digits than a sat has nano-msat");
    format!("{whole}{fraction:0<12}").parse().unwrap()
}

/// The cost in msat, from nothing but what is published and what was used.
fn recomputed(sats: &Numbers, image: u128, counts: &Counts) -> u64 {
    let per = |name: &str| sats.get(name).map_or(0, |number| exactly(number));
    let of = u128::from;
    // In 10^-12 sats, times 10^9 so that neither a millisecond nor a dollar's billionth is cut.
    let sum = match counts.cost_nano_usd {
        Some(nano_usd) if per("upstream_cost") > 0 => {
            per("request") * 1_000_000_000 + per("upstream_cost") * of(nano_usd)
        }
        _ => {
            let (cached, written) = (counts.cached_input, counts.cache_write);
            let sum = per("request")
                + per("prompt") * of(counts.input - cached - written)
                + per("input_cache_read") * of(cached)
                + per("input_cache_write") * of(written)
                + per("completion") * of(counts.output - counts.reasoning)
                + per("internal_reasoning") * of(counts.reasoning)
                + per("image") * of(counts.input_images)
                + per("web_search") * of(counts.web_searches)
                + per("character") * of(counts.characters)
                + per("search_unit") * of(counts.search_units)
                + image * of(counts.images);
            sum * 1_000_000_000 + per("audio_second") * of(counts.audio_ms) * 1_000_000
        }
    };
    u64::try_from(sum.div_ceil(1_000_000_000_000_000_000)).unwrap()
}

#[derive(serde::Deserialize)]
struct Published {
    sats_pricing: Numbers,
    image_prices: Option<Vec<Numbers>>,
    providers: Option<Vec<Published>>,
}

impl Published {
    fn cost(&self, counts: &Counts) -> u64 {
        let rows = self.image_prices.as_deref().unwrap_or_default();
        let image = rows.first().map_or(0, |row| exactly(&row["sats"]));
        recomputed(&self.sats_pricing, image, counts)
    }
}

prop_compose! {
    fn any_written()(
        decimals in prop::array::uniform12(0..100_000_000_000u128), is_usd in any::<bool>(),
        given in prop::array::uniform3(any::<bool>()), audio in 0..3u8,
        upstream_cost in prop_oneof![Just(0), 0..2_000_000_000u128],
    ) -> config::Price {
        let [input, output, cached, written, reasoning, request, input_image, web_search, image,
            audio_price, characters, search_unit] =
            decimals.map(|billionths| Decimal { billionths });
        config::Price {
            currency: if is_usd { Currency::Usd } else { Currency::Sat },
            input,
            output,
            cached_input: given[0].then_some(cached),
            cache_write: given[1].then_some(written),
            reasoning: given[2].then_some(reasoning),
            request,
            input_image,
            web_search,
            images: vec![ImagePrice { size: None, quality: None, price: image }],
            audio: match audio {
                0 => AudioPrice::None,
                1 => AudioPrice::PerSecond(audio_price),
                _ => AudioPrice::PerMinute(audio_price),
            },
            characters,
            search_unit,
            upstream_cost: Decimal { billionths: upstream_cost },
        }
    }
}

prop_compose! {
    fn any_counts()(
        counts in prop::array::uniform10(0..100_000u64), parts in prop::array::uniform3(0..=100u64),
        cost_nano_usd in prop::option::of(0..10_000_000_000u64),
    ) -> Counts {
        let [input, output, input_images, images, web_searches, audio_ms, characters,
            search_units, _, _] = counts;
        let cached_input = input * parts[0] / 100;
        Counts {
            input,
            cached_input,
            cache_write: (input - cached_input) * parts[1] / 100,
            output,
            reasoning: output * parts[2] / 100,
            input_images, images, web_searches, audio_ms, characters, search_units,
            cost_nano_usd,
        }
    }
}

fn model(price: config::Price, other: config::Price) -> Model {
    let at = |upstream: &str, price| ServedBy {
        upstream: upstream.to_owned(),
        weight: 1,
        upstream_model: "m".to_owned(),
        price,
    };
    Model { price, upstreams: vec![at("a", None), at("b", Some(other))], ..Model::default() }
}

proptest! {
    #[test]
    fn every_cost_follows_from_the_published_prices_and_the_usage(
        price in any_written(), other in any_written(), counts in any_counts(),
        cents in 100_000..100_000_000u64,
    ) {
        let offer = Offer::new(&model(price, other), Some(cents)).unwrap();
        let entry = serde_json::to_string(&Entry::of(&offer, Some(cents)).unwrap()).unwrap();
        let published: Published = serde_json::from_str(&entry).unwrap();
        let demand = Demand { images: counts.images, ..Demand::default() };
        let charged = |at: usize| -> Price { offer.served[at].prices.of(&demand).unwrap() };
        prop_assert_eq!(published.cost(&counts), charged(0).cost(&counts).total.get());
        let providers = published.providers.as_deref().unwrap_or_default();
        for (at, provider) in providers.iter().enumerate() {
            prop_assert_eq!(provider.cost(&counts), charged(at).cost(&counts).total.get());
        }
    }
}

fn entry(model: &Model) -> Value {
    let offer = Offer::new(model, None).unwrap();
    serde_json::to_value(Entry::of(&offer, None).unwrap()).unwrap()
}

#[test]
fn upstreams_are_named_where_their_prices_differ_and_nowhere_else() {
    let sats = |whole: u128| config::Price {
        input: Decimal { billionths: whole * 1_000_000_000 },
        ..config::Price::default()
    };
    let same = entry(&model(sats(1_000_000), sats(1_000_000)));
    assert!(same.get("providers").is_none() && same.get("image_prices").is_none());
    let differing = entry(&model(sats(1_000_000), sats(2_000_000)));
    let providers = differing["providers"].as_array().unwrap();
    assert_eq!(providers.len(), 2);
    assert_eq!(providers[0]["sats_pricing"], differing["sats_pricing"]);
    assert_eq!(providers[0]["pricing"], differing["pricing"]);
    for (provider, (id, prompt)) in providers.iter().zip([("a", 1), ("b", 2)]) {
        assert_eq!(provider["id"], id);
        assert_eq!(provider["sats_pricing"]["prompt"], prompt);
    }
}

#[test]
fn a_model_without_a_current_price_is_refused_as_that_and_not_listed() {
    let price = config::Price { currency: Currency::Usd, ..config::Price::default() };
    let known = Model { id: "usd".to_owned(), ..model(price.clone(), price) };
    let list = PriceList::new(&[known], None);
    let code = |name| {
        let refusal = offered(&list, name).unwrap_err();
        (refusal.status_code(), refusal.code(), refusal.retry_after())
    };
    assert_eq!(code("usd"), (503, "price_unavailable", Some(RATE_RETRY_AFTER_S)));
    assert_eq!(code("us"), (404, "model_not_found", None));
    assert!(list.offers.is_empty());
}

#[test]
fn what_goes_in_and_comes_out_is_what_the_routes_take_and_give() {
    let shown = |routes: &[Route], image_tokens| {
        let model = Model { routes: routes.to_vec(), image_tokens, ..Model::default() };
        Architecture::of(&model).modality
    };
    let sees = Some(config::ImageTokens { low: 85, high: 1_445 });
    assert_eq!(shown(&[Route::ChatCompletions], None), "text->text");
    assert_eq!(shown(&[Route::ChatCompletions, Route::Messages], sees), "text+image->text");
    assert_eq!(shown(&[Route::Embeddings], sees), "text->text");
    assert_eq!(shown(&[Route::Transcriptions], None), "audio->text");
    assert_eq!(shown(&[Route::Speech], None), "text->audio");
    assert_eq!(shown(&[Route::ImageGenerations], None), "text->image");
    assert_eq!(shown(&Route::ALL, None), "text+image+audio->text+image+audio");
}
