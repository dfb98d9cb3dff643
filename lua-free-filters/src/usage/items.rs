//! What a response of the Responses API made with its tools, counted by the piece.

use serde_json::value::RawValue;

use crate::json::{self, Object};

use super::number;

/// What was made, beside text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) images: u64,
    pub(super) web_searches: u64,
}

impl Made {
    pub(super) fn plus(self, more: Self) -> Self {
        Self {
            images: self.images.saturating_add(more.images),
            web_searches: self.web_searches.saturating_add(more.web_searches),
        }
    }

    /// The same things counted in two ways, of which either may have missed some.
    pub(super) fn max(self, other: Self) -> Self {
        Self {
            images: self.images.max(other.images),
            web_searches: self.web_searches.max(other.web_searches),
        }
    }
}

/// Whether an item of this type is counted at all.
pub(super) fn is_counted(kind: &[u8]) -> bool {
    matches!(kind, b"web_search_call" | b"image_generation_call")
}

/// What one item of the output is. A call of the search tool that opens a page, or looks for
/// something in one, is no search.
pub(super) fn of_item(item: &str) -> Made {
    let Ok(item) = Object::read(item) else { return Made::default() };
    let kind = |object: &Object<'_>| {
        object.last("type").and_then(|kind| json::string(kind.raw)).map(String::from)
    };
    match kind(&item).as_deref() {
        Some("image_generation_call") => Made { images: 1, ..Made::default() },
        Some("web_search_call") => {
            let action = item.last("action").and_then(|action| Object::read(action.raw).ok());
            let searches =
                action.and_then(|action| kind(&action)).is_none_or(|kind| kind == "search");
            Made { web_searches: u64::from(searches), ..Made::default() }
        }
        _ => Made::default(),
    }
}

/// What a whole response says that it made: the items of its output, or the number of searches
/// where it tells that and it is more.
pub(super) fn of_response(response: &Object<'_>) -> Made {
    let output = response.last("output").map_or("[]", |output| output.raw);
    let items: Vec<&RawValue> = serde_json::from_str(output).unwrap_or_default();
    let made = items.iter().map(|item| of_item(item.get())).fold(Made::default(), Made::plus);
    let told = response.last("tool_usage").and_then(|used| searches_told(used.raw));
    made.max(Made { web_searches: told.unwrap_or(0), images: 0 })
}

fn searches_told(tool_usage: &str) -> Option<u64> {
    let used = Object::read(tool_usage).ok()?;
    let search = Object::read(used.last("web_search")?.raw).ok()?;
    Some(number::scaled(search.last("num_requests")?.raw, 0)?.rounded_up)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(response: &str, web_searches: u64, images: u64) {
        let made = of_response(&Object::read(response).expect("an object"));
        assert_eq!(made, Made { images, web_searches }, "{response}");
    }

    #[test]
    fn searches_and_images_are_counted_and_nothing_else() {
        let search = r#"{"type":"web_search_call","id":"ws_1","action":{"type":"search"}}"#;
        let bare = r#"{"id":"ws_2","type":"web_search_call"}"#;
        let open = r#"{"type":"web_search_call","action":{"type":"open_page"}}"#;
        let find = r#"{"type":"web_search_call","action":{"type":"find_in_page"}}"#;
        let image = r#"{"type":"image_generation_call","result":"aGk="}"#;
        let text = r#"{"type":"message","content":[{"type":"web_search_call"}]}"#;
        check(&format!(r#"{{"output":[{search},{open},{text},{bare},{find},{image}]}}"#), 2, 1);
        for nothing in ["{}", r#"{"output":null}"#, r#"{"output":{}}"#, r#"{"output":[7,[]]}"#] {
            check(nothing, 0, 0);
        }
    }

    #[test]
    fn the_number_of_searches_told_counts_where_it_is_more() {
        let told = |number: &str| {
            format!(
                r#"{{"output":[{{"type":"web_search_call"}}],"tool_usage":{{"web_search":{{"num_requests":{number}}}}}}}"#
            )
        };
        check(&told("3"), 3, 0);
        check(&told("0"), 1, 0);
        check(&told("\"x\""), 1, 0);
        check(r#"{"tool_usage":{"web_search":null}}"#, 0, 0);
    }
}
