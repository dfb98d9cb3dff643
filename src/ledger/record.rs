//! What a receipt remembers about its request: enough for anybody to compute the cost again from
//! the published price.
//!
//! Of all that was used the ledger itself counts input and output tokens, against the key's
//! hourly limit. The rest it keeps as one text that it does not read, so that a new unit in a
//! price is no change to any ledger.

use std::fmt::Write;

use lua_free_filters::Counts;

/// No secret is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Empty where nobody could say: an expired reservation knows nothing of its request.
    pub request_id: String,
    /// The path that was sold, without the version: `/chat/completions`.
    pub route: String,
    pub model: String,
    /// `None`: nothing was used.
    pub usage_source: Option<UsageSource>,
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// What [`record_usage`] wrote; empty when nothing was used.
    pub usage: String,
}

/// How the usage on a receipt is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UsageSource {
    /// The upstream reported it.
    Upstream,
    /// Guessed from what was delivered.
    Estimated,
    /// The least that it can have been: what had accrued, or nothing.
    Floor,
    /// The most that it can have been: what was reserved.
    Ceiling,
    /// Counted here, from the request: images, characters.
    Counted,
}

impl UsageSource {
    pub const ALL: [Self; 5] =
        [Self::Upstream, Self::Estimated, Self::Floor, Self::Ceiling, Self::Counted];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Estimated => "estimated",
            Self::Floor => "floor",
            Self::Ceiling => "ceiling",
            Self::Counted => "counted",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.name() == name)
    }
}

/// What a cost depends on besides what was counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'f> {
    /// US cents for a bitcoin, where the price is in US dollars.
    pub btc_usd_cents: Option<u64>,
    /// The size and quality that name the price of an image.
    pub image_size: Option<&'f str>,
    pub image_quality: Option<&'f str>,
    /// Who served it, at whose price.
    pub upstream: Option<&'f str>,
}

/// A compact JSON object of every count that is not 0 and every fact that is known, of at most
/// [`USAGE_BYTES_MAX`] bytes. Every count fits; beyond that a fact is left out, the last first.
pub fn record_usage(counts: &Counts, facts: &Facts<'_>) -> String {
    let mut object = Object("{".to_owned());
    for (name, count) in [
        ("input_tokens", counts.input),
        ("cached_input_tokens", counts.cached_input),
        ("cache_write_tokens", counts.cache_write),
        ("output_tokens", counts.output),
        ("reasoning_tokens", counts.reasoning),
        ("input_images", counts.input_images),
        ("images", counts.images),
        ("web_searches", counts.web_searches),
        ("audio_ms", counts.audio_ms),
        ("characters", counts.characters),
        ("search_units", counts.search_units),
    ] {
        object.number(name, (count > 0).then_some(count));
    }
    object.number("upstream_cost_nano_usd", counts.cost_nano_usd);
    object.number("btc_usd_cents", facts.btc_usd_cents);
    object.text("image_size", facts.image_size);
    object.text("image_quality", facts.image_quality);
    object.text("upstream", facts.upstream);
    object.0.push('}');
    object.0
}

/// A JSON object that is not closed yet.
struct Object(String);

impl Object {
    fn number(&mut self, name: &str, number: Option<u64>) {
        self.member(name, number);
    }

    fn text(&mut self, name: &str, text: Option<&str>) {
        self.member(name, text.map(serde_json::Value::from));
    }

    /// Takes it back where it would not leave room for the closing brace.
    fn member(&mut self, name: &str, value: Option<impl std::fmt::Display>) {
        let Some(value) = value else { return };
        let before = self.0.len();
        let comma = if before > 1 { "," } else { "" };
        let written = write!(self.0, "{comma}\"{name}\":{value}");
        if written.is_err() || self.0.len() >= USAGE_BYTES_MAX {
            self.0.truncate(before);
        }
    }
}

/// The largest usage on a receipt: twelve counts of any size, and room for the facts.
pub const USAGE_BYTES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(usage: &str) -> Value {
        serde_json::from_str(usage).unwrap()
    }

    #[test]
    fn only_what_was_used_is_written_down_in_the_order_of_reading() {
        let counts = Counts {
            input: 12,
            cached_input: 3,
            output: 20,
            reasoning: 4,
            images: 1,
            cost_nano_usd: Some(0),
            ..Counts::NONE
        };
        let facts = Facts { upstream: Some("a \"b\""), ..Facts::default() };
        assert_eq!(
            record_usage(&counts, &facts),
            r#"{"input_tokens":12,"cached_input_tokens":3,"output_tokens":20,"#.to_owned()
                + r#""reasoning_tokens":4,"images":1,"upstream_cost_nano_usd":0,"upstream":"a \"b\""}"#
        );
        assert_eq!(record_usage(&Counts::NONE, &Facts::default()), "{}");
    }

    /// The bound, from both sides: all counts at their largest fit, and a fact fits to the byte.
    #[test]
    fn every_count_fits_and_a_fact_that_does_not_is_left_out() {
        const MOST: u64 = u64::MAX;
        let counts = Counts {
            input: MOST,
            cached_input: MOST,
            cache_write: MOST,
            output: MOST,
            reasoning: MOST,
            input_images: MOST,
            images: MOST,
            web_searches: MOST,
            audio_ms: MOST,
            characters: MOST,
            search_units: MOST,
            cost_nano_usd: Some(MOST),
        };
        let full = record_usage(&counts, &Facts::default());
        assert_eq!(read(&full).as_object().unwrap().len(), 12);
        let around = full.len() + r#","upstream":"""#.len();
        let fits = "u".repeat(USAGE_BYTES_MAX - around);
        let facts = Facts { upstream: Some(&fits), ..Facts::default() };
        let usage = record_usage(&counts, &facts);
        assert_eq!((usage.len(), &read(&usage)["upstream"]), (USAGE_BYTES_MAX, &json!(fits)));
        let (upstream, image_size) = (fits + "u", "1024x1024");
        let facts =
            Facts { upstream: Some(&upstream), image_size: Some(image_size), ..Facts::default() };
        let usage = record_usage(&counts, &facts);
        assert_eq!(read(&usage)["image_size"], image_size);
        assert_eq!(read(&usage).get("upstream"), None);
    }

    #[test]
    fn sources_have_names_of_their_own() {
        for source in UsageSource::ALL {
            assert_eq!(UsageSource::named(source.name()), Some(source));
        }
        assert_eq!(UsageSource::named(""), None);
    }

    proptest! {
        #[test]
        fn usage_is_an_object_within_its_bound(
            numbers in proptest::collection::vec(any::<u64>(), 12),
            upstream in any::<String>(),
            image_size in any::<String>(),
        ) {
            let counts = Counts {
                input: numbers[0],
                output: numbers[1],
                images: numbers[2],
                characters: numbers[3],
                cost_nano_usd: Some(numbers[4]),
                ..Counts::NONE
            };
            let facts = Facts {
                btc_usd_cents: Some(numbers[5]),
                image_size: Some(&image_size),
                upstream: Some(&upstream),
                ..Facts::default()
            };
            let usage = record_usage(&counts, &facts);
            prop_assert!(usage.len() <= USAGE_BYTES_MAX && !usage.contains('\n'));
            prop_assert_eq!(&read(&usage)["btc_usd_cents"], &json!(numbers[5]));
        }
    }
}
