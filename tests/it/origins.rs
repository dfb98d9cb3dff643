//! Which pages may call the gateway from a browser, and what they may read.

use reqwest::Method;

use crate::support::{Answer, Pay, Setting, World, chat, json, streamed};

const MINE: &str = "https://app.example.com";

async fn ask(world: &World, method: Method, path: &str, pay: Pay<'_>, origin: &str) -> Answer {
    let body = if path.ends_with("completions") { chat("demo") } else { json!({}) };
    let request = world.request(method, path, pay).header("origin", origin).body(body.to_string());
    Answer::read(request.send().await.unwrap()).await.unwrap()
}

fn allowed(answer: &Answer) -> Option<&str> {
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    answer.header("access-control-allow-origin")
}

#[tokio::test]
async fn a_listed_origin_is_echoed_on_every_kind_of_answer_and_no_other_is() {
    let config = json!({"cors": {"origins": ["http://localhost:3000", MINE]}});
    let world = World::with(Setting::config(config)).await;
    let key = world.key(1000).await;
    let chat = "/v1/chat/completions";
    for (method, path, pay) in [
        (Method::GET, "/v1/models", Pay::Nothing),
        (Method::OPTIONS, chat, Pay::Nothing),
        (Method::POST, chat, Pay::from(&key)),
        (Method::POST, chat, Pay::Nothing),
        (Method::GET, "/v1/balance/info", Pay::from(&key)),
        (Method::GET, "/nothing", Pay::Nothing),
    ] {
        let mine = ask(&world, method.clone(), path, pay, MINE).await;
        assert_eq!(allowed(&mine), Some(MINE), "{method} {path}");
        let foreign = ask(&world, method.clone(), path, pay, "https://evil.example").await;
        assert_eq!(allowed(&foreign), None, "{method} {path}");
        for answer in [mine, foreign] {
            let varies = answer.headers.get_all("vary").iter();
            assert!(varies.into_iter().any(|name| name == "origin"), "{method} {path}");
        }
    }
    let stream = world.chat(&key, &streamed("demo")).await.expect(200);
    assert_eq!(allowed(&stream), None, "no page asked");
}

#[tokio::test]
async fn every_page_may_call_unless_origins_are_listed_and_none_reads_the_admin_listener() {
    let world = World::start().await;
    let ecash = world.sats(100).await;
    let answer = ask(&world, Method::POST, "/v1/chat/completions", Pay::XCashu(&ecash), MINE)
        .await
        .expect(200);
    assert_eq!(allowed(&answer), Some("*"));
    let exposed = answer.header("access-control-expose-headers").unwrap();
    let exposed: Vec<&str> = exposed.split(", ").collect();
    for name in ["X-Cashu", "X-Cashu-Refund", "X-Routstr-Cost-Msats", "X-RateLimit-Remaining"] {
        assert!(exposed.contains(&name), "{name}");
        assert!(answer.header(&name.to_ascii_lowercase()).is_some(), "{name}");
    }
    let metrics = format!("http://{}/metrics", world.gateway.admin_address());
    let metrics = world.client.get(metrics).header("origin", MINE).send().await.unwrap();
    assert_eq!(allowed(&Answer::read(metrics).await.unwrap()), None);
}
