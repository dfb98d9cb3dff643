//! Chat completions.

use super::demand::{Demand, bytes};
use super::generation::{
    TIERS, TIERS_MESSAGE, check_tier, read_extensions, read_limits, read_n, read_stream_options,
};
use super::members::{Members, elements};
use super::tools::{self, Tool};
use super::{PeekRefusal, Peeked, of_members};

pub(super) fn read(body: &[u8]) -> Result<Peeked<'_>, PeekRefusal> {
    let members = Members::of_body(body, &FIELDS)?;
    let mut peeked = of_members(&members)?;
    let messages = members.array("messages")?;
    read_stream_options(&members, &mut peeked)?;
    read_limits(&members, &mut peeked)?;
    peeked.n = read_n(&members, "n")?;
    check_tier(&members, TIERS, TIERS_MESSAGE)?;
    read_extensions(&members, &mut peeked.demand)?;
    tools::read(&members, &mut peeked.demand, |kind| match kind {
        Some("function" | "custom") => Tool::Text,
        _ => Tool::NotSold,
    })?;
    if members.given("web_search_options").is_some() {
        // The models that take this search once before they answer, and are billed for one.
        peeked.demand.search_first();
    }
    // What is foreseen is long, and how often a template of the client's own repeats a message, or
    // into how many pieces an image is cut at its wish, no length of the body tells.
    peeked.demand.foreseen_bytes = bytes(members.given("prediction").map_or(0, str::len));
    peeked.demand.is_open |= members.gives_any(&["chat_template", "mm_processor_kwargs"]);
    for message in elements(messages) {
        read_message(message, &mut peeked.demand)?;
    }
    Ok(peeked)
}

/// What is no object, or has no content in parts, is text.
fn read_message(message: &str, demand: &mut Demand) -> Result<(), PeekRefusal> {
    if !message.starts_with('{') {
        return Ok(());
    }
    let message = Members::of(message, &["content", "audio", "images"])?;
    // An earlier answer that was spoken, or images that came with it.
    demand.is_open |= message.gives_any(&["audio", "images"]);
    read_content(message.given("content"), demand)
}

/// Reads content in parts. Moderations have the same.
pub(super) fn read_content(content: Option<&str>, demand: &mut Demand) -> Result<(), PeekRefusal> {
    // Text, parts, or what only an upstream of its own kind would understand.
    let content = content.unwrap_or_default();
    demand.is_open |= content.starts_with('{');
    elements(content).try_for_each(|part| read_part(part, demand))
}

fn read_part(part: &str, demand: &mut Demand) -> Result<(), PeekRefusal> {
    if !part.starts_with('{') {
        return Ok(());
    }
    let part = Members::of(part, &["type", "image_url", "input_audio", "file"])?;
    match part.kind().as_deref() {
        Some("text" | "refusal") => {
            demand.is_open |= part.gives_any(&["image_url", "input_audio", "file"]);
        }
        Some("image_url") => match part.given("image_url") {
            Some(object) if object.starts_with('{') => {
                let image = Members::of(object, &["url", "detail"])?;
                demand.image_at(image.given("url"), image.given("detail"));
            }
            url => demand.image_at(url, None),
        },
        Some("input_audio") => {
            if let Some(audio) = part.given("input_audio").filter(|raw| raw.starts_with('{')) {
                let audio = Members::of(audio, &["data"])?;
                let data = audio.given("data").filter(|data| data.starts_with('"'));
                demand.set_aside(data.map_or(0, str::len));
            }
            // Bytes do not bound how long it plays: who sends it chooses how few of them are a
            // second.
            demand.is_open = true;
        }
        _ => demand.is_open = true,
    }
    Ok(())
}

const FIELDS: [&str; 22] = [
    "model",
    "messages",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "max_new_tokens",
    "n_predict",
    "n",
    "service_tier",
    "tools",
    "web_search_options",
    "models",
    "plugins",
    "search_parameters",
    "fallbacks",
    "n_cmpl",
    "provider",
    "prediction",
    "chat_template",
    "mm_processor_kwargs",
];

#[cfg(test)]
mod tests {
    use super::super::tests::{check_counted, check_refused_as, read_as};
    use super::super::{UsageAsk, WebSearches};
    use crate::route::Route::ChatCompletions;

    const PNG: &str = "data:image/png;base64,iVBORw0KGgo=";

    fn body(content: &str, more: &str) -> String {
        let system = r#"{"role":"system","content":"Be short."}"#;
        let messages = format!(r#"[{system},{{"role":"user","content":{content}}}]"#);
        format!(r#"{{"model":"m","messages":{messages}{more}}}"#)
    }

    fn counted(parts: &str, aside: &[&str], expected: (bool, u64, u64)) {
        check_counted(ChatCompletions, &body(&format!("[{parts}]"), ""), aside, expected);
    }

    #[test]
    fn images_count_by_their_detail_and_only_their_bytes_are_no_text() {
        let text = r#"{"type":"text","text":"What is this?"}"#;
        let image = |more: &str| {
            format!(r#"{text},{{"type":"image_url","image_url":{{"url":"{PNG}"{more}}}}}"#)
        };
        counted(text, &[], (false, 0, 0));
        counted(&image(""), &[PNG], (false, 0, 1));
        counted(&image(r#","detail":"auto""#), &[PNG], (false, 0, 1));
        counted(&image(r#","detail":"low""#), &[PNG], (false, 1, 0));
        let both = format!("{},{}", image(r#","detail":"low""#), image(r#","detail":"high""#));
        counted(&both, &[PNG, PNG], (false, 1, 1));
        let bare = format!(r#"{{"image_url":"{PNG}","type":"image_url"}}"#);
        counted(&bare, &[PNG], (false, 0, 1));
        let away = r#"{"type":"image_url","image_url":{"url":"https://example.com/a.png"}}"#;
        counted(away, &[], (false, 0, 1));
    }

    #[test]
    fn a_data_url_that_is_no_image_part_is_text() {
        counted(&format!(r#"{{"type":"text","text":"{PNG}"}}"#), &[], (false, 0, 0));
        counted(&format!(r#""{PNG}""#), &[], (false, 0, 0));
        check_counted(ChatCompletions, &body(&format!(r#""{PNG}""#), ""), &[], (false, 0, 0));
        let tool = format!(r#","x":{{"type":"image_url","image_url":{{"url":"{PNG}"}}}}"#);
        check_counted(ChatCompletions, &body(r#""hi""#, &tool), &[], (false, 0, 0));
    }

    #[test]
    fn what_is_elsewhere_or_unknown_is_open() {
        for part in [
            r#"{"type":"file","file":{"file_id":"file-1"}}"#,
            r#"{"type":"file","file":{"file_data":"data:application/pdf;base64,AA"}}"#,
            r#"{"type":"video_url","video_url":{"url":"https://example.com/a.mp4"}}"#,
            r#"{"type":"text","text":"a","image_url":{"url":"https://example.com/a.png"}}"#,
            r#"{"image":"https://example.com/a.png"}"#,
            r#"{"type":7}"#,
        ] {
            counted(part, &[], (true, 0, 0));
        }
        let pdf = r#"{"type":"image_url","image_url":{"url":"data:application/pdf;base64,AA"}}"#;
        counted(pdf, &[], (true, 0, 1));
        counted(r#"{"type":"image_url"}"#, &[], (true, 0, 1));
        check_counted(ChatCompletions, &body("{}", ""), &[], (true, 0, 0));
        let spoken = r#"{"model":"m","messages":[{"role":"assistant","audio":{"id":"audio_1"}}]}"#;
        check_counted(ChatCompletions, spoken, &[], (true, 0, 0));
    }

    #[test]
    fn audio_is_open_and_no_text() {
        let part = r#"{"type":"input_audio","input_audio":{"format":"wav","data":"UklGRg=="}}"#;
        counted(part, &["UklGRg=="], (true, 0, 0));
        counted(r#"{"type":"input_audio","input_audio":{"data":7}}"#, &[], (true, 0, 0));
        counted(r#"{"type":"input_audio"}"#, &[], (true, 0, 0));
    }

    #[test]
    fn a_part_that_two_readers_could_read_differently_is_refused() {
        let refused = |content: &str, expected: &str| {
            check_refused_as(ChatCompletions, &body(content, ""), expected);
        };
        let twice = r#"[{"type":"text","type":"image_url","text":"a"}]"#;
        refused(twice, "`type` appears twice");
        let urls = r#"[{"type":"image_url","image_url":{"url":"a","url":"b"}}]"#;
        refused(urls, "`url` appears twice");
        refused(r#"[{"Type":"image_url"}]"#, "`type` must be written in lower case");
        let message = r#"{"model":"m","messages":[{"content":"a","content":[]}]}"#;
        check_refused_as(ChatCompletions, message, "`content` appears twice");
    }

    #[test]
    fn only_tools_that_are_metered_are_sold() {
        let tools = |tools: &str| body(r#""hi""#, &format!(r#","tools":{tools}"#));
        for sold in [
            "null",
            "[]",
            r#"[{"type":"function","function":{"name":"f","parameters":{"Type":1,"type":2}}}]"#,
            r#"[{"type":"custom","custom":{"name":"f"}}]"#,
        ] {
            assert_eq!(
                read_as(ChatCompletions, &tools(sold)).demand.web_searches,
                WebSearches::None
            );
        }
        for kind in ["web_search", "browser_search", "code_interpreter", "mcp", "Function"] {
            let body = tools(&format!(r#"[{{"type":"{kind}"}}]"#));
            let expected = "`tools` has a tool of a type that is not offered";
            check_refused_as(ChatCompletions, &body, expected);
        }
        check_refused_as(ChatCompletions, &tools("{}"), "`tools` must be an array");
        check_refused_as(ChatCompletions, &tools("[1]"), "`tools` must be an array of objects");
        let unnamed = "`tools` has a tool whose type is not a string";
        check_refused_as(ChatCompletions, &tools(r#"[{"type":1}]"#), unnamed);
    }

    #[test]
    fn a_search_of_the_web_is_one_and_opens_the_input() {
        let body = body(r#""hi""#, r#","web_search_options":{}"#);
        let demand = read_as(ChatCompletions, &body).demand;
        assert_eq!((demand.web_searches, demand.is_open), (WebSearches::Always(1), true));
        assert_eq!(demand.counted().web_searches, 1);
    }

    #[test]
    fn what_nobody_would_meter_is_refused() {
        let refused = |more: &str, expected: &str| {
            check_refused_as(ChatCompletions, &body(r#""hi""#, more), expected);
        };
        let tier = "`service_tier` must be auto, default or flex: others have another price";
        for other in [r#""priority""#, r#""Flex""#, "1", "[]"] {
            refused(&format!(r#","service_tier":{other}"#), tier);
        }
        refused(
            r#","models":["m","dearer"]"#,
            "`models` is not offered: the price is that of one `model`",
        );
        let other_model = "`fallbacks` is not offered: the price is that of one `model`";
        refused(r#","fallbacks":["dearer"]"#, other_model);
        refused(r#","n_cmpl":128"#, "`n_cmpl` is not offered: `n` is");
        for field in ["plugins", "search_parameters"] {
            let expected = format!("`{field}` is not offered: what it costs is told in no usage");
            refused(&format!(r#","{field}":[{{"id":"web"}}]"#), &expected);
        }
        for sold in [
            r#","service_tier":"flex""#,
            r#","service_tier":null"#,
            r#","models":[],"plugins":null,"search_parameters":false"#,
        ] {
            let body = body(r#""hi""#, sold);
            assert_eq!(read_as(ChatCompletions, &body).usage_ask, UsageAsk::NoOptions);
        }
    }

    #[test]
    fn what_makes_more_of_a_request_than_its_bytes_is_seen() {
        let demand = |more: &str| read_as(ChatCompletions, &body(r#""hi""#, more)).demand;
        for open in [r#","chat_template":"{{ a }}""#, r#","mm_processor_kwargs":{"crops":9}"#] {
            assert!(demand(open).is_open, "{open}");
        }
        assert!(!demand(r#","chat_template":null"#).is_open);
        assert_eq!(demand(r#","prediction":{"type":"content"}"#).foreseen_bytes, 18);
        assert_eq!(demand(r#","prediction":null"#).foreseen_bytes, 0);
        assert!(demand(r#","provider":{"sort":"throughput"}"#).chooses_provider);
        assert!(!demand(r#","provider":null"#).chooses_provider);
    }
}
