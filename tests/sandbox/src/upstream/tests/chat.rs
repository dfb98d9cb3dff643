//! Every misbehaviour does what its name says, seen from a raw socket.

use std::collections::HashSet;

use super::*;

#[test]
fn every_suffix_names_exactly_one_misbehaviour() {
    let all: HashSet<_> = Misbehaviour::ALL.into_iter().collect();
    assert_eq!(all.len(), Misbehaviour::ALL.len());
    for misbehaviour in Misbehaviour::ALL {
        let model = misbehaviour.model();
        let meant = Misbehaviour::ALL.into_iter().filter(|other| model.ends_with(other.suffix()));
        assert_eq!(meant.collect::<Vec<_>>(), [misbehaviour]);
    }
}

#[tokio::test]
async fn usage_follows_from_the_question_as_documented() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    let asked = json!({"model": "demo", "n": 2, "max_tokens": 7, "messages": [
        {"role": "system", "content": "12345"},
        {"role": "user", "content": [{"type": "text", "text": "1234"}, {"type": "image_url"}]},
    ]});
    let (body, ended) = unchunk(&answer(&upstream, &asked).await?);
    let body: Value = serde_json::from_str(&body)?;
    assert!(ended);
    let usage = json!({"prompt_tokens": 3 + 6, "completion_tokens": 14, "total_tokens": 23});
    assert_eq!(body["usage"], usage);
    let content = body["choices"][1]["message"]["content"].as_str().expect("text");
    assert_eq!(content.split(' ').count(), 7);
    assert_eq!(body["choices"][1]["finish_reason"], "length");

    let seen = upstream.requests().remove(0);
    assert_eq!((seen.path.as_str(), upstream.count()), ("/v1/chat/completions", 1));
    assert_eq!(seen.json(), asked);
    Ok(())
}

#[tokio::test]
async fn a_stream_has_an_event_per_word_and_usage_only_when_asked() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    for asked in [true, false] {
        let mut question = question("demo", true);
        question["stream_options"]["include_usage"] = asked.into();
        let (body, ended) = unchunk(&answer(&upstream, &question).await?);
        assert!(ended && body.ends_with("data: [DONE]\n\n"));
        let chunks = chunks(&body);
        let words = chunks.iter().filter(|chunk| {
            chunk["choices"][0]["delta"]["content"].as_str().is_some_and(|word| !word.is_empty())
        });
        assert_eq!(words.count(), 20);
        let usage = chunks.last().expect("chunks");
        assert_eq!(usage["choices"] == json!([]), asked);
        assert_eq!(usage["usage"]["completion_tokens"] == 20, asked);
    }
    Ok(())
}

#[tokio::test]
async fn refusals_have_their_status_and_say_what_a_real_upstream_says() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    for (model, parts) in [
        ("demo-400", ["HTTP/1.1 400 Bad Request", "temperature"]),
        ("demo-401", ["HTTP/1.1 401 Unauthorized", DEFAULT_API_KEY]),
        ("demo-402", ["HTTP/1.1 402 Payment Required", "insufficient_quota"]),
        ("demo-429", ["HTTP/1.1 429 Too Many Requests", "retry-after: 7"]),
        ("demo-500", ["HTTP/1.1 500 Internal Server Error", "server_error"]),
        ("demo-html", ["HTTP/1.1 200 OK\r\ncontent-type: text/html", "<html>"]),
        ("demo-redirect", ["HTTP/1.1 307 Temporary Redirect", "/elsewhere"]),
    ] {
        let answer = answer(&upstream, &question(model, true)).await?;
        assert!(parts.iter().all(|part| answer.contains(part)), "{model}: {answer}");
    }
    let mut stranger = question("demo", false);
    stranger["messages"] = Value::Null;
    assert!(answer(&upstream, &stranger).await?.starts_with("HTTP/1.1 400"));
    Ok(())
}

#[tokio::test]
async fn streams_go_wrong_the_way_they_are_named() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    let plain = unchunk(&answer(&upstream, &question("demo", true)).await?).0;
    let stream = async |misbehaviour: Misbehaviour| -> Result<(String, bool, String)> {
        let raw = answer(&upstream, &question(&misbehaviour.model(), true)).await?;
        let (body, ended) = unchunk(&raw);
        Ok((body.replace(misbehaviour.suffix(), ""), ended, raw))
    };
    for misbehaviour in [Misbehaviour::ByteByByte, Misbehaviour::EarlyHints, Misbehaviour::Slow] {
        let (body, ended, raw) = stream(misbehaviour).await?;
        assert!(ended && body == plain, "{misbehaviour:?}");
        assert_eq!(raw.starts_with("HTTP/1.1 103"), misbehaviour == Misbehaviour::EarlyHints);
    }
    let (body, ended, _) = stream(Misbehaviour::DropsMidStream).await?;
    assert!(!ended && plain.starts_with(&body) && body.len() < plain.len());
    let (body, ended, _) = stream(Misbehaviour::NoDone).await?;
    assert!(ended && body + "data: [DONE]\n\n" == plain);
    assert_eq!(stream(Misbehaviour::Crlf).await?.0, plain.replace('\n', "\r\n"));
    assert!(!stream(Misbehaviour::NoUsage).await?.0.contains("usage"));

    let (body, ended, _) = stream(Misbehaviour::ErrorEvent).await?;
    assert!(ended && !body.contains("[DONE]"));
    assert_eq!(chunks(&body).last().expect("chunks")["error"]["code"], "server_error");

    let with_usage = |body: &str| {
        let has_usage = |chunk: &Value| chunk["usage"].is_object();
        let chunks = chunks(body);
        let at: Vec<_> = (0..chunks.len()).filter(|at| has_usage(&chunks[*at])).collect();
        assert_eq!(at.len(), 1, "{body}");
        chunks[at[0]].clone()
    };
    let (body, ..) = stream(Misbehaviour::UsageWithContent).await?;
    assert_eq!(with_usage(&body)["choices"][0]["delta"]["content"], " now.");
    let cached = with_usage(&stream(Misbehaviour::Cached).await?.0);
    assert_eq!(cached["usage"]["prompt_tokens_details"]["cached_tokens"], 3);
    let (body, ..) = stream(Misbehaviour::UsageNullChunks).await?;
    with_usage(&body);
    assert_eq!(body.matches("\"usage\":null").count(), 22);

    let (body, ..) = stream(Misbehaviour::DataColonText).await?;
    assert_eq!(with_usage(&body)["usage"]["completion_tokens"], 20);
    let (body, ..) = stream(Misbehaviour::InvalidJson).await?;
    assert!(body.split("\n\n").all(|event| !event.ends_with('}')));
    assert_eq!(chunks(&stream(Misbehaviour::Long).await?.0).len(), 2003);
    assert!(stream(Misbehaviour::Big).await?.0.len() > 4_000_000);

    let raw = answer(&upstream, &question("demo-content-length", true)).await?;
    let (head, body) = raw.split_once("\r\n\r\n").expect("a head");
    assert!(
        head.contains(&format!("content-length: {}\r\n", body.len())) && !head.contains("tran")
    );
    Ok(())
}

#[tokio::test]
async fn unstreamed_answers_go_wrong_the_way_they_are_named() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    for (misbehaviour, whole, json) in [
        (Misbehaviour::DropsMidStream, false, false),
        (Misbehaviour::InvalidJson, true, false),
        (Misbehaviour::Big, true, true),
        (Misbehaviour::ErrorEvent, true, true),
    ] {
        let raw = answer(&upstream, &question(&misbehaviour.model(), false)).await?;
        let (body, ended) = unchunk(&raw);
        assert_eq!(ended, whole, "{misbehaviour:?}");
        assert_eq!(serde_json::from_str::<Value>(&body).is_ok(), json, "{misbehaviour:?}");
        assert_eq!(body.len() > 4_000_000, misbehaviour == Misbehaviour::Big);
    }
    Ok(())
}

#[tokio::test]
async fn an_upstream_that_hangs_notices_the_client_leaving() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    let hanging = ask(&upstream, &question("demo-hangs", false)).await?;
    upstream.await_request(1).await;
    assert_eq!(upstream.client_gone(), 0);
    drop(hanging);
    upstream.await_client_gone(1).await;

    let mut half_way = ask(&upstream, &question("demo-hangs-mid-stream", true)).await?;
    let mut text = String::new();
    while !text.contains("either") {
        let mut bytes = [0; 4096];
        let read = half_way.read(&mut bytes).await?;
        text += str::from_utf8(&bytes[..read])?;
    }
    drop(half_way);
    upstream.await_client_gone(2).await;

    assert_eq!(answer(&upstream, &question("demo-refuses", false)).await?, "");
    assert_eq!(upstream.client_gone(), 2);
    Ok(())
}

#[tokio::test]
async fn a_slow_stream_waits_at_the_gate_after_its_first_word() -> Result<()> {
    let options = UpstreamOptions { gated: true, ..UpstreamOptions::default() };
    let upstream = Upstream::start(options).await?;
    let mut stream = ask(&upstream, &question("demo-slow", true)).await?;
    let mut text = String::new();
    while !text.contains("Every") {
        let mut bytes = [0; 4096];
        let read = stream.read(&mut bytes).await?;
        text += str::from_utf8(&bytes[..read])?;
    }
    assert!(!text.contains("satoshi"));
    upstream.open_gate();
    stream.read_to_string(&mut text).await?;
    assert!(text.contains("satoshi") && text.contains("[DONE]"));
    Ok(())
}

#[tokio::test]
async fn a_stopped_upstream_cuts_its_answers_and_can_be_started_again() -> Result<()> {
    let mut upstream = Upstream::start(UpstreamOptions::default()).await?;
    let mut hanging = ask(&upstream, &question("demo-hangs", false)).await?;
    upstream.await_request(1).await;
    upstream.stop().await;
    let mut text = String::new();
    assert!(matches!(hanging.read_to_string(&mut text).await, Ok(0) | Err(_)));
    assert!(ask(&upstream, &question("demo", false)).await.is_err());

    upstream.start_again().await?;
    assert!(answer(&upstream, &question("demo", false)).await?.starts_with("HTTP/1.1 200"));
    assert_eq!(upstream.count(), 2);
    Ok(())
}
