//! Moderations.

use super::chat::read_content;
use super::embeddings::prompts;
use super::members::{Members, refuse};
use super::{PeekRefusal, Peeked, not_streamed, of_members};

/// The input is a text, a list of them, or parts as in a chat.
pub(super) fn read(body: &[u8]) -> Result<Peeked<'_>, PeekRefusal> {
    let members = Members::of_body(body, &["model", "input", "stream", "models"])?;
    let mut peeked = not_streamed(of_members(&members)?)?;
    members.must_be_absent("models", "is not offered: the price is that of one `model`")?;
    match members.given("input") {
        None => refuse("input", "is missing"),
        Some(text) if text.starts_with('"') => Ok(peeked),
        Some(list) if list.starts_with('[') => {
            peeked.demand.prompts = prompts(list);
            read_content(Some(members.array("input")?), &mut peeked.demand)?;
            Ok(peeked)
        }
        Some(_) => refuse("input", "must be a string or an array"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check_counted, check_refused_as};
    use crate::route::Route::Moderations;

    fn body(input: &str) -> String {
        format!(r#"{{"model":"m","input":{input}}}"#)
    }

    #[test]
    fn texts_and_images_are_counted() {
        let url = "data:image/jpeg;base64,AAAA";
        let image = format!(r#"{{"type":"image_url","image_url":{{"url":"{url}"}}}}"#);
        check_counted(Moderations, &body(r#""a""#), &[], (false, 0, 0));
        check_counted(Moderations, &body(r#"["a","b"]"#), &[], (false, 0, 0));
        let two = body(r#"["a","b"]"#);
        assert_eq!(super::super::tests::read_as(Moderations, &two).demand.prompts, 2);
        let both = format!(r#"[{{"type":"text","text":"a"}},{image}]"#);
        check_counted(Moderations, &body(&both), &[url], (false, 0, 1));
    }

    #[test]
    fn there_is_an_input() {
        check_refused_as(Moderations, r#"{"model":"m"}"#, "`input` is missing");
        check_refused_as(Moderations, &body("[]"), "`input` must not be empty");
        check_refused_as(Moderations, &body("true"), "`input` must be a string or an array");
    }
}
