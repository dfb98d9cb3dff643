//! Bytes of an event stream, cut into events.
//!
//! Where the chunks were cut makes no difference to what comes out, put together. An event that
//! lies within a chunk is a slice of it; only an unfinished one is copied. An event larger than
//! [`EVENT_BYTES_MAX`] is not held: its bytes go on as they come, and reading resumes after it.

use std::borrow::Cow;
use std::mem;

use memchr::memchr2;

/// Cuts a stream into [`Piece`]s that, put together, are the stream.
#[derive(Clone, Debug, Default)]
pub struct Splitter {
    /// The event under way, without what was already passed on.
    held: Vec<u8>,
    line: Line,
    /// The event under way has lines other than comments.
    has_fields: bool,
    /// The last byte seen was a CR that ended a line, so an LF would belong to it.
    after_cr: bool,
    started: bool,
    /// The event under way is too large, and its bytes are going on as they come.
    skipping: bool,
    oversized: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'c> {
    /// A whole event, its blank line included; or a comment line between events; or a blank line.
    Event(Event<'c>),
    /// The LF of a CRLF whose CR ended the piece before it. It shares the fate of that piece.
    Tail(&'c [u8]),
    /// Bytes of an event that is too large to be held, and whether it ends with them.
    Passed { raw: Cow<'c, [u8]>, last: bool },
}

/// The bytes of one event.
#[derive(Debug, PartialEq, Eq)]
pub struct Event<'c> {
    raw: Cow<'c, [u8]>,
    /// The length of a byte order mark, which only the first event of a stream can have.
    mark: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Line {
    #[default]
    Empty,
    Comment,
    Field,
}

impl Splitter {
    /// The next piece of `chunk`, which is shortened by what was taken. `None` once all of it is
    /// taken; what is then unfinished is held.
    pub fn next<'c>(&mut self, chunk: &mut &'c [u8]) -> Option<Piece<'c>> {
        if chunk.is_empty() {
            return None;
        }
        let between_events = self.held.is_empty() && !self.skipping;
        if self.after_cr && between_events && chunk.first() == Some(&b'\n') {
            self.after_cr = false;
            return Some(Piece::Tail(take(chunk, 1)));
        }
        match self.scan(chunk) {
            Some(end) => Some(self.complete(take(chunk, end))),
            None => {
                let all = take(chunk, chunk.len());
                self.hold(all)
            }
        }
    }

    /// The event that the end of the stream left without its blank line, if there is one.
    pub fn finish(&mut self) -> Option<Event<'static>> {
        let held = mem::take(&mut self.held);
        (!held.is_empty()).then(|| self.event(Cow::Owned(held)))
    }

    /// Takes back an event that is to be given again.
    pub fn put_back(&mut self, event: &Event<'_>) {
        self.started &= event.mark == 0;
    }

    /// How many events were too large to be held.
    pub fn oversized(&self) -> u64 {
        self.oversized
    }

    fn complete<'c>(&mut self, head: &'c [u8]) -> Piece<'c> {
        if mem::take(&mut self.skipping) {
            return Piece::Passed { raw: Cow::Borrowed(head), last: true };
        }
        let raw = self.join(head);
        // The LF of a final CRLF may have been cut off, so it never counts.
        if raw.len() - usize::from(raw.ends_with(b"\r\n")) > EVENT_BYTES_MAX {
            self.oversized += 1;
            self.started = true;
            return Piece::Passed { raw, last: true };
        }
        Piece::Event(self.event(raw))
    }

    fn hold<'c>(&mut self, all: &'c [u8]) -> Option<Piece<'c>> {
        if self.skipping {
            return Some(Piece::Passed { raw: Cow::Borrowed(all), last: false });
        }
        if self.held.len() + all.len() > EVENT_BYTES_MAX {
            self.oversized += 1;
            self.started = true;
            self.skipping = true;
            return Some(Piece::Passed { raw: self.join(all), last: false });
        }
        self.held.extend_from_slice(all);
        None
    }

    fn join<'c>(&mut self, head: &'c [u8]) -> Cow<'c, [u8]> {
        if self.held.is_empty() {
            return Cow::Borrowed(head);
        }
        let mut whole = mem::take(&mut self.held);
        whole.extend_from_slice(head);
        Cow::Owned(whole)
    }

    fn event<'c>(&mut self, raw: Cow<'c, [u8]>) -> Event<'c> {
        let is_first = !mem::replace(&mut self.started, true);
        let mark = if is_first && raw.starts_with(MARK) { MARK.len() } else { 0 };
        Event { raw, mark }
    }

    /// Where the event under way ends in these bytes, which follow what was scanned before.
    fn scan(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        if mem::take(&mut self.after_cr) && bytes.first() == Some(&b'\n') {
            at = 1;
        }
        loop {
            let rest = bytes.get(at..)?;
            if self.line == Line::Empty {
                match *rest.first()? {
                    b'\n' | b'\r' => {}
                    b':' => self.line = Line::Comment,
                    _ => (self.line, self.has_fields) = (Line::Field, true),
                }
            }
            let found = at + memchr2(b'\n', b'\r', rest)?;
            at = match (bytes.get(found), bytes.get(found + 1)) {
                (Some(b'\r'), Some(b'\n')) => found + 2,
                (Some(b'\r'), None) => {
                    self.after_cr = true;
                    found + 1
                }
                _ => found + 1,
            };
            match mem::take(&mut self.line) {
                Line::Comment if self.has_fields => {}
                Line::Field => {}
                // A comment between events is a sign of life: it does not wait for an event.
                Line::Comment | Line::Empty => {
                    self.has_fields = false;
                    return Some(at);
                }
            }
        }
    }
}

impl Event<'_> {
    /// All of it, as it came.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The data of the event, its lines joined by LF. `None` when it has no data, or data that
    /// is not UTF-8.
    pub fn data(&self) -> Option<Cow<'_, str>> {
        let mut lines = self.lines().filter_map(Cut::data);
        let first = std::str::from_utf8(lines.next()?).ok()?;
        let Some(second) = lines.next() else { return Some(Cow::Borrowed(first)) };
        let mut joined = first.to_owned();
        for line in std::iter::once(second).chain(lines) {
            joined.push('\n');
            joined.push_str(std::str::from_utf8(line).ok()?);
        }
        Some(Cow::Owned(joined))
    }

    /// The event with this data in the place of its own; all other lines, and the way lines are
    /// written, stay. `data` must have no CR and no more lines than the data it replaces.
    pub fn with_data(&self, data: &str) -> Vec<u8> {
        let mut edited = Vec::with_capacity(self.raw.len() + data.len());
        edited.extend_from_slice(self.raw.get(..self.mark).unwrap_or_default());
        let mut new_lines = data.split('\n');
        for line in self.lines() {
            if line.data().is_none() {
                edited.extend_from_slice(line.text);
            } else if let Some(new) = new_lines.next() {
                edited.extend_from_slice(line.prefix());
                edited.extend_from_slice(new.as_bytes());
            } else {
                continue;
            }
            edited.extend_from_slice(line.end);
        }
        debug_assert!(new_lines.next().is_none(), "data never gains lines");
        edited
    }

    fn lines(&self) -> impl Iterator<Item = Cut<'_>> {
        let mut rest = self.raw.get(self.mark..).unwrap_or_default();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let len = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
            let text = take(&mut rest, len);
            let end_len = match rest {
                [b'\r', b'\n', ..] => 2,
                [] => 0,
                _ => 1,
            };
            Some(Cut { text, end: take(&mut rest, end_len) })
        })
    }
}

/// A line and how it was ended.
#[derive(Clone, Copy)]
struct Cut<'e> {
    text: &'e [u8],
    end: &'e [u8],
}

impl<'e> Cut<'e> {
    fn data(self) -> Option<&'e [u8]> {
        match self.text.strip_prefix(b"data")? {
            [] => Some(&[]),
            [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
            _ => None,
        }
    }

    fn prefix(self) -> &'e [u8] {
        let value_len = self.data().unwrap_or_default().len();
        self.text.get(..self.text.len() - value_len).unwrap_or_default()
    }
}

fn take<'c>(bytes: &mut &'c [u8], len: usize) -> &'c [u8] {
    let (head, rest) = bytes.split_at_checked(len).unwrap_or((bytes, &[]));
    *bytes = rest;
    head
}

/// The most that is held of an unfinished event, and the largest event that is read whole.
pub const EVENT_BYTES_MAX: usize = 1 << 20;

const MARK: &[u8] = "\u{feff}".as_bytes();

#[cfg(test)]
mod tests;
