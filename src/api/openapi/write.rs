//! Operations written down as OpenAPI.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::errors;
use super::groups::Payers;
use super::headers::{self, ALWAYS, STANDING};
use super::operation::{Answer, Body, Content, ONCE, Operation, Query, SchemaOf};

/// What the document's schemas are made by: what serde reads and what it writes.
pub(super) struct Schemas {
    read: SchemaGenerator,
    written: SchemaGenerator,
    /// Refusals that operations have in common, by status.
    refusals: BTreeMap<String, Vec<Value>>,
}

impl Schemas {
    pub(super) fn new() -> Self {
        let settings = SchemaSettings::openapi3;
        Self {
            read: settings().for_deserialize().into_generator(),
            written: settings().for_serialize().into_generator(),
            refusals: BTreeMap::new(),
        }
    }

    pub(super) fn add<T: JsonSchema>(&mut self) {
        self.written.subschema_for::<T>();
    }

    /// A reference to this refusal, which is written down once.
    fn refusal(&mut self, status: &str, refusal: Value) -> Value {
        let known = self.refusals.entry(status.to_owned()).or_default();
        let at = known.iter().position(|other| *other == refusal).unwrap_or(known.len());
        if at == known.len() {
            known.push(refusal);
        }
        json!({ "$ref": format!("#/components/responses/{}", name_of(status, at)) })
    }

    /// `components.responses`
    pub(super) fn refusals(&self) -> Value {
        let named = self.refusals.iter().flat_map(|(status, all)| {
            let numbered = all.iter().enumerate();
            numbered.map(move |(at, refusal)| (name_of(status, at), refusal.clone()))
        });
        Value::Object(named.collect())
    }

    /// All that were referred to.
    pub(super) fn definitions(mut self) -> Map<String, Value> {
        let mut all = self.read.take_definitions(true);
        all.extend(self.written.take_definitions(true));
        all
    }
}

fn name_of(status: &str, at: usize) -> String {
    format!("Refusal-{status}-{}", at.saturating_add(1))
}

/// A schema as OpenAPI 3.0 writes it.
fn made(generator: &mut SchemaGenerator, schema: SchemaOf) -> Value {
    let mut schema = schema(generator);
    generator.transforms_mut().for_each(|transform| transform.transform(&mut schema));
    schema.to_value()
}

impl Operation {
    /// As it stands in the document.
    pub(super) fn written(&self, schemas: &mut Schemas) -> Value {
        let mut about = self.about.clone();
        if !self.aliases.is_empty() {
            about.push_str("\n\nAlso at ");
            about.push_str(&quoted(&self.aliases));
            about.push('.');
        }
        let mut written = json!({
            "operationId": self.id,
            "tags": [self.tag.name()],
            "summary": self.summary,
            "description": about.trim(),
            "parameters": self.parameters(schemas),
            "responses": self.responses(schemas),
            "security": self.payers.security(),
        });
        if let (Some(body), Some(members)) = (self.request_body(schemas), written.as_object_mut()) {
            members.insert("requestBody".to_owned(), body);
        }
        if let (false, Some(members)) = (self.aliases.is_empty(), written.as_object_mut()) {
            members.insert("x-aliases".to_owned(), json!(self.aliases));
        }
        written
    }

    fn parameters(&self, schemas: &mut Schemas) -> Vec<Value> {
        let reference = |name: &&str| json!({ "$ref": format!("#/components/parameters/{name}") });
        let id = |(name, about): &(&str, &str)| {
            json!({
                "name": name,
                "in": "path",
                "required": true,
                "description": about,
                "schema": { "type": "string", "minLength": 1 },
            })
        };
        let mut all: Vec<Value> = self.ids.iter().map(id).collect();
        if let Some(query) = &self.query {
            all.extend(query.parameters(schemas));
        }
        all.extend(self.sends.iter().map(reference));
        all
    }

    fn request_body(&self, schemas: &mut Schemas) -> Option<Value> {
        let (content, is_required) = match self.body.as_ref()? {
            Body::Json { schema, is_required } => {
                (vec![("application/json", made(&mut schemas.read, *schema))], *is_required)
            }
            Body::Described(content) => (content.clone(), true),
        };
        Some(json!({ "required": is_required, "content": media(content) }))
    }

    fn responses(&self, schemas: &mut Schemas) -> Value {
        let mut all = Map::new();
        for answer in &self.answers {
            all.insert(answer.status.to_string(), self.answer(answer, schemas));
        }
        let mut by_status: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
        for (status, code) in self.codes.iter().copied().flatten() {
            let codes = by_status.entry(*status).or_default();
            if !codes.contains(code) {
                codes.push(code);
            }
        }
        for (status, codes) in &by_status {
            let (refusal, status) = (self.refusal(*status, codes), status.to_string());
            all.insert(status.clone(), schemas.refusal(&status, refusal));
        }
        if self.passes_mistakes {
            let schema = json!({ "$ref": UPSTREAM_ERROR });
            let about = "The upstream's own refusal of the request, as it says it.";
            let passed = self.response(about, &[], Some(json_of(schema)));
            all.insert("4XX".to_owned(), schemas.refusal("4XX", passed));
        }
        Value::Object(all)
    }

    fn answer(&self, answer: &Answer, schemas: &mut Schemas) -> Value {
        let content = match &answer.content {
            Content::Nothing => None,
            Content::Json(schema) => Some(json_of(made(&mut schemas.written, *schema))),
            Content::Described(content) => Some(media(content.clone())),
        };
        let mut names = answer.headers.clone();
        if self.sends.contains(&ONCE) {
            names.push("Idempotency-Replayed");
        }
        self.response(answer.about, &names, content)
    }

    fn refusal(&self, status: u16, codes: &[&str]) -> Value {
        let mut schema = errors::schema(codes);
        // Those that may just as well be the upstream's.
        if self.passes_mistakes && matches!(status, 400 | 404..=428) {
            schema = json!({ "anyOf": [schema, { "$ref": UPSTREAM_ERROR }] });
        }
        let mut names = Vec::new();
        if errors::says_when(status) {
            names.push("Retry-After");
        }
        match self.payers {
            Payers::Nobody => {}
            Payers::Anybody | Payers::BearerOrPaid => names.extend(["x-should-retry", "X-Cashu"]),
            Payers::Perhaps | Payers::Bearer => names.push("x-should-retry"),
        }
        let about = format!("{} `code` is {}.", errors::meaning(status), quoted_or(codes));
        self.response(&about, &names, Some(json_of(schema)))
    }

    fn response(&self, about: &str, more: &[&str], content: Option<Value>) -> Value {
        let mut names: Vec<&str> = [ALWAYS, more].concat();
        match self.payers {
            Payers::Nobody => {}
            Payers::Perhaps | Payers::Bearer | Payers::BearerOrPaid | Payers::Anybody => {
                names.extend(STANDING);
            }
        }
        if content.is_some() {
            names.push("Content-Encoding");
        }
        let mut response = json!({ "description": about, "headers": headers::references(&names) });
        if let (Some(content), Some(members)) = (content, response.as_object_mut()) {
            members.insert("content".to_owned(), content);
        }
        response
    }
}

impl Query {
    fn parameters(&self, schemas: &mut Schemas) -> Vec<Value> {
        let object = made(&mut schemas.read, self.schema);
        let properties = object.get("properties").and_then(Value::as_object);
        let required = object.get("required").and_then(Value::as_array);
        let is_required = |name: &String| {
            !self.or_in_body && required.is_some_and(|all| all.iter().any(|one| one == name))
        };
        let parameter = |(name, schema): (&String, &Value)| {
            let mut schema = schema.clone();
            let mut about = Value::Null;
            if let Some(members) = schema.as_object_mut() {
                members.remove("nullable");
                about = members.remove("description").unwrap_or_default();
            }
            json!({
                "name": name,
                "in": "query",
                "required": is_required(name),
                "description": about.as_str().unwrap_or_default(),
                "schema": schema,
            })
        };
        properties.into_iter().flatten().map(parameter).collect()
    }
}

fn json_of(schema: Value) -> Value {
    media(vec![("application/json", schema)])
}

fn media(content: Vec<(&'static str, Value)>) -> Value {
    let entry = |(kind, schema): (&str, Value)| (kind.to_owned(), json!({ "schema": schema }));
    Value::Object(content.into_iter().map(entry).collect())
}

fn quoted(words: &[String]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn quoted_or(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or ")
}

const UPSTREAM_ERROR: &str = "#/components/schemas/UpstreamError";
