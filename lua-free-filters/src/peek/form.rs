//! The fields and files of a form that are read, by the same rules as the members of JSON.

use std::borrow::Cow;

use super::members::{check_model, count, flag, not_a_variant, refuse};
use super::{Framing, PeekRefusal, Peeked, UsageAsk};
use crate::multipart::{self, Part};
use crate::peek::Demand;

/// A form, and what of it is read.
pub(super) struct Form<'b> {
    body: &'b [u8],
    parts: Vec<Part<'b>>,
}

/// What may stand in a form. Parts of other names may be anything.
pub(super) struct Known {
    /// Plain fields, each at most once.
    pub(super) fields: &'static [&'static str],
    /// Files, each at most once.
    pub(super) files: &'static [&'static str],
    /// Files of which there may be several, also as `NAME[]`.
    pub(super) lists: &'static [&'static str],
}

impl<'b> Form<'b> {
    pub(super) fn read(body: &'b [u8], boundary: &str, known: &Known) -> Result<Self, PeekRefusal> {
        let parts = multipart::parts(body, boundary)
            .map_err(|malformed| PeekRefusal::NotAForm { message: malformed.0 })?;
        let form = Self { body, parts };
        let names = [known.fields, known.files, known.lists].concat();
        for part in &form.parts {
            form.check(part, known, &names)?;
        }
        Ok(form)
    }

    /// Refuses a part that another reader could take for a field that is read, or read in
    /// another way.
    fn check(
        &self,
        part: &Part<'_>,
        known: &Known,
        names: &[&'static str],
    ) -> Result<(), PeekRefusal> {
        // Some readers take `model[]` and `model[x]` for `model`.
        let name = part.name.split('[').next().unwrap_or_default();
        if part.name == "_charset_" {
            return refuse("_charset_", "must not be given: text is UTF-8");
        }
        not_a_variant(name, names)?;
        let Some(name) = names.iter().find(|known| **known == name).copied() else {
            return Ok(());
        };
        if known.lists.contains(&name) {
            let is_plain = [name.len(), name.len() + 2].contains(&part.name.len());
            if !is_plain || !(part.name == name || part.name.ends_with("[]")) {
                return refuse(name, "must not have an index");
            }
        } else if part.name != name {
            return refuse(name, "must not be a list");
        } else if self.named(name).count() > 1 {
            return refuse(name, "appears twice");
        }
        match (known.fields.contains(&name), part.filename.is_some()) {
            (true, true) => refuse(name, "must not be a file"),
            (false, false) => refuse(name, "must be a file with a name"),
            _ => Ok(()),
        }
    }

    /// What a route with a form has in common: its model, and all that is no file as text.
    pub(super) fn peeked(&self) -> Result<Peeked<'b>, PeekRefusal> {
        let Some(model) = self.text("model")? else { return refuse("model", "is missing") };
        check_model(model)?;
        let part = self.named("model").next();
        Ok(Peeked {
            model: Cow::Borrowed(model),
            model_span: part.map_or(0..0, |part| part.value.clone()),
            stream: false,
            include_usage: true,
            usage_ask: UsageAsk::Told,
            output_limit: None,
            limits: Vec::new(),
            n: 1,
            demand: Demand::of_body(self.body),
            framing: Framing::Multipart { model_length: part.and_then(|part| part.length.clone()) },
        })
    }

    /// The value of a plain field.
    pub(super) fn text(&self, field: &'static str) -> Result<Option<&'b str>, PeekRefusal> {
        let Some(part) = self.named(field).next() else { return Ok(None) };
        if part.value.len() > FIELD_BYTES_MAX {
            return refuse(field, "is too long");
        }
        match multipart::text_of(self.body, &part.value).filter(|_| part.is_utf8) {
            Some(text) => Ok(Some(text)),
            None => refuse(field, "must be text in UTF-8"),
        }
    }

    pub(super) fn flag(&self, field: &'static str) -> Result<bool, PeekRefusal> {
        flag(field, self.text(field)?)
    }

    pub(super) fn count(
        &self,
        field: &'static str,
        max: u64,
        message: &'static str,
    ) -> Result<Option<u64>, PeekRefusal> {
        self.text(field)?.map(|digits| count(field, digits, max, message)).transpose()
    }

    /// The files of a name, also of one that ends in `[]`: what they are called, and their bytes.
    pub(super) fn files(&self, name: &'static str) -> impl Iterator<Item = (&'b str, &'b [u8])> {
        let bytes = |part: &Part<'_>| self.body.get(part.value.clone()).unwrap_or_default();
        self.named(name).map(move |part| (part.filename.unwrap_or_default(), bytes(part)))
    }

    /// Whether there is a part of this name.
    pub(super) fn has(&self, name: &'static str) -> bool {
        self.named(name).next().is_some()
    }

    fn named(&self, name: &'static str) -> impl Iterator<Item = &Part<'b>> {
        self.parts
            .iter()
            .filter(move |part| part.name.strip_suffix("[]").unwrap_or(part.name) == name)
    }
}

/// A field that is read and is longer is refused.
pub(crate) const FIELD_BYTES_MAX: usize = 1024;
