//! The head of a part: what it is called, and whether it is a file.

use std::ops::Range;

use memchr::memmem;

use super::{Malformed, one_of, parameters};

/// A part of a form. Ranges are offsets into the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part<'b> {
    pub(crate) name: &'b str,
    /// That of a file; `None` for a plain field. Empty where it is only given in a form that not
    /// every reader knows.
    pub(crate) filename: Option<&'b str>,
    pub(crate) value: Range<usize>,
    /// The digits of the part's own `Content-Length`, which some clients send.
    pub(crate) length: Option<Range<usize>>,
    /// Its text is UTF-8, as far as its head says.
    pub(crate) is_utf8: bool,
}

/// Reads a part without its boundaries, which stands at `begin` in the body.
pub(super) fn part(bytes: &[u8], begin: usize) -> Result<Part<'_>, Malformed> {
    let searched = bytes.len().min(PART_HEAD_BYTES_MAX + BLANK_LINE.len());
    let head_end = bytes.get(..searched).and_then(|head| memmem::find(head, BLANK_LINE));
    let Some(head_end) = head_end else {
        return Err(Malformed("the head of a part does not end, or is too long"));
    };
    let head = bytes.get(..head_end).and_then(|head| std::str::from_utf8(head).ok());
    let Some(head) = head else { return Err(Malformed("the head of a part is not UTF-8")) };
    let value = begin + head_end + BLANK_LINE.len()..begin + bytes.len();
    let mut lines = Lines::default();
    let mut at = begin;
    for line in head.split("\r\n") {
        lines.note(line, at)?;
        at += line.len() + 2;
    }
    lines.read(value)
}

/// The lines that are read: each value with its place.
#[derive(Default)]
struct Lines<'b> {
    disposition: Option<(&'b str, usize)>,
    content_type: Option<(&'b str, usize)>,
    encoding: Option<(&'b str, usize)>,
    length: Option<(&'b str, usize)>,
}

impl<'b> Lines<'b> {
    fn note(&mut self, line: &'b str, at: usize) -> Result<(), Malformed> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_text = !line.chars().any(|c| c.is_control() && c != '\t');
        let (true, Some((name, value))) = (is_text, line.split_once(':')) else {
            return Err(Malformed("the head of a part has a line that cannot be read"));
        };
        if name.is_empty() || !name.bytes().all(is_name) {
            return Err(Malformed("the head of a part has a line that cannot be read"));
        }
        let slot = match name.to_ascii_lowercase().as_str() {
            "content-disposition" => &mut self.disposition,
            "content-type" => &mut self.content_type,
            "content-transfer-encoding" => &mut self.encoding,
            "content-length" => &mut self.length,
            _ => return Ok(()),
        };
        let blank = value.len() - value.trim_start_matches(BLANK).len();
        let at = at + name.len() + 1 + blank;
        match slot.replace((value.trim_matches(BLANK), at)) {
            None => Ok(()),
            Some(_) => Err(Malformed("the head of a part says something twice")),
        }
    }

    fn read(self, value: Range<usize>) -> Result<Part<'b>, Malformed> {
        let (name, filename) = self.read_disposition()?;
        if let Some((encoding, _)) = self.encoding
            && !PLAIN_ENCODINGS.iter().any(|plain| encoding.eq_ignore_ascii_case(plain))
        {
            return Err(Malformed("a part has a transfer encoding"));
        }
        let length = match self.length {
            Some((digits, _)) if digits != value.len().to_string() => {
                return Err(Malformed("a part is not as long as it says"));
            }
            length => length.map(|(digits, at)| at..at + digits.len()),
        };
        Ok(Part { name, filename, is_utf8: self.is_utf8()?, value, length })
    }

    fn read_disposition(&self) -> Result<(&'b str, Option<&'b str>), Malformed> {
        let Some((value, _)) = self.disposition else {
            return Err(Malformed("a part has no `Content-Disposition`"));
        };
        let (kind, rest) = value.split_at(value.find(';').unwrap_or(value.len()));
        if !kind.trim_end_matches(BLANK).eq_ignore_ascii_case("form-data") {
            return Err(Malformed("a part is no form data"));
        }
        let unreadable = Malformed("the name of a part cannot be read");
        let read = parameters(rest).ok_or(unreadable)?;
        let name = one_of(&read, "name").flatten().ok_or(unreadable)?;
        // Some readers decode `%` and `\`, some do not.
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"%\\".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_plain) {
            return Err(unreadable);
        }
        // Whatever a file is called makes no difference, but two plain names might to a reader.
        let is_extended = |given: &str| given.eq_ignore_ascii_case("filename*");
        let (extended, plain): (Vec<_>, Vec<_>) =
            read.iter().copied().partition(|(given, _)| is_extended(given));
        let filename = one_of(&plain, "filename").ok_or(unreadable)?;
        match extended.as_slice() {
            [] => Ok((name, filename)),
            [_] => Ok((name, Some(filename.unwrap_or_default()))),
            _ => Err(unreadable),
        }
    }

    fn is_utf8(&self) -> Result<bool, Malformed> {
        let Some((value, _)) = self.content_type else { return Ok(true) };
        let (kind, rest) = value.split_at(value.find(';').unwrap_or(value.len()));
        let begins = |with: &str| {
            kind.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with))
        };
        if begins("multipart/") {
            return Err(Malformed("a part has parts of its own"));
        }
        let charset = parameters(rest).and_then(|read| one_of(&read, "charset"));
        Ok(match charset {
            Some(None) => true,
            Some(Some(charset)) => {
                ["utf-8", "us-ascii"].iter().any(|known| charset.eq_ignore_ascii_case(known))
            }
            None => false,
        })
    }
}

/// A part with a longer head is refused. The longest name of a file is 255 bytes, or three times
/// that where it is encoded.
pub(crate) const PART_HEAD_BYTES_MAX: usize = 4096;

const BLANK_LINE: &[u8] = b"\r\n\r\n";
const BLANK: [char; 2] = [' ', '\t'];
const PLAIN_ENCODINGS: [&str; 3] = ["7bit", "8bit", "binary"];
