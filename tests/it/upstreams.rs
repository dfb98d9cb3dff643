//! What an upstream is told, and how the gateway knows how it does.

use nutgate_sandbox::{Upstream, UpstreamOptions, upstream::DEFAULT_API_KEY};

use crate::support::{
    Misbehaviour, Setting, World, chat, json, model, model_of, streamed, upstream, with,
};
use crate::telemetry::{reaches, value};

#[tokio::test]
async fn an_upstream_gets_its_own_credential_headers_path_and_query_and_none_of_the_client_s() {
    let other = Upstream::start(UpstreamOptions::default()).await.unwrap();
    let configured = json!({
        "name": "azure",
        "base_url": other.url() + "/openai/v1",
        "query": "api-version=preview",
        "auth": "api-key",
        "api_key": "key-of-the-gateway",
        "headers": {"x-title": "a shop", "user-agent": "ours"},
    });
    let setting = Setting {
        more_upstreams: vec![configured],
        more_models: vec![model("demo-azure", &["azure"])],
        ..Setting::default()
    };
    let world = World::with(setting).await;
    let key = world.key(100).await;
    let asked = world
        .client
        .post(world.gateway.url() + "/v1/chat/completions?api-version=the-client-s")
        .bearer_auth(&key.0)
        .header("api-key", "key-of-the-client")
        .header("x-title", "the client's")
        .header("user-agent", "the client's")
        .json(&chat("demo-azure"));
    // It wants another credential, which is the gateway's affair and costs nothing.
    assert_eq!(asked.send().await.unwrap().status(), 502);
    assert_eq!(world.settled(&key).await.available, 100_000);
    let seen = other.requests().pop().unwrap();
    assert_eq!(seen.path, "/openai/v1/chat/completions?api-version=preview");
    assert_eq!(seen.header("api-key"), Some("key-of-the-gateway"));
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(seen.header("x-title"), Some("a shop"));
    assert_eq!(seen.header("user-agent"), Some("ours"));
    let count = |name: &str| seen.headers.iter().filter(|(seen, _)| seen == name).count();
    assert_eq!((count("api-key"), count("x-title"), count("host")), (1, 1, 1));
    assert!(!world.gateway.log().contains("key-of-the-gateway"));
}

#[tokio::test]
async fn a_probe_sees_an_upstream_fall_and_rise_without_any_traffic() {
    let mut other = Upstream::start(UpstreamOptions::default()).await.unwrap();
    let probe = json!({"path": "/models", "every": "50ms", "timeout": "50ms"});
    let probed = json!({
        "name": "probed",
        "base_url": other.base_url(),
        "api_key": DEFAULT_API_KEY,
        "health": {"cooldown": "1h", "probe": probe},
    });
    let setting = Setting { more_upstreams: vec![probed], ..Setting::default() };
    let world = World::with(setting).await;
    let state = "nutgate_upstream_state{upstream=\"probed\"}";
    other.await_request(2).await;
    let seen = other.requests().pop().unwrap();
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("GET", "/v1/models"));
    let bearer = format!("Bearer {DEFAULT_API_KEY}");
    assert_eq!(seen.header("authorization"), Some(bearer.as_str()));
    other.stop().await;
    reaches(&world, state, 2).await;
    let failures = "nutgate_upstream_failures_total{kind=\"unreachable\",upstream=\"probed\"}";
    assert!(value(&world, failures).await >= Some(1));
    other.start_again().await.unwrap();
    reaches(&world, state, 0).await;
    let quiet = "nutgate_upstream_refused_total{status=\"401\",upstream=\"probed\"}";
    assert_eq!(value(&world, quiet).await, Some(0));
    assert_eq!(value(&world, "nutgate_upstream_state{upstream=\"sandbox\"}").await, Some(0));
}

#[tokio::test]
async fn an_answer_that_takes_longer_than_all_may_closes_its_upstream_to_nobody() {
    let other = Upstream::start(UpstreamOptions::default()).await.unwrap();
    let strict = json!({
        "timeouts": {"total": "300ms"}, "health": {"failures": 1, "cooldown": "1h"},
    });
    let served = |id: &str, as_what: String| {
        with(model(id, &["other"]), json!({ "upstream_model": as_what }))
    };
    let setting = Setting {
        more_upstreams: vec![with(upstream("other", &other, DEFAULT_API_KEY), strict)],
        more_models: vec![
            served("long", model_of(Misbehaviour::Paced)),
            served("short", "demo".to_owned()),
        ],
        ..Setting::default()
    };
    let world = World::with(setting).await;
    let key = world.key(100).await;
    world.try_chat(&key, &streamed("long")).await.expect_err("it breaks off");
    world.chat(&key, &chat("short")).await.expect(200);
}
