//! OpenAI's Responses.

use super::demand::Demand;
use super::generation::{TIERS, TIERS_MESSAGE, check_tier, read_extensions, read_limits};
use super::members::{Members, elements, refuse};
use super::tools::{self, COUNT_MESSAGE, Tool};
use super::{OUTPUT_LIMIT_MAX, PeekRefusal, Peeked, WebSearches, of_members};

pub(super) fn read(body: &[u8]) -> Result<Peeked<'_>, PeekRefusal> {
    let members = Members::of_body(body, &FIELDS)?;
    let mut peeked = of_members(&members)?;
    read_limits(&members, &mut peeked)?;
    check_tier(&members, TIERS, TIERS_MESSAGE)?;
    read_extensions(&members, &mut peeked.demand)?;
    if members.flag("background")? {
        // Its answer is fetched later, by a request that nobody pays for.
        return refuse("background", "must not be true: a response is paid while it is made");
    }
    let demand = &mut peeked.demand;
    tools::read(&members, demand, kind_of)?;
    let calls = members.count("max_tool_calls", OUTPUT_LIMIT_MAX, COUNT_MESSAGE)?;
    if let (WebSearches::Unbounded, Some(calls)) = (demand.web_searches, calls) {
        demand.web_searches = WebSearches::UpTo(calls);
    }
    let elsewhere = members.gives_any(&["previous_response_id", "conversation", "prompt"]);
    demand.is_open |= elsewhere;
    match members.given("input") {
        None if elsewhere => {}
        None => return refuse("input", "is missing"),
        Some(text) if text.starts_with('"') => {}
        Some(items) if items.starts_with('[') => {
            elements(items).try_for_each(|item| read_item(item, demand))?;
        }
        Some(_) => return refuse("input", "must be a string or an array"),
    }
    Ok(peeked)
}

/// The client runs what a shell, a patch or a computer is asked to do, unless it is one of the
/// upstream's.
fn kind_of(kind: Option<&str>) -> Tool {
    let is_search = |kind: &str| kind == "web_search" || kind.starts_with("web_search_");
    match kind {
        Some("function" | "custom") => Tool::Text,
        Some("local_shell" | "apply_patch") => Tool::BuiltIn,
        Some("computer" | "computer_use_preview") => Tool::BuiltIn,
        Some(kind) if is_search(kind) => Tool::WebSearch,
        _ => Tool::NotSold,
    }
}

/// Reads an item of the input. What is not known here is open.
fn read_item(item: &str, demand: &mut Demand) -> Result<(), PeekRefusal> {
    if !item.starts_with('{') {
        return Ok(());
    }
    let item = Members::of(item, &["type", "content", "output"])?;
    match item.kind().as_deref() {
        None if item.given("type").is_some() => demand.is_open = true,
        None | Some("message") => read_content(item.given("content"), demand)?,
        Some("function_call_output" | "custom_tool_call_output") => {
            read_content(item.given("output"), demand)?;
        }
        Some("computer_call_output") => match item.given("output") {
            Some(screen) if screen.starts_with('{') => read_part(screen, demand)?,
            _ => demand.is_open = true,
        },
        Some("function_call" | "custom_tool_call" | "reasoning" | "web_search_call") => {}
        Some("local_shell_call" | "local_shell_call_output" | "computer_call") => {}
        Some("apply_patch_call" | "apply_patch_call_output") => {}
        Some(_) => demand.is_open = true,
    }
    Ok(())
}

fn read_content(content: Option<&str>, demand: &mut Demand) -> Result<(), PeekRefusal> {
    let content = content.unwrap_or_default();
    demand.is_open |= content.starts_with('{');
    let mut parts = elements(content).filter(|part| part.starts_with('{'));
    parts.try_for_each(|part| read_part(part, demand))
}

fn read_part(part: &str, demand: &mut Demand) -> Result<(), PeekRefusal> {
    let part = Members::of(part, &["type", "image_url", "file_id", "detail", "input_audio"])?;
    match part.kind().as_deref() {
        Some("input_text" | "output_text" | "refusal" | "text" | "summary_text") => {
            demand.is_open |= part.gives_any(&["image_url", "file_id", "input_audio"]);
        }
        Some("input_image" | "computer_screenshot") => match part.given("file_id") {
            None => demand.image_at(part.given("image_url"), part.given("detail")),
            Some(_) => {
                demand.is_open = true;
                demand.image(part.given("detail"));
            }
        },
        // Audio among them: its bytes do not bound how long it plays.
        _ => demand.is_open = true,
    }
    Ok(())
}

const FIELDS: [&str; 21] = [
    "model",
    "input",
    "stream",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "max_new_tokens",
    "n_predict",
    "service_tier",
    "background",
    "tools",
    "max_tool_calls",
    "previous_response_id",
    "conversation",
    "prompt",
    "models",
    "plugins",
    "search_parameters",
    "fallbacks",
    "n_cmpl",
    "provider",
];

#[cfg(test)]
mod tests {
    use super::super::tests::{check_counted, check_refused_as, read_as};
    use super::super::{UsageAsk, WebSearches};
    use crate::route::Route::Responses;

    const PNG: &str = "data:image/png;base64,iVBORw0KGgo=";

    fn body(input: &str, more: &str) -> String {
        format!(r#"{{"model":"m","input":{input}{more}}}"#)
    }

    #[test]
    fn a_text_with_instructions_tells_its_usage_itself() {
        let more = r#","instructions":"Be short.","max_output_tokens":50,"stream":true"#;
        let body = body(r#""Hello""#, more);
        let peeked = read_as(Responses, &body);
        assert!(peeked.stream && peeked.include_usage);
        assert_eq!((peeked.usage_ask, peeked.output_limit), (UsageAsk::Told, Some(50)));
        check_counted(Responses, &body, &[], (false, 0, 0));
    }

    #[test]
    fn images_in_messages_and_in_the_results_of_tools_count() {
        let image = format!(r#"{{"type":"input_image","image_url":"{PNG}","detail":"low"}}"#);
        let text = r#"{"type":"input_text","text":"What is this?"}"#;
        for item in [
            format!(r#"{{"role":"user","content":[{text},{image}]}}"#),
            format!(r#"{{"type":"message","role":"user","content":[{image}]}}"#),
            format!(r#"{{"type":"function_call_output","call_id":"c","output":[{image}]}}"#),
            format!(r#"{{"type":"custom_tool_call_output","call_id":"c","output":[{image}]}}"#),
        ] {
            check_counted(Responses, &body(&format!("[{item}]"), ""), &[PNG], (false, 1, 0));
        }
        let screen = format!(r#"{{"type":"computer_screenshot","image_url":"{PNG}"}}"#);
        let item = format!(r#"[{{"type":"computer_call_output","output":{screen}}}]"#);
        check_counted(Responses, &body(&item, ""), &[PNG], (false, 0, 1));
        let file = r#"[{"role":"user","content":[{"type":"input_image","file_id":"file-1"}]}]"#;
        check_counted(Responses, &body(file, ""), &[], (true, 0, 1));
    }

    #[test]
    fn what_is_only_text_is_not_open() {
        for item in [
            r#"{"role":"user","content":"Hi"}"#,
            r#"{"role":"assistant","content":[{"type":"output_text","text":"Ho"}]}"#,
            r#"{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}"#,
            r#"{"type":"function_call_output","call_id":"c","output":"data:image/png;base64,AA"}"#,
            r#"{"type":"reasoning","summary":[],"encrypted_content":"AAAA"}"#,
            r#""Hi""#,
        ] {
            check_counted(Responses, &body(&format!("[{item}]"), ""), &[], (false, 0, 0));
        }
    }

    #[test]
    fn what_is_elsewhere_or_unknown_is_open() {
        for item in [
            r#"{"type":"item_reference","id":"msg_1"}"#,
            r#"{"type":"image_generation_call","id":"ig_1","result":null}"#,
            r#"{"type":7}"#,
            r#"{"role":"user","content":{}}"#,
            r#"{"role":"user","content":[{"type":"input_file","file_id":"file-1"}]}"#,
            r#"{"role":"user","content":[{"type":"input_file","file_url":"https://example.com"}]}"#,
            r#"{"role":"user","content":[{"type":"input_file","file_data":"data:a/pdf;base64,A"}]}"#,
            r#"{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"AA"}}]}"#,
            r#"{"role":"user","content":[{"type":"input_text","text":"a","file_id":"f"}]}"#,
        ] {
            check_counted(Responses, &body(&format!("[{item}]"), ""), &[], (true, 0, 0));
        }
        for more in [
            r#","previous_response_id":"resp_1""#,
            r#","conversation":{"id":"conv_1"}"#,
            r#","prompt":{"id":"pmpt_1"}"#,
        ] {
            check_counted(Responses, &body(r#""Hi""#, more), &[], (true, 0, 0));
            check_counted(Responses, &body("null", more), &[], (true, 0, 0));
        }
    }

    #[test]
    fn searches_are_bounded_by_the_calls_that_are_allowed() {
        let check = |tools: &str, more: &str, expected| {
            let body = body(r#""Hi""#, &format!(r#","tools":{tools}{more}"#));
            let demand = read_as(Responses, &body).demand;
            assert_eq!(demand.web_searches, expected, "{body}");
            assert_eq!(demand.is_open, expected != WebSearches::None, "{body}");
        };
        check(r#"[{"type":"function","name":"f"}]"#, r#","max_tool_calls":3"#, WebSearches::None);
        for kind in ["web_search", "web_search_preview", "web_search_2025_08_26"] {
            let tools = format!(r#"[{{"type":"{kind}"}},{{"type":"custom"}}]"#);
            check(&tools, "", WebSearches::Unbounded);
            check(&tools, r#","max_tool_calls":null"#, WebSearches::Unbounded);
            check(&tools, r#","max_tool_calls":3"#, WebSearches::UpTo(3));
        }
        check_refused_as(
            Responses,
            &body(r#""Hi""#, r#","max_tool_calls":0"#),
            "`max_tool_calls` must be a whole number from 1 to 2147483647",
        );
    }

    #[test]
    fn what_nobody_would_meter_is_refused() {
        let refused = |more: &str, expected: &str| {
            check_refused_as(Responses, &body(r#""Hi""#, more), expected);
        };
        for kind in [
            "image_generation",
            "code_interpreter",
            "file_search",
            "mcp",
            "shell",
            "namespace",
            "web_searches",
        ] {
            let expected = "`tools` has a tool of a type that is not offered";
            refused(&format!(r#","tools":[{{"type":"{kind}"}}]"#), expected);
        }
        refused(r#","tools":[{}]"#, "`tools` has a tool of a type that is not offered");
        let background = "`background` must not be true: a response is paid while it is made";
        refused(r#","background":true"#, background);
        refused(r#","background":"no""#, "`background` must be true or false");
        let tier = "`service_tier` must be auto, default or flex: others have another price";
        refused(r#","service_tier":"priority""#, tier);
        read_as(Responses, &body(r#""Hi""#, r#","background":false,"service_tier":"auto""#));
    }

    #[test]
    fn input_is_text_or_items() {
        check_refused_as(Responses, r#"{"model":"m"}"#, "`input` is missing");
        check_refused_as(Responses, &body("{}", ""), "`input` must be a string or an array");
    }
}
