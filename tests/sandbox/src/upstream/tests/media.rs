//! The routes that are asked for images and speech, or sent them.

use super::*;

#[tokio::test]
async fn images_tell_their_usage_only_where_their_model_does() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    let mut asked = json!({"model": "demo-image", "prompt": "12345", "n": 2});
    let body = post(&upstream, "/v1/images/generations", &asked).await?.json();
    assert_eq!(body.get("usage"), None);
    assert!(body["data"][1]["url"].is_string());
    asked["response_format"] = "b64_json".into();
    let body = post(&upstream, "/v1/images/generations", &asked).await?.json();
    assert!(body["data"][1]["b64_json"].is_string());

    for (quality, each) in [("low", 100), ("medium", 200), ("high", 400), ("hd", 400)] {
        let asked = json!({
            "model": "demo-image-usage", "prompt": "12345", "n": 3, "quality": quality,
        });
        let body = post(&upstream, "/v1/images/generations", &asked).await?.json();
        assert_eq!(
            body["usage"],
            json!({
                "input_tokens": 2, "input_tokens_details": {"text_tokens": 2, "image_tokens": 0},
                "output_tokens": 3 * each, "total_tokens": 2 + 3 * each,
            })
        );
        assert_eq!(body["quality"], quality);
    }
    for (n, status) in [(10, 200), (11, 400), (0, 400)] {
        let asked = json!({"model": "demo-image", "prompt": "x", "n": n});
        assert_eq!(post(&upstream, "/v1/images/generations", &asked).await?.status, status);
    }
    Ok(())
}

#[tokio::test]
async fn an_image_is_streamed_as_it_comes_into_being() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    let asked = json!({
        "model": "demo-image-usage", "prompt": "12345", "stream": true, "partial_images": 2,
    });
    let events = post(&upstream, "/v1/images/generations", &asked).await?.events();
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    let partial = "image_generation.partial_image";
    assert_eq!(names, [partial, partial, "image_generation.completed"]);
    assert_eq!(events[1].1["partial_image_index"], 1);
    assert_eq!(events[2].1["usage"]["output_tokens"], 400);
    Ok(())
}

#[tokio::test]
async fn edits_come_as_a_form_and_count_the_images_in_it() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    let path = "/v1/images/edits";
    let fields = [("model", "demo-image-usage"), ("prompt", "12345"), ("n", "2")];
    let files: [(&str, &[u8]); 2] = [("image[]", b"one\r\n--edg"), ("image[]", b"two")];
    let body = post_form(&upstream, path, &fields, &files).await?.json();
    assert_eq!(body["usage"]["input_tokens_details"]["image_tokens"], 100);
    assert_eq!(body["usage"]["total_tokens"], 2 + 100 + 400);
    assert_eq!(post_form(&upstream, path, &fields, &[]).await?.status, 400);

    let fields = [("model", "demo-image-usage"), ("prompt", "x"), ("stream", "true")];
    let (name, _) = post_form(&upstream, path, &fields, &files).await?.events().pop().expect("one");
    assert_eq!(name, "image_edit.completed");
    let json = json!({"model": "demo-image", "prompt": "x"});
    assert_eq!(post(&upstream, path, &json).await?.status, 400);
    Ok(())
}

/// Sound without a sound: so many bytes at 8,000 bytes a second.
fn wav(length: u32) -> Vec<u8> {
    let mut wav =
        b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x40\x1f\0\0\x01\0\x08\0".to_vec();
    // Something that is no sound, of odd length.
    wav.extend_from_slice(b"LIST\x03\0\0\0abc\0data");
    wav.extend_from_slice(&length.to_le_bytes());
    wav.resize(wav.len() + usize::try_from(length).expect("small"), 0);
    wav
}

async fn transcribe(upstream: &Upstream, fields: &[(&str, &str)], audio: &[u8]) -> Result<Answer> {
    post_form(upstream, "/v1/audio/transcriptions", fields, &[("file", audio)]).await
}

#[tokio::test]
async fn audio_is_as_long_as_its_header_says_or_as_its_size_suggests() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    let verbose = [("model", "demo"), ("response_format", "verbose_json")];
    for (audio, duration, seconds) in [
        (wav(20_000), json!(2.5), 3),
        (wav(8_001), json!(1.001), 2),
        (vec![1; 4_000], json!(1.0), 1),
        (vec![1; 4_001], json!(2.0), 2),
    ] {
        let body = transcribe(&upstream, &verbose, &audio).await?.json();
        assert_eq!(body["duration"], duration);
        assert_eq!(body["task"], "transcribe");
        let plain = transcribe(&upstream, &[("model", "demo")], &audio).await?.json();
        for body in [body, plain] {
            assert_eq!(body["usage"], json!({"type": "duration", "seconds": seconds}));
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_transcript_is_counted_in_tokens_where_its_model_is() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    let fields = [("model", "demo-by-tokens"), ("prompt", "12345"), ("stream", "true")];
    let usage = json!({
        "type": "tokens", "input_tokens": 32, "output_tokens": 20, "total_tokens": 52,
        "input_token_details": {"text_tokens": 2, "audio_tokens": 30},
    });
    let body = transcribe(&upstream, &fields[..2], &wav(20_000)).await?.json();
    assert_eq!(body["usage"], usage);
    let events = transcribe(&upstream, &fields, &wav(20_000)).await?.events();
    assert_eq!(events.len(), 21);
    let (_, last) = events.last().expect("events");
    assert_eq!((&last["type"], &last["usage"]), (&json!("transcript.text.done"), &usage));
    let deltas: String = events.iter().filter_map(|(_, data)| data["delta"].as_str()).collect();
    assert_eq!((&body["text"], &last["text"]), (&json!(deltas), &json!(deltas)));
    Ok(())
}

#[tokio::test]
async fn a_transcript_comes_as_the_text_that_was_asked_for() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    for (format, begins) in [
        ("text", "Every satoshi"),
        ("srt", "1\n00:00:00,000 --> 00:00:02,500\nEvery"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:02.500\nEvery"),
    ] {
        let fields = [("model", "demo"), ("response_format", format)];
        let answer = transcribe(&upstream, &fields, &wav(20_000)).await?;
        assert!(answer.text().starts_with(begins), "{}", answer.text());
        assert!(answer.head.contains("content-type: text/plain"));
    }
    let fields = [("model", "demo"), ("response_format", "verbose_json")];
    let path = "/v1/audio/translations";
    let body = post_form(&upstream, path, &fields, &[("file", b"x")]).await?.json();
    assert_eq!((&body["task"], &body["usage"]["seconds"]), (&json!("translate"), &json!(1)));
    assert_eq!(post_form(&upstream, path, &fields, &[]).await?.status, 400);
    Ok(())
}

#[tokio::test]
async fn speech_is_audio_as_long_as_its_text_or_events_with_usage() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    let mut asked = json!({"model": "demo", "input": "ä".repeat(81), "voice": "alloy"});
    let answer = post(&upstream, "/v1/audio/speech", &asked).await?;
    assert!(answer.ended && answer.head.contains("content-type: audio/mpeg"));
    assert_eq!(answer.body.len(), 8_100);
    assert!(str::from_utf8(&answer.body).is_err());

    asked["stream_format"] = "sse".into();
    let events = post(&upstream, "/v1/audio/speech", &asked).await?.events();
    let kinds: Vec<&Value> = events.iter().map(|(_, data)| &data["type"]).collect();
    let delta = "speech.audio.delta";
    assert_eq!(kinds, [delta, delta, delta, "speech.audio.done"]);
    let usage = json!({"input_tokens": 21, "output_tokens": 3, "total_tokens": 24});
    assert_eq!(events[3].1["usage"], usage);
    Ok(())
}
