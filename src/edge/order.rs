//! What is asked for, priced at every upstream that can serve it.
//!
//! Everything here is decided from the request, the price list and what is known of the upstreams:
//! what is refused here has cost nothing and asked nobody.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue};
use lua_free_filters::{Counts, Demand, PeekRefusal, Peeked, Route, Splice, peek, rewrite, scrub};
use pingora::http::RequestHeader;

use super::{Edge, live};
use crate::api;
use crate::config::{CostChunk, OutputLimitField};
use crate::error::{Kind, Refusal};
use crate::ledger::Ledger;
use crate::money::{Msat, Rate};
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
    /// Paid by `X-Cashu`, and to flow as an event stream all the same.
    pub(super) live: bool,
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

    /// The most input of its body and output it may use: what counts against the hourly limit
    /// while it is open. What it only refers to counts when it is known.
    pub(super) fn tokens_max(&self) -> u64 {
        let input = self.offer.input_of_body(&self.peeked.demand, &self.most);
        input.saturating_add(self.most.output)
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
            && self.peeked.demand.foreseen_bytes == 0
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
        let field = limit_field(self.route, self.offer.model.output_limit_field);
        match self.lowered {
            Some(limit) => splices.extend(rewrite::output_limit(&self.peeked, limit, field)),
            None => splices.extend(rewrite::known_limit(&self.peeked, self.route, field)),
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
        if forwards_too_much(head) {
            return Err(Refusal::field("headers", "for the upstream are longer than 16 KiB"));
        }
        let peeked = peek::read(route, content_type(head)?, &body).map_err(peek_refusal)?;
        let prices = self.prices.now();
        let offer = api::sold(&prices, &peeked.model, route)?.clone();
        if offer.model.context_length < LONG_CONTEXT && asks_for_long_context(head) {
            let message = "asks for a longer context than this model is sold with";
            return Err(Refusal::field("anthropic-beta", message));
        }
        let limit = match route.has_output() {
            true => peeked.output_limit.unwrap_or(offer.model.max_output_tokens),
            false => 0,
        };
        let output = limit
            .saturating_mul(peeked.n.max(peeked.demand.images))
            .saturating_add(peeked.demand.foreseen_bytes);
        let most = offer.most(&peeked.demand, output);
        let bids = self.bids(&offer, &peeked, &most)?;
        let show_usage = peeked.include_usage || self.config.cost_chunk == CostChunk::Always;
        let live = per_request && peeked.stream && live::asks(&head.headers);
        // An answer that is held is never cut.
        let rolls = route.can_be_cut() && peeked.stream && (!per_request || live);
        let covered = self.slice().filter(|_| rolls).unwrap_or(u64::MAX).min(most.output);
        let mut order = Order {
            route,
            btc_usd_cents: prices.btc_usd_cents,
            peeked: peeked.into_owned(),
            body,
            show_usage,
            live,
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
        prices.iter().try_for_each(|price| refuse_unpriced(&peeked.demand, price))?;
        let ceilings: Vec<Msat> = prices.iter().map(|price| price.ceiling(most)).collect();
        let candidates = self.upstreams.candidates(&offer.served, offer.model.select, &ceilings);
        let bid = |Candidate { upstream, index }| {
            let price = *prices.get(index)?;
            Some(Bid { upstream, served: index, price })
        };
        Ok(candidates.into_iter().filter_map(bid).collect())
    }
}

/// Refuses what makes a request dearer in a way that this price does not follow.
fn refuse_unpriced(demand: &Demand, price: &Price) -> Result<(), Refusal> {
    if price.upstream_cost > Rate::FREE {
        return Ok(());
    }
    let is_by_the_image = price.image > Rate::FREE;
    if demand.chooses_provider {
        let message = "is not offered for this model: its price is that of no one provider";
        return Err(Refusal::field("provider", message));
    }
    if demand.has_previews && is_by_the_image && price.output == Rate::FREE {
        let message = "is not offered for this model: its price is that of whole images";
        return Err(Refusal::field("partial_images", message));
    }
    if demand.is_faithful && is_by_the_image && price.input == Rate::FREE {
        let message = "must be low for this model: its price is that of the images made";
        return Err(Refusal::field("input_fidelity", message));
    }
    Ok(())
}

/// Whether more of the client's head goes on to the upstream than an upstream is to take. What
/// stays behind is only told apart in a head that is long as a whole.
fn forwards_too_much(head: &RequestHeader) -> bool {
    bytes_of(head, |_| true) > FORWARDED_HEAD_BYTES_MAX
        && forwarded_bytes(head) > FORWARDED_HEAD_BYTES_MAX
}

/// How much of the client's head goes on to the upstream.
fn forwarded_bytes(head: &RequestHeader) -> usize {
    let removed = scrub::request(&head.headers);
    bytes_of(head, |name| removed.removes().all(|removed| removed != name))
}

fn bytes_of(head: &RequestHeader, counts: impl Fn(&HeaderName) -> bool) -> usize {
    let lines = head.headers.iter().filter(|(name, _)| counts(name));
    lines.map(|(name, value)| name.as_str().len().saturating_add(value.len())).sum()
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

/// Whether Anthropic's models are to read a million tokens: at another price for all of them, and
/// more than a reservation is made for.
fn asks_for_long_context(head: &RequestHeader) -> bool {
    head.headers.get_all("anthropic-beta").iter().any(|value| {
        let names = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        names
            .filter_map(|name| name.get(..LONG_CONTEXT_BETA.len()))
            .any(|name| name.eq_ignore_ascii_case(LONG_CONTEXT_BETA))
    })
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

/// A longer head is refused. Servers have bounds of their own, and some close a connection on it,
/// with all other requests that share it.
const FORWARDED_HEAD_BYTES_MAX: usize = 16 << 10;

/// What the names of that version begin with.
const LONG_CONTEXT_BETA: &[u8] = b"context-1m";

/// A model that is sold with so long a context is priced for it.
const LONG_CONTEXT: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_goes_to_the_upstream_counts_against_the_bound_of_a_head() {
        let mut head = RequestHeader::build("POST", b"/", None).unwrap();
        let long = "x".repeat(FORWARDED_HEAD_BYTES_MAX);
        for name in ["x-cashu", "cookie", "x-hop"] {
            head.insert_header(name, &long).unwrap();
        }
        head.insert_header("connection", "x-hop").unwrap();
        assert_eq!(forwarded_bytes(&head), 0);
        head.append_header("x-a", "12").unwrap();
        head.append_header("x-a", "3").unwrap();
        assert_eq!(forwarded_bytes(&head), 9);
    }

    #[test]
    fn what_a_price_does_not_follow_is_refused_and_all_else_is_not() {
        let rate = Rate::from_nano_msat(1);
        let by_image = Price { image: rate, ..Price::default() };
        let check = |demand: Demand, price: Price, expected: bool| {
            assert_eq!(refuse_unpriced(&demand, &price).is_ok(), expected, "{demand:?} {price:?}");
        };
        let by_cost = Price { upstream_cost: rate, ..by_image };
        let previews = Demand { has_previews: true, ..Demand::default() };
        let faithful = Demand { is_faithful: true, ..Demand::default() };
        let chosen = Demand { chooses_provider: true, ..Demand::default() };
        for demand in [Demand::default(), previews.clone(), faithful.clone(), chosen.clone()] {
            check(demand, by_cost, true);
        }
        check(Demand::default(), by_image, true);
        check(chosen, Price { input: rate, output: rate, ..by_image }, false);
        check(previews.clone(), by_image, false);
        check(previews, Price { output: rate, ..by_image }, true);
        check(faithful.clone(), by_image, false);
        check(faithful, Price { input: rate, ..by_image }, true);
    }
}
