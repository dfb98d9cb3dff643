//! Prices: what a model costs, the ceiling of a request, the cost of usage.
//!
//! Pure, and integers only. A sum is exact until it is rounded up, once, to the msat.

#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::float_arithmetic)
)]

mod bounds;
mod cost;
pub mod feed;
mod list;
mod rates;
mod show;

use lua_free_filters::Demand;

use crate::config;
use crate::money::{Msat, Rate};

pub use bounds::{completed, counted};
pub use list::{Lookup, PriceList};
pub use rates::WrongPrice;
pub use show::Shown;

/// What one request is charged by: a rate for every unit of [`lua_free_filters::Counts`], and one
/// per request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Price {
    pub request: Rate,
    pub input: Rate,
    /// Instead of `input`, for input read from a cache.
    pub cached_input: Rate,
    /// Instead of `input`, for input written to a cache.
    pub cache_write: Rate,
    pub output: Rate,
    /// Instead of `output`, for reasoning.
    pub reasoning: Rate,
    /// Per image in the prompt, beside what its input costs; published as `image`.
    pub input_image: Rate,
    /// Per image made, of the size and quality that were asked for.
    pub image: Rate,
    pub web_search: Rate,
    /// Per millisecond.
    pub audio: Rate,
    pub character: Rate,
    pub search_unit: Rate,
    /// Per 10^-9 dollars of the upstream's own cost: where it told that, instead of all else but
    /// `request`. Free means that it is not asked about.
    ///
    /// The rest bounds what is reserved, so an upstream that asks for more than its published
    /// price leaves a shortfall.
    pub upstream_cost: Rate,
}

/// The price of a model at one of its upstreams: [`Price`], and a row for each kind of image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prices {
    /// `image` is that of the first row.
    pub price: Price,
    pub images: Vec<ImageRow>,
}

/// What an image of one size and quality costs; `None` stands for any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageRow {
    pub size: Option<String>,
    pub quality: Option<String>,
    pub rate: Rate,
}

/// One upstream that serves a model, what it calls the model, and what it costs there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    pub upstream: String,
    pub upstream_model: String,
    /// Its share of the requests where upstreams are chosen by weight; at least 1.
    pub weight: u32,
    pub prices: Prices,
}

/// A cost and its parts, which add up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    pub total: Msat,
    /// All that went in: input that no cache was asked for, images, audio, characters, documents.
    pub input: Msat,
    /// All that came out: text, reasoning, images.
    pub output: Msat,
    pub cache_read: Msat,
    pub cache_creation: Msat,
    /// The fee per request, what is counted by the piece (searches), and a cost that the upstream
    /// told, since nobody knows its parts.
    pub base: Msat,
}

/// One model on offer, at what it costs now.
#[derive(Clone, Debug, Default)]
pub struct Offer {
    pub model: config::Model,
    /// In the order of the configuration; never empty. An upstream whose price needs a rate of
    /// the dollar is among them only while there is one.
    pub served: Vec<Served>,
    /// The rate that its prices were made with; `None` when they need none.
    pub btc_usd_cents: Option<u64>,
}

impl Offer {
    /// What the first upstream's price is: the one that is published first.
    pub fn price(&self) -> Price {
        self.served.first().map_or_else(Price::default, |served| served.prices.price)
    }
}

impl Prices {
    /// What a request costs here that asks for `demand`: `image` is that of the row for the images
    /// it wants, and free where the model has no rows or none are to be made.
    ///
    /// `None`: no row is for this size and quality, so there is no price to sell them at. A row
    /// that names a thing goes before one for any; a choice that is left to the upstream, by
    /// silence or `auto`, takes the first row that fits the rest.
    pub fn of(&self, demand: &Demand) -> Option<Price> {
        if demand.images == 0 || self.images.is_empty() {
            return Some(Price { image: Rate::FREE, ..self.price });
        }
        let size = chosen(demand.image_size.as_deref());
        let quality = chosen(demand.image_quality.as_deref());
        let mut best: Option<(u8, &ImageRow)> = None;
        for row in &self.images {
            let fits = fit(row.size.as_deref(), size).zip(fit(row.quality.as_deref(), quality));
            let Some((by_size, by_quality)) = fits else { continue };
            let exact = u8::from(by_size).saturating_add(by_quality.into());
            if best.is_none_or(|(most, _)| exact > most) {
                best = Some((exact, row));
            }
        }
        best.map(|(_, row)| Price { image: row.rate, ..self.price })
    }
}

/// Whether a row is for what was asked, and then whether by name.
fn fit(row: Option<&str>, asked: Option<&str>) -> Option<bool> {
    match (row, asked) {
        (Some(row), Some(asked)) => (row == asked).then_some(true),
        (None, _) | (_, None) => Some(false),
    }
}

fn chosen(asked: Option<&str>) -> Option<&str> {
    asked.filter(|asked| *asked != "auto")
}

#[cfg(test)]
mod bounds_tests;
#[cfg(test)]
mod tests;
