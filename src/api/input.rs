//! What a caller of the local endpoints sent: query and JSON body read into one typed struct,
//! the body's fields winning. A mistake is answered with the field named and nothing echoed.

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Query, Request};
use http::{Method, Uri};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error, Unexpected, Visitor};
use serde_json::{Map, Value};

use super::Refused;
use crate::error::{Kind, Refusal};
use crate::money::Msat;

/// The fields of a request. Unknown ones are passed over, as the OpenAI API does.
#[derive(Debug)]
pub(super) struct Input<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refused> {
        let (parts, body) = request.into_parts();
        let mut fields = query_fields(&parts.uri)?;
        // The content type is not asked: clients send JSON under many names.
        if parts.method == Method::POST {
            fields.extend(body_fields(body).await?);
        }
        Ok(Self(serde_path_to_error::deserialize(Value::Object(fields)).map_err(named)?))
    }
}

fn query_fields(uri: &Uri) -> Result<Map<String, Value>, Refusal> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|_| Refusal::field("query", "cannot be decoded"))?;
    Ok(pairs.into_iter().map(|(name, value)| (name, Value::String(value))).collect())
}

/// An absent body is an empty one.
async fn body_fields(body: Body) -> Result<Map<String, Value>, Refusal> {
    let bytes = to_bytes(body, LOCAL_BODY_BYTES_MAX)
        .await
        .map_err(|_| body_too_large(LOCAL_BODY_BYTES_MAX))?;
    if bytes.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Refusal::field("body", "must be a JSON object")),
        Err(_) => Err(Refusal::field("body", "is not valid JSON")),
    }
}

/// Keeps what serde expected and drops what it found: the value may be a secret in the wrong
/// field.
fn named(error: serde_path_to_error::Error<serde_json::Error>) -> Refusal {
    let field = error.path().to_string();
    let problem = error.into_inner().to_string();
    match problem.rsplit_once(", expected ") {
        Some((_, expected)) => Refusal::field(&field, format_args!("must be {expected}")),
        None => Refusal::field(&field, "cannot be read"),
    }
}

/// A body beyond the limit of its route. Nothing of it was looked at.
pub fn body_too_large(body_bytes_max: usize) -> Refusal {
    Refusal::new(
        Kind::InvalidRequest,
        "request_too_large",
        format!("the request body is larger than {body_bytes_max} bytes"),
    )
    .status(413)
}

/// A Cashu token as a field. White space around it is dropped, as it is in a header, so that
/// the same ecash names the same account however it was pasted.
pub(super) fn cashu_token<'f>(name: &str, field: Option<&'f String>) -> Result<&'f str, Refusal> {
    match field.map(|text| text.trim_ascii()) {
        Some(text) if !text.is_empty() => Ok(text),
        Some(_) | None => Err(Refusal::field(name, "is required: a Cashu token")),
    }
}

/// A positive number of whole sats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sats(pub(super) Msat);

impl<'de> Deserialize<'de> for Sats {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(SatsVisitor)
    }
}

impl JsonSchema for Sats {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Sats".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": Msat::MAX.whole_sats() })
    }
}

struct SatsVisitor;

impl Visitor<'_> for SatsVisitor {
    type Value = Sats;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a positive integer")
    }

    fn visit_u64<E: Error>(self, sats: u64) -> Result<Sats, E> {
        match Msat::from_sats(sats) {
            Some(amount) if sats > 0 => Ok(Sats(amount)),
            Some(_) | None => Err(E::invalid_value(Unexpected::Unsigned(sats), &self)),
        }
    }
}

/// A whole number: as JSON has it, or its digits alone, as a query has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whole(pub(super) u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WholeVisitor)
    }
}

impl JsonSchema for Whole {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Whole".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 0, "maximum": Msat::MAX.get() })
    }
}

struct WholeVisitor;

impl Visitor<'_> for WholeVisitor {
    type Value = Whole;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Whole, E> {
        Ok(Whole(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Whole, E> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok());
        digits
            .flatten()
            .map(Whole)
            .ok_or_else(|| E::invalid_value(Unexpected::Other("text"), &self))
    }
}

/// Tokens of a thousand proofs fit; nothing here needs more.
pub const LOCAL_BODY_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    struct Fields {
        text: Option<String>,
        amount_sats: Option<Sats>,
        later: Option<Value>,
        whole: Option<Whole>,
    }

    async fn read(method: &str, uri: &str, body: impl Into<Body>) -> Result<Fields, Refusal> {
        let request = Request::builder().method(method).uri(uri).body(body.into()).unwrap();
        let Input(fields) = Input::from_request(request, &()).await.map_err(|r| r.refusal)?;
        Ok(fields)
    }

    async fn refused(body: &str) -> Value {
        let refusal = read("POST", "/", body.to_owned()).await.unwrap_err();
        assert_eq!((refusal.status_code(), refusal.code()), (400, "invalid_value"));
        serde_json::from_slice(&refusal.body("")).unwrap()
    }

    #[tokio::test]
    async fn fields_come_from_query_and_body_and_the_body_wins() {
        let text = |fields: Fields| fields.text.unwrap();
        assert_eq!(text(read("GET", "/?text=a%20b", "").await.unwrap()), "a b");
        assert_eq!(text(read("POST", "/?text=a", "").await.unwrap()), "a");
        assert_eq!(text(read("POST", "/?text=a", r#"{"text":"b"}"#).await.unwrap()), "b");
        assert_eq!(read("POST", "/", " \n").await.unwrap(), Fields::default());
        let nulls = r#"{"text":null,"amount_sats":null,"later":null,"unknown":1}"#;
        assert_eq!(read("POST", "/", nulls).await.unwrap(), Fields::default());
    }

    #[tokio::test]
    async fn a_mistake_names_its_field_and_echoes_nothing() {
        for (body, field) in [
            (r#"{"text":5}"#, "text"),
            (r#"{"text":["x"]}"#, "text"),
            (r#"{"amount_sats":"cashuAsecret, expected cashuAsecret"}"#, "amount_sats"),
            (r#"{"amount_sats":0}"#, "amount_sats"),
            (r#"{"amount_sats":-1}"#, "amount_sats"),
            (r#"{"amount_sats":1.5}"#, "amount_sats"),
            (r#"{"amount_sats":18446744073709551615}"#, "amount_sats"),
            (r#"["cashuAsecret"]"#, "body"),
            ("cashuAsecret", "body"),
            ("\u{fffd}", "body"),
        ] {
            let answer = refused(body).await;
            assert_eq!(answer["error"]["details"]["param"], field, "{body}");
            assert!(!answer.to_string().contains("cashuAsecret"), "{body}");
        }
        let message = refused(r#"{"amount_sats":"7"}"#).await["error"]["message"].clone();
        assert_eq!(message, "'amount_sats' must be a positive integer");
    }

    #[tokio::test]
    async fn a_whole_number_is_one_or_its_digits() {
        let whole = |fields: Fields| fields.whole.map(|Whole(number)| number);
        assert_eq!(whole(read("GET", "/?whole=7", "").await.unwrap()), Some(7));
        for (body, number) in [(r#"{"whole":0}"#, 0), (r#"{"whole":"07"}"#, 7)] {
            assert_eq!(whole(read("POST", "/", body).await.unwrap()), Some(number));
        }
        for wrong in ["-1", "1.5", "true", "[1]", "\"\"", "\"-1\"", "\"+1\"", "\" 1\"", "1e40"] {
            let answer = refused(&format!(r#"{{"whole":{wrong}}}"#)).await;
            assert_eq!(answer["error"]["message"], "'whole' must be a whole number", "{wrong}");
        }
        let beyond = refused(r#"{"whole":"18446744073709551616"}"#).await;
        assert_eq!(beyond["error"]["details"]["param"], "whole");
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_413() {
        let fitting = "{}".to_owned() + &" ".repeat(LOCAL_BODY_BYTES_MAX - 2);
        assert!(read("POST", "/", fitting.clone()).await.is_ok());
        let refusal = read("POST", "/", fitting + " ").await.unwrap_err();
        assert_eq!(refusal.status_code(), 413);
    }
}
