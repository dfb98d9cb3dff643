//! What is asked for, priced at every upstream that can serve it.
//!
//! Everything here is decided from the request, the price list and what is known of the upstreams:
//! what is refused here has cost nothing and asked nobody.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use lua_free_filters::{Counts, PeekRefusal, Peeked, Route, Splice, peek, rewrite};
use pingora::http::RequestHeader;

use super::Edge;
use crate::api;
use crate::config::{CostChunk, OutputLimitField};
use crate::error::{Kind, Refusal};
use crate::ledger::Ledger;
use crate::money::Msat;
use crate::pricing::{Offer, Price, Served};
use crate::upstream::{Candidate, Upstream};

/// What is asked for, priced.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) route: Route,
    pub(super) offer: Arc<Offer>,
    /// For the dollar figures of its answer; the one by which it was priced.
    pub(super) btc_usd_cents: Option<u64>,
    pub(super) peeked: Peeked<'static>,
    /// As the client sent it.
    body: Bytes,
    pub(super) show_usage: bool,
    /// In the order in which they are tried; never empty.
    pub(super) bids: Vec<Bid>,
    /// The most that it may use.
    pub(super) most: Counts,
    /// The output that is paid for before it is forwarded: all of it, or a first slice.
    pub(super) covered: u64,
    /// What `covered` may cost at the first of the upstreams, with the whole prompt: what is
    /// reserved.
    pub(super) ceiling: Msat,
    /// The output limit of each answer that the balance affords, where that is less than the
    /// model's.
    pub(super) lowered: Option<u64>,
}

/// One upstream that can serve an order, and what it charges.
#[derive(Debug)]
pub(super) struct Bid {
    pub(super) upstream: Arc<Upstream>,
    /// Its place among those that serve the model.
    pub(super) served: usize,
    pub(super) price: Price,
}

impl Order {
    /// Whether more is reserved while the answer is delivered.
    pub(super) fn rolls(&self) -> bool {
        self.covered < self.most.output
    }

    /// The most input and output it may use: what counts against the hourly limit.
    pub(super) fn tokens_max(&self) -> u64 {
        self.most.input.saturating_add(self.most.output)
    }

    /// What so much output may cost by this price, with everything else that may be used.
    pub(super) fn ceiling_by(&self, price: &Price, covered: u64) -> Msat {
        price.ceiling(&Counts { output: covered, ..self.most })
    }

    /// What is reserved when no more than `limit` of output is allowed in each answer.
    fn ceiling_of(&self, limit: u64) -> Msat {
        let output = limit.saturating_mul(self.peeked.n).min(self.covered);
        self.bids.first().map_or(Msat::MAX, |bid| self.ceiling_by(&bid.price, output))
    }

    /// The least that serves this order: a limit that the client named is kept, the model's own
    /// may be lowered to `least`; 0 keeps it too.
    pub(super) fn least_ceiling(&self, least: u64) -> Msat {
        match self.may_be_lowered(least) {
            true => self.ceiling_of(least.min(self.limit())),
            false => self.ceiling,
        }
    }

    /// Lowers the output limit to what `available` pays for, if that is `least` or more. Only
    /// where the client named none: whoever asks for a length gets it or is refused.
    pub(super) fn lower_to(&mut self, available: Msat, least: u64) -> bool {
        if !self.may_be_lowered(least) || self.least_ceiling(least) > available {
            return false;
        }
        // The ceiling grows with the limit, so the most that is affordable is found by halves.
        let (mut affordable, mut too_much) = (least.min(self.limit()), self.limit());
        while too_much.saturating_sub(affordable) > 1 {
            let middle = affordable.midpoint(too_much);
            match self.ceiling_of(middle) <= available {
                true => affordable = middle,
                false => too_much = middle,
            }
        }
        self.most.output = affordable.saturating_mul(self.peeked.n);
        self.covered = self.covered.min(self.most.output);
        self.ceiling = self.ceiling_of(affordable);
        self.lowered = Some(affordable);
        true
    }

    fn may_be_lowered(&self, least: u64) -> bool {
        least > 0
            && self.route.has_output_limit()
            && self.peeked.output_limit.is_none()
            && self.most.output > 0
    }

    /// The output limit of each answer.
    fn limit(&self) -> u64 {
        self.most.output.checked_div(self.peeked.n).unwrap_or(0)
    }

    /// The body as this upstream gets it.
    pub(super) fn body_for(&self, bid: &Bid) -> Bytes {
        let splices = self.splices(bid);
        match splices.is_empty() {
            true => self.body.clone(),
            false => rewrite::apply(&self.body, splices).into(),
        }
    }

    fn splices(&self, bid: &Bid) -> Vec<Splice> {
        let mut splices = Vec::new();
        splices.extend(rewrite::ask_usage(&self.peeked));
        let theirs = self.offer.served.get(bid.served).map(|served| served.upstream_model.as_str());
        if let Some(theirs) = theirs.filter(|theirs| *theirs != self.peeked.model) {
            // Names in a configuration are words, which stand anywhere.
            splices.extend(rewrite::model_name(&self.peeked, theirs).unwrap_or_default());
        }
        if let Some(limit) = self.lowered {
            let field = limit_field(self.route, self.offer.model.output_limit_field);
            splices.extend(rewrite::output_limit(&self.peeked, limit, field));
        }
        splices
    }
}

/// What a limit is called that the client did not write.
fn limit_field(route: Route, on_chat: OutputLimitField) -> &'static str {
    match (route, on_chat) {
        (Route::ChatCompletions, OutputLimitField::MaxCompletionTokens) => "max_completion_tokens",
        (Route::Responses, _) => "max_output_tokens",
        _ => "max_tokens",
    }
}

impl<L: Ledger> Edge<L> {
    /// Reads and prices a body.
    pub(super) fn order(
        &self,
        route: Route,
        head: &RequestHeader,
        body: Bytes,
        per_request: bool,
    ) -> Result<Order, Refusal> {
        let peeked = peek::read(route, content_type(head)?, &body).map_err(peek_refusal)?;
        let prices = self.prices.now();
        let offer = api::sold(&prices, &peeked.model, route)?.clone();
        let limit = match route.has_output() {
            true => peeked.output_limit.unwrap_or(offer.model.max_output_tokens),
            false => 0,
        };
        let output = limit.saturating_mul(peeked.n.max(peeked.demand.images));
        let most = offer.most(&peeked.demand, output);
        let bids = self.bids(&offer, &peeked, &most)?;
        let show_usage = peeked.include_usage || self.config.cost_chunk == CostChunk::Always;
        // Change is for an answer whose cost is known, and one that is held is never cut.
        let rolls = route.can_be_cut() && peeked.stream && !per_request;
        let covered = self.slice().filter(|_| rolls).unwrap_or(u64::MAX).min(most.output);
        let mut order = Order {
            route,
            btc_usd_cents: prices.btc_usd_cents,
            peeked: peeked.into_owned(),
            body,
            show_usage,
            bids,
            most,
            covered,
            ceiling: Msat::ZERO,
            lowered: None,
            offer,
        };
        order.ceiling = order.ceiling_of(u64::MAX);
        Ok(order)
    }

    /// Who can serve it and for how much, the first to be asked first.
    fn bids(&self, offer: &Offer, peeked: &Peeked<'_>, most: &Counts) -> Result<Vec<Bid>, Refusal> {
        let price = |served: &Served| served.prices.of(&peeked.demand);
        let prices = offer.served.iter().map(price).collect::<Option<Vec<Price>>>();
        let prices = prices.ok_or_else(|| {
            Refusal::field("size", "and 'quality' name no image that this model has a price for")
        })?;
        let ceilings: Vec<Msat> = prices.iter().map(|price| price.ceiling(most)).collect();
        let candidates = self.upstreams.candidates(&offer.served, offer.model.select, &ceilings);
        let bid = |Candidate { upstream, index }| {
            let price = *prices.get(index)?;
            Some(Bid { upstream, served: index, price })
        };
        Ok(candidates.into_iter().filter_map(bid).collect())
    }
}

/// What the body says that it is. Of two different answers nobody knows which the upstream would
/// believe.
fn content_type(head: &RequestHeader) -> Result<Option<&str>, Refusal> {
    let mut values = head.headers.get_all(CONTENT_TYPE).iter().map(HeaderValue::to_str);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(text)), None) => Ok(Some(text)),
        _ => Err(Refusal::field("content-type", "must be given once, in ASCII")),
    }
}

fn peek_refusal(refusal: PeekRefusal) -> Refusal {
    let invalid = |code| Refusal::new(Kind::InvalidRequest, code, refusal.to_string());
    match refusal {
        PeekRefusal::Field { field, message } => Refusal::field(field, message),
        PeekRefusal::WrongType(_) => invalid("unsupported_media_type").status(415),
        PeekRefusal::NotAForm { .. } => invalid("invalid_form"),
        PeekRefusal::NotJson { .. } | PeekRefusal::NotAnObject => invalid("invalid_json"),
    }
}
