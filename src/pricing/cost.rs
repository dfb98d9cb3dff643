//! What usage costs, and the most that it can.

use lua_free_filters::Counts;

use super::{Cost, Price};
use crate::money::{Exact, Msat, Rate};

impl Price {
    /// The most that a request can cost which uses no more than `most`. How much will be read
    /// from a cache, written to one or spent on reasoning is not known beforehand, so the dearest
    /// of the rates that may apply counts.
    pub fn ceiling(&self, most: &Counts) -> Msat {
        let input = self.input.max(self.cached_input).max(self.cache_write);
        let dearest = Self {
            input,
            cached_input: input,
            cache_write: input,
            output: self.output.max(self.reasoning),
            reasoning: self.output.max(self.reasoning),
            ..*self
        };
        dearest.cost(&Counts { cost_nano_usd: None, ..*most }).total
    }

    /// Whether anything of what it charges is counted by the upstream alone. What is left can be
    /// told from the request, and from the images that were delivered.
    pub fn needs_usage(&self) -> bool {
        [
            self.input,
            self.cached_input,
            self.cache_write,
            self.output,
            self.reasoning,
            self.web_search,
            self.audio,
            self.upstream_cost,
        ]
        .into_iter()
        .any(|rate| rate > Rate::FREE)
    }

    /// What this usage costs: rate times count for every unit, cached and written input at their
    /// own rates instead of the input's, reasoning at its own instead of the output's. A part that
    /// is larger than its whole counts as all of it. Where the price follows the upstream's own
    /// cost and the upstream told it: that, and the fee per request.
    ///
    /// Each part is the rounded sum so far less the rounded sum before it, so the parts add up to
    /// the total, which is rounded once.
    pub fn cost(&self, counts: &Counts) -> Cost {
        if let (Some(nano_usd), true) = (counts.cost_nano_usd, self.upstream_cost > Rate::FREE) {
            let exact = self.request.times(1).plus(self.upstream_cost.times(nano_usd));
            let base = exact.round_up();
            return Cost { total: base, base, ..Cost::default() };
        }
        let cached_input = counts.cached_input.min(counts.input);
        let cache_write = counts.cache_write.min(counts.input.saturating_sub(cached_input));
        let fresh_input = counts.input.saturating_sub(cached_input).saturating_sub(cache_write);
        let reasoning = counts.reasoning.min(counts.output);
        let mut sum = Exact::default();
        let mut total = Msat::ZERO;
        let mut part = |exact: Exact| {
            sum = sum.plus(exact);
            let before = total;
            total = sum.round_up();
            total.saturating_sub(before)
        };
        let base = part(self.request.times(1).plus(self.web_search.times(counts.web_searches)));
        let input = part(
            self.input
                .times(fresh_input)
                .plus(self.input_image.times(counts.input_images))
                .plus(self.audio.times(counts.audio_ms))
                .plus(self.character.times(counts.characters))
                .plus(self.search_unit.times(counts.search_units)),
        );
        let cache_read = part(self.cached_input.times(cached_input));
        let cache_creation = part(self.cache_write.times(cache_write));
        let output = part(
            self.output
                .times(counts.output.saturating_sub(reasoning))
                .plus(self.reasoning.times(reasoning))
                .plus(self.image.times(counts.images)),
        );
        Cost { total, input, output, cache_read, cache_creation, base }
    }
}
