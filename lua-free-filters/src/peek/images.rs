//! Images, made and edited.

use super::demand::Demand;
use super::form::{Form, Known};
use super::members::{Members, elements, refuse};
use super::{PeekRefusal, Peeked, of_members};

pub(super) fn generation(body: &[u8]) -> Result<Peeked<'_>, PeekRefusal> {
    made(&Members::of_body(body, &FIELDS)?)
}

/// An edit as JSON: the images are in it as URLs, or elsewhere.
pub(super) fn edit(body: &[u8]) -> Result<Peeked<'_>, PeekRefusal> {
    let members = Members::of_body(body, &EDIT_FIELDS)?;
    let mut peeked = made(&members)?;
    if !members.gives_any(&["image", "images"]) {
        return refuse("image", "is missing");
    }
    for field in ["image", "images", "mask"] {
        match members.given(field) {
            None => {}
            Some(list) if list.starts_with('[') => {
                elements(list).try_for_each(|image| read_image(image, &mut peeked.demand))?;
            }
            Some(image) => read_image(image, &mut peeked.demand)?,
        }
    }
    Ok(peeked)
}

fn made<'b, const N: usize>(members: &Members<'b, N>) -> Result<Peeked<'b>, PeekRefusal> {
    let mut peeked = of_members(members)?;
    members.must_be_absent("models", "is not offered: the price is that of one `model`")?;
    match members.string("prompt")? {
        None => return refuse("prompt", "is missing"),
        Some(prompt) if prompt.is_empty() => return refuse("prompt", "must not be empty"),
        Some(_) => {}
    }
    peeked.n = members.count("n", IMAGES_MAX, N_MESSAGE)?.unwrap_or(1);
    peeked.demand.images = peeked.n;
    let kind = |field| match members.given(field) {
        None => Ok(None),
        Some(_) => read_kind(field, members.string(field)?.as_deref()),
    };
    peeked.demand.image_size = kind("size")?;
    peeked.demand.image_quality = kind("quality")?;
    peeked.demand.has_previews = members.given(PREVIEWS).is_some_and(|number| number != "0");
    peeked.demand.is_faithful = members.given(FIDELITY).is_some_and(|kind| kind != r#""low""#);
    Ok(peeked)
}

fn read_image(image: &str, demand: &mut Demand) -> Result<(), PeekRefusal> {
    if !image.starts_with('{') {
        demand.image_at(Some(image), None);
        return Ok(());
    }
    let image = Members::of(image, &["image_url", "url", "file_id"])?;
    match (image.given("image_url").or(image.given("url")), image.given("file_id")) {
        (Some(url), None) => demand.image_at(Some(url), None),
        _ => {
            demand.is_open = true;
            demand.image(None);
        }
    }
    Ok(())
}

/// An edit as a form: the images are files.
pub(super) fn edit_form<'b>(boundary: &str, body: &'b [u8]) -> Result<Peeked<'b>, PeekRefusal> {
    let form = Form::read(body, boundary, &KNOWN)?;
    let mut peeked = form.peeked()?;
    if !form.has("prompt") {
        return refuse("prompt", "is missing");
    }
    if !form.has("image") {
        return refuse("image", "is missing");
    }
    peeked.stream = form.flag("stream")?;
    peeked.n = form.count("n", IMAGES_MAX, N_MESSAGE)?.unwrap_or(1);
    let demand = &mut peeked.demand;
    demand.images = peeked.n;
    demand.image_size = read_kind("size", form.text("size")?)?;
    demand.image_quality = read_kind("quality", form.text("quality")?)?;
    demand.has_previews = form.text(PREVIEWS)?.is_some_and(|number| number != "0");
    demand.is_faithful = form.text(FIDELITY)?.is_some_and(|kind| kind != "low");
    for (_, image) in form.files("image").chain(form.files("mask")) {
        demand.set_aside(image.len());
        demand.image(None);
    }
    Ok(peeked)
}

fn read_kind(field: &'static str, kind: Option<&str>) -> Result<Option<String>, PeekRefusal> {
    match kind {
        Some(kind) if kind.len() > IMAGE_KIND_BYTES_MAX => refuse(field, "is too long"),
        kind => Ok(kind.map(str::to_owned)),
    }
}

/// More images of one request are refused, as OpenAI does.
pub const IMAGES_MAX: u64 = 10;
/// A longer size or quality is refused.
pub const IMAGE_KIND_BYTES_MAX: usize = 32;

const N_MESSAGE: &str = "must be a whole number from 1 to 10";
const PREVIEWS: &str = "partial_images";
const FIDELITY: &str = "input_fidelity";
const FIELDS: [&str; 9] =
    ["model", "prompt", "stream", "n", "size", "quality", "models", PREVIEWS, FIDELITY];
const EDIT_FIELDS: [&str; 12] = [
    "model", "prompt", "stream", "n", "size", "quality", "models", PREVIEWS, FIDELITY, "image",
    "images", "mask",
];
const KNOWN: Known = Known {
    fields: &["model", "prompt", "stream", "n", "size", "quality", PREVIEWS, FIDELITY],
    files: &[],
    lists: &["image", "mask"],
};

#[cfg(test)]
mod tests {
    use super::super::tests::{check_counted, check_refused_as, read_as};
    use super::super::{PeekRefusal, Peeked, read};
    use super::{FIDELITY, IMAGE_KIND_BYTES_MAX, IMAGES_MAX};
    use crate::peek::tests::form;
    use crate::route::Route::{ImageEdits, ImageGenerations};

    fn body(more: &str) -> String {
        format!(r#"{{"model":"m","prompt":"A fox"{more}}}"#)
    }

    #[test]
    fn images_are_counted_by_size_and_quality() {
        let small = body("");
        let peeked = read_as(ImageGenerations, &small);
        assert_eq!((peeked.n, peeked.stream, peeked.output_limit), (1, false, None));
        let body = body(r#","n":4,"size":"1024x1536","quality":"high","stream":true"#);
        let Peeked { n, stream, demand, .. } = read_as(ImageGenerations, &body);
        assert_eq!((n, demand.images, stream), (4, 4, true));
        assert_eq!(demand.image_size.as_deref(), Some("1024x1536"));
        assert_eq!(demand.image_quality.as_deref(), Some("high"));
    }

    #[test]
    fn what_makes_an_image_dearer_than_its_size_is_seen() {
        let seen = |more: &str| {
            let Peeked { demand, .. } = read_as(ImageGenerations, &body(more)).into_owned();
            (demand.has_previews, demand.is_faithful)
        };
        assert_eq!(seen(""), (false, false));
        assert_eq!(seen(r#","partial_images":0,"input_fidelity":"low""#), (false, false));
        assert_eq!(seen(r#","partial_images":3,"input_fidelity":"high""#), (true, true));
        let fields = [("model", "m"), ("prompt", "p"), ("partial_images", "2"), (FIDELITY, "high")];
        let body = form(&fields, &[("image", "a.png", b"x")]);
        let Peeked { demand, .. } = edit(&body).expect("a form");
        assert!(demand.has_previews && demand.is_faithful);
    }

    #[test]
    fn images_are_made_within_bounds() {
        let refused = |more: &str, expected: &str| {
            check_refused_as(ImageGenerations, &body(more), expected);
        };
        let most = body(&format!(r#","n":{IMAGES_MAX},"size":null"#));
        assert_eq!(read_as(ImageGenerations, &most).demand.images, IMAGES_MAX);
        for bad in ["0", "11", "-1", "1.0", "true", r#""2""#] {
            refused(&format!(r#","n":{bad}"#), "`n` must be a whole number from 1 to 10");
        }
        for field in ["size", "quality"] {
            let kind = |len| format!(r#","{field}":"{}""#, "x".repeat(len));
            read_as(ImageGenerations, &body(&kind(IMAGE_KIND_BYTES_MAX)));
            refused(&kind(IMAGE_KIND_BYTES_MAX + 1), &format!("`{field}` is too long"));
            refused(&format!(r#","{field}":1024"#), &format!("`{field}` must be a string"));
        }
        check_refused_as(ImageGenerations, r#"{"model":"m"}"#, "`prompt` is missing");
        let number = r#"{"model":"m","prompt":1}"#;
        check_refused_as(ImageGenerations, number, "`prompt` must be a string");
    }

    #[test]
    fn an_edit_as_json_counts_its_images_and_its_mask() {
        let png = "data:image/png;base64,AAAA";
        let image = format!(r#"{{"image_url":"{png}"}}"#);
        let more = format!(r#","images":[{image},{image}],"mask":{image}"#);
        check_counted(ImageEdits, &body(&more), &[png, png, png], (false, 0, 3));
        check_counted(ImageEdits, &body(&format!(r#","image":"{png}""#)), &[png], (false, 0, 1));
        let away = r#","images":[{"image_url":"https://example.com/a.png"}]"#;
        check_counted(ImageEdits, &body(away), &[], (false, 0, 1));
        check_counted(ImageEdits, &body(r#","images":[{"file_id":"f"}]"#), &[], (true, 0, 1));
        check_refused_as(ImageEdits, &body(""), "`image` is missing");
    }

    fn edit<'b>(body: &'b [u8]) -> Result<Peeked<'b>, PeekRefusal> {
        read(ImageEdits, Some("multipart/form-data; boundary=b"), body)
    }

    #[test]
    fn an_edit_as_a_form_counts_its_images_and_its_mask() {
        let fields = [("model", "m"), ("prompt", "A fox"), ("n", "2"), ("size", "auto")];
        for names in [&["image"][..], &["image[]", "image[]"], &["image[]", "mask"]] {
            let files: Vec<_> =
                names.iter().map(|name| (*name, "a.png", &b"\x89PNG"[..])).collect();
            let body = form(&fields, &files);
            let Peeked { model, n, demand, stream, .. } = edit(&body).expect("a form");
            assert_eq!((&*model, n, demand.images, stream), ("m", 2, 2, false));
            assert_eq!(demand.image_size.as_deref(), Some("auto"));
            let images = u64::try_from(names.len()).expect("few");
            assert_eq!((demand.images_low, demand.images_high), (0, images));
            let text = u64::try_from(body.len()).expect("short") - 4 * images;
            assert_eq!((demand.text_bytes, demand.is_open), (text, false));
        }
    }

    #[test]
    fn a_form_is_refused_by_the_field_that_is_wrong() {
        let refused = |fields: &[(&str, &str)], files: &[(&str, &str, &[u8])], expected: &str| {
            let refusal = edit(&form(fields, files)).map(|peeked| peeked.n).expect_err(expected);
            assert_eq!(refusal.to_string(), expected);
        };
        let image = [("image", "a.png", &b"x"[..])];
        let good = [("model", "m"), ("prompt", "p")];
        refused(&good[..1], &image, "`prompt` is missing");
        refused(&good[1..], &image, "`model` is missing");
        refused(&good, &[], "`image` is missing");
        fn with<'v>(field: &'v str, value: &'v str) -> [(&'v str, &'v str); 3] {
            [("model", "m"), ("prompt", "p"), (field, value)]
        }
        refused(&with("n", "11"), &image, "`n` must be a whole number from 1 to 10");
        refused(&with("n", "+1"), &image, "`n` must be a whole number from 1 to 10");
        refused(&with("n", "null"), &image, "`n` must be a whole number from 1 to 10");
        refused(&with("stream", "1"), &image, "`stream` must be true or false");
        let long = "x".repeat(IMAGE_KIND_BYTES_MAX + 1);
        refused(&with("size", &long), &image, "`size` is too long");
        refused(&with("image", "x"), &image, "`image` must be a file with a name");
        refused(&with("prompt", "q"), &image, "`prompt` appears twice");
        refused(&with("Prompt", "q"), &image, "`prompt` must be written in lower case");
        refused(&with("n[]", "2"), &image, "`n` must not be a list");
        refused(&with("image[0]", "2"), &image, "`image` must not have an index");
    }
}
