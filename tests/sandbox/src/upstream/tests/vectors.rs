//! The routes that are asked for numbers: embeddings, moderations and reranking.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;

#[tokio::test]
async fn embeddings_say_the_same_in_both_encodings() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    let mut asked = json!({"model": "demo", "input": ["12345", "678"], "dimensions": 7});
    let floats = post(&upstream, "/v1/embeddings", &asked).await?.json();
    asked["encoding_format"] = "base64".into();
    let encoded = post(&upstream, "/v1/embeddings", &asked).await?.json();
    for body in [&floats, &encoded] {
        assert_eq!(body["usage"], json!({"prompt_tokens": 2, "total_tokens": 2}));
        assert_eq!(body["data"].as_array().map(Vec::len), Some(2));
    }
    let bytes = STANDARD.decode(encoded["data"][1]["embedding"].as_str().expect("text"))?;
    let decoded: Vec<f32> =
        bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().expect("four"))).collect();
    assert_eq!(decoded.len(), 7);
    assert_eq!(floats["data"][1]["embedding"], json!(decoded));
    Ok(())
}

#[tokio::test]
async fn embeddings_take_numbers_for_text_and_as_many_dimensions_as_there_can_be() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    for (input, tokens) in
        [(json!("12345"), 2), (json!([1, 2, 3]), 3), (json!([[1, 2], [3, 4]]), 4)]
    {
        let asked = json!({"model": "demo", "input": input});
        let body = post(&upstream, "/v1/embeddings", &asked).await?.json();
        assert_eq!(body["usage"]["prompt_tokens"], tokens);
    }
    for (dimensions, status) in [(3072, 200), (3073, 400), (0, 400)] {
        let asked = json!({"model": "demo", "input": "x", "dimensions": dimensions});
        assert_eq!(post(&upstream, "/v1/embeddings", &asked).await?.status, status);
    }
    let asked = json!({"model": "demo-big", "input": ["x", "y"], "encoding_format": "base64"});
    let length = post(&upstream, "/v1/embeddings", &asked).await?.body.len();
    assert!((3_000_000..6_000_000).contains(&length), "{length}");
    Ok(())
}

#[tokio::test]
async fn a_moderation_has_a_result_for_each_text_and_no_usage() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    let asked = json!({"model": "demo", "input": ["peace", "violence"]});
    let body = post(&upstream, "/v1/moderations", &asked).await?.json();
    assert_eq!(body.get("usage"), None);
    assert_eq!(body["results"][0]["flagged"], false);
    assert_eq!(body["results"][1]["flagged"], true);
    assert_eq!(body["results"][1]["categories"]["violence"], true);
    assert_eq!(body["results"][1]["categories"]["hate"], false);
    let together = json!([{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {}}]);
    let asked = json!({"model": "demo", "input": together});
    let body = post(&upstream, "/v1/moderations", &asked).await?.json();
    assert_eq!(body["results"].as_array().map(Vec::len), Some(1));
    Ok(())
}

#[tokio::test]
async fn reranking_is_billed_by_the_hundred_documents_or_by_text() -> Result<()> {
    let upstream = Upstream::start(UpstreamOptions::default()).await?;
    for (documents, units) in [(1, 1), (100, 1), (101, 2)] {
        let documents = vec!["1234"; documents];
        let asked = json!({"model": "demo", "query": "?", "documents": documents, "top_n": 3});
        let body = post(&upstream, "/v1/rerank", &asked).await?.json();
        assert_eq!(body["meta"]["billed_units"]["search_units"], units);
        assert_eq!(body["results"].as_array().map(Vec::len), Some(documents.len().min(3)));
        assert_eq!(body["results"][0], json!({"index": 0, "relevance_score": 0.999}));
        assert_eq!(body.get("usage"), None);
    }
    let asked =
        json!({"model": "demo-by-tokens", "query": "12345", "documents": ["1", {"text": "234"}]});
    let body = post(&upstream, "/v1/rerank", &asked).await?.json();
    assert_eq!(body["usage"], json!({"total_tokens": 3}));
    assert_eq!(body.get("meta"), None);
    Ok(())
}
