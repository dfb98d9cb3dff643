//! What the routes that write text have in common.

use super::members::{Members, refuse};
use super::skim::Values;
use super::{N_MAX, OUTPUT_LIMIT_MAX, OutputLimit, PeekRefusal, Peeked, UsageAsk};
use crate::json;

/// Every name of an output limit. All are read on every route that writes text: an upstream that
/// translates between protocols may obey any of them.
pub(crate) const LIMIT_FIELDS: [&str; 3] =
    ["max_tokens", "max_completion_tokens", "max_output_tokens"];

/// Reads the output limits. The members must have [`LIMIT_FIELDS`].
pub(super) fn read_limits<const N: usize>(
    members: &Members<'_, N>,
    peeked: &mut Peeked<'_>,
) -> Result<(), PeekRefusal> {
    for field in LIMIT_FIELDS {
        let value = members.count(field, OUTPUT_LIMIT_MAX, LIMIT_MESSAGE)?;
        if let Some(raw) = members.raw(field) {
            peeked.limits.push(OutputLimit { field, value, at: members.span(raw) });
        }
        peeked.output_limit = peeked.output_limit.max(value);
    }
    Ok(())
}

/// Reads a number of answers.
pub(super) fn read_n<const N: usize>(
    members: &Members<'_, N>,
    field: &'static str,
) -> Result<u64, PeekRefusal> {
    Ok(members.count(field, N_MAX, N_MESSAGE)?.unwrap_or(1))
}

/// Reads whether the client asks for the usage of a stream, and where to.
pub(super) fn read_stream_options<const N: usize>(
    members: &Members<'_, N>,
    peeked: &mut Peeked<'_>,
) -> Result<(), PeekRefusal> {
    peeked.usage_ask = usage_ask(members)?;
    peeked.include_usage = peeked.usage_ask == UsageAsk::Asked;
    Ok(())
}

fn usage_ask<const N: usize>(members: &Members<'_, N>) -> Result<UsageAsk, PeekRefusal> {
    let Some(raw) = members.raw("stream_options") else { return Ok(UsageAsk::NoOptions) };
    let span = members.span(raw);
    if raw == "null" {
        return Ok(UsageAsk::NullOptions(span));
    }
    if !raw.starts_with('{') {
        return refuse("stream_options", "must be an object");
    }
    let is_empty = Values::of(raw).next().is_none();
    match Members::of(raw, &["include_usage"])?.raw("include_usage") {
        None => Ok(UsageAsk::InOptions { open: span.start, is_empty }),
        Some("true") => Ok(UsageAsk::Asked),
        Some(value @ ("null" | "false")) => Ok(UsageAsk::Refused(members.span(value))),
        Some(_) => refuse("include_usage", "must be true or false"),
    }
}

/// Refuses what is billed apart from the model and told in no usage, and what would have another
/// model serve, at another price. These are extensions of aggregators to the protocols.
///
/// `models`, `plugins` and `search_parameters` must be among the fields of the members.
pub(super) fn refuse_unmetered<const N: usize>(
    members: &Members<'_, N>,
) -> Result<(), PeekRefusal> {
    members.must_be_absent("models", "is not offered: the price is that of one `model`")?;
    for field in ["plugins", "search_parameters"] {
        members.must_be_absent(field, "is not offered: what it costs is told in no usage")?;
    }
    Ok(())
}

/// Refuses a tier that is not one of these, which may have a price of its own.
pub(super) fn check_tier<const N: usize>(
    members: &Members<'_, N>,
    offered: &[&str],
    message: &'static str,
) -> Result<(), PeekRefusal> {
    match members.given("service_tier") {
        None => Ok(()),
        Some(raw) if json::string(raw).is_some_and(|tier| offered.contains(&&*tier)) => Ok(()),
        Some(_) => refuse("service_tier", message),
    }
}

/// The tiers of OpenAI's protocols that cost what the model costs, or less.
pub(super) const TIERS: &[&str] = &["auto", "default", "flex"];
pub(super) const TIERS_MESSAGE: &str = "must be auto, default or flex: others have another price";

const LIMIT_MESSAGE: &str = "must be a whole number from 1 to 2147483647";
const N_MESSAGE: &str = "must be a whole number from 1 to 128";
