//! What an upstream lists, read into models that can be sold.
//!
//! Two shapes are known. OpenAI's has ids and no prices, so nothing of it is offered by itself: a
//! model of the configuration gives such an id a price. OpenRouter's has prices, in dollars per
//! single unit, as decimals in text. A model is offered only when all that it may be charged for
//! upstream is understood here; whatever is not is a [`Reason`] to leave it out, because what
//! nobody counts would be free.
//!
//! # What a price that is not there means
//! * `prompt` or `completion`: there is no price. Zero is one: a free model.
//! * `internal_reasoning`: as `completion`. Zero too: the list says "0" of models that bill
//!   reasoning as the output it is.
//! * `input_cache_read`, `input_cache_write`: as `prompt`. Zero too: it is said of models without a
//!   cache, and a cache that really is free costs a client no more here than its prompt would.
//!   Such a model can be priced by hand.
//! * `request`, `image`, `web_search`: nothing. They are charges beside the prompt and the
//!   output, and whoever lists prices names a charge that there is.
//!
//! Prices are rounded up, to a billionth of a dollar per million or per piece, after the markup.

use std::collections::{BTreeMap, HashMap};

use lua_free_filters::Route;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::config::{Currency, Decimal, ListingPolicy, Model, Price, ServedBy, Upstream};
use crate::pricing::feed::{NoNumber, Round, as_text, exact};

/// What is offered of a list, and what is not.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) models: Vec<Model>,
    pub(super) left_out: LeftOut,
}

/// The ids that are not offered, by reason.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOut(BTreeMap<Reason, Vec<String>>);

/// Why a model that the policy includes is not offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    NoPrice,
    /// For some, -1 says that the price depends.
    NegativePrice,
    UnreadablePrice,
    /// It has a price for something that nobody counts here.
    UnknownUnit,
    NoContextLength,
    /// It has no id, or one that is too long or no word.
    BadId,
    /// Nobody can say which of its entries holds, so none does.
    ListedTwice,
    /// Beyond [`MODELS_MAX`].
    TooMany,
}

/// The document is not a list of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not a list of models")]
pub(super) struct NotAList;

#[derive(Deserialize)]
struct Document<'d> {
    #[serde(borrow)]
    data: Vec<&'d RawValue>,
}

#[derive(Deserialize)]
struct Entry<'d> {
    #[serde(borrow)]
    id: Option<&'d RawValue>,
    #[serde(borrow)]
    name: Option<&'d RawValue>,
    #[serde(borrow)]
    description: Option<&'d RawValue>,
    #[serde(borrow)]
    created: Option<&'d RawValue>,
    #[serde(borrow)]
    context_length: Option<&'d RawValue>,
    #[serde(borrow)]
    top_provider: Option<&'d RawValue>,
    #[serde(borrow)]
    pricing: Option<&'d RawValue>,
}

#[derive(Deserialize)]
struct TopProvider<'d> {
    #[serde(borrow)]
    max_completion_tokens: Option<&'d RawValue>,
}

/// Reads what this upstream lists. One bad entry costs itself only.
pub(super) fn read(
    document: &[u8],
    upstream: &Upstream,
    policy: &ListingPolicy,
) -> Result<Listing, NotAList> {
    let Document { data } = serde_json::from_slice(document).map_err(|_| NotAList)?;
    let mut times = HashMap::new();
    let mut entries = Vec::new();
    let mut listing = Listing::default();
    for entry in data {
        let Ok(entry) = serde_json::from_str::<Entry<'_>>(entry.get()) else {
            listing.left_out.add(Reason::BadId, "");
            continue;
        };
        let id = text(entry.id).unwrap_or_default();
        if !policy.includes(&id) {
            continue;
        }
        *times.entry(id.clone()).or_insert(0_u32) += 1;
        entries.push((id, entry));
    }
    for (id, entry) in entries {
        let model = match times.get(&id) {
            Some(1) => entry.model(&id, upstream, policy),
            _ => Err(Reason::ListedTwice),
        };
        match model {
            Ok(_) if listing.models.len() >= MODELS_MAX => {
                listing.left_out.add(Reason::TooMany, &id);
            }
            Ok(model) => listing.models.push(model),
            Err(reason) => listing.left_out.add(reason, &id),
        }
    }
    Ok(listing)
}

impl Entry<'_> {
    fn model(
        &self,
        id: &str,
        upstream: &Upstream,
        policy: &ListingPolicy,
    ) -> Result<Model, Reason> {
        let sold_as = format!("{}{id}", policy.id_prefix);
        let is_word = !id.chars().any(|c| c.is_whitespace() || c.is_control());
        if id.is_empty() || !is_word || sold_as.len() > ID_BYTES_MAX {
            return Err(Reason::BadId);
        }
        let price = Pricing::read(self.pricing, policy.markup_percent)?.price()?;
        let context_length = count(self.context_length).ok_or(Reason::NoContextLength)?;
        let top = self.top_provider.and_then(|top| {
            serde_json::from_str::<TopProvider<'_>>(top.get()).ok()?.max_completion_tokens
        });
        let maker = id.split_once('/').map_or(upstream.name.as_str(), |(maker, _)| maker);
        Ok(Model {
            name: up_to(text(self.name).unwrap_or_else(|| sold_as.clone()), NAME_BYTES_MAX),
            description: up_to(text(self.description).unwrap_or_default(), DESCRIPTION_BYTES_MAX),
            created: whole(self.created).unwrap_or(0),
            owned_by: maker.to_owned(),
            context_length,
            // Nothing is written beyond the context, so that is reserved for when nobody says less.
            max_output_tokens: count(top).unwrap_or(context_length),
            upstream_model: id.to_owned(),
            routes: ROUTES.to_vec(),
            upstreams: vec![ServedBy {
                upstream: upstream.name.clone(),
                weight: 1,
                upstream_model: id.to_owned(),
                price: None,
            }],
            price,
            id: sold_as,
            ..Model::default()
        })
    }
}

/// The prices of one entry, of which each is taken once.
struct Pricing<'p> {
    units: HashMap<String, &'p RawValue>,
    markup_percent: u64,
}

impl<'p> Pricing<'p> {
    fn read(pricing: Option<&'p RawValue>, markup_percent: u64) -> Result<Self, Reason> {
        let pricing = pricing.filter(|pricing| !is_null(pricing)).ok_or(Reason::NoPrice)?;
        let units = serde_json::from_str(pricing.get()).map_err(|_| Reason::UnreadablePrice)?;
        Ok(Self { units, markup_percent })
    }

    /// What the model is sold at; see the top of this file.
    fn price(mut self) -> Result<Price, Reason> {
        let input = self.per_million("prompt")?.ok_or(Reason::NoPrice)?;
        let output = self.per_million("completion")?.ok_or(Reason::NoPrice)?;
        let price = Price {
            currency: Currency::Usd,
            input,
            output,
            cached_input: self.per_million("input_cache_read")?.filter(is_charged),
            cache_write: self.per_million("input_cache_write")?.filter(is_charged),
            reasoning: self.per_million("internal_reasoning")?.filter(is_charged),
            request: self.per_piece("request")?.unwrap_or_default(),
            input_image: self.per_piece("image")?.unwrap_or_default(),
            web_search: self.per_piece("web_search")?.unwrap_or_default(),
            ..Price::default()
        };
        for (key, value) in &self.units {
            match self.dollars(value, PIECE_PLACES)? {
                _ if NO_UNITS.contains(&key.as_str()) => {}
                Some(dollars) if is_charged(&dollars) => return Err(Reason::UnknownUnit),
                _ => {}
            }
        }
        Ok(price)
    }

    fn per_million(&mut self, key: &str) -> Result<Option<Decimal>, Reason> {
        let taken = self.units.remove(key);
        taken.map_or(Ok(None), |value| self.dollars(value, MILLION_PLACES))
    }

    fn per_piece(&mut self, key: &str) -> Result<Option<Decimal>, Reason> {
        let taken = self.units.remove(key);
        taken.map_or(Ok(None), |value| self.dollars(value, PIECE_PLACES))
    }

    /// Billionths of a dollar with the markup, rounded up.
    fn dollars(&self, value: &RawValue, places: u32) -> Result<Option<Decimal>, Reason> {
        if is_null(value) {
            return Ok(None);
        }
        let text = as_text(value).ok_or(Reason::UnreadablePrice)?;
        // Two places more, which the percent take away again.
        let finer = exact(&text, places + PERCENT_PLACES, Round::Up).map_err(|why| match why {
            NoNumber::Negative => Reason::NegativePrice,
            NoNumber::Unreadable => Reason::UnreadablePrice,
        })?;
        let percent = u128::from(self.markup_percent) + 100;
        let marked_up = finer.checked_mul(percent).ok_or(Reason::UnreadablePrice)?;
        let billionths = marked_up.div_ceil(100 * 10_u128.pow(PERCENT_PLACES));
        if billionths > PRICE_BILLIONTHS_MAX {
            return Err(Reason::UnreadablePrice);
        }
        Ok(Some(Decimal { billionths }))
    }
}

impl ListingPolicy {
    /// Of the ids as the upstream has them.
    fn includes(&self, id: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| fits(pattern, id));
        any(&self.include) && !any(&self.exclude)
    }
}

impl LeftOut {
    fn add(&mut self, reason: Reason, id: &str) {
        self.0.entry(reason).or_default().push(id.to_owned());
    }

    /// How many there are of every reason, also of those that left nothing out.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, usize)> {
        Reason::ALL.iter().map(|reason| (reason.name(), self.0.get(reason).map_or(0, Vec::len)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// For the log: each reason with how many it left out, and the first of them.
impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (reason, ids)) in self.0.iter().enumerate() {
            let gap = if index == 0 { "" } else { ", " };
            let first = ids.iter().map(String::as_str).min().unwrap_or_default();
            let first: String = first.chars().take(ID_BYTES_MAX).collect();
            write!(f, "{gap}{} {} ({first:?})", ids.len(), reason.name())?;
        }
        Ok(())
    }
}

impl Reason {
    const ALL: [Self; 8] = [
        Self::NoPrice,
        Self::NegativePrice,
        Self::UnreadablePrice,
        Self::UnknownUnit,
        Self::NoContextLength,
        Self::BadId,
        Self::ListedTwice,
        Self::TooMany,
    ];

    /// In the metrics and in the log.
    const fn name(self) -> &'static str {
        match self {
            Self::NoPrice => "no_price",
            Self::NegativePrice => "negative_price",
            Self::UnreadablePrice => "unreadable_price",
            Self::UnknownUnit => "unknown_unit",
            Self::NoContextLength => "no_context_length",
            Self::BadId => "bad_id",
            Self::ListedTwice => "listed_twice",
            Self::TooMany => "too_many",
        }
    }
}

/// Whether a text is what a pattern describes: `*` stands for any text, `/` in it too.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|start| text.strip_prefix(start)) else {
        return false;
    };
    let Some(end) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        // The earliest place leaves the most for what follows.
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(end)
}

fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

fn is_charged(price: &Decimal) -> bool {
    price.billionths > 0
}

fn text(value: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(value?.get()).ok()
}

/// How many there are of something.
fn count(value: Option<&RawValue>) -> Option<u64> {
    whole(value).filter(|count| (1..=COUNT_MAX).contains(count))
}

/// A whole number, also one that is written as `128000.0`.
fn whole(value: Option<&RawValue>) -> Option<u64> {
    let text = as_text(value?)?;
    let (down, up) = (exact(&text, 0, Round::Down).ok()?, exact(&text, 0, Round::Up).ok()?);
    u64::try_from(down).ok().filter(|_| down == up)
}

/// As much of a text as fits, to the end of a character.
fn up_to(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
    }
    text
}

/// Those that take and give text, which is what these prices are for. An upstream that has not
/// all of them refuses the others, and is paid nothing for it.
const ROUTES: [Route; 4] =
    [Route::ChatCompletions, Route::Responses, Route::Completions, Route::Messages];

/// What stands among the prices and is none: a discount that they have already, and sums that
/// gateways like this one list.
const NO_UNITS: [&str; 4] = ["discount", "max_prompt_cost", "max_completion_cost", "max_cost"];

/// From dollars for one to billionths of a dollar for a million.
const MILLION_PLACES: u32 = 15;
const PIECE_PLACES: u32 = 9;
const PERCENT_PLACES: u32 = 2;

/// As in a configuration: below a billion dollars, so that no product of it overflows.
const PRICE_BILLIONTHS_MAX: u128 = 1_000_000_000_000_000_000 - 1;

/// As in a configuration.
const COUNT_MAX: u64 = 1_000_000_000;

/// More than any upstream lists; every list of prices is made of all of them.
pub(super) const MODELS_MAX: usize = 5_000;

/// Of an id as it is sold, with its prefix.
const ID_BYTES_MAX: usize = 200;

const NAME_BYTES_MAX: usize = 200;
const DESCRIPTION_BYTES_MAX: usize = 2_000;

#[cfg(test)]
#[path = "listing_tests.rs"]
mod tests;
