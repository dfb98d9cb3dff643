//! A client that does what is planned, and remembers what it has seen.

use crate::support::{Events, Pay, Raw, Value, World};

use super::plan::{Leaves, Plan};

/// What a client has seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Nothing where it left before there was any.
    pub(super) status: Option<u16>,
    /// How many words have reached it at least.
    pub(super) words: u64,
    pub(super) left: bool,
}

pub(super) async fn make(world: &World, plan: &Plan, pay: Pay<'_>) -> Seen {
    let mut raw = world.raw().await;
    let asked = world.upstream.count();
    let lines =
        format!("{}x-request-id: {}\r\nanthropic-version: 2023-06-01\r\n", pay.line(), plan.id);
    raw.post(plan.route.path(), &lines, &plan.body).await;
    if plan.leaves == Leaves::BeforeTheHead {
        // Mostly it is this request that the upstream gets next.
        world.asked(asked + 1).await;
        raw.reset();
        return Seen { left: true, ..Seen::default() };
    }
    let head = raw.head().await;
    let mut seen = Seen { status: Some(head.status), ..Seen::default() };
    if head.header("transfer-encoding").is_none() {
        let body = raw.body(&head).await;
        seen.words = words(plan, &String::from_utf8(body).unwrap());
        return seen;
    }
    match plan.leaves {
        Leaves::Never | Leaves::BeforeTheHead => {
            let body = raw.chunked().await;
            seen.words = words(plan, std::str::from_utf8(&body.bytes).unwrap());
        }
        Leaves::AfterWords(count) => read_words(&mut raw, plan, count, &mut seen).await,
        Leaves::AfterTheLast => read_words(&mut raw, plan, u64::MAX, &mut seen).await,
    }
    if plan.leaves != Leaves::Never {
        raw.reset();
        seen.left = true;
    }
    seen
}

fn words(plan: &Plan, text: &str) -> u64 {
    Events::read(text).json().iter().map(|event| plan.route.words(event)).sum()
}

/// Reads until so many words or the last event came.
async fn read_words(raw: &mut Raw, plan: &Plan, count: u64, seen: &mut Seen) {
    while seen.words < count {
        let Some(event) = raw.through("\n\n").await else { return };
        // An event may be torn by the frames of chunks: then it is not counted.
        let data = event.rsplit("data: ").next().unwrap_or_default().trim();
        if let Ok(event) = serde_json::from_str::<Value>(data) {
            seen.words += plan.route.words(&event);
            let name = event["type"].as_str().unwrap_or_default();
            if matches!(name, "message_stop" | "response.completed" | "response.incomplete") {
                return;
            }
        }
        if data == "[DONE]" {
            return;
        }
    }
}
