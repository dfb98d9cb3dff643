//! What the router promises on every route, driven in process as the edge drives it.

use std::path::Path;
use std::time::Duration;

use http::Request;
use serde_json::{Value, json};

use super::*;
use crate::clock::Clock;
use crate::config::Machine;
use crate::ledger::embedded::{self, Embedded};
use crate::wallet::Wallet;

const CONFIG: &str = "
name: corner shop
mints: [{url: 'https://mint.example'}]
btc_usd: 100000
upstreams: [{name: up, base_url: 'https://up.example'}]
models:
  - id: maker/model
    created: 1700000000
    owned_by: maker
    context_length: 8_000
    max_output_tokens: 1_000
    upstreams: [up]
    aliases: [model]
    price: {currency: sat, input: 1000, output: 3000, cached_input: 500, request: 2}
  - id: free
    context_length: 100
    max_output_tokens: 100
    upstreams: [up]
    price: {currency: usd, input: 0, output: 0}
";

/// Everything but the payment endpoints, which need a wallet.
fn shop() -> Router {
    let config = Arc::new(Config::parse("test", CONFIG, &Machine).unwrap());
    let prices = Shelf::new(PriceList::new(&config.models, config.btc_usd_cents));
    finished(documents(&config, &prices).fallback(billable_or_nothing), &config)
}

/// A ledger and a wallet without a mint, in this folder.
pub(super) async fn till(folder: &Path) -> Till<Embedded> {
    let store = embedded::open_store(&folder.join("nutgate.db")).unwrap();
    let ledger = Embedded::new(store.clone(), Clock::System);
    let seed = folder.join("seed");
    let wallet = Wallet::open(store.into(), &seed, &[], Duration::from_secs(1)).await.unwrap();
    Till::open(ledger, wallet)
}

async fn ask(method: &str, path: &str, headers: &[(&str, &str)]) -> http::Response<Bytes> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.extension(RequestId("req-1".to_owned())).body(Bytes::new()).unwrap();
    answer(&shop(), request).await
}

fn json_of(response: &http::Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap()
}

fn header<'r>(response: &'r http::Response<Bytes>, name: &str) -> Option<&'r str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

fn error_code(response: &http::Response<Bytes>) -> (u16, String) {
    let code = json_of(response)["error"]["code"].as_str().unwrap().to_owned();
    (response.status().as_u16(), code)
}

#[tokio::test]
async fn every_answer_names_its_request_and_may_be_read_by_any_page() {
    for (method, path) in [
        ("GET", "/healthz"),
        ("GET", "/v1/info"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/unknown"),
        ("GET", "/nothing"),
        ("PUT", "/v1/models"),
        ("HEAD", "/v1/info"),
        ("OPTIONS", "/v1/chat/completions"),
    ] {
        let response = ask(method, path, &[]).await;
        for (name, value) in [
            ("x-request-id", "req-1"),
            ("x-routstr-request-id", "req-1"),
            ("access-control-allow-origin", "*"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(header(&response, name), Some(value), "{method} {path}");
        }
        if method != "OPTIONS" {
            assert_eq!(header(&response, "content-type"), Some("application/json"), "{path}");
        }
    }
}

#[tokio::test]
async fn a_document_is_kept_until_it_changes_and_a_page_loads_nothing_from_elsewhere() {
    for path in ["/openapi.json", "/docs", "/redoc", "/docs/redoc.js", "/docs/swagger-ui.css"] {
        let whole = ask("GET", path, &[]).await;
        assert_eq!(
            (whole.status(), header(&whole, "cache-control")),
            (StatusCode::OK, Some("no-cache"))
        );
        assert_eq!(header(&whole, "x-content-type-options"), Some("nosniff"), "{path}");
        let tag = header(&whole, "etag").unwrap();
        let (weak, among) = (format!("W/{tag}"), format!("\"other\", {tag}"));
        for known in [tag, &weak, &among, "*"] {
            let kept = ask("GET", path, &[("if-none-match", known)]).await;
            assert_eq!(kept.status(), StatusCode::NOT_MODIFIED, "{path} {known}");
            assert!(kept.body().is_empty() && header(&kept, "content-length").is_none());
            assert_eq!(header(&kept, "etag"), Some(tag));
        }
        let changed = ask("GET", path, &[("if-none-match", "\"other\"")]).await;
        assert_eq!(changed.status(), StatusCode::OK, "{path}");
        let policy = header(&whole, "content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'none';") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("http"), "{policy}");
    }
    let missing = ask("GET", "/docs/../nutgate.yaml", &[]).await;
    assert_eq!(error_code(&missing), (404, "not_found".to_owned()));
    assert_eq!(error_code(&ask("GET", "/docs/other.js", &[]).await), (404, "not_found".to_owned()));
}

#[tokio::test]
async fn a_path_that_does_not_exist_and_a_method_that_it_does_not_have_get_the_error_shape() {
    for path in ["/", "/v1", "/v1/model", "/v1/models/", "/v1/chat/completions/x", "/%ff"] {
        let response = ask("GET", path, &[]).await;
        assert_eq!(error_code(&response), (404, "not_found".to_owned()), "{path}");
        assert_eq!(json_of(&response)["error"]["type"], "not_found");
        assert_eq!(json_of(&response)["request_id"], "req-1");
    }
    for (method, path, allow) in [
        ("POST", "/v1/models", "GET,HEAD"),
        ("DELETE", "/v1/models/maker/model", "GET,HEAD"),
        ("GET", "/v1/chat/completions", "POST"),
        ("GET", "/chat/completions", "POST"),
    ] {
        let response = ask(method, path, &[]).await;
        assert_eq!(error_code(&response), (405, "method_not_allowed".to_owned()), "{path}");
        assert_eq!(header(&response, "allow"), Some(allow), "{path}");
        assert_eq!(json_of(&response)["error"]["type"], "invalid_request");
    }
}

#[tokio::test]
async fn head_answers_as_get_does_but_for_the_body() {
    for path in ["/healthz", "/v1/info", "/v1/models", "/models/maker/model", "/nothing"] {
        let (get, head) = (ask("GET", path, &[]).await, ask("HEAD", path, &[]).await);
        assert_eq!(head.status(), get.status(), "{path}");
        assert!(head.body().is_empty(), "{path}");
        assert_eq!(header(&head, "content-type"), header(&get, "content-type"), "{path}");
        let length = header(&head, "content-length").map(|length| length.parse().unwrap());
        assert_eq!(length, Some(get.body().len()), "{path}");
        assert_eq!(header(&get, "content-length"), header(&head, "content-length"), "{path}");
    }
}

#[tokio::test]
async fn a_preflight_is_answered_for_every_path() {
    let asks = [
        ("origin", "https://page.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "x-cashu, idempotency-key"),
    ];
    for path in ["/v1/chat/completions", "/v1/models", "/v1/balance/refund"] {
        let response = ask("OPTIONS", path, &asks).await;
        assert_eq!(response.status(), StatusCode::NO_CONTENT, "{path}");
        assert!(response.body().is_empty());
        assert_eq!(header(&response, "content-length"), None, "RFC 9110 forbids it with 204");
        let methods = header(&response, "access-control-allow-methods");
        assert_eq!(methods, Some("GET, POST, PUT, DELETE, OPTIONS"));
        let allowed = header(&response, "access-control-allow-headers");
        assert_eq!(allowed, Some("Authorization, Content-Type, x-cashu, idempotency-key"));
        assert_eq!(header(&response, "access-control-max-age"), Some("86400"));
    }
}

#[tokio::test]
async fn the_list_of_models_has_every_field_that_strict_clients_read() {
    let list = json_of(&ask("GET", "/v1/models", &[]).await);
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"].as_array().unwrap().len(), 2);
    for entry in list["data"].as_array().unwrap() {
        assert_eq!(entry["object"], "model");
        for integer in ["created", "context_length"] {
            assert!(entry[integer].is_u64(), "{integer}");
        }
        for text in ["id", "owned_by", "name", "description"] {
            assert!(entry[text].is_string(), "{text}");
        }
        for prices in ["pricing", "sats_pricing"] {
            for (name, number) in entry[prices].as_object().unwrap() {
                assert!(number.is_number(), "{prices}.{name}");
            }
            for name in
                ["prompt", "completion", "request", "image", "web_search", "internal_reasoning"]
            {
                assert!(entry[prices][name].is_number(), "{prices}.{name}");
            }
        }
        for name in ["max_prompt_cost", "max_completion_cost", "max_cost"] {
            assert!(entry["sats_pricing"][name].is_number(), "{name}");
        }
    }
    assert_eq!(json_of(&ask("GET", "/models", &[]).await), list);
}

#[tokio::test]
async fn prices_of_a_model_are_exact() {
    let response = ask("GET", "/v1/models/maker/model", &[]).await;
    let entry = json_of(&response);
    assert_eq!(entry["enabled"], true);
    assert_eq!(entry["alias_ids"], json!(["model"]));
    assert_eq!(entry["top_provider"]["max_completion_tokens"], 1_000);
    let text = std::str::from_utf8(response.body()).unwrap();
    // At 100,000 USD one sat is a tenth of a cent.
    assert!(text.contains(r#""pricing":{"prompt":0.000001,"completion":0.000003,"#), "{text}");
    assert!(text.contains(r#""sats_pricing":{"prompt":0.001,"completion":0.003,"#), "{text}");
    assert!(text.contains(r#""max_cost":13}"#), "{text}");
}

#[tokio::test]
async fn a_model_is_found_by_id_with_slashes_and_by_alias() {
    for path in ["/v1/models/maker/model", "/models/maker%2Fmodel", "/v1/models/model"] {
        assert_eq!(json_of(&ask("GET", path, &[]).await)["id"], "maker/model", "{path}");
    }
    for path in ["/v1/models/other", "/v1/models/maker", "/v1/models/%ff"] {
        let response = ask("GET", path, &[]).await;
        assert_eq!(error_code(&response), (404, "model_not_found".to_owned()), "{path}");
        assert_eq!(json_of(&response)["error"]["type"], "not_found");
    }
}

#[tokio::test]
async fn info_says_who_this_is_and_which_mints_are_accepted() {
    let expected = json!({
        "name": "corner shop", "description": "", "version": env!("CARGO_PKG_VERSION"),
        "npub": "", "mints": ["https://mint.example"], "http_url": "", "onion_url": "",
        "child_key_cost_msats": 0,
    });
    assert_eq!(json_of(&ask("GET", "/v1/info", &[]).await), expected);
}

#[tokio::test]
async fn ecash_sent_to_a_path_that_sells_nothing_goes_back_with_the_refusal() {
    let response = ask("POST", "/v1/nothing", &[("x-cashu", "cashuBuntouched")]).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(header(&response, "x-cashu"), Some("cashuBuntouched"));
    assert_eq!(header(&response, "x-cashu-refund"), Some("cashuBuntouched"));
    assert_eq!(header(&response, "x-should-retry"), Some("false"));

    // What is not ecash does not go back, and neither does what came with a good answer.
    let response = ask("POST", "/v1/nothing", &[("x-cashu", "sk-secret")]).await;
    assert_eq!(header(&response, "x-cashu"), None);
    assert_eq!(header(&response, "x-should-retry"), Some("false"));
    let response = ask("GET", "/v1/models", &[("x-cashu", "cashuBuntouched")]).await;
    assert_eq!(header(&response, "x-cashu"), None);
    let bearer = ("authorization", "Bearer cashuBsecret");
    let response = ask("GET", "/v1/nothing", &[bearer]).await;
    assert_eq!((header(&response, "x-cashu"), header(&response, "x-should-retry")), (None, None));
}

#[tokio::test]
async fn the_admin_listener_answers_its_health_and_nothing_of_the_public_one() {
    let folder = tempfile::tempdir().unwrap();
    let till = till(folder.path()).await;
    let router = admin_router(&Config::default(), Metrics::default(), till);
    for (path, status) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/v1/info", 404),
        ("/v1/chat/completions", 404),
    ] {
        let request = Request::builder().uri(path).body(Bytes::new()).unwrap();
        assert_eq!(answer(&router, request).await.status(), status, "{path}");
    }
}

#[test]
fn a_missing_credential_has_the_configured_status_and_a_malformed_one_is_401() {
    for status in [401, 402] {
        let missing = credential_refusal(CredentialRefusal::Missing, status);
        assert_eq!((missing.status_code(), missing.code()), (status, "missing_api_key"));
        let malformed = credential_refusal(CredentialRefusal::Malformed, status);
        assert_eq!((malformed.status_code(), malformed.code()), (401, "invalid_api_key"));
    }
}
