//! Which script a request gets.

use super::answer::{self, Question};
use super::route::{Dialect, Route};
use super::script::Script;
use super::{KeyHeader, Seen, Shared};
use crate::{CurrencyUnit, Faucet, Result, TokenFormat};

/// Leaves the model's name, as soon as it is known, in `model`.
pub(super) async fn respond(
    seen: &Seen,
    route: Option<Route>,
    shared: &Shared,
    model: &mut String,
) -> Script {
    let options = &shared.options;
    let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
    if let (Some(faucet), "/faucet") = (&options.faucet, path) {
        return match pour(faucet, query).await {
            Ok(text) => Script::plain_text(200, &text),
            Err(error) => Script::plain_text(400, &format!("{error}\n")),
        };
    }
    shared.record(seen);
    let question = route.and_then(|route| Question::read(route, seen));
    if let Some(question) = &question {
        model.clone_from(&question.model);
    }
    let dialect = route.map_or(Dialect::OpenAi, Route::dialect);
    if let Some(status) = shared.failing().status(route.is_some()) {
        return Script::failure(dialect, status, "The upstream was told to fail.");
    }
    if !options.auth.iter().any(|header| header.shows(&options.api_key, seen)) {
        return Script::unauthorized(dialect, &options.api_key);
    }
    let is_listing = path.strip_prefix(&*options.prefix) == Some("/models");
    match route {
        None if is_listing && seen.method == "GET" => Script::models(options.listing.as_ref()),
        None => Script::not_found(path),
        Some(Route::Messages) if seen.header("anthropic-version").is_none() => {
            Script::failure(dialect, 400, "anthropic-version: header is required")
        }
        Some(_) => {
            let rejected = options.rejects_param.as_deref();
            let rejected = rejected.filter(|name| {
                question.as_ref().is_some_and(|question| question.body.get(*name).is_some())
            });
            match (rejected, question) {
                (Some(name), _) => Script::unsupported_parameter(dialect, name),
                (None, Some(question)) => answer_to(&question, shared),
                (None, None) => unreadable(dialect),
            }
        }
    }
}

fn answer_to(question: &Question, shared: &Shared) -> Script {
    if let Some(refusal) = Script::refusal(question, &shared.options, &shared.url) {
        return refusal;
    }
    match answer::reply(question) {
        Some(reply) => Script::answer(reply, question, &shared.options),
        None => unreadable(question.route.dialect()),
    }
}

fn unreadable(dialect: Dialect) -> Script {
    Script::failure(dialect, 400, "We could not read your request.")
}

impl KeyHeader {
    fn shows(self, key: &str, seen: &Seen) -> bool {
        match self {
            Self::Bearer => seen
                .header("authorization")
                .is_some_and(|value| value.strip_prefix("Bearer ") == Some(key)),
            Self::XApiKey => seen.header("x-api-key") == Some(key),
            Self::ApiKey => seen.header("api-key") == Some(key),
        }
    }
}

async fn pour(faucet: &Faucet, query: &str) -> Result<String> {
    let mut amount = None;
    let mut unit = CurrencyUnit::Sat;
    let mut format = TokenFormat::B;
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        match name {
            "amount" => {
                let whole = value.parse().map_err(|_| format!("{value:?} is no whole amount"))?;
                amount = Some(whole);
            }
            "unit" => unit = value.parse()?,
            "format" => format = value.parse()?,
            _ => return Err(format!("amount, unit and format are known, {name:?} is not").into()),
        }
    }
    let amount = amount.ok_or("say how much: /faucet?amount=100&format=B&unit=sat")?;
    faucet.cashu(amount, unit, format).await
}
