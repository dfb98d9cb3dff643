//! What one route takes and answers, said beside its handler in one chain of calls.

use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use super::errors::{Codes, EVERYWHERE, REPEATED};
use super::groups::{Payers, Tag};

/// One method of one path. Everything about it is in the call that makes it.
#[derive(Debug)]
pub(in crate::api) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: String,
    /// Its name in generated clients.
    pub(super) id: &'static str,
    pub(super) tag: Tag,
    pub(super) summary: String,
    pub(super) about: String,
    /// Other paths that do the same.
    pub(super) aliases: Vec<String>,
    pub(super) payers: Payers,
    pub(super) sends: Vec<&'static str>,
    pub(super) ids: Vec<(&'static str, &'static str)>,
    pub(super) query: Option<Query>,
    pub(super) body: Option<Body>,
    pub(super) answers: Vec<Answer>,
    pub(super) codes: Vec<Codes>,
    pub(super) passes_mistakes: bool,
}

pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

#[derive(Debug)]
pub(super) struct Query {
    pub(super) schema: SchemaOf,
    /// Whether the fields may be in the body instead.
    pub(super) or_in_body: bool,
}

#[derive(Debug)]
pub(super) enum Body {
    Json {
        schema: SchemaOf,
        is_required: bool,
    },
    /// Content type and schema.
    Described(Vec<(&'static str, Value)>),
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) about: &'static str,
    pub(super) content: Content,
    pub(super) headers: Vec<&'static str>,
}

#[derive(Debug)]
pub(super) enum Content {
    Nothing,
    Json(SchemaOf),
    Described(Vec<(&'static str, Value)>),
}

impl Operation {
    pub(in crate::api) fn get(path: &str, id: &'static str) -> Self {
        Self::new("get", path, id)
    }

    pub(in crate::api) fn post(path: &str, id: &'static str) -> Self {
        Self::new("post", path, id)
    }

    pub(in crate::api) fn delete(path: &str, id: &'static str) -> Self {
        Self::new("delete", path, id)
    }

    fn new(method: &'static str, path: &str, id: &'static str) -> Self {
        Self {
            method,
            path: path.to_owned(),
            id,
            tag: Tag::Documents,
            summary: String::new(),
            about: String::new(),
            aliases: Vec::new(),
            payers: Payers::Nobody,
            sends: vec!["X-Request-ID"],
            ids: Vec::new(),
            query: None,
            body: None,
            answers: Vec::new(),
            codes: vec![EVERYWHERE],
            passes_mistakes: false,
        }
    }

    pub(in crate::api) fn tag(mut self, tag: Tag) -> Self {
        self.tag = tag;
        self
    }

    pub(in crate::api) fn says(mut self, summary: &str, about: &str) -> Self {
        summary.clone_into(&mut self.summary);
        about.clone_into(&mut self.about);
        self
    }

    /// The same below other prefixes.
    pub(in crate::api) fn also_at(mut self, prefixes: &[&str], below: &str) -> Self {
        let paths = prefixes.iter().map(|prefix| format!("{prefix}{below}"));
        let others: Vec<_> = paths.filter(|path| *path != self.path).collect();
        self.aliases.extend(others);
        self
    }

    pub(in crate::api) fn paid_by(mut self, payers: Payers) -> Self {
        self.payers = payers;
        self
    }

    /// Request headers besides the id, by their names in `headers`.
    pub(in crate::api) fn sends(mut self, names: &[&'static str]) -> Self {
        self.sends.extend(names);
        self
    }

    /// Never done twice under one `Idempotency-Key`.
    pub(in crate::api) fn once(self) -> Self {
        self.sends(&[ONCE]).refuses(&[REPEATED])
    }

    /// A part of the path.
    pub(in crate::api) fn id_in_path(mut self, name: &'static str, about: &'static str) -> Self {
        self.ids.push((name, about));
        self
    }

    /// Fields in the query.
    pub(in crate::api) fn query<T: JsonSchema>(mut self) -> Self {
        self.query = Some(Query { schema: T::json_schema, or_in_body: false });
        self
    }

    /// Fields in a JSON body.
    pub(in crate::api) fn json<T: JsonSchema>(mut self) -> Self {
        let schema = SchemaGenerator::subschema_for::<T>;
        self.body = Some(Body::Json { schema, is_required: true });
        self
    }

    /// Fields in a JSON body, none of which must be there.
    pub(in crate::api) fn json_if_any<T: JsonSchema>(mut self) -> Self {
        let schema = SchemaGenerator::subschema_for::<T>;
        self.body = Some(Body::Json { schema, is_required: false });
        self
    }

    /// Fields in a JSON body or in the query; the body's win.
    pub(in crate::api) fn json_or_query<T: JsonSchema>(mut self) -> Self {
        self.query = Some(Query { schema: T::json_schema, or_in_body: true });
        self.json_if_any::<T>()
    }

    /// A body of one of these content types.
    pub(super) fn body(mut self, content: Vec<(&'static str, Value)>) -> Self {
        self.body = Some(Body::Described(content));
        self
    }

    pub(in crate::api) fn answers<T: JsonSchema>(mut self, about: &'static str) -> Self {
        let content = Content::Json(SchemaGenerator::subschema_for::<T>);
        self.answers.push(Answer { status: 200, about, content, headers: Vec::new() });
        self
    }

    /// Something was made, which is shown.
    pub(in crate::api) fn makes<T: JsonSchema>(mut self, about: &'static str) -> Self {
        let content = Content::Json(SchemaGenerator::subschema_for::<T>);
        self.answers.push(Answer { status: 201, about, content, headers: Vec::new() });
        self
    }

    /// An answer of one of these content types; none: an answer without a body.
    pub(in crate::api) fn answers_as(
        mut self,
        status: u16,
        about: &'static str,
        content: Vec<(&'static str, Value)>,
    ) -> Self {
        let content = match content.is_empty() {
            true => Content::Nothing,
            false => Content::Described(content),
        };
        self.answers.push(Answer { status, about, content, headers: Vec::new() });
        self
    }

    /// Headers of the answer that was added last, by their names in `headers`.
    pub(in crate::api) fn with(mut self, names: &[&'static str]) -> Self {
        if let Some(answer) = self.answers.last_mut() {
            answer.headers.extend(names);
        }
        self
    }

    pub(in crate::api) fn refuses(mut self, codes: &[Codes]) -> Self {
        self.codes.extend(codes);
        self
    }

    /// An upstream's own 4xx goes to the client as it is.
    pub(super) fn passes_mistakes(mut self) -> Self {
        self.passes_mistakes = true;
        self
    }
}

/// The header that makes a request one that is made once.
pub(super) const ONCE: &str = "Idempotency-Key";
