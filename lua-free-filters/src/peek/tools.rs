//! The tools that an answer may use.
//!
//! The list of what is sold is closed. A function, or a tool that the client runs itself, costs
//! what its text costs, which is in the body and in the answer. Of the tools that the upstream
//! runs, searches of the web are sold: they are counted, and priced by the piece. All others are
//! refused:
//!
//! * those billed apart from the model: code run in containers, images made, files searched;
//! * those that cost nothing themselves but bring in input that nothing in the request bounds,
//!   each time over again: remote MCP servers, pages fetched. The server behind an MCP tool is of
//!   the client's choosing.

use super::demand::{Demand, WebSearches};
use super::members::{Members, elements, refuse};
use super::{OUTPUT_LIMIT_MAX, PeekRefusal};

/// What a tool is to the bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    /// Text in the body and in the answer.
    Text,
    /// The same, and the client runs it, but what it is stands with the upstream.
    BuiltIn,
    /// A search of the web, which the upstream makes.
    WebSearch,
    /// Nobody would meter it.
    NotSold,
}

/// Reads `tools`, and counts what they may search. `kind_of` says what a type is to the bill;
/// `None` is a tool without a type.
pub(super) fn read<const N: usize>(
    members: &Members<'_, N>,
    demand: &mut Demand,
    kind_of: impl Fn(Option<&str>) -> Tool,
) -> Result<(), PeekRefusal> {
    let Some(raw) = members.given("tools") else { return Ok(()) };
    if !raw.starts_with('[') {
        return refuse("tools", "must be an array");
    }
    if elements(raw).next().is_some() {
        demand.add(TOOLS_BYTES);
    }
    for tool in elements(raw) {
        if !tool.starts_with('{') {
            return refuse("tools", "must be an array of objects");
        }
        let tool = Members::of(tool, &["type", "max_uses"])?;
        let kind = tool.kind();
        if kind.is_none() && tool.given("type").is_some() {
            return refuse("tools", "has a tool whose type is not a string");
        }
        match kind_of(kind.as_deref()) {
            Tool::Text => {}
            Tool::BuiltIn => demand.add(BUILT_IN_BYTES),
            Tool::NotSold => return refuse("tools", "has a tool of a type that is not offered"),
            Tool::WebSearch => {
                let uses = tool.count("max_uses", OUTPUT_LIMIT_MAX, COUNT_MESSAGE)?;
                demand.search(uses);
            }
        }
    }
    Ok(())
}

impl Demand {
    /// Lets the answer search the web, so often at most. What is found becomes input.
    pub(super) fn search(&mut self, most: Option<u64>) {
        self.is_open = true;
        self.web_searches = match (self.web_searches, most) {
            (WebSearches::Unbounded, _) | (_, None) => WebSearches::Unbounded,
            (WebSearches::None, Some(most)) => WebSearches::UpTo(most),
            (WebSearches::Always(before) | WebSearches::UpTo(before), Some(more)) => {
                WebSearches::UpTo(before.saturating_add(more))
            }
        };
    }

    /// Has the answer begin with a search of the web that no usage will tell.
    pub(super) fn search_first(&mut self) {
        self.is_open = true;
        self.web_searches = WebSearches::Always(1);
    }
}

/// How tools are used is told to a model in words that are not in the body. Anthropic says for its
/// models that they are 530 input tokens at most.
const TOOLS_BYTES: u64 = 1024;
/// The same of what one of the upstream's own tools is: for using a computer some 1,250.
const BUILT_IN_BYTES: u64 = 2048;

pub(super) const COUNT_MESSAGE: &str = "must be a whole number from 1 to 2147483647";
