//! `GET /v1/balance/history`: what came in, what left, and what every request cost, the newest
//! first and in pages. A cursor says where a page begins and nothing else.

use axum::Json;
use axum::extract::State;
use http::HeaderMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{PREFIXES, account_of, bearer, unavailable};
use crate::api::input::Input;
use crate::api::openapi::{FIELDS, KEY, Operation, Payers, REDEEMED, Tag};
use crate::api::{ApiState, Refused};
use crate::ledger::{Cursor, Entry, HISTORY_PAGE_MAX, Ledger, Record, UsageSource, What};
use crate::money::Msat;

pub(super) fn operation() -> Operation {
    Operation::get("/v1/balance/history", "history")
        .tag(Tag::Balance)
        .says("What came in, what left, and what every request cost", "The newest first.")
        .also_at(&PREFIXES, "/history")
        .paid_by(Payers::Bearer)
        .query::<Asked>()
        .answers::<Listed>("A page.")
        .refuses(&[FIELDS, KEY, REDEEMED])
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "HistoryRequest")]
pub(super) struct Asked {
    limit: Option<Limit>,
    /// The `next_cursor` of the page before.
    #[serde(default, deserialize_with = "cursor")]
    #[schemars(with = "Option<String>")]
    cursor: Option<Cursor>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "History")]
pub(super) struct Listed {
    object: &'static str,
    data: Vec<Shown>,
    has_more: bool,
    /// For the next page; null on the last.
    next_cursor: Option<String>,
}

/// One entry. Times are in seconds since 1970, amounts in msat.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schemars(rename = "HistoryEntry")]
enum Shown {
    Deposit {
        id: String,
        created_at: u64,
        amount_msats: Msat,
    },
    Refund {
        id: String,
        created_at: u64,
        amount_msats: Msat,
    },
    /// What the usage costs at the published price is `cost_msats`, which was charged, and
    /// `shortfall_msats`, which the balance could not cover.
    Request {
        id: String,
        created_at: u64,
        request_id: Option<String>,
        route: Option<String>,
        model: Option<String>,
        how: &'static str,
        #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
        usage: Box<RawValue>,
        usage_source: Option<&'static str>,
        reserved_msats: Msat,
        cost_msats: Msat,
        shortfall_msats: Msat,
    },
}

pub(super) async fn history<L: Ledger>(
    State(api): State<ApiState<L>>,
    headers: HeaderMap,
    Input(asked): Input<Asked>,
) -> Result<Json<Listed>, Refused> {
    let shown = bearer(&api, &headers)?;
    account_of(&api, &shown).await?;
    let Limit(limit) = asked.limit.unwrap_or(Limit(LIMIT_DEFAULT));
    let page = api.till.ledger().history(shown.key().account(), asked.cursor, limit);
    let page = page.await.map_err(unavailable)?;
    Ok(Json(Listed {
        object: "list",
        data: page.entries.into_iter().map(Shown::of).collect(),
        has_more: page.next.is_some(),
        next_cursor: page.next.map(|cursor| cursor.to_string()),
    }))
}

impl Shown {
    fn of(Entry { at, what }: Entry) -> Self {
        let created_at = at.whole_seconds();
        match what {
            What::Deposit { id, amount } => {
                Self::Deposit { id: id.to_string(), created_at, amount_msats: amount }
            }
            What::Withdrawal { id, amount } => {
                Self::Refund { id: id.to_string(), created_at, amount_msats: amount }
            }
            What::Request { id, reserved, spent, shortfall, how, record } => {
                let Record { request_id, route, model, usage_source, usage, .. } = record;
                Self::Request {
                    id: id.to_string(),
                    created_at,
                    request_id: known(request_id),
                    route: known(route),
                    model: known(model),
                    how: how.name(),
                    // Nothing used has no text, and what is no JSON was not written here.
                    usage: RawValue::from_string(usage).unwrap_or_else(|_| nothing()),
                    usage_source: usage_source.map(UsageSource::name),
                    reserved_msats: reserved,
                    cost_msats: spent,
                    shortfall_msats: shortfall,
                }
            }
        }
    }
}

fn known(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// An empty object.
fn nothing() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).unwrap_or_default()
}

/// How many entries are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit(u32);

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(LimitVisitor)
    }
}

impl JsonSchema for Limit {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Limit".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": HISTORY_PAGE_MAX })
    }
}

struct LimitVisitor;

impl Visitor<'_> for LimitVisitor {
    type Value = Limit;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a whole number from 1 to {HISTORY_PAGE_MAX}")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Limit, E> {
        match text.parse() {
            Ok(limit @ 1..=HISTORY_PAGE_MAX) => Ok(Limit(limit)),
            Ok(_) | Err(_) => Err(E::invalid_value(Unexpected::Str(text), &self)),
        }
    }
}

fn cursor<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cursor>, D::Error> {
    deserializer.deserialize_str(CursorVisitor).map(Some)
}

struct CursorVisitor;

impl Visitor<'_> for CursorVisitor {
    type Value = Cursor;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the next_cursor of an earlier answer")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Cursor, E> {
        text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// Entries in an answer to a client that does not say how many.
const LIMIT_DEFAULT: u32 = 20;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::clock::UnixMs;
    use crate::ids::ReservationId;
    use crate::ledger::Ended;

    fn asked(fields: Value) -> Result<(Option<u32>, Option<Cursor>), String> {
        let asked: Asked = serde_json::from_value(fields).map_err(|error| error.to_string())?;
        Ok((asked.limit.map(|Limit(limit)| limit), asked.cursor))
    }

    #[test]
    fn a_limit_is_a_number_from_1_to_100_and_a_cursor_is_one_that_was_given() {
        assert_eq!(asked(json!({})), Ok((None, None)));
        for limit in [1, 20, HISTORY_PAGE_MAX] {
            assert_eq!(asked(json!({"limit": limit.to_string()})), Ok((Some(limit), None)));
        }
        for limit in ["", "0", "101", "-1", "1.5", " 1", "ten", "4294967297"] {
            let problem = asked(json!({ "limit": limit })).unwrap_err();
            assert!(problem.ends_with("expected a whole number from 1 to 100"), "{problem}");
        }
        let given = Cursor::below(7).unwrap();
        assert_eq!(asked(json!({"cursor": given.to_string()})), Ok((None, Some(given))));
        for forged in ["", "7", "0000000000000g", "'; DROP TABLE accounts", "00000000000007'"] {
            let problem = asked(json!({ "cursor": forged })).unwrap_err();
            assert!(problem.ends_with("expected the next_cursor of an earlier answer"));
        }
    }

    #[test]
    fn what_nobody_knows_of_a_request_is_null_and_what_was_used_is_as_it_was_written() {
        let request = |record| {
            let what = What::Request {
                id: ReservationId::stored("r"),
                reserved: Msat::new(9).unwrap(),
                spent: Msat::new(5).unwrap(),
                shortfall: Msat::ZERO,
                how: Ended::Expired,
                record,
            };
            let entry = Entry { at: UnixMs(1_999), what };
            serde_json::to_string(&Shown::of(entry)).unwrap()
        };
        assert_eq!(
            request(Record::default()),
            r#"{"kind":"request","id":"r","created_at":1,"request_id":null,"route":null,"#
                .to_owned()
                + r#""model":null,"how":"expired","usage":{},"usage_source":null,"#
                + r#""reserved_msats":9,"cost_msats":5,"shortfall_msats":0}"#
        );
        let usage = r#"{"output_tokens":2,"images":1}"#.to_owned();
        let record = Record { usage: usage.clone(), ..Record::default() };
        assert!(request(record).contains(&usage));
        let broken = Record { usage: "{".to_owned(), ..Record::default() };
        assert!(request(broken).contains(r#""usage":{},"#));
    }
}
