//! Reranking: documents in the order of what they say about a query.

use super::demand::{Demand, bytes};
use super::members::{Members, elements, refuse};
use super::{PeekRefusal, Peeked, not_streamed, of_members};

pub(super) fn read(body: &[u8]) -> Result<Peeked<'_>, PeekRefusal> {
    let members = Members::of_body(body, &["model", "query", "documents", "stream", "models"])?;
    let mut peeked = not_streamed(of_members(&members)?)?;
    members.must_be_absent("models", "is not offered: the price is that of one `model`")?;
    let demand = &mut peeked.demand;
    let Some(query) = members.given("query") else { return refuse("query", "is missing") };
    read_text("query", query, demand)?;
    let mut documents = 0_u64;
    for document in elements(members.array("documents")?) {
        documents += 1;
        read_text("documents", document, demand)?;
    }
    // The query is read with every document, and billed so where tokens are.
    demand.add(bytes(query.len()).saturating_mul(documents));
    demand.prompts = documents;
    demand.search_units = documents.div_ceil(DOCUMENTS_PER_UNIT);
    Ok(peeked)
}

/// A text, or an object: with text in it, or with what is not in the body.
fn read_text(field: &'static str, raw: &str, demand: &mut Demand) -> Result<(), PeekRefusal> {
    match raw.as_bytes().first() {
        Some(b'"') => Ok(()),
        Some(b'{') => {
            let object = Members::of(raw, &["text", "image", "image_url"])?;
            let has_text = object.given("text").is_some_and(|text| text.starts_with('"'));
            demand.is_open |= !has_text || object.gives_any(&["image", "image_url"]);
            Ok(())
        }
        _ => refuse(field, "must be text"),
    }
}

const DOCUMENTS_PER_UNIT: u64 = 100;

#[cfg(test)]
mod tests {
    use super::super::tests::{check_refused_as, read_as};
    use crate::route::Route::Rerank;

    fn body(query: &str, documents: &str) -> String {
        format!(r#"{{"model":"m","query":{query},"documents":{documents},"top_n":3}}"#)
    }

    #[test]
    fn a_hundred_documents_are_one_unit() {
        for (documents, units) in [(1, 1), (100, 1), (101, 2), (200, 2), (201, 3)] {
            let list = vec![r#""a""#; documents].join(",");
            let body = body(r#""q""#, &format!("[{list}]"));
            let demand = read_as(Rerank, &body).demand;
            assert_eq!((demand.search_units, demand.is_open), (units, false));
            assert_eq!(demand.prompts, u64::try_from(documents).expect("few"));
        }
    }

    #[test]
    fn the_query_is_counted_again_with_every_document() {
        let body = body(r#""query""#, r#"["a","b","c"]"#);
        let whole = u64::try_from(body.len()).expect("short");
        assert_eq!(read_as(Rerank, &body).demand.text_bytes, whole + 3 * 7);
    }

    #[test]
    fn documents_may_be_objects_and_what_is_no_text_is_open() {
        let open = |query: &str, document: &str| {
            read_as(Rerank, &body(query, &format!("[{document}]"))).demand.is_open
        };
        assert!(!open(r#""q""#, r#"{"text":"a","id":1}"#));
        assert!(open(r#""q""#, r#"{"image":"https://example.com"}"#));
        assert!(open(r#""q""#, r#"{"text":"a","image":"https://example.com"}"#));
        assert!(open(r#"{"image":"https://example.com"}"#, r#""a""#));
    }

    #[test]
    fn there_is_a_query_and_a_document() {
        check_refused_as(Rerank, r#"{"model":"m","documents":["a"]}"#, "`query` is missing");
        check_refused_as(Rerank, r#"{"model":"m","query":"q"}"#, "`documents` is missing");
        check_refused_as(Rerank, &body("1", "[1]"), "`query` must be text");
        check_refused_as(Rerank, &body(r#""q""#, "[]"), "`documents` must not be empty");
        check_refused_as(Rerank, &body(r#""q""#, r#""a""#), "`documents` must be an array");
        check_refused_as(Rerank, &body(r#""q""#, r#"["a",1]"#), "`documents` must be text");
    }
}
