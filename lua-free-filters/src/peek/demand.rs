//! What bounds the input of a request, and what the gateway counts itself.

use std::borrow::Cow;

use crate::json;
use crate::usage::Counts;

/// What bounds the input of a request, and what the gateway counts itself.
///
/// Nothing that a body refers to is ever fetched: what is not in it is bounded by its kind, or by
/// the model's context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// No tokenizer makes more than one input token of a byte: instructions, tools, schemas and
    /// prompts are all bytes of the body. Images and audio in the body are not in here; what an
    /// upstream is known to add, or to read more than once, is.
    pub text_bytes: u64,
    /// How many prompts the input is, of which each may fill the model's context; 0 is one too.
    pub prompts: u64,
    /// Part of the input is elsewhere (a file, an earlier answer, what a search finds) or of a
    /// kind whose bytes say nothing (audio, a document, what is not known here): only the model's
    /// context bounds it.
    pub is_open: bool,
    /// Images in the prompt whose declared detail is `low`.
    pub images_low: u64,
    /// All others, masks of edits among them.
    pub images_high: u64,
    /// The longest that an upload is taken to be, in milliseconds: what is reserved.
    ///
    /// Exact for honest WAV. Of other formats it is what sustained speech or music takes; silence
    /// or a format made for the purpose may play longer, which only the upstream's own count of
    /// its length tells.
    pub audio_ms_max: u64,
    /// The length of an upload, as far as it can be told from its bytes: what is charged when the
    /// upstream does not say.
    pub audio_ms: u64,
    /// Characters to be spoken: Unicode scalar values.
    pub characters: u64,
    /// What rerankers bill: one query with up to a hundred documents.
    pub search_units: u64,
    /// Searches of the web, which are billed apart.
    pub web_searches: WebSearches,
    /// The request chooses who serves it at an aggregator, each of whom has a price of its own.
    pub chooses_provider: bool,
    /// Text that the client foresees in the answer. What of it does not come true is billed as
    /// output too, and no limit of the output bounds it.
    pub foreseen_bytes: u64,
    /// Images to be made; 0 where none are.
    pub images: u64,
    /// Previews of them are wanted, which cost output.
    pub has_previews: bool,
    /// Those in the prompt are to be kept to closely, which costs input beyond their size.
    pub is_faithful: bool,
    /// As asked for; `None` and `auto` are the upstream's own choice.
    pub image_size: Option<String>,
    /// As asked for; `None` and `auto` are the upstream's own choice.
    pub image_quality: Option<String>,
}

/// How many searches of the web an answer may make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WebSearches {
    /// The request allows none.
    #[default]
    None,
    /// It makes so many, and no usage tells them.
    Always(u64),
    /// The request says how many at most.
    UpTo(u64),
    /// It may, and nothing in the request bounds them.
    Unbounded,
}

impl Demand {
    /// What the request alone says was used once it was served.
    pub fn counted(&self) -> Counts {
        let web_searches = match self.web_searches {
            WebSearches::Always(searches) => searches,
            WebSearches::None | WebSearches::UpTo(_) | WebSearches::Unbounded => 0,
        };
        Counts {
            web_searches,
            input_images: self.images_low.saturating_add(self.images_high),
            characters: self.characters,
            search_units: self.search_units,
            ..Counts::default()
        }
    }

    /// That of a body of so many bytes, all of it text until [`Demand::set_aside`].
    pub(super) fn of_body(body: &[u8]) -> Self {
        Self { text_bytes: bytes(body.len()), ..Self::default() }
    }

    /// Takes bytes of the body out of its text, because they are of an image or of audio.
    pub(super) fn set_aside(&mut self, len: usize) {
        self.text_bytes = self.text_bytes.saturating_sub(bytes(len));
    }

    /// Counts text that is not in the body, or once more what is.
    pub(super) fn add(&mut self, text_bytes: u64) {
        self.text_bytes = self.text_bytes.saturating_add(text_bytes);
    }

    /// An image of which this is the URL, as written. One in the body is set aside; one that is
    /// elsewhere is bounded by being an image.
    ///
    /// What is not an image after all, a document in an image's place, is open: there are
    /// upstreams that read it.
    pub(super) fn image_at(&mut self, url: Option<&str>, detail: Option<&str>) {
        match url.and_then(beginning) {
            Some(text) if begins(&text, "data:image/") => {
                self.set_aside(url.map_or(0, str::len));
            }
            Some(text) if begins(&text, "data:") => self.is_open = true,
            Some(_) => {}
            None => self.is_open = true,
        }
        self.image(detail);
    }

    /// An image of this declared detail, as written. The model may look at it as closely as it
    /// likes unless `low` is asked for.
    pub(super) fn image(&mut self, detail: Option<&str>) {
        let images = match detail {
            Some(r#""low""#) => &mut self.images_low,
            _ => &mut self.images_high,
        };
        *images = images.saturating_add(1);
    }
}

/// A length as a count.
pub(super) fn bytes(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// A string that was read as JSON, or the beginning of a long one: enough of it to see of what
/// kind a URL is, however it is escaped, without a copy of all of it.
fn beginning(raw: &str) -> Option<Cow<'_, str>> {
    if raw.len() <= BEGINNING_BYTES {
        return json::string(raw);
    }
    // An escape cannot be cut; it is at most twelve bytes long.
    let ends = (BEGINNING_BYTES - 12..=BEGINNING_BYTES).rev();
    let cut = |end| json::string(&format!("{}\"", raw.get(..end)?)).map(Cow::into_owned);
    ends.filter_map(cut).next().map(Cow::Owned)
}

fn begins(text: &str, with: &str) -> bool {
    text.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with))
}

/// Six for each byte of `data:image/`, and some.
const BEGINNING_BYTES: usize = 96;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, detail: Option<&str>, expected: (u64, bool, u64, u64)) {
        let mut demand = Demand { text_bytes: 1000, ..Demand::default() };
        demand.image_at(Some(url), detail);
        let Demand { text_bytes, is_open, images_low, images_high, .. } = demand;
        assert_eq!((text_bytes, is_open, images_low, images_high), expected, "{url}");
    }

    #[test]
    fn only_an_image_in_the_body_is_set_aside() {
        check(r#""data:image/png;base64,AAAA""#, None, (972, false, 0, 1));
        check(r#""DATA:Image\/png;base64,AA""#, None, (973, false, 0, 1));
        check(r#""\u0064ata:image/png,A""#, None, (977, false, 0, 1));
        check(r#""https://example.com/data:image/png""#, None, (1000, false, 0, 1));
        check(r#""data:application/pdf;base64,AAAA""#, None, (1000, true, 0, 1));
        check(r#""data:text/plain,AAAA""#, None, (1000, true, 0, 1));
        check(r#""\ud800""#, None, (1000, true, 0, 1));
        check("7", None, (1000, true, 0, 1));
        let long = format!(r#""data:image\/png;base64,{}""#, r"A\/".repeat(100));
        check(&long, None, (675, false, 0, 1));
        let escaped: String =
            "data:image/png;base64,AAAA".bytes().map(|byte| format!("\\u{byte:04x}")).collect();
        check(&format!(r#""{escaped}""#), None, (842, false, 0, 1));
        for shift in 0..12 {
            let pairs = format!(r#""{}{}""#, "x".repeat(shift), r"\ud83d\udc4b".repeat(20));
            check(&pairs, None, (1000, false, 0, 1));
        }
    }

    #[test]
    fn only_low_detail_is_low() {
        for detail in [None, Some("null"), Some(r#""high""#), Some(r#""auto""#), Some(r#""LOW""#)] {
            check(r#""x""#, detail, (1000, false, 0, 1));
        }
        check(r#""x""#, Some(r#""low""#), (1000, false, 1, 0));
    }

    #[test]
    fn what_the_request_alone_tells_is_counted() {
        let demand = Demand {
            images_low: 1,
            images_high: 2,
            characters: 3,
            search_units: 4,
            images: 5,
            audio_ms: 6,
            web_searches: WebSearches::Always(7),
            ..Demand::default()
        };
        let counted = Counts {
            input_images: 3,
            characters: 3,
            search_units: 4,
            web_searches: 7,
            ..Counts::NONE
        };
        assert_eq!(demand.counted(), counted);
    }
}
