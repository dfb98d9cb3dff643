//! Anthropic's Messages.

use super::demand::Demand;
use super::generation::{check_tier, read_extensions, read_limits};
use super::members::{Members, elements, refuse};
use super::tools::{self, Tool};
use super::{PeekRefusal, Peeked, of_members};
use crate::json;

pub(super) fn read(body: &[u8]) -> Result<Peeked<'_>, PeekRefusal> {
    let members = Members::of_body(body, &FIELDS)?;
    let mut peeked = of_members(&members)?;
    let messages = members.array("messages")?;
    if members.given("max_tokens").is_none() {
        return refuse("max_tokens", "is missing");
    }
    read_limits(&members, &mut peeked)?;
    check_tier(&members, &["auto", "standard_only"], "must be auto or standard_only")?;
    read_extensions(&members, &mut peeked.demand)?;
    members.must_be_absent("mcp_servers", "is not offered: nothing bounds what it brings in")?;
    members.must_be_absent("container", "is not offered: what it costs is told in no usage")?;
    only("speed", "standard", "must be standard: others have another price", &members)?;
    only("inference_geo", "global", "must be global: others have another price", &members)?;
    let demand = &mut peeked.demand;
    tools::read(&members, demand, kind_of)?;
    read_content(members.given("system"), demand, 0)?;
    for message in elements(messages).filter(|message| message.starts_with('{')) {
        let message = Members::of(message, &["content"])?;
        read_content(message.given("content"), demand, 0)?;
    }
    Ok(peeked)
}

/// Refuses another value than the one that the model's price is for.
fn only<const N: usize>(
    field: &'static str,
    value: &str,
    message: &'static str,
    members: &Members<'_, N>,
) -> Result<(), PeekRefusal> {
    match members.given(field) {
        None => Ok(()),
        Some(raw) if json::string(raw).is_some_and(|text| text == value) => Ok(()),
        Some(_) => refuse(field, message),
    }
}

/// The client runs the tools that are called after what they do, and a version.
fn kind_of(kind: Option<&str>) -> Tool {
    let Some(kind) = kind else { return Tool::Text };
    let begins = |with: &&str| kind.starts_with(with);
    if kind == "custom" {
        Tool::Text
    } else if ["bash_", "text_editor_", "computer_", "memory_"].iter().any(begins) {
        Tool::BuiltIn
    } else if kind.starts_with("web_search_") {
        Tool::WebSearch
    } else {
        Tool::NotSold
    }
}

/// Reads content in blocks, and the content of the blocks in it: as deep as the protocol has it.
/// What is deeper is open, and text as far as it is in the body.
fn read_content(
    content: Option<&str>,
    demand: &mut Demand,
    depth: usize,
) -> Result<(), PeekRefusal> {
    let content = content.unwrap_or_default();
    let is_too_deep = depth > CONTENT_DEPTH_MAX && content.starts_with('[');
    if is_too_deep || content.starts_with('{') {
        demand.is_open = true;
        return Ok(());
    }
    let mut blocks = elements(content).filter(|block| block.starts_with('{'));
    blocks.try_for_each(|block| read_block(block, demand, depth))
}

fn read_block(block: &str, demand: &mut Demand, depth: usize) -> Result<(), PeekRefusal> {
    let block = Members::of(block, &["type", "source", "content"])?;
    match block.kind().as_deref() {
        Some("image") => read_image(block.given("source"), demand),
        Some("tool_result") => {
            demand.is_open |= block.given("source").is_some();
            read_content(block.given("content"), demand, depth + 1)
        }
        Some("text" | "tool_use" | "thinking" | "redacted_thinking") => {
            demand.is_open |= block.gives_any(&["source", "content"]);
            Ok(())
        }
        // What was searched for before, found and sent back, is text in the body.
        Some("server_tool_use" | "web_search_tool_result" | "search_result") => Ok(()),
        // A page of a document may become text and an image of it.
        _ => {
            demand.is_open = true;
            Ok(())
        }
    }
}

fn read_image(source: Option<&str>, demand: &mut Demand) -> Result<(), PeekRefusal> {
    demand.image(None);
    let Some(source) = source.filter(|source| source.starts_with('{')) else {
        demand.is_open = true;
        return Ok(());
    };
    let source = Members::of(source, &["type", "data", "media_type"])?;
    let is_image = source
        .given("media_type")
        .and_then(json::string)
        .is_some_and(|media_type| media_type.starts_with("image/"));
    match (source.kind().as_deref(), source.given("data")) {
        (Some("base64"), Some(data)) if is_image && data.starts_with('"') => {
            demand.set_aside(data.len());
        }
        (Some("url"), None) => {}
        _ => demand.is_open = true,
    }
    Ok(())
}

/// Blocks of content in blocks of content: a tool's result has some, and no more than that.
const CONTENT_DEPTH_MAX: usize = 1;

const FIELDS: [&str; 21] = [
    "model",
    "messages",
    "system",
    "stream",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "max_new_tokens",
    "n_predict",
    "service_tier",
    "tools",
    "mcp_servers",
    "container",
    "speed",
    "inference_geo",
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
    use crate::route::Route::Messages;

    fn body(content: &str, more: &str) -> String {
        let messages = format!(r#"[{{"role":"user","content":{content}}}]"#);
        format!(r#"{{"model":"m","max_tokens":100,"messages":{messages}{more}}}"#)
    }

    fn counted(blocks: &str, aside: &[&str], expected: (bool, u64, u64)) {
        check_counted(Messages, &body(&format!("[{blocks}]"), ""), aside, expected);
    }

    const IMAGE: &str = r#"{"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBORw0KGgo="}}"#;

    #[test]
    fn the_output_limit_is_required_and_usage_told() {
        let body = body(r#""Hi""#, r#","system":"Be short.","stream":true"#);
        let peeked = read_as(Messages, &body);
        assert!(peeked.stream && peeked.include_usage);
        assert_eq!((peeked.usage_ask, peeked.output_limit), (UsageAsk::Told, Some(100)));
        check_counted(Messages, &body, &[], (false, 0, 0));
        for limit in ["", r#","max_tokens":null"#] {
            let body = format!(r#"{{"model":"m","messages":[1]{limit}}}"#);
            check_refused_as(Messages, &body, "`max_tokens` is missing");
        }
    }

    #[test]
    fn images_count_wherever_they_may_stand() {
        let data = "iVBORw0KGgo=";
        counted(IMAGE, &[data], (false, 0, 1));
        let result = format!(r#"{{"type":"tool_result","tool_use_id":"t","content":[{IMAGE}]}}"#);
        counted(&format!("{IMAGE},{result}"), &[data, data], (false, 0, 2));
        let away = r#"{"type":"image","source":{"type":"url","url":"https://example.com/a.png"}}"#;
        counted(away, &[], (false, 0, 1));
        let system = format!(r#","system":[{{"type":"text","text":"a"}},{IMAGE}]"#);
        check_counted(Messages, &body(r#""Hi""#, &system), &[data], (false, 0, 1));
    }

    #[test]
    fn what_is_elsewhere_or_no_image_is_open() {
        for source in [
            r#"{"type":"file","file_id":"file_1"}"#,
            r#"{"type":"base64","media_type":"application/pdf","data":"AAAA"}"#,
            r#"{"type":"base64","data":"AAAA"}"#,
            r#"{"type":"base64","media_type":"image/png"}"#,
            r#"{"type":"url","url":"https://example.com","data":"AAAA"}"#,
            "7",
        ] {
            counted(&format!(r#"{{"type":"image","source":{source}}}"#), &[], (true, 0, 1));
        }
        for block in [
            r#"{"type":"document","source":{"type":"url","url":"https://example.com/a.pdf"}}"#,
            r#"{"type":"document","source":{"type":"file","file_id":"file_1"}}"#,
            r#"{"type":"document","source":{"type":"base64","data":"AAAA"}}"#,
            r#"{"type":"container_upload","file_id":"file_1"}"#,
            r#"{"type":"text","text":"a","source":{"type":"file","file_id":"file_1"}}"#,
            r#"{"source":1}"#,
        ] {
            counted(block, &[], (true, 0, 0));
        }
    }

    #[test]
    fn what_is_only_text_is_not_open() {
        for block in [
            r#"{"type":"text","text":"data:image/png;base64,AA"}"#,
            r#"{"type":"tool_use","id":"t","name":"f","input":{"type":"image","source":{}}}"#,
            r#"{"type":"tool_result","tool_use_id":"t","content":"done"}"#,
            r#"{"type":"tool_result","tool_use_id":"t"}"#,
            r#"{"type":"thinking","thinking":"a","signature":"AAAA"}"#,
            r#"{"type":"web_search_tool_result","tool_use_id":"t","content":[{"type":"web_search_result"}]}"#,
        ] {
            counted(block, &[], (false, 0, 0));
        }
    }

    #[test]
    fn results_in_results_are_open_and_cost_no_stack() {
        let nested = |depth: usize| {
            let open = r#"{"type":"tool_result","content":["#.repeat(depth);
            format!("{open}{}{}", IMAGE, "]}".repeat(depth))
        };
        counted(&nested(1), &["iVBORw0KGgo="], (false, 0, 1));
        counted(&nested(2), &[], (true, 0, 0));
        counted(&nested(100_000), &[], (true, 0, 0));
    }

    #[test]
    fn searches_are_bounded_by_their_uses() {
        let check = |tools: &str, expected| {
            let body = body(r#""Hi""#, &format!(r#","tools":[{tools}]"#));
            let demand = read_as(Messages, &body).demand;
            assert_eq!(demand.web_searches, expected, "{body}");
            assert_eq!(demand.is_open, expected != WebSearches::None, "{body}");
        };
        let search = |uses: &str| format!(r#"{{"type":"web_search_20250305","name":"s"{uses}}}"#);
        check(r#"{"name":"f","input_schema":{}},{"type":"custom","name":"g"}"#, WebSearches::None);
        check(r#"{"type":"bash_20250124"},{"type":"text_editor_20250728"}"#, WebSearches::None);
        check(&search(r#","max_uses":5"#), WebSearches::UpTo(5));
        check(&search(r#","max_uses":null"#), WebSearches::Unbounded);
        let two = format!("{},{}", search(r#","max_uses":5"#), search(r#","max_uses":2"#));
        check(&two, WebSearches::UpTo(7));
        check(&format!("{two},{}", search("")), WebSearches::Unbounded);
        check(&format!("{},{two}", search("")), WebSearches::Unbounded);
        check_refused_as(
            Messages,
            &body(r#""Hi""#, &format!(r#","tools":[{}]"#, search(r#","max_uses":0"#))),
            "`max_uses` must be a whole number from 1 to 2147483647",
        );
    }

    #[test]
    fn what_an_upstream_says_of_tools_is_counted() {
        let added = |tools: &str| {
            let body = body(r#""Hi""#, &format!(r#","tools":[{tools}]"#));
            read_as(Messages, &body).demand.text_bytes - u64::try_from(body.len()).expect("short")
        };
        assert_eq!(added(""), 0);
        assert_eq!(added(r#"{"name":"f"},{"name":"g","type":"custom"}"#), 1024);
        assert_eq!(added(r#"{"name":"f"},{"type":"bash_20250124"}"#), 1024 + 2048);
        assert_eq!(added(r#"{"type":"bash_1"},{"type":"computer_1"}"#), 1024 + 2 * 2048);
    }

    #[test]
    fn what_nobody_would_meter_is_refused() {
        let refused = |more: &str, expected: &str| {
            check_refused_as(Messages, &body(r#""Hi""#, more), expected);
        };
        for kind in ["code_execution_20250825", "web_fetch_20250910", "mcp_toolset", "function"] {
            let expected = "`tools` has a tool of a type that is not offered";
            refused(&format!(r#","tools":[{{"type":"{kind}"}}]"#), expected);
        }
        let servers = "`mcp_servers` is not offered: nothing bounds what it brings in";
        refused(r#","mcp_servers":[{"url":"https://example.com"}]"#, servers);
        let container = "`container` is not offered: what it costs is told in no usage";
        refused(r#","container":"container_1""#, container);
        refused(r#","speed":"fast""#, "`speed` must be standard: others have another price");
        refused(
            r#","inference_geo":"us""#,
            "`inference_geo` must be global: others have another price",
        );
        let tier = "`service_tier` must be auto or standard_only";
        refused(r#","service_tier":"priority""#, tier);
        let sold = r#","mcp_servers":[],"container":null,"speed":"standard","service_tier":"auto""#;
        read_as(Messages, &body(r#""Hi""#, sold));
    }
}
