//! A model as the file describes it: who serves it, on which routes, and what it costs.

use lua_free_filters::Route;

use super::Decimal;

/// A model that is for sale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    pub id: String,
    pub name: String,
    pub description: String,
    pub created: u64,
    pub owned_by: String,
    pub context_length: u64,
    /// 0 where it writes nothing.
    pub max_output_tokens: u64,
    /// What upstreams call it that have no other name for it.
    pub upstream_model: String,
    /// The routes that it is sold on, in the order of [`Route::ALL`].
    pub routes: Vec<Route>,
    /// Who serves it, in the order of the file; each upstream once.
    pub upstreams: Vec<ServedBy>,
    pub select: Select,
    pub output_limit_field: OutputLimitField,
    /// `None`: only the context bounds an image.
    pub image_tokens: Option<ImageTokens>,
    /// Reserved for where a request does not bound its searches of the web.
    pub web_searches_max: u64,
    pub abort: Abort,
    pub missing_usage: MissingUsage,
    pub alias_ids: Vec<String>,
    pub price: Price,
}

impl Model {
    /// What it costs at one of its upstreams.
    pub fn price_at<'m>(&'m self, served_by: &'m ServedBy) -> &'m Price {
        served_by.price.as_ref().unwrap_or(&self.price)
    }
}

/// Nobody's model: what may be left out is as the file says, all else is empty.
impl Default for Model {
    fn default() -> Self {
        Self {
            id: String::new(),
            name: String::new(),
            description: String::new(),
            created: 0,
            owned_by: "nutgate".to_owned(),
            context_length: 0,
            max_output_tokens: 0,
            upstream_model: String::new(),
            routes: Vec::new(),
            upstreams: Vec::new(),
            select: Select::default(),
            output_limit_field: OutputLimitField::default(),
            image_tokens: None,
            web_searches_max: WEB_SEARCHES,
            abort: Abort::default(),
            missing_usage: MissingUsage::default(),
            alias_ids: Vec::new(),
            price: Price::default(),
        }
    }
}

/// One of the upstreams of a model, and what differs there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServedBy {
    /// Its name.
    pub upstream: String,
    /// From 1 to [`WEIGHT_MAX`].
    pub weight: u32,
    /// What it calls the model.
    pub upstream_model: String,
    /// Instead of the model's.
    pub price: Option<Price>,
}

/// Which of a model's upstreams is asked first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Select {
    /// The first of the list; the next when it fails.
    #[default]
    Order,
    /// By lot, in proportion to the weights.
    Weight,
    /// The cheapest for the request at hand.
    Price,
    /// The one that lately began to answer soonest.
    Latency,
}

/// What a limit of output is written as on the chat route, where the client wrote none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputLimitField {
    #[default]
    MaxTokens,
    MaxCompletionTokens,
}

/// The most input that one image in a prompt can be, by its declared detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageTokens {
    pub low: u64,
    /// Also where the detail is not declared.
    pub high: u64,
}

/// What happens upstream when the client leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Abort {
    /// The answer is broken off.
    #[default]
    Cancel,
    /// The answer is read to its end, for its usage.
    Drain,
}

/// What is charged when something was delivered and the upstream did not say how much it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingUsage {
    #[default]
    Estimate,
    /// What was surely used.
    Floor,
    /// All that was reserved.
    Ceiling,
}

/// As written, exactly. What is `None` here has a price that follows from another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Price {
    pub currency: Currency,
    /// Per million tokens, as are the four below.
    pub input: Decimal,
    pub output: Decimal,
    /// `None`: as `input`.
    pub cached_input: Option<Decimal>,
    /// `None`: as `input`.
    pub cache_write: Option<Decimal>,
    /// `None`: as `output`.
    pub reasoning: Option<Decimal>,
    pub request: Decimal,
    /// Per image in the prompt.
    pub input_image: Decimal,
    pub web_search: Decimal,
    /// Per image made.
    pub images: Vec<ImagePrice>,
    pub audio: AudioPrice,
    /// Per million characters.
    pub characters: Decimal,
    pub search_unit: Decimal,
    /// Times what the upstream says that the request cost it, in dollars whatever the currency;
    /// 0: not asked about.
    pub upstream_cost: Decimal,
}

impl Price {
    /// Whether it is known in sats only at a rate of the dollar.
    pub fn needs_dollar_rate(&self) -> bool {
        self.currency == Currency::Usd || self.upstream_cost.billionths > 0
    }
}

/// What an image of one size and quality costs; `None` stands for any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImagePrice {
    pub size: Option<String>,
    pub quality: Option<String>,
    pub price: Decimal,
}

/// What audio that is listened to costs, in the unit that it was written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AudioPrice {
    #[default]
    None,
    PerSecond(Decimal),
    PerMinute(Decimal),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Currency {
    #[default]
    Sat,
    Usd,
}

/// What a route is called in `routes`.
pub const ROUTE_NAMES: [(&str, Route); 12] = [
    ("chat", Route::ChatCompletions),
    ("responses", Route::Responses),
    ("embeddings", Route::Embeddings),
    ("completions", Route::Completions),
    ("images", Route::ImageGenerations),
    ("image_edits", Route::ImageEdits),
    ("transcriptions", Route::Transcriptions),
    ("translations", Route::Translations),
    ("speech", Route::Speech),
    ("messages", Route::Messages),
    ("moderations", Route::Moderations),
    ("rerank", Route::Rerank),
];

/// A thousandth of the requests is the smallest share that can be asked for.
pub const WEIGHT_MAX: u64 = 1_000;

/// More searches for one answer would reserve what no answer costs.
pub const WEB_SEARCHES_MAX: u64 = 1_000;

/// `web_searches_max` where it is left out.
const WEB_SEARCHES: u64 = 10;
