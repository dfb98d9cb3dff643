//! What a body says that it is.

use super::members::refuse;
use super::{PeekRefusal, WantedType};
use crate::multipart;

/// The types that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentType<'h> {
    /// JSON, or no type at all: what is no JSON then is refused as that.
    Json,
    /// A form with this boundary.
    Form(&'h str),
    Other,
}

impl<'h> ContentType<'h> {
    /// Reads the header as sent. JSON in another encoding than UTF-8 is not read as JSON.
    pub(super) fn of(header: Option<&'h str>) -> Result<Self, PeekRefusal> {
        let Some(header) = header else { return Ok(Self::Json) };
        let (kind, rest) = header.split_at(header.find(';').unwrap_or(header.len()));
        let kind = kind.trim_matches([' ', '\t']).to_ascii_lowercase();
        let parameters = multipart::parameters(rest);
        let is_json = kind == "application/json"
            || kind.strip_prefix("application/").is_some_and(|rest| rest.ends_with("+json"));
        if is_json {
            let Some(parameters) = parameters else {
                return refuse(FIELD, "has parameters that cannot be read");
            };
            return Ok(match multipart::one_of(&parameters, "charset") {
                Some(None) => Self::Json,
                Some(Some(charset)) if charset.eq_ignore_ascii_case("utf-8") => Self::Json,
                _ => Self::Other,
            });
        }
        if kind != "multipart/form-data" {
            return Ok(Self::Other);
        }
        match parameters.as_deref().and_then(multipart::boundary_of) {
            Some(boundary) => Ok(Self::Form(boundary)),
            None => refuse(FIELD, "must name one boundary of 1 to 70 characters"),
        }
    }

    /// Refuses everything but JSON.
    pub(super) fn json(self) -> Result<(), PeekRefusal> {
        match self {
            Self::Json => Ok(()),
            Self::Form(_) | Self::Other => Err(PeekRefusal::WrongType(WantedType::Json)),
        }
    }

    /// The boundary of a form; everything else is refused.
    pub(super) fn form(self) -> Result<&'h str, PeekRefusal> {
        match self {
            Self::Form(boundary) => Ok(boundary),
            Self::Json | Self::Other => Err(PeekRefusal::WrongType(WantedType::Form)),
        }
    }
}

const FIELD: &str = "content-type";

#[cfg(test)]
mod tests {
    use super::*;

    fn of(header: &str) -> ContentType<'_> {
        ContentType::of(Some(header)).unwrap_or_else(|refusal| panic!("{header}: {refusal}"))
    }

    #[test]
    fn json_is_what_says_so_or_says_nothing() {
        assert_eq!(ContentType::of(None), Ok(ContentType::Json));
        for header in [
            "application/json",
            " Application/JSON ; charset=UTF-8",
            "application/json; charset=\"utf-8\"; x=y",
            "application/vnd.api+json",
        ] {
            assert_eq!(of(header), ContentType::Json, "{header}");
        }
        for header in [
            "",
            "text/plain",
            "text/json",
            "application/jsonp",
            "application/x-www-form-urlencoded",
            "application/json, multipart/form-data",
            "application/json; charset=utf-16",
            "application/json; charset=utf-8; charset=utf-16",
            "multipart/mixed; boundary=b",
        ] {
            assert_eq!(of(header), ContentType::Other, "{header}");
        }
        let refusal = ContentType::of(Some("application/json; x")).expect_err("no parameter");
        assert_eq!(refusal.to_string(), "`content-type` has parameters that cannot be read");
    }

    #[test]
    fn a_form_names_its_boundary() {
        assert_eq!(of("multipart/form-data; boundary=b"), ContentType::Form("b"));
        assert_eq!(of("Multipart/Form-Data;x=y;Boundary=\"a b\""), ContentType::Form("a b"));
        for header in [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=a; boundary=b",
        ] {
            let refusal = ContentType::of(Some(header)).expect_err(header);
            let expected = "`content-type` must name one boundary of 1 to 70 characters";
            assert_eq!(refusal.to_string(), expected);
        }
    }
}
