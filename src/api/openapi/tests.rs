//! The document against the router that it is about, and against its own references.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Router;
use http::Request;
use http::header::ALLOW;
use lua_free_filters::Route;

use super::*;
use crate::api::tests::till;
use crate::api::{ApiState, answer, router};
use crate::catalogue::Shelf;
use crate::config::Config;
use crate::error::Kind;
use crate::ledger::News;
use crate::pricing::PriceList;
use crate::telemetry::Metrics;
use crate::webhook::Webhooks;

/// Methods by path. Where something can be asked for, its head can too, so HEAD goes without
/// saying.
type Paths = BTreeMap<String, BTreeSet<String>>;

#[tokio::test]
async fn the_document_has_every_path_and_method_of_the_router_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let till = till(folder.path()).await;
    let config = Arc::new(Config::default());
    let prices = Shelf::new(PriceList::new(&config.models, config.btc_usd_cents));
    let (of_webhooks, metrics) = (config.webhooks.clone(), Metrics::default());
    let (ledger, wallet) = (till.ledger().clone(), till.wallet());
    let webhooks = Webhooks::open(ledger, News::default(), wallet, of_webhooks, metrics);
    let webhooks = webhooks.await.unwrap();
    let router = router(ApiState { config, prices, till, webhooks, pay_out: None });

    let mut there = Paths::new();
    for path in paths(&router) {
        let methods = allowed(&router, &path).await;
        there.entry(path.replace("{*", "{")).or_default().extend(methods);
    }
    // The edge serves these itself.
    for route in Route::ALL {
        for prefix in ["/v1", ""] {
            let path = format!("{prefix}{}", route.upstream_path());
            there.entry(path).or_default().insert("POST".to_owned());
        }
    }
    assert_eq!(documented(), there);
}

/// What axum shows of a router when it is debugged: `path: "/…"`s of its tree.
fn paths(router: &Router) -> BTreeSet<String> {
    let shown = format!("{router:?}");
    let (_, tree) = shown.split_once("paths: {").unwrap();
    let (tree, _) = tree.split_once("} }").unwrap();
    let paths: BTreeSet<String> =
        tree.split('"').filter(|part| part.starts_with('/')).map(str::to_owned).collect();
    assert!(paths.contains("/healthz") && paths.len() > 60, "axum shows it otherwise: {tree}");
    paths
}

/// The methods that a path has, from the answer to one that none has.
async fn allowed(router: &Router, path: &str) -> BTreeSet<String> {
    let path = path.replace("{*id}", "x").replace("{id}", "x").replace("{file}", "x");
    let request = Request::builder().method("TRACE").uri(&path).body(Bytes::new()).unwrap();
    let response = answer(router, request).await;
    assert_eq!(response.status(), 405, "{path}");
    let allow = response.headers()[ALLOW].to_str().unwrap();
    allow.split(',').filter(|method| *method != "HEAD").map(str::to_owned).collect()
}

fn documented() -> Paths {
    let mut all = Paths::new();
    for operation in operations() {
        let paths = operation.aliases.iter().chain([&operation.path]);
        for path in paths {
            let is_new =
                all.entry(path.clone()).or_default().insert(operation.method.to_uppercase());
            assert!(is_new, "{} {path} is there twice", operation.method);
        }
    }
    all
}

#[test]
fn every_reference_of_the_document_leads_somewhere_and_every_part_is_referred_to() {
    let document = document();
    let mut referred = BTreeSet::new();
    references(&document, &mut referred);
    for reference in &referred {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} is not there");
    }
    for kind in ["schemas", "responses", "parameters"] {
        for name in document["components"][kind].as_object().unwrap().keys() {
            let reference = format!("#/components/{kind}/{name}");
            assert!(referred.contains(&reference), "{reference} is not used");
        }
    }
}

fn references(value: &Value, all: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get("$ref") {
                all.insert(reference.clone());
            }
            members.values().for_each(|member| references(member, all));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, all)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn operations_have_names_of_their_own_and_say_what_they_are_for() {
    let mut ids = BTreeSet::new();
    for operation in operations() {
        assert!(ids.insert(operation.id), "{} is there twice", operation.id);
        assert!(!operation.summary.is_empty(), "{} has no summary", operation.id);
        assert!(!operation.answers.is_empty(), "{} answers nothing", operation.id);
        let in_path = operation.path.matches('{').count();
        assert_eq!(operation.ids.len(), in_path, "{} has {in_path} ids", operation.id);
    }
}

#[test]
fn errors_have_every_type_of_the_contract_and_the_codes_of_their_status() {
    let document = document();
    let kinds = &document["components"]["schemas"]["Error"]["properties"]["error"]["properties"]["type"]
        ["enum"];
    for kind in Kind::ALL {
        assert!(kinds.as_array().unwrap().contains(&json!(kind.name())), "{kinds}");
    }
    let answers = &document["paths"]["/v1/balance/refund"]["post"]["responses"];
    let refused = |status: &str| {
        let reference = answers[status]["$ref"].as_str().unwrap();
        document.pointer(reference.strip_prefix('#').unwrap()).unwrap()
    };
    let codes = |status: &str| {
        let schema = &refused(status)["content"]["application/json"]["schema"];
        schema["allOf"][1]["properties"]["error"]["properties"]["code"]["enum"].clone()
    };
    assert_eq!(codes("425"), json!(["refund_pending"]));
    assert_eq!(codes("404"), json!(["refund_not_found"]));
    assert!(refused("425")["headers"].get("Retry-After").is_some());
    assert!(is_documented(425, "refund_pending") && !is_documented(400, "refund_pending"));
}
