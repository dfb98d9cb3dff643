//! What a request can use at most, and what it is taken to have used when nobody counted.

use lua_free_filters::{Counts, Delivered, Demand, WebSearches};

use super::Offer;

impl Offer {
    /// The most that a request can use which asks for `demand` and has this output limit, over all
    /// its answers: what [`super::Price::ceiling`] makes a reservation of.
    ///
    /// Input is bounded by what is in the body, each image by what `image_tokens` says of its
    /// detail, audio by its length; and each prompt by the model's context, which alone bounds what
    /// the body only refers to and an image of a model without `image_tokens`. A second of audio
    /// that has begun counts whole: upstreams tell whole seconds.
    pub fn most(&self, demand: &Demand, output_limit_total: u64) -> Counts {
        let context = self.model.context_length;
        let (low, high) = match self.model.image_tokens {
            Some(bound) => (bound.low, bound.high),
            None => (context, context),
        };
        let audio_ms = demand.audio_ms_max.div_ceil(SECOND_MS).saturating_mul(SECOND_MS);
        let in_body = demand
            .text_bytes
            .saturating_add(demand.images_low.saturating_mul(low))
            .saturating_add(demand.images_high.saturating_mul(high))
            .saturating_add(audio_ms.div_ceil(AUDIO_MS_PER_UNIT_MIN));
        let contexts = context.saturating_mul(demand.prompts.max(1));
        let input = if demand.is_open { contexts } else { in_body.min(contexts) };
        Counts {
            input,
            output: output_limit_total,
            images: demand.images,
            web_searches: match demand.web_searches {
                WebSearches::None => 0,
                WebSearches::Always(searches) | WebSearches::UpTo(searches) => searches,
                WebSearches::Unbounded => self.model.web_searches_max,
            },
            audio_ms,
            ..demand.counted()
        }
    }

    /// What was used when the upstream did not say, from what passed by: `known` is what it did
    /// say of parts, and what of it is 0 was not said.
    ///
    /// Four bytes are one unit of input or output, the common ratio of English text, rounded up,
    /// and every event that gave something is at least one of output, since upstreams send an
    /// event for one or more of them. Where nothing was delivered the input was read all the same.
    /// An image in the prompt is what `image_tokens` says of its detail, or what is usual; a second
    /// of audio is ten units of input. All images that were asked for were made, unless some were
    /// counted. Never more than `most`.
    pub fn estimate(
        &self,
        demand: &Demand,
        known: &Counts,
        delivered: &Delivered,
        most: &Counts,
    ) -> Counts {
        let guessed = self.usual_input(demand, demand.text_bytes.div_ceil(BYTES_PER_UNIT));
        let seen = delivered.events.max(delivered.text_bytes.div_ceil(BYTES_PER_UNIT));
        let counts = surely(demand, known, seen);
        let input = if known.input > 0 { known.input } else { guessed };
        let images = if known.images > 0 { known.images } else { demand.images };
        at_most(Counts { input, images, ..counts }, most)
    }

    /// The most input of what is in the body, and the usual of what is not: what is held against a
    /// limit of use, which keeps nobody from losing money, and of which the model's whole context
    /// would leave nothing. Never more than `most`.
    pub fn input_of_body(&self, demand: &Demand, most: &Counts) -> u64 {
        self.usual_input(demand, demand.text_bytes).min(most.input)
    }

    fn usual_input(&self, demand: &Demand, text: u64) -> u64 {
        let usual = self.model.image_tokens.map_or(IMAGE_USUAL, |bound| (bound.low, bound.high));
        text.saturating_add(demand.images_low.saturating_mul(usual.0))
            .saturating_add(demand.images_high.saturating_mul(usual.1))
            .saturating_add(demand.audio_ms.div_ceil(AUDIO_MS_PER_UNIT))
    }

    /// What was surely used when the upstream did not say: what it did say of parts, one unit of
    /// output for every event that gave something, and what the request itself counts. Input only
    /// when it was said. Never more than `most`.
    pub fn floor(
        &self,
        demand: &Demand,
        known: &Counts,
        delivered: &Delivered,
        most: &Counts,
    ) -> Counts {
        at_most(surely(demand, known, delivered.events), most)
    }
}

/// What was used in all, when the upstream counted: what it said, and what the request itself
/// counts where it said nothing.
pub fn completed(demand: &Demand, said: &Counts) -> Counts {
    Counts { cost_nano_usd: said.cost_nano_usd, ..surely(demand, said, 0) }
}

/// What was used of what needs no usage to be told, once something was delivered: what the request
/// itself counts, what was said of parts, and all images that were asked for unless some were
/// counted. Never more than `most`.
pub fn counted(demand: &Demand, known: &Counts, most: &Counts) -> Counts {
    let images = if known.images > 0 { known.images } else { demand.images };
    at_most(Counts { images, ..surely(demand, known, 0) }, most)
}

/// What was said, with `output` seen at least, and what the request counts where nothing was said.
/// A cost that was told before the end is not the cost of all.
fn surely(demand: &Demand, known: &Counts, output: u64) -> Counts {
    let counted = demand.counted();
    let said_or = |said: u64, counted: u64| if said > 0 { said } else { counted };
    Counts {
        output: known.output.max(output),
        input_images: said_or(known.input_images, counted.input_images),
        audio_ms: said_or(known.audio_ms, demand.audio_ms),
        characters: said_or(known.characters, counted.characters),
        search_units: said_or(known.search_units, counted.search_units),
        web_searches: said_or(known.web_searches, counted.web_searches),
        cost_nano_usd: None,
        ..*known
    }
}

fn at_most(counts: Counts, most: &Counts) -> Counts {
    let input = counts.input.min(most.input);
    let cached_input = counts.cached_input.min(input);
    let output = counts.output.min(most.output);
    Counts {
        input,
        cached_input,
        cache_write: counts.cache_write.min(input.saturating_sub(cached_input)),
        output,
        reasoning: counts.reasoning.min(output),
        input_images: counts.input_images.min(most.input_images),
        images: counts.images.min(most.images),
        web_searches: counts.web_searches.min(most.web_searches),
        audio_ms: counts.audio_ms.min(most.audio_ms),
        characters: counts.characters.min(most.characters),
        search_units: counts.search_units.min(most.search_units),
        cost_nano_usd: None,
    }
}

const BYTES_PER_UNIT: u64 = 4;

const SECOND_MS: u64 = 1000;

/// Ten units of input for a second of audio, as OpenAI counts.
const AUDIO_MS_PER_UNIT: u64 = 100;

/// No published model counts more than the fifty frames a second that speech is commonly cut into.
const AUDIO_MS_PER_UNIT_MIN: u64 = 20;

/// An image of low detail, and one of 1024 × 1024 pixels in high detail, as OpenAI counts them for
/// most of its models.
const IMAGE_USUAL: (u64, u64) = (85, 765);
