//! The routes that are asked for text: completions, Responses and Anthropic's messages.

use super::*;

/// The names of events, a run of the same name once.
fn names(answer: &Answer) -> Vec<String> {
    let mut names: Vec<String> = answer.events().into_iter().map(|(name, _)| name).collect();
    names.dedup();
    names
}

#[tokio::test]
async fn completions_count_every_prompt_and_the_choices_that_nobody_sees() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    let mut asked = json!({
        "model": "demo", "prompt": ["12345", "678"], "n": 2, "best_of": 3, "max_tokens": 7,
    });
    let body = post(&upstream, "/v1/completions", &asked).await?.json();
    let usage = json!({"prompt_tokens": 2, "completion_tokens": 42, "total_tokens": 44});
    assert_eq!(body["usage"], usage);
    assert_eq!(body["choices"].as_array().map(Vec::len), Some(4));
    assert_eq!(body["choices"][0]["text"], "Every satoshi that came in is either");
    assert_eq!(body["choices"][0]["finish_reason"], "length");

    asked["stream"] = true.into();
    let quiet = post(&upstream, "/v1/completions", &asked).await?;
    assert!(!quiet.text().contains("usage"));
    asked["stream_options"] = json!({"include_usage": true});
    let events = post(&upstream, "/v1/completions", &asked).await?.events();
    assert_eq!(events.len(), 4 * 7 + 4 + 2);
    assert_eq!(events[32].1["usage"], usage);
    assert_eq!(events[33].1, "[DONE]");

    let ids = json!({"model": "demo", "prompt": [[1, 2, 3], [4]]});
    let usage = post(&upstream, "/v1/completions", &ids).await?.json()["usage"].clone();
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(4), &json!(40)));
    Ok(())
}

#[tokio::test]
async fn responses_count_items_and_instructions_as_messages() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    let asked = json!({
        "model": "demo", "instructions": "12345", "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "1234"}]},
            {"type": "function_call_output", "call_id": "x", "output": "12"},
        ],
    });
    let body = post(&upstream, "/v1/responses", &asked).await?.json();
    assert_eq!(
        body["usage"],
        json!({
            "input_tokens": 3 + 9, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 20, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 32,
        })
    );
    assert_eq!(body["status"], "completed");
    let text = body["output"][0]["content"][0]["text"].as_str().expect("text");
    assert_eq!(text.split(' ').count(), 20);

    let asked = json!({"model": "demo-cached", "input": "What is it?"});
    let usage = post(&upstream, "/v1/responses", &asked).await?.json()["usage"].clone();
    assert_eq!(usage["input_tokens"], 6);
    assert_eq!(usage["input_tokens_details"]["cached_tokens"], 3);
    Ok(())
}

#[tokio::test]
async fn a_response_is_streamed_in_named_and_numbered_events() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    let asked = json!({"model": "demo", "stream": true, "input": "What is it?"});
    let answer = post(&upstream, "/v1/responses", &asked).await?;
    assert!(answer.ended);
    assert_eq!(
        names(&answer),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let events = answer.events();
    for (number, (name, data)) in events.iter().enumerate() {
        assert_eq!((&data["type"], &data["sequence_number"]), (&json!(name), &json!(number)));
    }
    let last = &events.last().expect("events").1["response"];
    assert_eq!(
        (&last["usage"]["output_tokens"], &last["status"]),
        (&json!(20), &json!("completed"))
    );
    assert_eq!(events[0].1["response"]["usage"], Value::Null);
    let deltas: String = events.iter().filter_map(|(_, data)| data["delta"].as_str()).collect();
    assert_eq!(last["output"][0]["content"][0]["text"], deltas);
    Ok(())
}

#[tokio::test]
async fn a_response_ends_as_its_model_says() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    for (model, status, has_usage) in [
        ("demo-incomplete", "incomplete", true),
        ("demo-failed", "failed", false),
        ("demo-no-usage", "completed", false),
    ] {
        let mut asked = json!({"model": model, "input": "What is it?"});
        let body = post(&upstream, "/v1/responses", &asked).await?.json();
        assert_eq!((&body["status"], body["usage"].is_object()), (&json!(status), has_usage));
        asked["stream"] = true.into();
        let (name, last) =
            post(&upstream, "/v1/responses", &asked).await?.events().pop().expect("one");
        assert_eq!(name, format!("response.{status}"));
        assert_eq!(last["response"]["usage"].is_object(), has_usage, "{model}");
    }
    let asked = json!({"model": "demo", "stream": true, "max_output_tokens": 3, "input": "?"});
    let (_, last) = post(&upstream, "/v1/responses", &asked).await?.events().pop().expect("one");
    assert_eq!(last["response"]["incomplete_details"]["reason"], "max_output_tokens");
    assert_eq!(last["response"]["usage"]["output_tokens"], 3);

    let asked = json!({"model": "demo-error-event", "stream": true, "input": "?"});
    let (name, last) = post(&upstream, "/v1/responses", &asked).await?.events().pop().expect("one");
    assert_eq!((name.as_str(), &last["code"]), ("error", &json!("server_error")));
    Ok(())
}

#[tokio::test]
async fn reasoning_is_half_of_the_output_and_is_not_shown() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    let chat = json!({
        "model": "demo-reasoning", "max_tokens": 7, "messages": [{"role": "user", "content": "?"}],
    });
    let body = post(&upstream, "/v1/chat/completions", &chat).await?.json();
    assert_eq!(body["usage"]["completion_tokens"], 7);
    assert_eq!(body["usage"]["completion_tokens_details"]["reasoning_tokens"], 3);
    assert_eq!(body["choices"][0]["message"]["content"], "Every satoshi that came");

    let body = post(&upstream, "/v1/messages", &chat).await?.json();
    assert_eq!(body["usage"]["output_tokens"], 7);
    assert_eq!(body["usage"]["output_tokens_details"]["thinking_tokens"], 3);

    let asked = json!({
        "model": "demo-reasoning", "stream": true, "max_output_tokens": 7, "input": "?",
    });
    let answer = post(&upstream, "/v1/responses", &asked).await?;
    let usage = answer.events().pop().expect("one").1["response"]["usage"].clone();
    assert_eq!(usage["output_tokens_details"]["reasoning_tokens"], 3);
    assert_eq!(answer.text().matches("event: response.output_text.delta").count(), 4);
    Ok(())
}

#[tokio::test]
async fn searches_of_the_web_are_reported_one_by_one_or_counted() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    let mut asked = json!({"model": "demo-web-search", "input": "?"});
    let body = post(&upstream, "/v1/responses", &asked).await?.json();
    let kinds = body["output"].as_array().expect("items").iter().map(|item| &item["type"]);
    assert_eq!(kinds.collect::<Vec<_>>(), ["web_search_call", "web_search_call", "message"]);
    asked["stream"] = true.into();
    let answer = post(&upstream, "/v1/responses", &asked).await?;
    assert_eq!(answer.text().matches("event: response.web_search_call.completed").count(), 2);

    let mut asked = json!({
        "model": "demo-web-search", "max_tokens": 9, "messages": [{"role": "user", "content": "?"}],
    });
    let body = post(&upstream, "/v1/messages", &asked).await?.json();
    assert_eq!(body["usage"]["server_tool_use"]["web_search_requests"], 2);
    asked["stream"] = true.into();
    let events = post(&upstream, "/v1/messages", &asked).await?.events();
    let usage = &events[events.len() - 2].1["usage"];
    assert_eq!(usage["server_tool_use"]["web_search_requests"], 2);
    assert_eq!((&usage["input_tokens"], &usage["output_tokens"]), (&json!(4), &json!(9)));
    Ok(())
}

fn message(model: &str) -> Value {
    json!({
        "model": model, "max_tokens": 9, "system": [{"type": "text", "text": "12345"}],
        "messages": [{"role": "user", "content": "12345678"}],
    })
}

#[tokio::test]
async fn a_message_counts_the_parts_of_its_input_apart() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    let body = post(&upstream, "/v1/messages", &message("demo")).await?.json();
    assert_eq!(
        body["usage"],
        json!({
            "input_tokens": 10, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0,
            "output_tokens": 9,
        })
    );
    assert_eq!(body["stop_reason"], "max_tokens");
    let body = post(&upstream, "/v1/messages", &message("demo-cached")).await?.json();
    assert_eq!(
        body["usage"],
        json!({
            "input_tokens": 3, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 2,
            "output_tokens": 9,
        })
    );
    Ok(())
}

#[tokio::test]
async fn a_message_is_streamed_in_named_events_and_tells_its_usage_in_two_of_them() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    let mut asked = message("demo-cached");
    asked["stream"] = true.into();
    let answer = post(&upstream, "/v1/messages", &asked).await?;
    assert!(answer.ended);
    assert_eq!(
        names(&answer),
        [
            "message_start",
            "content_block_start",
            "ping",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
    );
    let events = answer.events();
    assert_eq!(
        events[0].1["message"]["usage"],
        json!({
            "input_tokens": 3, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 2,
            "output_tokens": 1,
        })
    );
    assert_eq!(events[events.len() - 2].1["usage"], json!({"output_tokens": 9}));
    Ok(())
}

#[tokio::test]
async fn anthropics_route_is_strict_and_fails_in_its_own_words() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    let asked = message("demo").to_string();
    let unversioned = send(&upstream, "/v1/messages", BEARER, asked.as_bytes()).await?;
    let body = Answer::read(unversioned).await?;
    assert_eq!(
        (body.status, &body.json()["error"]["type"]),
        (400, &json!("invalid_request_error"))
    );

    let mut unlimited = message("demo");
    unlimited["max_tokens"] = Value::Null;
    assert_eq!(post(&upstream, "/v1/messages", &unlimited).await?.status, 400);
    for (model, status, kind) in [
        ("demo-401", 401, "authentication_error"),
        ("demo-429", 429, "rate_limit_error"),
        ("demo-503", 503, "overloaded_error"),
    ] {
        let answer = post(&upstream, "/v1/messages", &message(model)).await?;
        assert_eq!((answer.status, &answer.json()["error"]["type"]), (status, &json!(kind)));
        assert_eq!(answer.json()["type"], "error");
    }
    let mut asked = message("demo-error-event");
    asked["stream"] = true.into();
    let (name, last) = post(&upstream, "/v1/messages", &asked).await?.events().pop().expect("one");
    assert_eq!((name.as_str(), &last["error"]["type"]), ("error", &json!("api_error")));
    Ok(())
}
