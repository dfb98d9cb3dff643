//! The usage of an answer that is an event stream, read while it passes.

use std::ops::Range;

use bytes::Bytes;

use crate::json::Object;
use crate::route::Route;
use crate::sse::{Event, Piece, Splitter};

use super::closing::Closing;
use super::dialect::Dialect;
use super::object;
use super::reading::{Place, Reading, Sight};
use super::sift::Sift;
use super::{Counts, Delivered, End, Usage};

/// Reads the usage of a stream, and shows or hides it, as whole events go by.
///
/// An event goes on when its blank line has come; comment lines between events go on at once.
/// What is not understood goes on as it came. The bytes that come out and what is concluded do
/// not depend on where the chunks were cut.
#[derive(Clone, Debug)]
pub struct EventTap {
    splitter: Splitter,
    show_usage: bool,
    read: Reading,
    /// Only of a stream that may be ended before its end.
    closing: Option<Closing>,
    /// Of an event that is too large to be held, while it passes.
    sift: Option<Box<Sift>>,
    /// The last piece was taken out, so a line end that straggles behind it goes too.
    removed: bool,
}

/// What was not let through: to be pushed again, in front of what comes next, or never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withheld {
    pub bytes: Bytes,
    /// What would be concluded with the first event of it.
    pub usage: Usage,
}

impl EventTap {
    /// `show_usage`: whether the client asked for usage, and so is to see it. That is asked of
    /// chats and completions only; on all other routes usage is a part of the answer.
    pub fn new(route: Route, show_usage: bool) -> Self {
        Self {
            splitter: Splitter::default(),
            show_usage: show_usage || !Dialect::of(route).asks_for_usage(),
            read: Reading::new(route),
            closing: None,
            sift: None,
            removed: false,
        }
    }

    /// A tap that remembers what [`EventTap::closing`] needs. Of chats and completions it reads
    /// every event for that; other streams have no last chunk of which to remember anything.
    pub fn with_closing(self) -> Self {
        Self { closing: Closing::of(self.read.dialect()), ..self }
    }

    /// Takes what came and gives back what goes on, which may be nothing yet.
    ///
    /// `annotate` is called for every usage that is shown, and returns JSON members
    /// (`"cost":{…},"cost_sats":1`) that are added to it in the place of any of the same names.
    /// A chunk of whole events in which nothing changes is returned as it is, not copied.
    pub fn push(&mut self, chunk: Bytes, annotate: &mut dyn FnMut(&Counts) -> String) -> Bytes {
        self.push_while(chunk, annotate, &mut |_| true).0
    }

    /// The same up to the first event whose text is not `afforded`: that is asked of each event
    /// with text, given what would be concluded with it.
    pub fn push_while(
        &mut self,
        chunk: Bytes,
        annotate: &mut dyn FnMut(&Counts) -> String,
        afforded: &mut dyn FnMut(&Usage) -> bool,
    ) -> (Bytes, Option<Withheld>) {
        let mut out = Out::new(&chunk);
        let mut withheld = None;
        let mut rest: &[u8] = &chunk;
        loop {
            let from = chunk.len() - rest.len();
            let Some(piece) = self.splitter.next(&mut rest) else { break };
            let at = from..chunk.len() - rest.len();
            let (raw, fate) = match &piece {
                Piece::Tail(raw) if self.removed => (*raw, Fate::Remove),
                Piece::Tail(raw) => (*raw, Fate::Keep),
                Piece::Passed { raw, last } => (&**raw, self.pass(raw, *last, annotate)),
                Piece::Event(event) => {
                    let before = self.read;
                    let fate = self.read(event, Some(annotate));
                    let more = self.read.delivered.text_bytes > before.delivered.text_bytes;
                    let usage = self.usage();
                    let passes = !more || afforded(&usage);
                    self.note(event, passes);
                    if !passes {
                        self.read = before;
                        withheld = Some(Withheld { bytes: self.unread(&chunk, at, event), usage });
                        break;
                    }
                    (event.raw(), fate)
                }
            };
            self.removed = matches!(fate, Fate::Remove);
            match fate {
                Fate::Keep if raw.len() == at.len() => out.keep(at),
                Fate::Keep => out.write(raw),
                Fate::Replace(edited) => out.write(&edited),
                Fate::Remove => {}
            }
        }
        (out.finish(), withheld)
    }

    /// Ends the stream: what was still held, to be forwarded, and what is concluded.
    ///
    /// Held is an event without its blank line. After a clean end it is read like any other, and
    /// hidden if it must be, but never annotated. After a broken one nothing is returned, so that
    /// whatever the caller says last is not glued to half an event; counts are still taken from
    /// it, while text that the client never got is not.
    pub fn finish(&mut self, end: End) -> (Bytes, Usage) {
        let before = self.read;
        let mut held = Bytes::new();
        if let Some(event) = self.splitter.finish() {
            held = match self.read(&event, None) {
                Fate::Keep => Bytes::copy_from_slice(event.raw()),
                Fate::Replace(edited) => Bytes::from(edited),
                Fate::Remove => Bytes::new(),
            };
        }
        if end == End::Broken {
            held = Bytes::new();
            self.read.undeliver(&before);
        }
        if let Some(sift) = self.sift.take() {
            self.read.read_kept(&sift.kept());
        }
        (held, self.usage())
    }

    /// What is concluded so far.
    pub fn usage(&self) -> Usage {
        self.read.usage(self.delivered())
    }

    /// The event that ends every choice that is still open, because of its length, in the words
    /// of the stream itself. `None` when all have ended, or nothing was remembered.
    pub fn closing(&self) -> Option<String> {
        Some(format!("data: {}\n\n", self.closing.as_ref()?.chunk()?))
    }

    /// What was delivered so far. An event too large to be held counts as one without text.
    pub fn delivered(&self) -> Delivered {
        let Delivered { events, text_bytes } = self.read.delivered;
        Delivered { events: events + self.splitter.oversized(), text_bytes }
    }

    /// How many events were too large to be held. Their usage was read as they passed.
    pub fn oversized(&self) -> u64 {
        self.splitter.oversized()
    }

    /// Whether the stream said that it is whole: by `data: [DONE]`, or by the last event of its
    /// dialect.
    pub fn done(&self) -> bool {
        self.read.is_done
    }

    /// Whether an event was seen that is an error, or has an `error` that is not null.
    pub fn errored(&self) -> bool {
        self.read.is_errored
    }

    /// An event, and all that follows it in `chunk`, as if it had not been looked at.
    fn unread(&mut self, chunk: &Bytes, at: Range<usize>, event: &Event<'_>) -> Bytes {
        self.splitter.put_back(event);
        if event.raw().len() == at.len() {
            return chunk.slice(at.start..);
        }
        let rest = chunk.get(at.end..).unwrap_or_default();
        Bytes::from([event.raw(), rest].concat())
    }

    fn note(&mut self, event: &Event<'_>, passes: bool) {
        let Some(closing) = &mut self.closing else { return };
        if let Some(data) = event.data() {
            closing.note(&data, passes);
        }
    }

    fn read(
        &mut self,
        event: &Event<'_>,
        annotate: Option<&mut dyn FnMut(&Counts) -> String>,
    ) -> Fate {
        let Some(data) = event.data() else { return Fate::Keep };
        if data.trim_ascii() == "[DONE]" {
            self.read.is_done = true;
            return Fate::Keep;
        }
        let Some(sight) = self.read.read(&data, !self.show_usage) else { return Fate::Keep };
        let Some(usage) = &sight.usage else { return Fate::Keep };
        if !self.show_usage {
            return hide(event, &sight, usage);
        }
        match (sight.totals, annotate) {
            (Some(totals), Some(annotate)) => show(event, &data, usage, &annotate(&totals)),
            _ => Fate::Keep,
        }
    }

    /// Bytes of an event that is too large to be held: they go on, and what a usage costs is put
    /// where it ends, if the event has said by then what it is. Members of the same names are not
    /// taken out of it, but common readers believe the last.
    fn pass(
        &mut self,
        raw: &[u8],
        last: bool,
        annotate: &mut dyn FnMut(&Counts) -> String,
    ) -> Fate {
        let mut sift = self.sift.take().unwrap_or_default();
        let mut edited = Vec::new();
        let (mut kept, mut at) = (0, 0);
        while let Some(taken) = sift.feed(raw.get(at..).unwrap_or_default()) {
            at += taken;
            let Some(totals) = self.read.clone().read_kept(&sift.kept()) else { continue };
            let members = match self.show_usage {
                true => object::members(&annotate(&totals)),
                false => None,
            };
            if let (Some(members), Some(before)) = (members, raw.get(kept..at - 1)) {
                edited.extend_from_slice(before);
                edited.extend_from_slice(format!(",{members}").as_bytes());
                kept = at - 1;
            }
        }
        match last {
            true => drop(self.read.read_kept(&sift.kept())),
            false => self.sift = Some(sift),
        }
        if kept == 0 {
            return Fate::Keep;
        }
        edited.extend_from_slice(raw.get(kept..).unwrap_or_default());
        Fate::Replace(edited)
    }
}

/// What becomes of an event.
enum Fate {
    Keep,
    Replace(Vec<u8>),
    Remove,
}

fn show(event: &Event<'_>, data: &str, usage: &Place<'_>, members: &str) -> Fate {
    let parts = (data.get(..usage.at.start), data.get(usage.at.end..));
    match (parts, object::annotate(usage.raw, members)) {
        ((Some(before), Some(after)), Some(usage)) => {
            Fate::Replace(event.with_data(&format!("{before}{usage}{after}")))
        }
        _ => Fate::Keep,
    }
}

/// An event that only reports usage goes whole, since a client that did not ask may not expect
/// one without choices. From any other, only the usage goes.
fn hide(event: &Event<'_>, sight: &Sight<'_>, usage: &Place<'_>) -> Fate {
    let object: &Object<'_> = &sight.object;
    let only_usage = usage.raw != "null"
        && !sight.has_error
        && match object.last("choices") {
            None => true,
            Some(choices) => is_empty(choices.raw),
        };
    match only_usage {
        true => Fate::Remove,
        false => Fate::Replace(event.with_data(&object.edited(|name| name == "usage", ""))),
    }
}

fn is_empty(choices: &str) -> bool {
    choices == "null"
        || choices.strip_prefix('[').is_some_and(|inside| inside.trim_ascii_start() == "]")
}

/// What goes on, as one slice of the chunk for as long as that is possible.
struct Out<'c> {
    chunk: &'c Bytes,
    kept: Range<usize>,
    written: Option<Vec<u8>>,
}

impl<'c> Out<'c> {
    fn new(chunk: &'c Bytes) -> Self {
        Self { chunk, kept: 0..0, written: None }
    }

    /// Lets bytes of the chunk go on.
    fn keep(&mut self, at: Range<usize>) {
        if self.written.is_none() && self.kept.is_empty() {
            self.kept = at;
        } else if self.written.is_none() && self.kept.end == at.start {
            self.kept.end = at.end;
        } else {
            let chunk = self.chunk;
            self.write(chunk.get(at).unwrap_or_default());
        }
    }

    /// Lets other bytes go on, after what went on before.
    fn write(&mut self, bytes: &[u8]) {
        let (chunk, kept) = (self.chunk, self.kept.clone());
        let written = self.written.get_or_insert_with(|| {
            let mut written = Vec::with_capacity(chunk.len() + bytes.len());
            written.extend_from_slice(chunk.get(kept).unwrap_or_default());
            written
        });
        written.extend_from_slice(bytes);
    }

    fn finish(self) -> Bytes {
        match self.written {
            Some(written) => Bytes::from(written),
            None => self.chunk.slice(self.kept),
        }
    }
}

#[cfg(test)]
mod tests;
