//! An answer as a list of small acts, decided before the first of them is performed.

mod refusal;

use std::time::Duration;

use tokio::io::{self, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::Instant;

use super::answer::{Kind, Part, Question, Reply};
use super::{Misbehaviour, Produced, Shared, UpstreamOptions};

pub(super) struct Script {
    status: u16,
    acts: Vec<Act>,
    ending: Ending,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    KeepAlive,
    Close,
}

enum Act {
    Write(Part),
    /// Notes the moment.
    Stamp,
    Pause(Duration),
    Gate,
    Step,
    /// For ever, or until the client leaves or the upstream stops.
    Hang,
}

impl Script {
    pub(super) async fn play(
        self,
        writer: &mut OwnedWriteHalf,
        shared: &Shared,
        produced: &mut Produced,
    ) -> io::Result<Ending> {
        let mut gate = shared.gate.subscribe();
        for act in self.acts {
            match act {
                Act::Write(part) => {
                    for _ in 0..part.times {
                        writer.write_all(&part.bytes).await?;
                        produced.status = Some(self.status);
                        part.note(produced);
                        // Between two writes the client gets a chance to read, and we to see
                        // that it left.
                        tokio::task::yield_now().await;
                    }
                }
                Act::Stamp => produced.moments.push(Instant::now()),
                Act::Pause(duration) => tokio::time::sleep(duration).await,
                // A gate that is gone with its upstream counts as open.
                Act::Gate => drop(gate.wait_for(|open| *open).await),
                Act::Step => shared.steps.acquire().await.map_err(io::Error::other)?.forget(),
                Act::Hang => std::future::pending().await,
            }
        }
        Ok(self.ending)
    }

    /// The reply in as many writes as it has parts, the head before and the end after them, and
    /// whatever is to go wrong with it.
    pub(super) fn answer(reply: Reply, question: &Question, options: &UpstreamOptions) -> Self {
        let mut acts = Vec::with_capacity(reply.parts.len() + 2);
        let framing = if question.is(Misbehaviour::ContentLength) {
            format!("content-length: {}\r\n", reply.length())
        } else {
            "transfer-encoding: chunked\r\n".to_owned()
        };
        let head = Part::of(refusal::head(200, reply.content_type, &[&framing]));
        acts.push(Act::Write(Part { input: reply.input, output: reply.output, ..head }));
        if question.is(Misbehaviour::ContentLength) {
            acts.extend(reply.parts.into_iter().map(Act::Write));
        } else {
            acts.extend(reply.parts.into_iter().map(|part| Act::Write(part.as_chunk())));
            acts.push(Act::Write(Part::of("0\r\n\r\n")));
        }
        let mut script = Self { status: 200, acts, ending: Ending::KeepAlive };
        for misbehaviour in &question.misbehaviours {
            script.misbehave(*misbehaviour, question, options);
        }
        script
    }

    /// What goes wrong with an answer that by itself is right.
    fn misbehave(
        &mut self,
        misbehaviour: Misbehaviour,
        question: &Question,
        options: &UpstreamOptions,
    ) {
        match misbehaviour {
            Misbehaviour::DropsMidStream => {
                self.acts.truncate(self.acts.len() / 2);
                self.ending = Ending::Close;
            }
            Misbehaviour::HangsMidStream => {
                self.acts.truncate(self.acts.len() / 2);
                self.acts.push(Act::Hang);
            }
            Misbehaviour::Slow if options.gated => {
                // After the head and whatever precedes the first output.
                let first = self.acts.iter().position(Act::is_output).map_or(0, |first| first + 1);
                let ahead = if question.stream { first } else { 0 };
                self.acts.insert(ahead, Act::Gate);
            }
            Misbehaviour::Slow => {
                let pause = |act| [Act::Pause(SLOW_GAP), act];
                self.acts = self.acts.drain(..).flat_map(pause).collect();
                self.acts.insert(0, Act::Pause(SLOW_START));
            }
            Misbehaviour::Paced => {
                self.acts = self.acts.drain(..).flat_map(Act::paced).collect();
            }
            Misbehaviour::Stepped => {
                let body = self.acts.split_off(1);
                self.acts.extend(body.into_iter().flat_map(|act| [Act::Step, act]));
            }
            Misbehaviour::ByteByByte => {
                self.acts = self.acts.drain(..).flat_map(Act::byte_by_byte).collect();
            }
            Misbehaviour::EarlyHints => {
                let hints = "HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\n";
                self.acts.insert(0, Act::Write(Part::of(hints)));
            }
            _ => {}
        }
    }

    fn whole(status: u16, content_type: &str, headers: &[&str], body: &str) -> Self {
        let length = format!("content-length: {}\r\n", body.len());
        let head = refusal::head(status, content_type, &[headers, &[&length]].concat());
        let acts = vec![Act::Write(Part::of(head + body))];
        Self { status, acts, ending: Ending::KeepAlive }
    }
}

impl Act {
    fn is_output(&self) -> bool {
        matches!(self, Self::Write(part) if part.kind == Kind::Output)
    }

    fn paced(self) -> Vec<Self> {
        match self {
            Self::Write(Part { kind: Kind::Event | Kind::Output, .. }) => {
                vec![Self::Pause(PACE), Self::Stamp, self]
            }
            other => vec![other],
        }
    }

    fn byte_by_byte(self) -> Vec<Self> {
        match self {
            Self::Write(part) => part.byte_by_byte().into_iter().map(Self::Write).collect(),
            other => vec![other],
        }
    }
}

const SLOW_START: Duration = Duration::from_millis(200);
const SLOW_GAP: Duration = Duration::from_millis(10);
const PACE: Duration = Duration::from_millis(50);
