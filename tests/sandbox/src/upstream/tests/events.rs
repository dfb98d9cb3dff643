//! Streams that are very long, or as slow as a clock.

use std::time::Duration;

use super::*;

async fn stream_of(upstream: &Upstream, events: u64) -> Result<Answer> {
    Answer::read(ask(upstream, &question(&model_of_events(events), true)).await?).await
}

#[tokio::test]
async fn a_stream_has_as_many_events_as_its_model_says() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    for words in [0_u64, 1, 20, 21, 40, 41, 60, 61, 400, 12_345] {
        let answer = stream_of(&upstream, words).await?;
        assert!(answer.ended);
        let events = answer.events();
        assert_eq!(u64::try_from(events.len())?, 1 + words + 1 + 2, "{words}");
        let text: String = events
            .iter()
            .filter_map(|(_, chunk)| chunk["choices"][0]["delta"]["content"].as_str())
            .collect();
        assert_eq!(u64::try_from(text.split_whitespace().count())?, words);
        assert_eq!(events[events.len() - 2].1["usage"]["completion_tokens"], words);
        let produced = upstream.produced().pop().expect("one");
        assert_eq!((produced.output, produced.told_usage), (words, true));
    }
    Ok(())
}

#[test]
fn a_name_asks_for_so_many_events_and_for_no_more_than_there_can_be() {
    let events = |model: &str| misbehaviour::events_of_model(model).1;
    assert_eq!(events(&model_of_events(EVENTS_MAX - 1)), Some(EVENTS_MAX - 1));
    assert_eq!(events(&model_of_events(EVENTS_MAX + 1)), Some(EVENTS_MAX));
    // Which is no misbehaviour, whatever the number.
    assert_eq!(
        misbehaviour::events_of_model("demo-no-usage-events-400"),
        ("demo-no-usage", Some(400))
    );
    assert_eq!(events("demo-events-"), None);
    assert_eq!(events("demo-error-event"), None);
}

#[tokio::test]
async fn a_limit_shortens_a_long_stream_and_a_document_is_never_long() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    let mut asked = question(&model_of_events(EVENTS_MAX + 1), true);
    asked["max_tokens"] = 100.into();
    asked["n"] = 2.into();
    let answer = Answer::read(ask(&upstream, &asked).await?).await?;
    assert_eq!(answer.events().len(), 2 + 200 + 2 + 2);
    asked["stream"] = false.into();
    let answer = Answer::read(ask(&upstream, &asked).await?).await?;
    assert_eq!(answer.json()["usage"]["completion_tokens"], 40);
    Ok(())
}

#[tokio::test]
async fn an_endless_stream_ends_with_its_client_and_counts_what_it_wrote() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    let mut stream = ask(&upstream, &question(&model_of_events(EVENTS_MAX), true)).await?;
    let mut bytes = vec![0; 1 << 20];
    stream.read_exact(&mut bytes).await?;
    drop(stream);
    upstream.await_produced(1).await;
    let produced = upstream.produced().remove(0);
    assert_eq!((produced.ended, produced.told_usage), (Ended::ClientGone, false));
    let read = u64::try_from(str::from_utf8(&bytes)?.matches("\"content\":\" ").count())?;
    assert!(produced.output >= read && produced.output < EVENTS_MAX, "{}", produced.output);
    Ok(())
}

#[tokio::test]
async fn a_paced_stream_notes_when_each_of_its_events_was_written() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    let mut asked = question(&Misbehaviour::Paced.model(), true);
    asked["max_tokens"] = 3.into();
    let begun = Instant::now();
    let answer = Answer::read(ask(&upstream, &asked).await?).await?;
    upstream.await_produced(1).await;
    let moments = upstream.produced().remove(0).moments;
    assert_eq!(moments.len(), answer.events().len());
    let mut before = begun;
    for moment in moments {
        assert!(moment - before >= Duration::from_millis(50));
        before = moment;
    }
    Ok(())
}
