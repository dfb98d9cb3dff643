//! What tests can tell the upstream to do, and what it tells them that it did.

use super::*;

const CHAT: &str = "/v1/chat/completions";

async fn fetch_models(upstream: &Upstream) -> Result<Answer> {
    let mut stream = TcpStream::connect(upstream.url().replace("http://", "")).await?;
    let head = format!("GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{BEARER}\r\n");
    stream.write_all(head.as_bytes()).await?;
    Answer::read(stream).await
}

/// What was produced for a chat of this model, and whether the answer came whole.
async fn produced(upstream: &Upstream, model: &str, stream: bool) -> Result<Produced> {
    let before = u64::try_from(upstream.produced().len())?;
    let mut text = Vec::new();
    ask(upstream, &question(model, stream)).await?.read_to_end(&mut text).await?;
    upstream.await_produced(before + 1).await;
    Ok(upstream.produced().pop().expect("one"))
}

#[tokio::test]
async fn the_key_is_accepted_where_it_may_stand_and_nowhere_else() -> Result<()> {
    use KeyHeader::*;
    let headers = [
        (Bearer, format!("authorization: Bearer {DEFAULT_API_KEY}\r\n")),
        (XApiKey, format!("x-api-key: {DEFAULT_API_KEY}\r\n")),
        (ApiKey, format!("api-key: {DEFAULT_API_KEY}\r\n")),
    ];
    let asked = question("demo", false).to_string();
    for auth in [vec![Bearer, XApiKey, ApiKey], vec![Bearer], vec![XApiKey], vec![ApiKey]] {
        let options = UpstreamOptions { auth: auth.clone(), ..UpstreamOptions::default() };
        let upstream = Upstream::start(options).await?;
        for (header, lines) in &headers {
            let answer = send(&upstream, CHAT, lines, asked.as_bytes()).await?;
            let status = if auth.contains(header) { 200 } else { 401 };
            assert_eq!(Answer::read(answer).await?.status, status, "{auth:?} {header:?}");
        }
    }
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    let wrong = send(&upstream, CHAT, "x-api-key: sk-other\r\n", asked.as_bytes()).await?;
    assert_eq!(Answer::read(wrong).await?.status, 401);
    Ok(())
}

#[tokio::test]
async fn a_prefix_stands_before_every_path() -> Result<()> {
    let options = UpstreamOptions { prefix: "/openai/v1".into(), ..UpstreamOptions::default() };
    let upstream = Upstream::start(options).await?;
    assert!(upstream.base_url().ends_with("/openai/v1"));
    let asked = question("demo", false);
    let path = "/openai/v1/chat/completions?api-version=1";
    assert_eq!(post(&upstream, path, &asked).await?.status, 200);
    assert_eq!(post(&upstream, CHAT, &asked).await?.status, 404);
    Ok(())
}

#[tokio::test]
async fn it_fails_as_often_as_it_is_told_to() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    upstream.fail_next(2, 503);
    upstream.fail_next(1, 429);
    assert_eq!(fetch_models(&upstream).await?.status, 200);
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(post(&upstream, CHAT, &question("demo", false)).await?.status);
    }
    assert_eq!(statuses, [503, 503, 429, 200]);

    upstream.fail_all(Some(502));
    assert_eq!(fetch_models(&upstream).await?.status, 502);
    assert_eq!(post(&upstream, CHAT, &question("demo", false)).await?.status, 502);
    upstream.fail_all(None);
    assert_eq!(fetch_models(&upstream).await?.status, 200);
    let refused = &upstream.produced()[0];
    assert_eq!((refused.status, refused.input, refused.output), (Some(503), 0, 0));
    Ok(())
}

#[tokio::test]
async fn a_parameter_it_does_not_know_is_named_in_its_refusal() -> Result<()> {
    let options =
        UpstreamOptions { rejects_param: Some("seed".into()), ..UpstreamOptions::default() };
    let upstream = Upstream::start(options).await?;
    let mut asked = question("demo", false);
    assert_eq!(post(&upstream, CHAT, &asked).await?.status, 200);
    asked["seed"] = 1.into();
    let answer = post(&upstream, CHAT, &asked).await?;
    let error = &answer.json()["error"];
    assert_eq!(answer.status, 400);
    assert_eq!(
        (&error["param"], &error["code"]),
        (&json!("seed"), &json!("unsupported_parameter"))
    );
    let fields = [("model", "demo"), ("seed", "1")];
    let path = "/v1/audio/transcriptions";
    assert_eq!(post_form(&upstream, path, &fields, &[("file", b"x")]).await?.status, 400);
    Ok(())
}

#[tokio::test]
async fn the_models_are_listed_as_they_are_or_as_it_was_told() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    let plain = fetch_models(&upstream).await?.json();
    assert_eq!(plain["data"].as_array().map(Vec::len), Some(Misbehaviour::ALL.len() + 1));
    let listing = json!({"data": [{"id": "demo", "pricing": {"prompt": "0.000001"}}]});
    let options = UpstreamOptions { listing: Some(listing.clone()), ..UpstreamOptions::default() };
    assert_eq!(fetch_models(&Upstream::start(options).await?).await?.json(), listing);
    Ok(())
}

#[tokio::test]
async fn what_was_produced_is_what_was_sent() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    for (model, stream, status, output, told_usage, ended) in [
        ("demo", true, Some(200), 20, true, Ended::Complete),
        ("demo", false, Some(200), 20, true, Ended::Complete),
        ("demo-no-usage", true, Some(200), 20, false, Ended::Complete),
        ("demo-no-usage", false, Some(200), 20, false, Ended::Complete),
        ("demo-invalid-json", false, Some(200), 20, false, Ended::Complete),
        ("demo-usage-with-content", true, Some(200), 20, true, Ended::Complete),
        // The head, the role and eleven words are half of the writes.
        ("demo-drops-mid-stream", true, Some(200), 11, false, Ended::Dropped),
        ("demo-drops-mid-stream", false, Some(200), 20, false, Ended::Dropped),
        ("demo-reasoning-drops-mid-stream", true, Some(200), 10 + 6, false, Ended::Dropped),
        ("demo-error-event", true, Some(200), 9, false, Ended::Complete),
        ("demo-byte-by-byte", true, Some(200), 20, true, Ended::Complete),
    ] {
        let produced = produced(&upstream, model, stream).await?;
        assert_eq!(produced.input, 6, "{model}");
        assert_eq!(
            (produced.status, produced.output, produced.told_usage, produced.ended),
            (status, output, told_usage, ended),
            "{model} {stream}"
        );
        assert_eq!(produced.model, model);
    }
    for (model, status, ended) in
        [("demo-429", Some(429), Ended::Complete), ("demo-refuses", None, Ended::Dropped)]
    {
        let produced = produced(&upstream, model, true).await?;
        assert_eq!((produced.status, produced.ended), (status, ended));
        assert_eq!((produced.input, produced.output, produced.told_usage), (0, 0, false));
    }
    Ok(())
}

#[tokio::test]
async fn what_was_produced_is_known_by_its_request_however_it_ended() -> Result<()> {
    let mut upstream = Upstream::start(UpstreamOptions::default()).await?;
    let asked = question("demo-hangs-mid-stream", true).to_string();
    let headers = format!("{BEARER}x-request-id: mine\r\n");
    for ended in [Ended::ClientGone, Ended::Dropped] {
        let mut stream = send(&upstream, CHAT, &headers, asked.as_bytes()).await?;
        let mut text = String::new();
        while !text.contains(" very") {
            let mut bytes = [0; 4096];
            let read = stream.read(&mut bytes).await?;
            text += str::from_utf8(&bytes[..read])?;
        }
        let before = u64::try_from(upstream.produced().len())?;
        if ended == Ended::ClientGone {
            drop(stream);
            upstream.await_produced(before + 1).await;
        } else {
            upstream.stop().await;
        }
        let produced = upstream.produced().pop().expect("one");
        assert_eq!((produced.ended, produced.output), (ended, 11));
        assert_eq!(produced.request_id, "mine");
    }
    Ok(())
}

#[tokio::test]
async fn usage_says_what_it_costs_where_its_model_does() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    let model = "demo-usd-cost";
    let body = post(&upstream, CHAT, &question(model, false)).await?.json();
    assert_eq!(body["usage"]["cost"], 0.000_026);
    let asked = json!({"model": model, "input": "1234"});
    let body = post(&upstream, "/v1/embeddings", &asked).await?.json();
    assert_eq!(body["usage"]["cost"], 0.000_001);
    let body = post(&upstream, "/v1/responses", &asked).await?.json();
    assert_eq!(body["usage"]["cost"], 0.000_024);
    let asked = json!({"model": model, "query": "?", "documents": ["1"]});
    let body = post(&upstream, "/v1/rerank", &asked).await?.json();
    assert_eq!(body["usage"], json!({"search_units": 1, "cost": 0.000_001}));
    Ok(())
}

/// A question that each route answers, but for its model.
fn questions() -> Vec<(&'static str, Value)> {
    let messages = json!([{"role": "user", "content": "?"}]);
    vec![
        (CHAT, json!({"messages": messages})),
        ("/v1/completions", json!({"prompt": "?"})),
        ("/v1/responses", json!({"input": "?"})),
        ("/v1/messages", json!({"messages": messages, "max_tokens": 9})),
        ("/v1/embeddings", json!({"input": "?"})),
        ("/v1/images/generations", json!({"prompt": "?"})),
        ("/v1/audio/speech", json!({"input": "?", "voice": "alloy"})),
        ("/v1/moderations", json!({"input": "?"})),
        ("/v1/rerank", json!({"query": "?", "documents": ["1"]})),
    ]
}

#[tokio::test]
async fn more_than_can_be_asked_for_is_refused() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    let chat = |n: u64| json!({"n": n, "max_tokens": 1, "messages": []});
    let completion = |n: u64| json!({"best_of": n, "max_tokens": 1, "prompt": "?"});
    let embedding = |n: usize| json!({"input": vec!["x"; n], "dimensions": 1});
    let image = |n: u64| json!({"prompt": "x", "stream": true, "partial_images": n});
    for (path, most, more) in [
        (CHAT, chat(128), chat(129)),
        ("/v1/completions", completion(128), completion(129)),
        ("/v1/embeddings", embedding(2048), embedding(2049)),
        ("/v1/images/generations", image(3), image(4)),
    ] {
        for (mut asked, status) in [(most, 200), (more, 400)] {
            asked["model"] = "demo".into();
            assert_eq!(post(&upstream, path, &asked).await?.status, status, "{path}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_route_goes_wrong_by_the_name_of_its_model() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    let ask_all = async |model: &str| -> Result<Vec<(String, Answer)>> {
        let mut answers = Vec::new();
        for (path, mut question) in questions() {
            question["model"] = model.into();
            answers.push((path.to_owned(), post(&upstream, path, &question).await?));
        }
        for path in ["/v1/images/edits", "/v1/audio/transcriptions", "/v1/audio/translations"] {
            let fields = [("model", model), ("prompt", "?")];
            let answer = post_form(&upstream, path, &fields, &[("file", b"x")]).await?;
            answers.push((path.to_owned(), answer));
        }
        Ok(answers)
    };
    for (model, status) in [
        ("demo", 200),
        ("demo-400", 400),
        ("demo-401", 401),
        ("demo-402", 402),
        ("demo-429", 429),
        ("demo-500", 500),
        ("demo-503", 503),
        ("demo-content-length", 200),
    ] {
        for (path, answer) in ask_all(model).await? {
            assert_eq!((answer.status, answer.ended), (status, true), "{path} {model}");
        }
    }
    for (path, answer) in ask_all("demo-drops-mid-stream").await? {
        assert!(!answer.ended && answer.status == 200, "{path}");
    }
    for (path, answer) in ask_all("demo-error-event").await? {
        let kind = if path == "/v1/messages" { "api_error" } else { "server_error" };
        assert_eq!(answer.json()["error"]["type"], kind, "{path}");
    }
    for (path, answer) in ask_all("demo-no-usage").await? {
        let text = String::from_utf8_lossy(&answer.body);
        let none = ["\"usage\":{", "billed_units"].iter().all(|name| !text.contains(name));
        assert!(answer.ended && none, "{path}");
    }
    for (path, answer) in ask_all("demo-invalid-json").await? {
        assert!(serde_json::from_slice::<Value>(&answer.body).is_err(), "{path}");
    }
    assert_eq!(upstream.produced().len(), 12 * 12);
    Ok(())
}
