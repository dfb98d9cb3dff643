//! What is due for a request, by what the upstream has written down and by the policy.

use nutgate_sandbox::upstream::{Ended, Produced};

use crate::support::{Price, length};

use super::client::Seen;
use super::plan::{Plan, Route};

/// What one upstream made of a request, and what it charges.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) price: Price,
    pub(super) produced: Produced,
}

#[derive(Clone, Debug)]
pub(super) enum Due {
    /// Nobody produced anything, or this much, which nobody got.
    Nothing { made: u64 },
    /// Exactly what the upstream has told.
    Told(u64),
    /// One of these, for what would have cost `made` had it been told; and how many words the
    /// upstream was ahead of a client that was watching when it left.
    ByPolicy { costs: Vec<u64>, made: u64, ahead: u64 },
}

impl Due {
    pub(super) fn allows(&self, charged: u64) -> bool {
        match self {
            Self::Nothing { .. } => charged == 0,
            Self::Told(cost) => charged == *cost,
            Self::ByPolicy { costs, .. } => costs.contains(&charged),
        }
    }
}

/// What is due for this request. `words` are those that an answer is made of.
pub(super) fn due(plan: &Plan, seen: &Seen, attempts: &[Attempt], words: &[String]) -> Due {
    let hung_up_on = seen.left && plan.policy.abort == "cancel";
    let is_at_work = |attempt: &&Attempt| match attempt.produced.status {
        None => hung_up_on,
        Some(status) => status == 200,
    };
    let mut served = attempts.iter().filter(is_at_work);
    let Some(Attempt { price, produced }) = served.next() else {
        return Due::Nothing { made: 0 };
    };
    assert!(served.next().is_none(), "produced twice: {plan:?}");
    let answer = Came { plan, price: *price, produced, words };
    if produced.output == 0 {
        let costs = vec![answer.abandoned()];
        return if hung_up_on {
            Due::ByPolicy { costs, made: 0, ahead: 0 }
        } else {
            Due::Nothing { made: 0 }
        };
    }
    let is_whole = produced.ended == Ended::Complete;
    let made = price.cost(produced.input, produced.output);
    let ahead = if seen.words > 0 { produced.output.saturating_sub(seen.words) } else { 0 };
    match (is_whole && produced.told_usage, hung_up_on) {
        (true, false) => Due::Told(made),
        (_, false) if plan.flows() || is_whole => {
            let costs = vec![answer.cost(produced.output, is_whole)];
            Due::ByPolicy { costs, made, ahead: 0 }
        }
        // What broke off while it was held was given to nobody.
        (_, false) => Due::Nothing { made },
        (is_told, true) => {
            let mut costs = Vec::new();
            if plan.flows() {
                costs.extend((seen.words..=produced.output).map(|came| answer.cost(came, false)));
            } else {
                costs.push(answer.abandoned());
            }
            // It may have ended before the gateway saw that nobody listens.
            if is_whole {
                costs.push(answer.cost(produced.output, true));
            }
            if is_told {
                costs.push(made);
            }
            Due::ByPolicy { costs, made, ahead }
        }
    }
}

/// An answer without usage, of which some words came.
struct Came<'a> {
    plan: &'a Plan,
    price: Price,
    produced: &'a Produced,
    words: &'a [String],
}

impl Came<'_> {
    /// What is charged for so many words; `ended`: and for why they ended.
    fn cost(&self, came: u64, ended: bool) -> u64 {
        if came == 0 {
            return self.abandoned();
        }
        let Plan { policy, stream, limit, body, .. } = self.plan;
        let came = usize::try_from(came).unwrap();
        let text: u64 = self.words[..came].iter().map(length).sum();
        // A document is one event. A stream that fails does not say why it ended.
        let says_why = ended && self.plan.way != "fails";
        let events = if *stream { came as u64 + u64::from(says_why) } else { 1 };
        let input = self.said_input();
        let (input, output) = match policy.missing {
            "estimate" => (input.unwrap_or(length(body).div_ceil(4)), events.max(text.div_ceil(4))),
            "floor" => (input.unwrap_or(0), events),
            _ => (length(body), *limit),
        };
        self.price.cost(input, output.min(*limit))
    }

    /// What a client pays that left before anything came of it: the request, as far as the policy
    /// counts it.
    fn abandoned(&self) -> u64 {
        let body = length(&self.plan.body);
        let (input, output) = match self.plan.policy.missing {
            "estimate" => (body.div_ceil(4), 0),
            "floor" => (0, 0),
            _ => (body, self.plan.limit),
        };
        self.price.cost(input, output)
    }

    /// Anthropic's streams begin with what the input was.
    fn said_input(&self) -> Option<u64> {
        let is_said = self.plan.route == Route::Messages && self.plan.stream;
        (is_said && !self.plan.way.contains("silent")).then_some(self.produced.input)
    }
}
