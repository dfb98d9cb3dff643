//! The members of an object that are read: each once, in lower case, of the type it must be.

use std::borrow::Cow;
use std::ops::Range;

use serde::de::IgnoredAny;

use super::skim::Values;
use super::{MODEL_BYTES_MAX, PeekRefusal};
use crate::json;

/// The members named by `fields`, as written. Others may be anything.
pub(super) struct Members<'b, const N: usize> {
    text: &'b str,
    fields: &'static [&'static str; N],
    raws: [Option<&'b str>; N],
}

impl<'b, const N: usize> Members<'b, N> {
    /// Those of a body, which must be one JSON object. A body that is not JSON is refused as that
    /// even when a field before the mistake would have been refused too.
    pub(super) fn of_body(
        body: &'b [u8],
        fields: &'static [&'static str; N],
    ) -> Result<Self, PeekRefusal> {
        let text = std::str::from_utf8(body).map_err(|error| PeekRefusal::NotJson {
            message: format!("invalid UTF-8 at byte {}", error.valid_up_to()),
        })?;
        if !text.trim_start_matches(JSON_BLANK).starts_with('{') {
            serde_json::from_str::<IgnoredAny>(text).map_err(not_json)?;
            return Err(PeekRefusal::NotAnObject);
        }
        let mut members = Self { text, fields, raws: [None; N] };
        let mut refusal = Ok(());
        json::each_member(text, |name, raw| {
            let noted = members.note(&name, raw);
            if refusal.is_ok() {
                refusal = noted;
            }
        })
        .map_err(not_json)?;
        refusal?;
        Ok(members)
    }

    /// Those of an object in a body that was read: it begins with its brace.
    pub(super) fn of(
        text: &'b str,
        fields: &'static [&'static str; N],
    ) -> Result<Self, PeekRefusal> {
        let mut members = Self { text, fields, raws: [None; N] };
        let mut values = Values::of(text);
        while let (Some(name), Some(raw)) = (values.next(), values.next()) {
            let plain =
                name.get(1..name.len().saturating_sub(1)).filter(|name| !name.contains('\\'));
            match plain {
                Some(name) => members.note(name, raw)?,
                None => members.note(&json::string(name).unwrap_or_default(), raw)?,
            }
        }
        Ok(members)
    }

    fn note(&mut self, name: &str, raw: &'b str) -> Result<(), PeekRefusal> {
        let known = self.raws.iter_mut().zip(self.fields).find(|(_, field)| **field == name);
        match known {
            None => not_a_variant(name, self.fields),
            Some((slot, field)) => match slot.replace(raw) {
                None => Ok(()),
                Some(_) => refuse(field, "appears twice"),
            },
        }
    }

    /// As written, `null` included. Only what was named in `fields` is known.
    pub(super) fn raw(&self, field: &'static str) -> Option<&'b str> {
        let index = self.fields.iter().position(|known| *known == field);
        debug_assert!(index.is_some(), "`{field}` is among the fields that are read");
        index.and_then(|index| self.raws.get(index).copied().flatten())
    }

    /// As written; `null` is absent.
    pub(super) fn given(&self, field: &'static str) -> Option<&'b str> {
        self.raw(field).filter(|raw| *raw != "null")
    }

    /// Whether any of these is there and not `null`.
    pub(super) fn gives_any(&self, fields: &[&'static str]) -> bool {
        fields.iter().any(|field| self.given(field).is_some())
    }

    /// Where a value that was read of this object stands in it.
    pub(super) fn span(&self, raw: &str) -> Range<usize> {
        json::span_in(self.text, raw)
    }

    pub(super) fn text(&self) -> &'b str {
        self.text
    }

    /// The model's name, and where it stands with its quotes.
    pub(super) fn model(&self) -> Result<(Cow<'b, str>, Range<usize>), PeekRefusal> {
        let Some(raw) = self.raw("model") else { return refuse("model", "is missing") };
        let model = self.string("model")?.unwrap_or_default();
        check_model(&model)?;
        Ok((model, self.span(raw)))
    }

    /// A string; only an absent one is `None`.
    pub(super) fn string(&self, field: &'static str) -> Result<Option<Cow<'b, str>>, PeekRefusal> {
        let Some(raw) = self.raw(field) else { return Ok(None) };
        if !raw.starts_with('"') {
            return refuse(field, "must be a string");
        }
        match json::string(raw) {
            Some(text) => Ok(Some(text)),
            None => refuse(field, "must be a valid string"),
        }
    }

    pub(super) fn flag(&self, field: &'static str) -> Result<bool, PeekRefusal> {
        flag(field, self.given(field))
    }

    /// A whole number from 1 to `max`; `message` says that.
    pub(super) fn count(
        &self,
        field: &'static str,
        max: u64,
        message: &'static str,
    ) -> Result<Option<u64>, PeekRefusal> {
        self.given(field).map(|digits| count(field, digits, max, message)).transpose()
    }

    /// An array with something in it.
    pub(super) fn array(&self, field: &'static str) -> Result<&'b str, PeekRefusal> {
        let Some(raw) = self.raw(field) else { return refuse(field, "is missing") };
        match elements_of(raw) {
            None => refuse(field, "must be an array"),
            Some(false) => refuse(field, "must not be empty"),
            Some(true) => Ok(raw),
        }
    }

    /// Refuses a field that asks for something. `null`, `false` and nothing in brackets ask for
    /// nothing.
    pub(super) fn must_be_absent(
        &self,
        field: &'static str,
        message: &'static str,
    ) -> Result<(), PeekRefusal> {
        match self.asks(field) {
            false => Ok(()),
            true => refuse(field, message),
        }
    }

    /// Whether a field asks for something; see [`Self::must_be_absent`].
    pub(super) fn asks(&self, field: &'static str) -> bool {
        self.given(field).is_some_and(|raw| raw != "false" && elements_of(raw) != Some(false))
    }

    /// The `type` that an object in the body calls itself.
    pub(super) fn kind(&self) -> Option<Cow<'b, str>> {
        self.given("type").and_then(json::string)
    }
}

/// Whether an array has elements; `None` if it is no array.
fn elements_of(raw: &str) -> Option<bool> {
    let inside = raw.strip_prefix('[')?;
    Some(!inside.trim_start_matches(JSON_BLANK).starts_with(']'))
}

/// The elements of an array in a body that was read, or nothing of what is no array.
pub(super) fn elements(raw: &str) -> impl Iterator<Item = &str> {
    raw.starts_with('[').then(|| Values::of(raw)).into_iter().flatten()
}

pub(super) fn check_model(model: &str) -> Result<(), PeekRefusal> {
    match model.len() {
        0 => refuse("model", "must not be empty"),
        len if len > MODEL_BYTES_MAX => refuse("model", "is too long"),
        _ => Ok(()),
    }
}

/// `false` where nothing is given.
pub(super) fn flag(field: &'static str, given: Option<&str>) -> Result<bool, PeekRefusal> {
    match given {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => refuse(field, "must be true or false"),
    }
}

/// Whole numbers as digits only: `1e3`, `5.0`, `+5` and `05` are read differently by different
/// readers.
pub(super) fn count(
    field: &'static str,
    digits: &str,
    max: u64,
    message: &'static str,
) -> Result<u64, PeekRefusal> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    match digits.parse::<u64>() {
        Ok(count) if plain && (1..=max).contains(&count) => Ok(count),
        _ => refuse(field, message),
    }
}

/// Refuses a name that a reader which ignores letter case would take for one of `fields`. The
/// limit we did not see is the one such an upstream would obey.
pub(super) fn not_a_variant(name: &str, fields: &[&'static str]) -> Result<(), PeekRefusal> {
    let is_lower = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    if name.bytes().all(is_lower) {
        return Ok(());
    }
    let fold = |c: char| c.to_uppercase().flat_map(char::to_lowercase);
    match fields.iter().find(|field| name.chars().flat_map(fold).eq(field.chars())) {
        Some(field) => refuse(field, "must be written in lower case"),
        None => Ok(()),
    }
}

pub(super) fn refuse<T>(field: &'static str, message: &'static str) -> Result<T, PeekRefusal> {
    Err(PeekRefusal::Field { field, message })
}

pub(super) fn not_json(error: serde_json::Error) -> PeekRefusal {
    PeekRefusal::NotJson { message: error.to_string() }
}

const JSON_BLANK: [char; 4] = [' ', '\t', '\n', '\r'];
