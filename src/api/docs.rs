//! `/docs` (Swagger UI) and `/redoc` (ReDoc): the document as pages, from this binary alone.
//!
//! Both are third-party programs that a crate ships as text; this file takes the programs out of
//! that crate's pages and puts them into pages of its own, which start them by a script of their
//! own. So a policy can say that nothing runs but scripts of this origin, nothing is evaluated and
//! nothing is asked of anybody else.

use std::sync::LazyLock;

use aide::redoc::Redoc;
use aide::swagger::Swagger;
use axum::extract::Path;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use serde_json::json;

use super::Refused;
use super::document::{Document, tagged};
use super::openapi::{DOCUMENT_NAMED, Operation, Tag};
use crate::error::{Kind, Refusal};

pub(super) async fn swagger(headers: HeaderMap) -> Response {
    PAGES.swagger.answer(&headers)
}

pub(super) async fn redoc(headers: HeaderMap) -> Response {
    PAGES.redoc.answer(&headers)
}

/// What the two pages load.
pub(super) async fn asset(
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let found = PAGES.assets.iter().find(|(asset, _)| *asset == name);
    let (_, document) = found.ok_or_else(|| {
        Refusal::new(
            Kind::NotFound,
            "not_found",
            "the pages of the documentation load no such file",
        )
    })?;
    Ok(document.answer(&headers))
}

pub(super) fn operations() -> Vec<Operation> {
    let page = |path, id, summary, about| {
        Operation::get(path, id)
            .tag(Tag::Documents)
            .says(summary, about)
            .sends(&["If-None-Match"])
            .answers_as(200, "A page.", vec![(HTML, json!({ "type": "string" }))])
            .with(&["ETag", "Content-Security-Policy"])
            .answers_as(304, "It is what the client has already.", Vec::new())
            .with(&["ETag", "Content-Security-Policy"])
    };
    let text = || json!({ "type": "string" });
    vec![
        page("/docs", "swagger", "This document in Swagger UI", ""),
        page("/redoc", "redoc", "This document in ReDoc", ""),
        Operation::get("/docs/{file}", "docsFile")
            .tag(Tag::Documents)
            .says("What the pages load", "Scripts and styles.")
            .id_in_path("file", "The file's name.")
            .sends(&["If-None-Match"])
            .answers_as(200, "A script or a style sheet.", vec![(JS, text()), (CSS, text())])
            .with(&["ETag", "Content-Security-Policy"])
            .answers_as(304, "It is what the client has already.", Vec::new())
            .with(&["ETag", "Content-Security-Policy"])
            .refuses(&[DOCUMENT_NAMED]),
    ]
}

struct Pages {
    swagger: Document,
    redoc: Document,
    assets: [(&'static str, Document); 5],
}

/// Made when the first of them is asked for.
static PAGES: LazyLock<Pages> = LazyLock::new(|| {
    let page = |text: &'static str| document(HTML, Some(POLICY), text.into());
    let script = |text: String| document(JS, None, text);
    let (swagger, redoc) = (Swagger::new("").html(), Redoc::new("").html());
    Pages {
        swagger: page(include_str!("docs/swagger.html")),
        redoc: page(include_str!("docs/redoc.html")),
        assets: [
            ("swagger-ui.js", script(between(&swagger, "<script>", "</script>"))),
            ("swagger-ui.css", document(CSS, None, between(&swagger, "<style>", "</style>"))),
            ("swagger-start.js", script(include_str!("docs/swagger.js").to_owned())),
            ("redoc.js", script(redoc_alone(&between(&redoc, "<script>", "Redoc.init(\"\"")))),
            ("redoc-start.js", script(include_str!("docs/redoc.js").to_owned())),
        ],
    }
});

fn document(content_type: &'static str, policy: Option<&'static str>, text: String) -> Document {
    let text = Bytes::from(text);
    Document { content_type, policy, tag: tagged(&text), text }
}

/// The first part of a page between these two; nothing where they are not, which a test sees.
fn between(page: &str, start: &str, end: &str) -> String {
    let rest = page.split_once(start).map_or("", |(_, rest)| rest);
    rest.split_once(end).map_or("", |(inside, _)| inside).trim().to_owned()
}

/// ReDoc shows its maker's logo, from its maker's server; without it the name stands alone.
fn redoc_alone(script: &str) -> String {
    script.replace(LOGO, "data:,")
}

const HTML: &str = "text/html; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

const LOGO: &str = "https://cdn.redoc.ly/redoc/logo-mini.svg";

/// What a page may do: run scripts and read the document of this origin. Styles are allowed by what
/// they say: ReDoc makes an element that is empty and fills it by rules (the first hash, of
/// nothing), and one for its scroll bars. Both have images of their own, as `data:`.
const POLICY: &str = "default-src 'none'; script-src 'self'; connect-src 'self'; \
    style-src 'self' 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' \
    'sha256-DLDPR1ic47WIdK2WyeLkblb/tm2mQH+Jt/NNhZWu1k0='; \
    img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_are_whole_and_refer_to_nobody_elses_server() {
        for (name, document) in &PAGES.assets {
            let text = std::str::from_utf8(&document.text).unwrap();
            assert!(!text.contains("cdn.redoc"), "{name}");
            let least = if name.contains("start") { 50 } else { 100_000 };
            assert!(text.len() > least, "{name} has {} bytes", text.len());
        }
        let script = |name| {
            let (_, document) = PAGES.assets.iter().find(|(asset, _)| *asset == name).unwrap();
            std::str::from_utf8(&document.text).unwrap()
        };
        assert!(script("swagger-ui.js").contains("SwaggerUIBundle"));
        assert!(script("redoc.js").contains("Redoc"));
        assert!(Redoc::new("").html().contains(LOGO), "nothing is to be replaced any more");
    }
}
